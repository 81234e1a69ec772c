"""What is shipped, read as it is: permissions against what the code asks for, alerts against the metrics there are."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from extender.inspect.survey.permissions import ApiVerb, Duty, OwnObject, accesses
from extender.settings import read_configuration
from extender.telemetry import Metrics
from scripts.tools.manifests.__main__ import main, shipped_objects
from scripts.tools.manifests.fields import MINORS, read_fields, unknown_fields
from scripts.tools.manifests.rendering import MANIFESTS, read_objects
from tests.builders import a_figure_of_each

Json = dict[str, Any]


def granted(*objects: Json) -> set[ApiVerb]:
    """Spell out rules. A name stands for the object of that name; `create`, which no name limits, for each of them."""
    names = own_names()
    found: set[ApiVerb] = set()
    for item in objects:
        for rule in item.get("rules", ()):
            assert set(rule) <= {"apiGroups", "resources", "resourceNames", "verbs"}
            assert rule.get("resourceNames") or item["kind"] == "ClusterRole" or rule["verbs"] == ["create"]
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        for name in rule.get("resourceNames", [""]):
                            found.add(ApiVerb(group, resource, verb, names[name] if name else ""))
    return found


def own_names() -> dict[str, OwnObject]:
    """The names that the shipped configuration gives to warmnode's own objects."""
    configuration = read_configuration(MANIFESTS / "base" / "warmnode.yaml")
    return {
        configuration.ledger.name: OwnObject.LEDGER,
        configuration.leader_election.name: OwnObject.LEADER_LEASE,
        configuration.webhook.lease_name: OwnObject.WEBHOOK_LEASE,
    }


def wanted(*duties: Duty) -> set[ApiVerb]:
    """What the code asks for, with `create` as RBAC can say it."""
    return {
        ApiVerb(each.group, each.resource, each.verb, "" if each.verb == "create" else each.own)
        for each in accesses(*duties)
    }


ROLES = {
    "serve": ((Duty.SERVE,), ("base/serve-identity.yaml",)),
    "claims": ((Duty.CLAIMS,), ("components/claims/rbac.yaml",)),
    "reap": ((Duty.REAP,), ("base/reap-identity.yaml",)),
    "cleanup": ((Duty.CLEANUP,), ("cleanup/cleanup.yaml",)),
}


@pytest.mark.parametrize("role", ROLES)
def test_permissions_are_what_the_code_uses_and_nothing_more(role: str) -> None:
    """Both ways: what is missing would be a 403, what is too much a hole."""
    duties, files = ROLES[role]
    assert granted(*read_objects(*files)) == wanted(*duties)


def test_serve_can_neither_evict_nor_change_a_pod() -> None:
    """Its own roles hold nothing but reads of pods; the claims component adds get and patch, bound by namespace."""
    pods = {
        each.verb for each in granted(*read_objects("base/serve-identity.yaml")) if each.resource.startswith("pods")
    }
    assert pods == {"list", "watch"}
    bound = {
        item["roleRef"]["name"]: item["kind"]
        for file in ("components/claims/rbac.yaml", "components/claims/pool/rolebinding.yaml")
        for item in read_objects(file)
        if "roleRef" in item
    }
    assert bound == {"warmnode-claims": "RoleBinding", "warmnode-claims-callers": "ClusterRoleBinding"}
    callers = next(
        item for item in read_objects("components/claims/rbac.yaml") if item["metadata"]["name"].endswith("callers")
    )
    assert {resource for rule in callers["rules"] for resource in rule["resources"]}.isdisjoint({"pods"})


def test_only_the_scheduler_has_the_permissions_of_a_scheduler() -> None:
    """Two containers in one pod, two identities: each mounts its own token where it looks for one, and no other."""
    deployment = read_objects("base/scheduler.yaml")[0]
    spec = deployment["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    mounted = {
        container["name"]: [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == place]
        for container in (*spec["initContainers"], *spec["containers"])
    }
    assert mounted == {"warmnode": ["serve-identity"], "kube-scheduler": ["scheduler-identity"]}
    others = {
        mount["name"]
        for container in (*spec["initContainers"], *spec["containers"])
        for mount in container["volumeMounts"]
        if mount["mountPath"] != place
    }
    assert others == {"config", "scheduler-config"}


def test_dry_run_is_on() -> None:
    """An installation changes nothing but where workers go that ask for it."""
    assert read_configuration(MANIFESTS / "base" / "warmnode.yaml").dry_run
    assert yaml.safe_load((MANIFESTS / "chart" / "values.yaml").read_text())["config"] == {"dryRun": True}


def test_warmnode_is_never_scheduled_by_its_own_scheduler() -> None:
    """Else nobody could schedule the last replica."""
    files = ("base/scheduler.yaml", "base/reap.yaml", "cleanup/cleanup.yaml")
    kinds = ("Deployment", "Job")
    templates = [item["spec"]["template"]["spec"] for item in read_objects(*files) if item["kind"] in kinds]
    assert [spec["schedulerName"] for spec in templates] == ["default-scheduler"] * 3


@pytest.mark.parametrize("component", ["tls", "control-plane"])
def test_the_other_scheduler_configurations_differ_from_the_first_where_they_must(component: str) -> None:
    """How warmnode is reached and who is asked; what an answer weighs and how long it may take is the same."""
    first, other = (
        yaml.safe_load((MANIFESTS / folder / "kube-scheduler-config.yaml").read_text())
        for folder in ("base", f"components/{component}")
    )
    may_differ = {
        "tls": {"urlPrefix", "enableHTTPS", "tlsConfig"},
        "control-plane": {"managedResources"},
    }[component]
    (expected,), (actual,) = first.pop("extenders"), other.pop("extenders")
    assert {key for key in {*expected, *actual} if expected.get(key) != actual.get(key)} == may_differ
    if component == "tls":
        assert other == first
    else:
        (profile,) = first["profiles"]
        assert other["profiles"] == [
            {"schedulerName": "default-scheduler"},
            {**profile, "percentageOfNodesToScore": first["percentageOfNodesToScore"]},
        ]


def metric_labels() -> dict[str, set[str]]:
    """Every series that a scrape shows, with its labels."""
    metrics = Metrics(version="0")
    metrics.show(lambda: a_figure_of_each(metrics))
    found: dict[str, set[str]] = {}
    for collector in list(metrics.registry._collector_to_names):
        for family in collector.collect():
            labels = set(getattr(collector, "_labelnames", ())) | {
                label for sample in family.samples for label in sample.labels
            }
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            for suffix in suffixes:
                found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression that is shipped, by where it is."""
    rule = next(item for item in read_objects("components/monitoring/prometheusrule.yaml"))
    for group in rule["spec"]["groups"]:
        for alert in group["rules"]:
            yield alert["alert"], alert["expr"]
    dashboard: Mapping[str, Any] = json.loads((MANIFESTS / "components/monitoring/dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    """A renamed metric must not leave an alert that never fires: names and labels are compared with a scrape."""
    known = metric_labels()
    of_prometheus = {"pod", "job", "namespace", "container"}
    used: set[str] = set()
    for where, expression in expressions():
        for name, matchers in re.findall(r"\b(warmnode_[a-z_]+)(?:\{([^}]*)\})?", expression):
            assert name in known, f"{where}: {name}"
            used.add(name)
            for label in re.findall(r"(\w+)\s*=", matchers or ""):
                assert label in known[name] | of_prometheus, f"{where}: {name} has no label {label}"
        labels = {each for listed in re.findall(r"by \(([^)]*)\)", expression) for each in listed.split(", ")}
        several = set().union(*(known[name] for name in re.findall(r"\bwarmnode_[a-z_]+", expression)))
        if "warmnode_" in expression:
            assert labels <= several | of_prometheus, f"{where}: by {labels}"
    assert len(used) > 15


@pytest.mark.parametrize(
    "item",
    [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": 1}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": {"port": 1}}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"hostnameOverride": "b"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": {}}]}},
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}},
    ],
)
def test_a_field_that_a_supported_version_does_not_know_is_found(item: Json) -> None:
    """A misspelled one, one of another shape, one that came later, and a kind that nobody listed."""
    assert unknown_fields(item, MINORS[0], read_fields())


def test_a_field_counts_from_the_version_that_has_it() -> None:
    """`hostnameOverride` came with 1.34."""
    item = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"hostnameOverride": "b"}}
    assert unknown_fields(item, 34, read_fields()) == []


def test_scripts_check_looks_at_every_workload() -> None:
    """So that a file which is left out is noticed."""
    kinds = Counter(item["kind"] for _, item in shipped_objects())
    assert kinds >= Counter({"Deployment": 4, "DaemonSet": 1, "Job": 1, "NetworkPolicy": 1, "PodDisruptionBudget": 2})
    assert main() == 0
