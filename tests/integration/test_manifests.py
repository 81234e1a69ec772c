"""What is shipped, rendered by the real tools and shown to the real API server. The pods run in tests/e2e."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.inspect.survey.access_reviews import ServiceAccount, refused
from extender.inspect.survey.permissions import Duty, OwnObject, accesses
from extender.kube.api_client import KubeClient
from scripts.tools.controlplane import Api, ApiError, ControlPlane, wait_for
from scripts.tools.controlplane.binaries import KARPENTER_MODULES, TOOL_MODULES
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.controlplane.errors import MissingTool
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.objects import has_condition
from scripts.tools.manifests.fields import MINORS, read_fields, unknown_fields
from scripts.tools.manifests.rendering import (
    MANIFESTS,
    NAMESPACE,
    VARIANTS,
    Variant,
    comparable,
    helm,
    kustomize,
    kustomize_folder,
    read_objects,
    run,
)
from tests.integration.ground import LEDGER, Ground
from tests.integration.reapers import evicted, reaping
from tests.prometheus import find_prometheus, skip_or_fail

Json = dict[str, Any]

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
FOREIGN = {
    "github.com/cert-manager/cert-manager": (
        "deploy/crds",
        ("cert-manager.io_certificates", "cert-manager.io_issuers"),
    ),
    "github.com/prometheus-operator/prometheus-operator": (
        "example/prometheus-operator-crd",
        ("monitoring.coreos.com_servicemonitors", "monitoring.coreos.com_prometheusrules"),
    ),
}
KARPENTER = f"karpenter-{next(iter(KARPENTER_MODULES))}"
CONTROL_PLANE = Variant(components=("control-plane", "monitoring"))


@pytest.fixture(scope="session")
def tools(require_binaries: RequireBinaries) -> None:
    """Kubectl, Helm, and the newest Karpenter, beside which its definitions are."""
    require_binaries(["kubectl", "helm", "kube-scheduler", KARPENTER])


@pytest.fixture(scope="module")
def installable(control_plane: ControlPlane, tools: None) -> Iterator[ControlPlane]:
    """A cluster with the namespaces, and with the kinds of cert-manager and the Prometheus operator."""
    names = (NAMESPACE, *VARIANTS["everything"].pools)
    namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
    made = [control_plane.create(item) for item in (*foreign_definitions(), *namespaces)]
    # A pod is admitted for a service account that is there; the one of `helm test` is of serve.
    (account,) = (item for item in read_objects("base/serve-identity.yaml") if item["kind"] == "ServiceAccount")
    account["metadata"]["namespace"] = NAMESPACE
    control_plane.create(account)
    definitions = [item["metadata"]["name"] for item in made if item["kind"] == "CustomResourceDefinition"]
    wait_for(
        lambda: all(has_condition(control_plane.api("GET", f"{CRDS}/{name}"), "Established") for name in definitions),
        30,
        f"{definitions} established",
    )
    yield control_plane
    for item in made:
        control_plane.api("DELETE", control_plane.api_client.path_of(item))


def foreign_definitions() -> list[Json]:
    """The custom resource definitions that the components need, from what their makers publish."""
    karpenter = find_or_build([KARPENTER], os.environ, lambda line: None)[KARPENTER]
    files = [karpenter.parent / "crds" / "karpenter.sh_nodepools.yaml"]
    for module, (folder, names) in FOREIGN.items():
        done = subprocess.run(
            ["go", "mod", "download", "-json", module],
            cwd=TOOL_MODULES / "crds",
            capture_output=True,
            text=True,
            check=True,
        )
        place = Path(json.loads(done.stdout)["Dir"]) / folder
        files += [place / f"{name}.yaml" for name in names]
    return [yaml.load(file.read_text(), yaml.CSafeLoader) for file in files]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_chart_installs_what_kustomize_installs(name: str, tools: None, tmp_path: Path) -> None:
    """Object by object, field by field; what must differ is listed in `comparable`."""
    expected, actual = comparable(kustomize(VARIANTS[name], tmp_path)), comparable(helm(VARIANTS[name], tmp_path))
    assert sorted(actual) == sorted(expected)
    for each, item in expected.items():
        assert actual[each] == item


@pytest.mark.parametrize("name", ["plain", "tls"])
def test_the_scheduler_may_use_the_lease_that_it_is_told(name: str, tools: None, tmp_path: Path) -> None:
    """Its configuration, its Role and the Lease that is shipped say the same name, also after kustomize's renaming."""
    items = kustomize(VARIANTS[name], tmp_path)
    leases = [item["metadata"]["name"] for item in items if item["kind"] == "Lease"]
    (role,) = (i for i in items if i["kind"] == "Role" and i["metadata"]["name"] == "warmnode-scheduler")
    (config,) = (i for i in items if i["kind"] == "ConfigMap" and "kube-scheduler-config.yaml" in i["data"])
    told = yaml.safe_load(config["data"]["kube-scheduler-config.yaml"])["leaderElection"]
    assert leases == role["rules"][0]["resourceNames"] == [told["resourceName"]]
    assert {item["metadata"]["namespace"] for item in (role, config)} == {told["resourceNamespace"]}


def test_the_chart_cleans_up_as_the_kustomization_does(tools: None, tmp_path: Path) -> None:
    """The same Job and the same permissions, as hooks after everything else is gone."""
    hooks = [item for item in helm(Variant(), tmp_path, hooks=True) if item["kind"] != "Pod"]
    assert {item["metadata"].pop("annotations")["helm.sh/hook"] for item in hooks} == {"post-delete"}
    assert comparable(hooks) == comparable(kustomize_folder(MANIFESTS / "cleanup"))


@pytest.mark.parametrize("name", [*VARIANTS, "control-plane"])
def test_the_api_server_takes_every_object(name: str, installable: ControlPlane, tmp_path: Path) -> None:
    """`kubectl apply --dry-run=server`, with unknown fields refused."""
    variant = VARIANTS.get(name, CONTROL_PLANE)
    assert dry_run(installable, kustomize(variant, tmp_path), tmp_path) > 15
    if name in VARIANTS:
        rendered = helm(variant, tmp_path) + helm(variant, tmp_path, hooks=True)
        assert dry_run(installable, rendered, tmp_path) > 15


def test_the_api_server_takes_the_cleanup(installable: ControlPlane, tmp_path: Path) -> None:
    """The Job and its permissions."""
    assert dry_run(installable, kustomize_folder(MANIFESTS / "cleanup"), tmp_path) == 6


@pytest.mark.parametrize("file", sorted(path.name for path in (MANIFESTS / "examples").glob("*.yaml")))
def test_the_api_server_takes_the_examples(file: str, installable: ControlPlane, tmp_path: Path) -> None:
    """Each of them is whole."""
    items = read_objects(f"examples/{file}")
    assert dry_run(installable, items, tmp_path) == len(items)


def test_the_keeper_of_bare_workers_makes_pods() -> None:
    """Its program compiles, and the worker that it makes is a pod that every supported version knows."""
    (files,) = (item["data"] for item in read_objects("examples/bare-workers.yaml") if item["kind"] == "ConfigMap")
    compile(files["keeper.py"], "keeper.py", "exec")
    worker = json.loads(files["worker.json"])
    worker["metadata"]["name"] = "duck"
    assert [each for minor in MINORS for each in unknown_fields(worker, minor, read_fields())] == []


def test_a_field_that_kubernetes_does_not_know_is_refused(installable: ControlPlane, tmp_path: Path) -> None:
    """So that the tests above can fail."""
    item = read_objects("base/networkpolicy.yaml")[0]
    item["metadata"]["namespace"] = NAMESPACE
    item["spec"]["ingres"] = []
    with pytest.raises(AssertionError, match="ingres"):
        dry_run(installable, [item], tmp_path)


def dry_run(control_plane: ControlPlane, items: list[Json], folder: Path) -> int:
    """Apply without persisting; give the number of objects that were taken."""
    file = folder / "objects.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    out = run(
        *("kubectl", "apply", "--kubeconfig", str(control_plane.kubeconfig), "--dry-run=server", "--validate=strict"),
        *("--filename", str(file), "--output", "name"),
    )
    return len(out.split())


@pytest.mark.parametrize("name", [*VARIANTS, "control-plane"])
def test_every_supported_version_knows_every_field(name: str, tools: None, tmp_path: Path) -> None:
    """By the schemas of the four minors: the API server here is only one of them."""
    known = read_fields()
    foreign = ("cert-manager.io/v1", "monitoring.coreos.com/v1")
    items = [
        *kustomize(VARIANTS.get(name, CONTROL_PLANE), tmp_path),
        *(helm(VARIANTS[name], tmp_path, hooks=True) if name in VARIANTS else ()),
    ]
    for minor in MINORS:
        assert [
            each for item in items if item["apiVersion"] not in foreign for each in unknown_fields(item, minor, known)
        ] == []


@pytest.mark.parametrize("component", ["base", "components/tls", "components/control-plane"])
def test_kube_scheduler_takes_every_configuration(component: str, tools: None, control_plane: ControlPlane) -> None:
    """The stock program reads it, defaults it and writes it back."""
    config = yaml.safe_load((MANIFESTS / component / "kube-scheduler-config.yaml").read_text())
    config["clientConnection"] = {"kubeconfig": str(control_plane.kubeconfig)}
    for extender in config["extenders"]:
        if "tlsConfig" in extender:
            extender["tlsConfig"]["caFile"] = str(control_plane.ca_file)
    given = control_plane.directory / "config-to-check.yaml"
    written = control_plane.directory / "config-checked.yaml"
    given.write_text(yaml.safe_dump(config))
    scheduler = find_or_build(["kube-scheduler"], os.environ, lambda line: None)["kube-scheduler"]
    done = subprocess.run(
        [scheduler, f"--config={given}", f"--write-config-to={written}", "--secure-port=0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert written.exists(), done.stderr[-2000:]
    completed = yaml.safe_load(written.read_text())
    assert [profile["schedulerName"] for profile in completed["profiles"]][-1] == "warmnode"
    assert completed["extenders"][0]["weight"] == 200


def test_nothing_is_forbidden_under_the_shipped_permissions(
    installable: ControlPlane, ground: Ground, tmp_path: Path
) -> None:
    """serve and reap do all that they do as their service accounts, and the API server refuses nothing."""
    for item in (*read_objects("base/serve-identity.yaml"), *read_objects("base/reap-identity.yaml")):
        if item["kind"].startswith("Role"):
            item["metadata"]["namespace"] = NAMESPACE
        if "Role" in item["kind"]:
            installable.apply(item)
    before = forbidden(installable)
    with reaping(ground, tmp_path) as reapers:
        reapers.configure(floor=1)
        node, *_ = ground.nodes(2)
        serve = ground.serve("--namespace", NAMESPACE, kubeconfig=account(installable, "warmnode-serve"))
        ground.place("placed")
        assert serve.lines("prioritize")
        reaper = reapers.make("--namespace", NAMESPACE, kubeconfig=account(installable, "warmnode-reap")).start()
        reapers.run_workers(dict.fromkeys(("kept", "surplus"), node))
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{LEDGER}"
        ground.wait(lambda: len(evicted(reaper)) == 1 and reapers.events(), lambda: reaper.text()[-2000:])
        ground.wait(lambda: any(reapers.costs().values()), lambda: f"{reapers.costs()}")
        ground.wait(lambda: installable.api_client.get_or_none(path) is not None, "the ledger to be written")
    assert forbidden(installable) == before


async def test_doctor_finds_nothing_missing_under_the_shipped_permissions(installable: ControlPlane) -> None:
    """It asks the real authorizer for every request of each role; without a role it finds all of them missing."""
    for item in (*read_objects("base/serve-identity.yaml"), *read_objects("base/reap-identity.yaml")):
        if "Role" in item["kind"]:
            if item["kind"].startswith("Role"):
                item["metadata"]["namespace"] = NAMESPACE
            installable.apply(item)
    names = {
        OwnObject.LEDGER: LEDGER,
        OwnObject.LEADER_LEASE: "warmnode-reaper",
        OwnObject.WEBHOOK_LEASE: "warmnode-webhook",
    }
    client = await KubeClient.connect(kubeconfig=str(installable.kubeconfig), user_agent="test")
    missing = {}
    for account, duty in (("warmnode-serve", Duty.SERVE), ("warmnode-reap", Duty.REAP), ("nobody", Duty.REAP)):
        missing[account] = await refused(
            client,
            accesses(duty),
            account=ServiceAccount(NAMESPACE, account),
            namespace=NAMESPACE,
            names={str(own): name for own, name in names.items()},
        )
    await client.close()
    assert missing == {"warmnode-serve": set(), "warmnode-reap": set(), "nobody": set(accesses(Duty.REAP))}


def test_serve_is_refused_what_only_the_reaper_may(installable: ControlPlane, namespace: str) -> None:
    """The real authorizer says no to an eviction, a patch, a deletion and a look at Secrets; and it counts."""
    for item in read_objects("base/serve-identity.yaml"):
        if item["kind"].startswith("ClusterRole"):
            installable.apply(item)
    serve = Api.from_kubeconfig(account(installable, "warmnode-serve"))
    pod = f"/api/v1/namespaces/{namespace}/pods/any"
    before = forbidden(installable)
    asked: list[tuple[str, str, Json | None]] = [
        ("POST", f"{pod}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "any"}}),
        ("PATCH", pod, {}),
        ("DELETE", pod, None),
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets", None),
    ]
    for method, path, body in asked:
        with pytest.raises(ApiError) as refused:
            serve.request(method, path, body)
        assert refused.value.status == 403
    serve.close()
    assert forbidden(installable) == before + len(asked)


def account(control_plane: ControlPlane, name: str) -> Path:
    """A kubeconfig with which requests come from this service account, as far as the authorizer can tell."""
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
    return control_plane.kubeconfig_for(f"system:serviceaccount:{NAMESPACE}:{name}", groups)


def forbidden(control_plane: ControlPlane) -> int:
    """How many requests the API server has not allowed since it started: each was answered with 403.

    `apiserver_request_total` does not count them: they are turned away before they get there.
    """
    text = control_plane.api("GET", "/metrics")["text"]
    found = re.findall(r'^authorization_attempts_total\{result="(?!allowed)[^"]*"\} (\S+)$', text, re.MULTILINE)
    return sum(int(float(number)) for number in found)


def test_prometheus_takes_every_alert_and_every_panel(tmp_path: Path) -> None:
    """By promtool, which comes with Prometheus. The names of metrics are compared in tests/unit/test_manifests.py."""
    try:
        promtool = find_prometheus(os.environ, lambda line: None).with_name("promtool")
    except MissingTool as error:
        skip_or_fail(error, os.environ)
    (rule,) = read_objects("components/monitoring/prometheusrule.yaml")
    dashboard = json.loads((MANIFESTS / "components/monitoring/dashboard.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    panels = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(shown)
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [*rule["spec"]["groups"], {"name": "panels", "rules": panels}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rule['spec']['groups'][0]['rules']) + len(panels)} rules found" in done.stdout


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ("claims.enabled=true", "tls"),
        ("kubeScheduler.schedulerName=default-scheduler", "schedulerName"),
        ("scheduler.replicas=0", "replicas"),
        ("dryRun=false", "dryRun"),
        ("config.kind=Configuration", "config"),
        ("kubeScheduler.image.tag=latest", "tag"),
    ],
)
def test_the_chart_refuses_values_that_cannot_work(values: str, named: str, tools: None, tmp_path: Path) -> None:
    """Before anything is sent, with the place of the mistake."""
    with pytest.raises(AssertionError, match=named):
        helm(Variant(), tmp_path, "--set", values)


def test_another_scheduler_name_is_told_to_warmnode_too(tools: None, tmp_path: Path) -> None:
    """Else doctor would expect calls from a scheduler that does not exist."""
    items = helm(Variant(values={"kubeScheduler": {"schedulerName": "packer"}}), tmp_path)
    files = {key: yaml.safe_load(text) for i in items if i["kind"] == "ConfigMap" for key, text in i["data"].items()}
    assert files["kube-scheduler-config.yaml"]["profiles"][0]["schedulerName"] == "packer"
    assert files["warmnode.yaml"]["webhook"] == {"schedulers": ["packer"]}
    assert files["warmnode.yaml"]["dryRun"] is True


@pytest.mark.parametrize(("version", "tag"), [("v1.34.1-eks-1a2b3c4", "v1.34.1"), ("v1.35.2+k3s1", "v1.35.2")])
def test_the_scheduler_has_the_version_of_the_cluster(version: str, tag: str, tools: None, tmp_path: Path) -> None:
    """Without what a provider appends: that is no version of kube-scheduler."""
    items = helm(Variant(), tmp_path, "--kube-version", version)
    images = {
        container["image"]
        for item in items
        if item["kind"] == "Deployment"
        for container in item["spec"]["template"]["spec"]["containers"]
    }
    assert f"registry.k8s.io/kube-scheduler:{tag}" in images
