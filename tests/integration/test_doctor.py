"""`warmnode doctor` against a real API server and a real kube-scheduler: an installation that is well, and one that is
not in many ways at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.objects import has_condition
from scripts.tools.manifests.rendering import read_objects
from scripts.tools.serving import SCHEDULER_CONFIG, Serve, scheduler_config
from tests.integration.ground import POOL, Ground
from tests.integration.reapers import COST, Reapers, reaping
from tests.integration.test_first_seen import reader

pytestmark = pytest.mark.controlplane

LEASE = "warmnode-webhook"
KARPENTERS = ["karpenter-1.13.0", "karpenter-1.14.3", "karpenter-1.15.0"]
NODE_POOL: Json = {
    "apiVersion": "karpenter.sh/v1",
    "kind": "NodePool",
    "metadata": {"name": "workers"},
    "spec": {
        "disruption": {"consolidateAfter": "Never"},
        "template": {
            "spec": {
                "expireAfter": "720h",
                "nodeClassRef": {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"},
                "requirements": [],
            }
        },
    },
}


@pytest.fixture
def reapers(ground: Ground, tmp_path: Path) -> Iterator[Reapers]:
    with reaping(ground, tmp_path) as made:
        yield made


def doctor(ground: Ground, *arguments: str, kubeconfig: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Run it: the exit code, and the findings by check."""
    command = [sys.executable, "-m", "extender", "doctor", "--output", "json", "--namespace", ground.namespace]
    command += ["--kubeconfig", str(kubeconfig or ground.control_plane.kubeconfig), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    tree = json.loads(done.stdout)
    return done.returncode, {each["check"]: each for each in tree["checks"]} | {"unread": tree["unread"]}


def explain(ground: Ground, folder: Path, subject: str, name: str) -> Any:
    """Explain something of the live cluster, with the configuration that `put_configuration` installs."""
    file = folder / "explain.yaml"
    file.write_text(configuration(ground))
    command = [sys.executable, "-m", "extender", "explain", subject, name, "--output", "json", "--config", str(file)]
    command += ["--kubeconfig", str(ground.control_plane.kubeconfig), "--namespace", ground.namespace]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def put_config_map(ground: Ground, name: str, **data: str) -> None:
    metadata = {"name": name, "namespace": ground.namespace}
    ground.control_plane.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def put_configuration(ground: Ground) -> None:
    """Install a configuration: one pool, the workers of this test."""
    put_config_map(ground, "warmnode", **{"warmnode.yaml": configuration(ground)})


def configuration(ground: Ground) -> str:
    pool = {"name": POOL, "namespaces": [ground.namespace]}
    return yaml.safe_dump({"apiVersion": "warmnode.dev/v1alpha1", "kind": "Configuration", "pools": [pool]})


def lease(ground: Ground) -> Json | None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{ground.namespace}/leases/{LEASE}"
    return ground.control_plane.api_client.get_or_none(path)


def last_call(ground: Ground) -> str | None:
    found = lease(ground)
    return found["metadata"]["annotations"].get("warmnode.dev/last-call") if found else None


def bring_up(ground: Ground, reapers: Reapers, webhook_port: int) -> tuple[Serve, Serve]:
    """An installation that is well: the scheduler calls, workers say that they are idle, a reaper leads."""
    ground.nodes(2)
    put_configuration(ground)
    put_config_map(ground, "scheduler", config=yaml.safe_dump(scheduler_config(SCHEDULER_CONFIG, webhook_port)))
    serve = ground.serve()
    reaper = reapers.start(floor=2)
    for number in range(2):
        ground.run(f"worker-{number}")
    reapers.mark_idle("worker-0")
    ground.wait(lambda: last_call(ground), "the Lease to tell of a call")
    ground.wait_for_ledger(bool)
    ground.wait(lambda: reaper.metric("warmnode_leader") == 1, "a leader")
    return serve, reaper


def assert_all_is_ok(ground: Ground) -> dict[str, Any]:
    """Nothing is wrong, nothing is not known, everything could be read, and the exit code is 0."""
    code, found = doctor(ground)
    unread = found.pop("unread")
    assert {check: each for check, each in found.items() if each["verdict"] != "ok"} == {}
    assert (code, unread) == (0, [])
    return found


def test_an_installation_that_is_well(ground: Ground, reapers: Reapers, webhook_port: int, tmp_path: Path) -> None:
    """Nothing but ok, and what explain says of the same cluster."""
    serve, reaper = bring_up(ground, reapers, webhook_port)
    assert_all_is_ok(ground)
    explained = explain(ground, tmp_path, "pod", f"{ground.namespace}/worker-0")["pod"]
    assert explained["idle"]
    assert explained["pool"] == POOL
    assert explained["node"]["name"] == ground.node_of("worker-0")
    assert explained["pass"]["reason"] in ("idleTooShort", "floor")
    there = explain(ground, tmp_path, "node", ground.node_of("worker-0"))["node"]
    assert "worker-0" in {each["pod"] for each in there["workers"]}
    clean = [sys.executable, "-m", "extender", "cleanup", "--kubeconfig", str(ground.control_plane.kubeconfig)]
    serve.stop()
    reaper.stop()
    removed = subprocess.run([*clean, "--namespace", ground.namespace], capture_output=True, text=True, timeout=30)
    assert f"Lease {ground.namespace}/{LEASE}" in removed.stdout
    assert lease(ground) is None


def test_an_installation_whose_pods_are_seen_is_well_beside_karpenter(
    ground: Ground, reapers: Reapers, webhook_port: int, require_binaries: RequireBinaries
) -> None:
    """Its pods say as whom it runs, where it listens, and of which minor the scheduler is.

    Karpenter's real definitions, a NodePool that gives empty nodes back, a budget over the workers that spares one.
    """
    require_binaries(KARPENTERS)
    plane = ground.control_plane
    bring_up(ground, reapers, webhook_port)
    for role, command in (("serve", ["serve", f"--webhook-listen=127.0.0.1:{webhook_port}"]), ("reap", ["reap"])):
        install_identity(ground, role)
        run_program(
            ground, f"warmnode-{role}", "warmnode", account=f"warmnode-{role}", image="warmnode:1", args=command
        )
    run_program(ground, "scheduler", "warmnode", image="registry.k8s.io/kube-scheduler:v1.36.3")
    run_program(ground, "karpenter", image="karpenter/controller:1.14.3")
    selector = {"matchLabels": {"warmnode.dev/pool": POOL}}
    reapers.create("policy/v1", "PodDisruptionBudget", "ducks", {"minAvailable": 1, "selector": selector})
    budget = f"/apis/policy/v1/namespaces/{ground.namespace}/poddisruptionbudgets/ducks"
    ground.wait(lambda: plane.api("GET", budget)["status"].get("disruptionsAllowed"), "the budget to be counted")
    program = find_or_build(KARPENTERS, os.environ, lambda line: None)["karpenter-1.14.3"]
    kinds = ("nodepools", "nodeclaims")
    definitions = [f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind}.karpenter.sh" for kind in kinds]
    try:
        for kind, crd in zip(kinds, definitions, strict=True):
            plane.apply(yaml.safe_load((program.parent / "crds" / f"karpenter.sh_{kind}.yaml").read_text()))
            wait_for_definition(ground, crd)
        plane.apply(NODE_POOL | {"spec": NODE_POOL["spec"] | {"disruption": {"consolidateAfter": "5m"}}})
        found = assert_all_is_ok(ground)
    finally:
        for crd in definitions:
            remove_definition(ground, crd)
    for role in ("serve", "reap"):
        assert f"service account {ground.namespace}/warmnode-{role}" in found["permissions"]["summary"]
    assert "Karpenter 1.14 (the image that runs" in found["karpenterGeneration"]["summary"]
    assert found["karpenterNodePools"]["summary"] == "empty nodes go: workers"
    assert found["disruptionBudgets"]["summary"] == "2 workers covered, and evictions are possible"


def wait_for_definition(ground: Ground, crd: str) -> None:
    ground.wait(lambda: has_condition(ground.control_plane.api("GET", crd), "Established"), f"{crd} to be served")


def remove_definition(ground: Ground, crd: str) -> None:
    ground.control_plane.api("DELETE", crd)
    ground.wait(lambda: ground.control_plane.api_client.get_or_none(crd) is None, f"{crd} to be gone")


def install_identity(ground: Ground, role: str) -> None:
    """The shipped service account and roles of ``serve`` or ``reap``, in this test's namespace."""
    for item in read_objects(f"base/{role}-identity.yaml"):
        if item["kind"] in ("ServiceAccount", "Role", "RoleBinding"):
            item["metadata"]["namespace"] = ground.namespace
        if item["kind"] == "ClusterRoleBinding":
            item["metadata"]["name"] += f"-{ground.namespace}"
        for subject in item.get("subjects", ()):
            subject["namespace"] = ground.namespace
        if item["kind"] != "Secret":
            ground.control_plane.apply(item)


def test_an_installation_that_is_not_well(ground: Ground, reapers: Reapers) -> None:
    """Each fault is found in one look, beside the others, and the exit code is 1.

    The scheduler calls a port where nobody listens; its configuration has a weight of 1 and samples; one worker has
    another scheduler and a mark from its template, one a cost of somebody else; a budget over bare pods; a ledger with
    a key that makes no sense; a reaper's service account without permissions; a Karpenter that overwrites costs.
    """
    ground.nodes(2)
    ground.write_ledger({}, nonsense={"not-a-node": "yesterday"})
    put_configuration(ground)
    wrong = scheduler_config(SCHEDULER_CONFIG, 1)
    wrong["percentageOfNodesToScore"] = 5
    wrong["extenders"][0]["weight"] = 1
    put_config_map(ground, "scheduler", config=yaml.safe_dump(wrong))
    ground.serve(own_port=True)
    ground.run("uncalled")
    ground.run("strange", scheduler="default-scheduler", idle=True)
    place_minutes_ago(ground, "uncalled", 5)
    reapers.annotate("uncalled", {COST: "7"})
    selector = {"matchLabels": {"warmnode.dev/pool": POOL}}
    reapers.create("policy/v1", "PodDisruptionBudget", "ducks", {"maxUnavailable": 1, "selector": selector})
    run_program(ground, "warmnode", image="warmnode:1", args=["reap"])
    gates = [{"name": "FEATURE_GATES", "value": "PodDeletionCostManagement=true"}]
    run_program(ground, "karpenter", image="karpenter/controller:1.13.0", env=gates)
    ground.wait(lambda: lease(ground), "the Lease of serve")
    code, found = doctor(ground)
    assert code == 1
    verdicts = {check: each["verdict"] for check, each in found.items() if check != "unread"}
    assert {check for check, verdict in verdicts.items() if verdict == "problem"} == {
        "schedulerCalls",
        "schedulerWeight",
        "idleMarks",
        "disruptionBudgets",
        "reaper",
        "permissions",
        "karpenterFeatureGates",
    }
    assert {check for check, verdict in verdicts.items() if verdict == "warning"} >= {
        "schedulerNames",
        "schedulerSample",
        "deletionCosts",
        "ledger",
    }
    said = {check: "\n".join((each["summary"], *each["details"])) for check, each in found.items() if check != "unread"}
    assert "never called" in said["schedulerCalls"]
    assert "written by" in said["deletionCosts"]
    assert "not-a-node" in said["ledger"]
    assert f"service account {ground.namespace}/default may not create pods/eviction (reap)" in said["permissions"]
    assert "Karpenter 1.13 (the image that runs" in said["karpenterGeneration"]
    for each in found.values():
        if isinstance(each, dict) and each["verdict"] in ("problem", "warning"):
            assert each["remedy"], each


def test_the_crds_tell_the_generation_where_karpenter_is_not_seen(
    ground: Ground, require_binaries: RequireBinaries
) -> None:
    """As with managed control planes: by what the NodePool of each version can say; it is a guess, and called one.

    The real CRDs of all, one after the other; a NodePool that keeps its nodes is found too.
    """
    require_binaries(KARPENTERS)
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/nodepools.karpenter.sh"
    plane, told = ground.control_plane, []
    try:
        for name, program in sorted(find_or_build(KARPENTERS, os.environ, lambda line: None).items()):
            plane.apply(yaml.safe_load((program.parent / "crds" / "karpenter.sh_nodepools.yaml").read_text()))
            wait_for_definition(ground, crd)
            plane.apply(NODE_POOL)
            guess = "1.13 or older" if "1.13" in name else "1.14 or newer"
            found = wait_for_guess(ground, guess)
            told.append((found["karpenterExpiry"]["verdict"], found["karpenterNodePools"]["summary"]))
    finally:
        remove_definition(ground, crd)
    kept = "workers has consolidateAfter: Never: nodes that are empty stay"
    assert told == [("warning", kept), ("ok", kept), ("ok", kept)]


def wait_for_guess(ground: Ground, guess: str) -> dict[str, Any]:
    """Wait until doctor guesses so: the API server publishes a schema a moment after the definition is established."""

    def guessed() -> dict[str, Any] | None:
        _, found = doctor(ground)
        return found if f"probably Karpenter {guess}" in found["karpenterGeneration"]["summary"] else None

    return ground.wait(guessed, f"probably Karpenter {guess}")


def test_with_fewer_permissions_it_says_what_it_could_not_look_at(ground: Ground) -> None:
    """Somebody who may read nodes and pods and nothing else."""
    ground.nodes(1, wait=False)
    code, found = doctor(ground, kubeconfig=reader(ground.control_plane, f"reader-{ground.namespace}"))
    unread = {each["what"] for each in found["unread"]}
    assert unread >= {"configmaps", "leases", "poddisruptionbudgets", "leases of nodes"}
    assert found["schedulerCalls"]["verdict"] == found["ledger"]["verdict"] == "unknown"
    assert found["permissions"]["verdict"] == "warning"
    assert found["pools"]["verdict"] == "warning"
    assert code == 0


def place_minutes_ago(ground: Ground, name: str, minutes: int) -> None:
    """Say that a pod got its node then: a call that came with it would stand in the Lease by now."""
    at = (datetime.now(UTC) - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at}
    others = [each for each in ground.pod(name)["status"]["conditions"] if each["type"] != "PodScheduled"]
    path = f"/api/v1/namespaces/{ground.namespace}/pods/{name}/status"
    ground.control_plane.api("PATCH", path, {"status": {"conditions": [*others, condition]}})


def run_program(
    ground: Ground, name: str, program: str | None = None, *, account: str = "default", **container: Any
) -> None:
    """Run a pod that carries a program's label: what it would do does not matter."""
    ground.control_plane.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": ground.namespace,
                "labels": {"app.kubernetes.io/name": program or name},
            },
            "spec": {"serviceAccountName": account, "containers": [{"name": "main", **container}]},
        }
    )
