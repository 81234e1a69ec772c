"""From objects to evidence, by way of a snapshot, and from a diagnosis to a page and to JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import Raw

from extender.cli import main
from extender.inspect.doctor.diagnose import Check, diagnose
from extender.inspect.doctor.doctor_text import render_json, render_page
from extender.inspect.doctor.evidence import Evidence, Kind
from extender.inspect.doctor.findings import Verdict, warning, worst
from extender.inspect.doctor.scheduler_config import parse_scheduler_configs
from extender.inspect.survey.access_reviews import ServiceAccount
from extender.inspect.survey.live_evidence import duties_of
from extender.inspect.survey.permissions import Duty
from extender.inspect.survey.snapshot_evidence import evidence_of_snapshot
from extender.inspect.survey.survey_objects import lease_facts
from extender.inspect.survey.to_evidence import DoctorOptions
from extender.kube.lease import LeaseObject
from extender.model import Selector
from extender.settings import Configuration
from scripts.tools.manifests.rendering import MANIFESTS, read_objects
from scripts.tools.serving import SCHEDULER_CONFIG
from tests.evidence import evidence

TAKEN = "2026-11-01T12:00:00Z"
TAKEN_AT = "2026-11-01T12:00:00.000000Z"
NODE = {
    "kind": "Node",
    "metadata": {
        "name": "node-a",
        "uid": "node-uid",
        "creationTimestamp": TAKEN,
        "labels": {"karpenter.sh/nodepool": "a"},
    },
}


def pod(name: str, *, labels: Any, namespace: str = "default", annotations: Any = None, **spec: Any) -> Any:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-of-{name}", "creationTimestamp": TAKEN}
    spec = {"nodeName": "node-a", "schedulerName": "warmnode", "containers": [{"name": "main"}], **spec}
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": TAKEN}
    return {
        "kind": "Pod",
        "metadata": {**metadata, "labels": labels, "annotations": annotations or {}},
        "spec": spec,
        "status": {"conditions": [condition]},
    }


def config_map(name: str, *, namespace: str = "warm", labels: Any = None, **data: str) -> Any:
    return {
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "data": data,
    }


def lease(name: str, *, namespace: str = "warm", annotations: Any = None, **spec: Any) -> Any:
    metadata = {"name": name, "namespace": namespace, "annotations": annotations or {}}
    return {"kind": "Lease", "metadata": metadata, "spec": spec}


def look(*objects: Any, **asked: Any) -> Evidence:
    content = json.dumps({"kind": "List", "items": [NODE, *objects]}).encode()
    return evidence_of_snapshot(content, DoctorOptions(**asked), source="f")


WORKER = pod("worker-1", labels={"warmnode.dev/pool": "ducks", "app": "duck"})
OURS = pod(
    "warmnode-1",
    namespace="warm",
    labels={"app.kubernetes.io/name": "warmnode"},
    serviceAccountName="scorer",
    containers=[{"name": "main", "image": "warmnode:1", "args": ["serve", "--claims-listen=0.0.0.0:8889"]}],
)


# -- objects ----------------------------------------------------------------------------------------------------------


def test_a_worker_is_known_with_all_that_checks_need() -> None:
    """Its mark as it stands, when it got its node, what its containers ask for."""
    marked = pod(
        "worker-1",
        labels={"warmnode.dev/pool": "ducks"},
        annotations={"warmnode.dev/idle-since": "soon"},
        containers=[{"name": "a", "resources": {"limits": {"warmnode.dev/worker": "0"}, "requests": {"cpu": 1}}}],
    )
    (worker,) = look(marked).workers
    assert (worker.pod.pool, worker.idle_mark, worker.pod.idle_since) == ("ducks", "soon", None)
    assert worker.scheduled == datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert worker.resources == {"cpu", "warmnode.dev/worker"}


def test_who_wrote_a_foreign_cost_is_in_the_managed_fields() -> None:
    """Where the snapshot has them: kubectl shows them with --show-managed-fields."""
    cost = "controller.kubernetes.io/pod-deletion-cost"
    foreign = pod("worker-1", labels={"warmnode.dev/pool": "ducks"}, annotations={cost: "7"})
    (worker,) = look(foreign).workers
    assert worker.cost_writer is None
    fields: Any = {"f:metadata": {"f:annotations": {f"f:{cost}": {}}}}
    foreign["metadata"]["managedFields"] = [
        {"manager": "kubelet", "fieldsV1": {}},
        {"manager": "karpenter", "fieldsV1": fields},
    ]
    (worker,) = look(foreign).workers
    assert worker.cost_writer == "karpenter"


def test_pods_of_no_pool_and_no_program_are_left_out() -> None:
    """A cluster has a hundred thousand of them."""
    found = look(pod("stranger", labels={}), OURS)
    assert found.workers == []
    (program,) = found.programs
    assert (program.name, program.service_account, program.image) == ("warmnode-1", "scorer", "warmnode:1")


def test_what_a_service_account_has_to_do_follows_from_the_command_lines() -> None:
    """serve with a claims listener here; run is both roles."""
    assert duties_of(look(OURS).programs) == {ServiceAccount("warm", "scorer"): {Duty.SERVE, Duty.CLAIMS}}
    both = pod("b", labels={"app.kubernetes.io/name": "warmnode"}, containers=[{"command": ["warmnode", "run"]}])
    assert duties_of(look(both).programs) == {ServiceAccount("default", "default"): {Duty.SERVE, Duty.REAP}}


def test_a_token_in_a_secret_is_that_of_another_account() -> None:
    """As serve's beside the scheduler: called NAME-token. One called otherwise is not known, and nothing is asked."""

    def account(secret: str) -> Any:
        mount = {"name": "t", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        beside = pod(
            "b",
            namespace="warm",
            labels={"app.kubernetes.io/name": "warmnode"},
            initContainers=[{"args": ["serve"], "volumeMounts": [mount]}],
            containers=[{"command": ["kube-scheduler"]}],
            volumes=[{"name": "t", "secret": {"secretName": secret}}],
            serviceAccountName="scheduler",
        )
        return duties_of(look(beside).programs)

    assert account("warmnode-serve-token") == {ServiceAccount("warm", "warmnode-serve"): {Duty.SERVE}}
    assert account("mystery") == {}


def test_a_renewal_has_a_time_of_either_clock() -> None:
    """renewTime by the writer's, managedFields by the API server's: the difference is the skew, good to a second."""

    def reading(renewed: str, taken: str) -> timedelta | None:
        fields = [{"manager": "a", "time": taken, "fieldsV1": {"f:spec": {"f:renewTime": {}}}}]
        metadata = json.dumps({"name": "l", "namespace": "n", "managedFields": fields}).encode()
        spec = json.dumps({"holderIdentity": "h", "renewTime": renewed}).encode()
        return lease_facts(LeaseObject(metadata=Raw(metadata), spec=Raw(spec))).ahead

    assert reading("2026-11-01T12:00:00.900000Z", TAKEN) == timedelta(0)
    assert reading("2026-11-01T12:01:00.500000Z", TAKEN) == timedelta(minutes=1)
    assert reading("2026-11-01T11:59:30.000000Z", TAKEN) == timedelta(seconds=-30)
    assert reading("nonsense", TAKEN) is None


# -- where warmnode lives, and what it goes by ------------------------------------------------------------------------


def test_home_is_where_its_pods_are_or_its_ledger() -> None:
    """Or where the command line says."""
    ledger = config_map("l", namespace="ages", labels={"app.kubernetes.io/component": "ledger"})
    assert look(OURS, ledger).namespace == "warm"
    assert look(ledger).namespace == "ages"
    assert look().namespace == "default"
    assert look(OURS, namespace="given").namespace == "given"


def test_home_is_found_by_what_is_left() -> None:
    """Everything is down and the ledger is gone: its Leases, or its configuration, still have its name on them."""
    ours, name = lease("warmnode-webhook", namespace="zone"), {"app.kubernetes.io/name": "warmnode"}
    ours["metadata"]["labels"] = {**name, "app.kubernetes.io/component": "webhook"}
    other = config_map("warmnode.yaml", namespace="zoo", labels=name)
    assert look(lease("theirs", namespace="a"), other, ours).namespace == "zone"
    assert look(lease("theirs", namespace="a"), other).namespace == "zoo"


INSTALLED = yaml.safe_dump(
    {
        "apiVersion": "warmnode.dev/v1alpha1",
        "kind": "Configuration",
        "dryRun": True,
        "webhook": {"schedulers": ["packer"]},
        "pools": [{"name": "geese", "selector": {"matchLabels": {"app": "duck"}}}],
    }
)


def test_the_installed_configuration_decides_who_is_a_worker() -> None:
    """It is in a ConfigMap of the same namespace; one that is refused is told, and the defaults stand in."""
    found = look(WORKER, OURS, config_map("c", config=INSTALLED))
    assert [worker.pod.pool for worker in found.workers] == ["geese"]
    assert found.configuration.source == "ConfigMap warm/c (config)"
    assert found.settings.dry_run
    assert found.schedulers == {"packer"}
    assert found.of_pool("geese").dry_run
    refused = look(WORKER, OURS, config_map("c", config=INSTALLED + "polls: 1\n"))
    assert [worker.pod.pool for worker in refused.workers] == ["ducks"]
    assert "polls" in (refused.configuration.problem or "")


def test_scheduler_configurations_are_found_and_bad_ones_told() -> None:
    """In ConfigMaps of warmnode's namespace; --scheduler-config goes over them."""
    found = look(OURS, config_map("s", config=SCHEDULER_CONFIG.read_text()))
    assert [config.source for config in found.scheduler_configs] == ["ConfigMap warm/s (config)"]
    bad = look(OURS, config_map("s", config="kind: KubeSchedulerConfiguration\nprofiles: 7"))
    assert bad.scheduler_configs == ()
    assert "ConfigMap warm/s" in (bad.scheduler_config_problem or "")
    assert (
        look(OURS, config_map("s", config=SCHEDULER_CONFIG.read_text()), scheduler_configs=()).scheduler_configs == ()
    )


def test_the_shipped_installation_is_recognized() -> None:
    """Its ConfigMaps, and who has to do what: serve has a token of its own beside the scheduler."""
    files = {name: (MANIFESTS / "base" / name).read_text() for name in ("warmnode.yaml", "kube-scheduler-config.yaml")}
    pods = [
        {"kind": "Pod", **item["spec"]["template"]}
        for item in (*read_objects("base/scheduler.yaml"), *read_objects("base/reap.yaml"))
        if item["kind"] == "Deployment"
    ]
    for number, each in enumerate(pods):
        each["metadata"] |= {
            "name": f"pod-{number}",
            "namespace": "warm",
            "uid": str(number),
            "creationTimestamp": TAKEN,
        }
    found = look(*pods, *(config_map(name, **{name: text}) for name, text in files.items()))
    assert found.namespace == "warm"
    assert found.configuration.source == "ConfigMap warm/warmnode.yaml (warmnode.yaml)"
    assert found.settings.dry_run
    (scheduler,) = found.scheduler_configs
    assert [profile.scheduler_name for profile in scheduler.profiles] == sorted(found.schedulers) == ["warmnode"]
    assert duties_of(found.programs) == {
        ServiceAccount("warm", "warmnode-serve"): {Duty.SERVE},
        ServiceAccount("warm", "warmnode-reap"): {Duty.REAP},
    }


def test_leases_ledger_budgets_and_node_pools_are_read() -> None:
    """Those of the other namespaces are not ours."""
    call = lease(
        "warmnode-webhook", annotations={"warmnode.dev/last-call": TAKEN}, renewTime="2026-11-01T12:00:01.000000Z"
    )
    leader = lease("warmnode-reaper", holderIdentity="reap_1", leaseDurationSeconds=15)
    elsewhere = lease("warmnode-reaper", namespace="other", holderIdentity="other")
    selector = {"matchExpressions": [{"key": "app", "operator": "Exists"}]}
    budget = {
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"maxUnavailable": "10%", "selector": selector},
    }
    node_pool = {"kind": "NodePool", "metadata": {"name": "a"}, "spec": {"template": {"spec": {"expireAfter": "720h"}}}}
    ledger = config_map("warmnode-first-seen", **{"node-uid": "1793534400"})
    found = look(OURS, call, leader, elsewhere, budget, node_pool, ledger)
    assert found.webhook is not None
    assert found.webhook.last_call == datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert found.leader is not None
    assert (found.leader.holder, found.leader.duration) == ("reap_1", timedelta(seconds=15))
    (facts,) = found.budgets
    assert (facts.max_unavailable, facts.min_available) == ("10%", None)
    assert isinstance(facts.selector, Selector)
    assert [pool.expire_after for pool in found.node_pools] == [timedelta(hours=720)]
    assert found.ledger is not None
    assert set(found.ledger.first_seen) == {"node-uid"}


def test_what_a_snapshot_lacks_is_named() -> None:
    """Karpenter's objects only where a node is Karpenter's; access reviews never."""
    found = look(WORKER)
    assert found.unread[Kind.LEASES] == found.unread[Kind.NODE_POOLS] == "not in the snapshot"
    assert Kind.PODS not in found.unread
    assert found.access is None
    assert found.clocks is None


# -- reduced from clusters of others ----------------------------------------------------------------------------------


def verdict_of(check: Check, looked_at: Evidence) -> Verdict:
    return check.judge(looked_at).verdict


def test_workers_that_wait_for_a_scheduler_that_nobody_runs() -> None:
    """No condition at all is on them, for two hours: a scheduler that looked would have left one."""
    call = lease(
        "warmnode-webhook", annotations={"warmnode.dev/last-call": "2026-11-01T11:00:00.000Z"}, renewTime=TAKEN_AT
    )
    waiting = pod("worker-2", labels={"warmnode.dev/pool": "ducks"}, nodeName=None)
    waiting["metadata"]["creationTimestamp"] = "2026-11-01T10:00:00Z"
    waiting["status"] = {"phase": "Pending"}
    assert verdict_of(Check.SCHEDULER_CALLS, look(OURS, call, waiting)) is Verdict.PROBLEM
    told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": TAKEN}
    waiting["status"]["conditions"] = [told]
    assert verdict_of(Check.SCHEDULER_CALLS, look(OURS, call, waiting)) is not Verdict.PROBLEM


def with_budget(spec: Any, owners: Any, status: Any) -> Evidence:
    duck = pod("duck", labels={"app": "duck", "warmnode.dev/pool": "ducks"})
    duck["metadata"]["ownerReferences"] = owners
    meta = {"name": "b", "namespace": "default"}
    selector = {"selector": {"matchLabels": {"app": "duck"}}}
    budget = {"kind": "PodDisruptionBudget", "metadata": meta, "spec": spec | selector, "status": status}
    return look(OURS, duck, budget, config_map("other", a="b"))


def test_budgets_that_allow_nothing_whoever_owns_the_workers() -> None:
    """maxUnavailable 0 over a Deployment; minAvailable of as many bare pods as there are; and one that spares one."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "o", "controller": True}
    counted = {"currentHealthy": 4, "desiredHealthy": 4, "expectedPods": 4, "disruptionsAllowed": 0}
    for spec, owners in (({"maxUnavailable": 0}, [owner]), ({"minAvailable": 4}, [])):
        assert verdict_of(Check.DISRUPTION_BUDGETS, with_budget(spec, owners, counted)) is Verdict.PROBLEM
    spares_one = counted | {"desiredHealthy": 3, "disruptionsAllowed": 1}
    found = with_budget({"minAvailable": 3}, [], spares_one)
    assert verdict_of(Check.DISRUPTION_BUDGETS, found) is Verdict.OK
    found = with_budget({"minAvailable": 3}, [], {})
    assert verdict_of(Check.DISRUPTION_BUDGETS, found) is Verdict.UNKNOWN


def scheduler(text: str) -> Evidence:
    given = tuple(parse_scheduler_configs(f"{HEAD}profiles: [{{schedulerName: warmnode}}]\n{text}", source="f"))
    return look(OURS, WORKER, scheduler_configs=given)


HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"


def test_a_verb_with_a_slash_of_its_own() -> None:
    """kube-scheduler posts to //prioritize, gets a 404, and ignores it."""
    looked_at = scheduler(
        "leaderElection: {leaderElect: false}\nextenders: [{urlPrefix: 'http://127.0.0.1:8888/', "
        "prioritizeVerb: /prioritize, preemptVerb: preempt/, weight: 200, nodeCacheCapable: true, ignorable: true, "
        "httpTimeout: 250ms}]"
    )
    finding = Check.SCHEDULER_EXTENDER.judge(looked_at)
    assert finding.verdict is Verdict.PROBLEM
    assert "posts to //prioritize" in finding.summary
    assert "posts to /preempt/" in finding.details[0]


def test_a_scheduler_that_has_only_the_extender_of_another() -> None:
    """TopoLVM's, as it is deployed: none of its faults is a fault of ours."""
    looked_at = scheduler(
        "extenders: [{urlPrefix: 'http://127.0.0.1:9251', filterVerb: predicate, prioritizeVerb: prioritize, "
        "weight: 1, managedResources: [{name: topolvm.io/capacity, ignoredByScheduler: true}]}]"
    )
    finding = Check.SCHEDULER_EXTENDER.judge(looked_at)
    assert (finding.verdict, finding.details) == (Verdict.PROBLEM, ())
    assert "is not warmnode" in finding.summary


def test_what_a_scheduler_leads_by_and_trusts_is_read() -> None:
    """With kube-scheduler's defaults for what is left out."""
    tls = "extenders: [{urlPrefix: https://a, enableHTTPS: true, tlsConfig: {insecure: true, caData: Zg==}}]"
    (found,) = scheduler(tls).scheduler_configs
    assert (found.api_version, found.lease) == ("kubescheduler.config.k8s.io/v1", "kube-system/kube-scheduler")
    (extender,) = found.extenders
    assert (extender.enable_https, extender.tls_config.insecure, extender.tls_config.has_ca) == (True, True, True)
    (found,) = scheduler("leaderElection: {resourceName: a, resourceNamespace: b}").scheduler_configs
    assert found.lease == "b/a"
    (found,) = scheduler("leaderElection: {leaderElect: false}").scheduler_configs
    assert found.lease is None


def test_the_minor_of_the_scheduler_is_that_of_its_image() -> None:
    """It runs beside serve. A file does not tell the API server's."""
    beside = pod("s", namespace="warm", labels={"app.kubernetes.io/name": "warmnode"})
    beside["spec"]["containers"] = [{"name": "s", "image": "registry.k8s.io/kube-scheduler:v1.36.3@sha256:01"}]
    assert look(beside).scheduler_version == (1, 36)
    assert look(OURS).scheduler_version is None


@pytest.mark.parametrize("api_version", ["karpenter.sh/v1beta1", "karpenter.sh/v2"])
def test_node_pools_of_a_version_that_is_not_read_are_not_known(api_version: str) -> None:
    """Their fields stand elsewhere, so nothing is read out of them; NodePools of others are no NodePools."""
    other = {"kind": "NodePool", "apiVersion": api_version, "metadata": {"name": "a"}, "spec": {}}
    found = look(WORKER, other)
    assert found.node_pools == []
    assert api_version in found.unread[Kind.NODE_POOLS]
    for check in (Check.KARPENTER_GENERATION, Check.KARPENTER_EXPIRY, Check.KARPENTER_NODE_POOLS):
        assert verdict_of(check, found) is Verdict.UNKNOWN
    hosted = {**other, "apiVersion": "hypershift.openshift.io/v1beta1"}
    assert look(WORKER, hosted).unread[Kind.NODE_POOLS] == "not in the snapshot"
    read = look(WORKER, {**other, "apiVersion": "karpenter.sh/v1"})
    assert [pool.name for pool in read.node_pools] == ["a"]


@pytest.mark.parametrize(("is_node_there", "is_pod_there"), [(True, True), (True, False), (False, True)])
def test_without_nodes_or_pods_nobody_knows_whether_there_is_a_karpenter(
    is_node_there: bool, is_pod_there: bool
) -> None:
    """No node is Karpenter's now, and its pods would show it: both are needed to tell that there is none."""
    bare = {"kind": "Node", "metadata": {"name": "node-a", "uid": "node-uid", "creationTimestamp": TAKEN}}
    items = [*([bare] if is_node_there else []), *([WORKER] if is_pod_there else [])]
    found = evidence_of_snapshot(json.dumps({"kind": "List", "items": items}).encode(), DoctorOptions(), source="f")
    verdict = Verdict.OK if is_node_there and is_pod_there else Verdict.UNKNOWN
    assert verdict_of(Check.KARPENTER_NODE_POOLS, found) is verdict
    assert verdict_of(Check.KARPENTER_PRIORITIES, found) is verdict


def test_the_settings_are_known_only_where_a_file_would_have_been_seen() -> None:
    """Without ConfigMaps or pods they may be anything, and so may be who is a worker; a file that is given is known."""
    anything = config_map("other", a="b")
    assert Kind.SETTINGS in look(OURS).unread
    assert Kind.SETTINGS in look(anything).unread
    assert Kind.SETTINGS not in look(OURS, anything).unread
    assert Kind.SETTINGS not in look(OURS, configuration=Configuration.default()).unread
    for given in ({"args": ["serve", "--config=/etc/w.yaml"]}, {"env": [{"name": "WARMNODE_CONFIG", "value": "/a"}]}):
        with_file = pod("w", labels={"app.kubernetes.io/name": "warmnode"}, containers=[{"name": "main", **given}])
        assert "w has a file that is in no ConfigMap" in look(with_file, anything).unread[Kind.SETTINGS]
        installed = config_map("c", namespace="default", config=INSTALLED)
        assert Kind.SETTINGS not in look(with_file, installed).unread


def test_feature_gates_that_stand_elsewhere_are_not_known() -> None:
    """A value that comes out of another object is not seen, and off only where it would be."""
    reference = {"configMapKeyRef": {"name": "global", "key": "gates"}}
    for value, verdict in (({"valueFrom": reference}, Verdict.UNKNOWN), ({}, Verdict.OK)):
        env = [{"name": "FEATURE_GATES", **value}]
        karpenter = pod("k", labels={"app.kubernetes.io/name": "karpenter"}, containers=[{"name": "c", "env": env}])
        assert verdict_of(Check.KARPENTER_FEATURE_GATES, look(karpenter)) is verdict


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_every_check_is_made_and_has_a_title() -> None:
    """In the order of the page."""
    assert list(diagnose(evidence(), source="f").findings) == list(Check)


def test_an_installation_that_is_well_has_nothing_but_ok() -> None:
    """So each other verdict of these tests comes from what the test changes."""
    diagnosis = diagnose(evidence(), source="f")
    assert {finding.verdict for finding in diagnosis.findings.values()} == {Verdict.OK}
    assert render_page(diagnosis).splitlines()[-1] == "21 ok"


def test_the_worst_verdict_is_that_of_the_whole() -> None:
    """Unknown is no worse than a warning."""
    assert worst([Verdict.OK, Verdict.UNKNOWN, Verdict.WARNING]) is Verdict.WARNING
    assert worst([Verdict.UNKNOWN, Verdict.OK]) is Verdict.UNKNOWN
    assert worst(Verdict) is Verdict.PROBLEM
    assert worst([]) is Verdict.OK


def test_json_has_every_finding_and_what_was_not_read() -> None:
    """Keys are an interface: docs/doctor.md has them."""
    tree = json.loads(render_json(diagnose(look(WORKER), source="f")))
    assert tree.keys() == {"schema", "now", "source", "namespace", "verdict", "unread", "checks"}
    assert tree["schema"] == "warmnode.dev/doctor/v1alpha1"
    assert {each["what"] for each in tree["unread"]} >= {"leases", "configmaps"}
    for each in tree["checks"]:
        assert each.keys() == {"check", "title", "verdict", "summary", "details", "remedy"}


def test_names_from_anybody_reach_no_terminal() -> None:
    """An escape sequence in a label is shown as a question mark."""
    hostile = pod("worker-1", labels={"warmnode.dev/pool": "a\x1b[31m"})
    page = render_page(diagnose(look(hostile), source="f"))
    assert "\x1b" not in page
    assert "a?[31m" in page


def test_long_details_are_cut_on_the_page_only() -> None:
    """And it says how many there are."""
    finding = warning("s", tuple("abcdefghij"), "r")
    made = diagnose(evidence(), source="f")
    page = render_page(type(made)(now=made.now, source="f", namespace="n", findings={Check.POOLS: finding}))
    assert "- and 2 more" in page
    assert "-> r" in page


def test_the_page_fits_a_terminal_and_tells_a_remedy_once() -> None:
    """Of a cluster without warmnode three checks want the scheduler's file: the later ones lead to the first."""
    page = render_page(diagnose(look(WORKER), source="f")).splitlines()
    assert [line for line in page if len(line) > 80] == []
    assert sum("pass the file that its flag --config names" in line for line in page) == 1
    assert sum("-> as for the scheduler's configuration, above" in line for line in page) == 2
    wide = render_page(diagnose(look(WORKER), source="f"), width=120).splitlines()
    assert len(wide) < len(page)
    assert max(map(len, wide)) <= 120


# -- the command ------------------------------------------------------------------------------------------------------


def test_exit_code_1_when_there_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker of another scheduler is one here; without any pod nobody knows."""
    file = tmp_path / "snapshot.json"
    other = pod("worker-1", labels={"warmnode.dev/pool": "ducks"}, schedulerName="default-scheduler")
    for objects, code in (([other], 1), ([], 0)):
        file.write_text(json.dumps({"kind": "List", "items": [NODE, *objects]}))
        assert main(["doctor", "--snapshot", str(file), "--output", "json"]) == code
        assert json.loads(capsys.readouterr().out)["verdict"] == ("problem" if code else "unknown")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scheduler-config", "/none"], "/none: no such file or directory; give the file"),
        (["--scheduler-config", "."], ".: is a directory; give the file"),
        (["--snapshot", "-", "--scheduler-config", "-"], "cannot both be standard input"),
        (["--snapshot", "/none"], "/none: no such file or directory"),
        (["--config", "/none"], "/none"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the remedy."""
    assert main(["doctor", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
