"""Nodes that a real Karpenter never takes, of two versions: nobody is evicted there, and others are emptied.

Every scene is played by `Stage`, all at once. Each NodePool lets one node go at a time: an empty node that counted as
next to go would end reaping in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.karpenter import (
    NODE_POOL_LABEL,
    NODE_POOLS,
    create_node_pool,
    disown_node_claims,
    karpenter_options,
    nodes,
)
from scripts.tools.controlplane.objects import is_ready
from tests.integration.karpenter_stage import Stage

pytestmark = pytest.mark.controlplane

ONE_AT_A_TIME = [{"nodes": "1"}]
GUARD = "karpenter.sh/do-not-disrupt"
HELD = "example.com/held"
"""Label of the nodes on which a DaemonSet runs."""
BUFFERS = "/apis/autoscaling.x-k8s.io/v1beta1/namespaces/{}/capacitybuffers"
POOLS: dict[str, Json] = {"marked": {}, "covered": {}, "orphaned": {}, "buffered": {}}


NEWEST, BEFORE = "1.15.0", "1.14.3"


@pytest.fixture(scope="module", params=[NEWEST, BEFORE])
def stage(
    request: pytest.FixtureRequest, require_binaries: RequireBinaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    require_binaries(karpenter_options(request.param).binaries())
    folder = tmp_path_factory.mktemp("karpenter")
    with Stage(request.param, folder, POOLS, gates="CapacityBuffer=true") as stage:
        scenes = (marked_daemon_set, covered_daemon_set, orphaned)
        stage.raise_curtain((*scenes, buffered) if request.param == NEWEST else scenes)
        yield stage


@dataclass(frozen=True, kw_only=True)
class Held:
    """What came of two nodes of which one is held: what doctor said of it, who was evicted before and after its workers
    were gone, the nodes that were left, and those that Karpenter touched."""

    held: str
    said: str
    early: list[str]
    evicted: list[str]
    free: list[str]
    left: list[str]
    touched: list[str]


def held_node(stage: Stage, pool: str, reason: str, hold: Any) -> Held:
    """Idle workers on a held node stay. When they are gone the node is empty and stays, and the other one goes."""
    create_node_pool(stage.control_plane, pool, budgets=ONE_AT_A_TIME)
    workers = stage.grow(pool, 4, prefix=pool)
    held, other = stage.nodes(pool)
    stage.make_older(other, held)
    hold(stage, pool, held)
    on = {node: [name for name, place in workers.items() if place == node] for node in (held, other)}
    stage.mark_idle(on[held])
    stage.wait(lambda: stage.stays(pool, reason) == 2, lambda: f"{reason} of {pool}: {stage.show(pool)}")
    early, said = stage.evicted(pool), doctor(stage)
    for name in on[held]:
        stage.delete_pod(name)
    stage.mark_idle(on[other])
    stage.wait(lambda: other not in stage.nodes(pool), lambda: f"{other} of {pool} to go: {stage.show(pool)}")
    return Held(
        held=held,
        said=said,
        early=early,
        evicted=stage.evicted(pool),
        free=sorted(on[other]),
        left=stage.nodes(pool),
        touched=stage.touched(pool),
    )


def run_daemon_set(stage: Stage, name: str, node: str, annotations: dict[str, str]) -> None:
    """Run a DaemonSet on one node, by a label. Its pods do not tolerate Karpenter's taint."""
    stage.control_plane.api("PATCH", f"/api/v1/nodes/{node}", {"metadata": {"labels": {HELD: name}}})
    labels = {"app": name}
    spec = {
        "schedulerName": "warmnode",
        "nodeSelector": {HELD: name},
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "none", "resources": {"requests": {"cpu": "10m"}}}],
    }
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}
    stage.control_plane.create(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": name, "namespace": stage.namespace},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        }
    )
    path, selector = f"/api/v1/namespaces/{stage.namespace}/pods", {"labelSelector": f"app={name}"}
    stage.wait(
        lambda: any(map(is_ready, stage.control_plane.api("GET", path, params=selector)["items"])), f"{name} to run"
    )


def doctor(stage: Stage) -> str:
    """Run `warmnode doctor`: what it says of nodes that stay."""
    program = [sys.executable, "-m", "extender", "doctor", "--kubeconfig", str(stage.control_plane.kubeconfig)]
    program += ["--namespace", stage.namespace, "--config", str(stage.configuration()), "--output", "json"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    (found,) = (each for each in json.loads(done.stdout)["checks"] if each["check"] == "karpenterNodes")
    return "\n".join((found["summary"], *found["details"]))


def marked_daemon_set(stage: Stage) -> Held:
    return held_node(
        stage,
        "marked",
        "otherPodDoNotDisrupt",
        lambda stage, pool, node: run_daemon_set(stage, pool, node, {GUARD: "true"}),
    )


def covered_daemon_set(stage: Stage) -> Held:
    def hold(stage: Stage, pool: str, node: str) -> None:
        metadata = {"name": "guard", "namespace": stage.namespace}
        spec = {"selector": {"matchLabels": {"app": pool}}, "minAvailable": 1}
        stage.control_plane.create(
            {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec}
        )
        run_daemon_set(stage, pool, node, {})

    return held_node(stage, "covered", "otherPodBudget", hold)


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (marked_daemon_set, "karpenter.sh/do-not-disrupt on pod {namespace}/marked-"),
        (covered_daemon_set, "PodDisruptionBudget {namespace}/guard on pod {namespace}/covered-"),
    ],
)
def test_node_that_a_daemon_sets_pod_holds_keeps_its_workers_and_no_others(stage: Stage, play: Any, words: str) -> None:
    """No worker goes there for nothing; and empty, it stands for ever and does not stop the rest."""
    found: Held = stage.outcome(play)
    assert found.early == []
    assert f"{found.held} ({words.format(namespace=stage.namespace)}" in found.said
    assert sorted(found.evicted) == found.free
    assert (found.left, found.touched) == ([found.held], [])


def orphaned(stage: Stage) -> dict[str, Any]:
    """A NodePool is deleted without its NodeClaims: its node stands there, and Karpenter does not find its NodePool."""
    pool = "orphaned"
    create_node_pool(stage.control_plane, pool, budgets=ONE_AT_A_TIME)
    workers = stage.grow(pool, 2, prefix=pool)
    disown_node_claims(stage.control_plane, pool)
    path = f"{NODE_POOLS}/{pool}"
    stage.control_plane.api("DELETE", path, {"propagationPolicy": "Orphan"})
    stage.wait(lambda: stage.control_plane.api_client.get_or_none(path) is None, "the NodePool to be gone")
    passes = passes_of(stage, pool)
    stage.wait(lambda: passes_of(stage, pool) >= passes + 3, "warmnode to know it")
    stage.mark_idle(workers)
    stage.wait(lambda: stage.stays(pool, "nodePoolUnknown") == 2, lambda: f"the reason: {stage.show(pool)}")
    return {"evicted": stage.evicted(pool), "left": stage.nodes(pool), "workers": workers}


def passes_of(stage: Stage, pool: str) -> int:
    return sum(line["pool"] == pool for line in stage.warmnode.lines("pass"))


def test_no_worker_goes_where_the_node_pool_was_deleted(stage: Stage) -> None:
    found = stage.outcome(orphaned)
    assert found["evicted"] == []
    assert found["left"] == [*dict.fromkeys(found["workers"].values())]


def buffered(stage: Stage) -> dict[str, Any]:
    """A CapacityBuffer with a node of its own, empty from birth; beside it a node of idle workers."""
    pool, control_plane = "buffered", stage.control_plane
    create_node_pool(control_plane, pool, budgets=ONE_AT_A_TIME)
    workers = stage.grow(pool, 2, prefix=pool)
    (old,) = stage.nodes(pool)
    spec = {
        "nodeSelector": {NODE_POOL_LABEL: pool},
        "containers": [{"name": "main", "image": "none", "resources": {"requests": {"cpu": "3"}}}],
    }
    metadata = {"name": "chunk", "namespace": stage.namespace}
    template = {"metadata": {"labels": {"app": "buffer"}}, "spec": spec}
    control_plane.create({"apiVersion": "v1", "kind": "PodTemplate", "metadata": metadata, "template": template})
    buffer = {
        "apiVersion": "autoscaling.x-k8s.io/v1beta1",
        "kind": "CapacityBuffer",
        "metadata": {"name": "spare", "namespace": stage.namespace},
        "spec": {"podTemplateRef": {"name": "chunk"}, "replicas": 1},
    }
    control_plane.api("POST", BUFFERS.format(stage.namespace), buffer)
    stage.wait(lambda: initialized(stage, pool) == 2, lambda: f"the buffer's node: {stage.show(pool)}")
    stage.make_older(old)
    passes = passes_of(stage, pool)
    stage.wait(lambda: passes_of(stage, pool) >= passes + 3, "warmnode to know it")
    stage.mark_idle(workers)
    stage.wait(lambda: stage.stays(pool, "emptyBudget") == 2, lambda: f"the budget to be kept: {stage.show(pool)}")
    early = stage.evicted(pool)
    stage.wait(lambda: stage.warmnode.metric("warmnode_stuck_nodes", reason="unknown") == 1, "the node to be stuck")
    said = doctor(stage)
    stage.wait(lambda: len(stage.evicted(pool)) == 2, lambda: f"both to be evicted: {stage.show(pool)}")
    stage.wait(lambda: len(stage.nodes(pool)) == 1, lambda: f"one node: {stage.show(pool)}")
    return {"early": early, "said": said}


def initialized(stage: Stage, pool: str) -> int:
    found = nodes(stage.control_plane, pool).values()
    return sum(node["metadata"]["labels"].get("karpenter.sh/initialized") == "true" for node in found)


@pytest.mark.parametrize("stage", [NEWEST], indirect=True)
def test_node_of_a_capacity_buffer_stops_reaping_for_two_minutes_only(stage: Stage) -> None:
    """Nothing but Karpenter's memory says that it stays: it is next to go until Karpenter could have taken it."""
    found = stage.outcome(buffered)
    assert found["early"] == []
    assert "has buffer pods" in found["said"]
