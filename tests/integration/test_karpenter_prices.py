"""What workers are worth to a real Karpenter that can be told so: with its own writer of deletion costs off, and on.

Every scene is played by `Stage`, all at once; each test says what must have come of one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from scripts.tools.controlplane import ApiError, ControlPlane, Json
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.karpenter import (
    NODE_POOLS,
    create_node_pool,
    karpenter_options,
    worker,
    worker_spec,
)
from tests.integration.karpenter_stage import Stage
from tests.integration.reapers import IDLE, LONG_AGO
from tests.integration.test_karpenter import assert_newest_went, burst_when_empty, doctor

pytestmark = pytest.mark.controlplane

VERSION = "1.15.0"
ITS_OWN_WRITER = "PodDeletionCostManagement=true"
POOLS: dict[str, Json] = {"empty": {"floor": 1}, "mixed": {}, "balanced": {}, "low": {}, "lowest": {}}
EMPTY_AT_ONCE = [{"nodes": "100%"}]
LOW, LOWEST = -100_000_000, -1_000_000_000
QUARTER, ALL_BUT_ONE = "900m", "2800m"
"""Four workers fill a node; and what leaves room for one."""


@pytest.fixture(scope="module", params=["", ITS_OWN_WRITER], ids=["alone", "beside"])
def stage(
    request: pytest.FixtureRequest, require_binaries: RequireBinaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    require_binaries(karpenter_options(VERSION).binaries())
    asked = dict.fromkeys(("mixed", "balanced"), "auto" if request.param else "always")
    with Stage(VERSION, tmp_path_factory.mktemp("karpenter"), POOLS, costs=asked, gates=request.param) as stage:
        stage.raise_curtain((burst_when_empty, mixed, balanced, of_low_priority))
        yield stage


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A Deployment on three nodes: where its busy workers were before and after the idle node went, and all prices."""

    idle_node: str
    busy: dict[str, str]
    prices: dict[str, int]
    left: dict[str, str]
    nodes: list[str]
    disrupted: dict[str, int]


def mixed_under(stage: Stage, pool: str, policy: str) -> Mixed:
    """The oldest of three nodes has four idle workers, each of the others one that is busy; all fit on two nodes.

    Without prices a node with a single worker is the first to go, whatever that does.
    """
    control_plane = stage.control_plane
    create_node_pool(control_plane, pool, policy=policy, consolidate_after="1h", budgets=[{"nodes": "1"}])
    fillers = [filler(stage, pool, number) for number in range(3)]
    deploy(stage, pool, 3)
    first = stage.wait_running(pool, 3)
    oldest, *others = stage.nodes(pool)
    stage.make_older(oldest, *others)
    stage.delete_pod(next(name for name in fillers if stage.node_of(name) == oldest))
    scale(stage, pool, 6)
    placed = stage.wait_running(pool, 6)
    assert list(placed.values()).count(oldest) == 4
    for name in fillers:
        if control_plane.api_client.get_or_none(stage.pod_path(name)) is not None:
            stage.delete_pod(name)
    busy = {name: node for name, node in first.items() if node != oldest}
    stage.annotate(busy, {IDLE: None})
    stage.wait(
        lambda: (
            len(stage.prices(pool)) == 6
            and {name for name, price in stage.prices(pool).items() if price > 0} == set(busy)
        ),
        lambda: f"prices of {pool}: {stage.prices(pool)}",
    )
    prices = stage.prices(pool)
    # Not sooner: for 20 s Karpenter leaves a node alone that it has nominated for pods, as the oldest just now.
    soon = {"spec": {"disruption": {"consolidateAfter": "30s"}}}
    control_plane.api("PATCH", f"{NODE_POOLS}/{pool}", soon)
    stage.wait(lambda: len(stage.nodes(pool)) == 2, lambda: f"one node of {pool} to go: {stage.show(pool)}")
    return Mixed(
        idle_node=oldest,
        busy=busy,
        prices=prices,
        left=stage.wait_running(pool, 6),
        nodes=stage.nodes(pool),
        disrupted=stage.disrupted(pool),
    )


def filler(stage: Stage, pool: str, number: int) -> str:
    """A pod of no pool that leaves room for one worker on the node that it needs."""
    name = f"{pool}-filler-{number}"
    pod = worker(name, namespace=stage.namespace, pool="none", node_pool=pool, cpu=ALL_BUT_ONE)
    del pod["metadata"]["labels"]
    stage.control_plane.create(pod)
    stage.node_of(name)
    return name


def deploy(stage: Stage, pool: str, replicas: int) -> None:
    labels = {"warmnode.dev/pool": pool}
    template = {"metadata": {"labels": labels, "annotations": {IDLE: LONG_AGO}}, "spec": worker_spec(pool, cpu=QUARTER)}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": pool, "namespace": stage.namespace}
    stage.control_plane.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})


def scale(stage: Stage, name: str, replicas: int) -> None:
    path = f"/apis/apps/v1/namespaces/{stage.namespace}/deployments/{name}/scale"
    stage.control_plane.api("PATCH", path, {"spec": {"replicas": replicas}})


def mixed(stage: Stage) -> Mixed:
    return mixed_under(stage, "mixed", "WhenEmptyOrUnderutilized")


def balanced(stage: Stage) -> Mixed:
    return mixed_under(stage, "balanced", "Balanced")


@pytest.mark.parametrize("play", [mixed, balanced])
def test_a_node_of_idle_workers_goes_before_one_with_a_busy_worker(stage: Stage, play: Any) -> None:
    """Although it is the oldest and has four of them: Karpenter moves the idle ones, and no busy one."""
    found: Mixed = stage.outcome(play)
    assert found.idle_node not in found.nodes
    assert found.busy.items() <= found.left.items()
    assert sum(found.disrupted.values()) == 1


def test_burst_takes_the_newest_nodes_whoever_prices(stage: Stage) -> None:
    """What the reaper has emptied is empty, whatever else stands on other nodes."""
    assert_newest_went(stage.outcome(burst_when_empty))


def test_karpenters_writer_is_noticed_once(stage: Stage) -> None:
    """Where there is one: all pools with pods of ReplicaSets say so, and nobody fights."""
    stage.outcome(balanced), stage.outcome(mixed)
    is_beside = bool(stage.gates)
    assert len(stage.warmnode.lines("Karpenter writes deletion costs, ours are given up")) == is_beside
    for pool in ("mixed", "balanced"):
        assert stage.warmnode.metric("warmnode_deletion_cost_contested", pool=pool) == is_beside
        assert any(cost < -100_000 for cost in stage.costs(pool).values()) is not is_beside


def created(control_plane: ControlPlane, pod: Json) -> bool:
    """Create a pod, if the API server's admission has seen its PriorityClass by now."""
    try:
        control_plane.create(pod)
    except ApiError as error:
        if error.status != 403:
            raise
        return False
    return True


def of_low_priority(stage: Stage) -> dict[str, Any]:
    """Busy workers of two priorities at which one without a price is free to Karpenter, each on a node of its own."""
    for pool, value in (("low", LOW), ("lowest", LOWEST)):
        stage.control_plane.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": pool},
                "value": value,
            }
        )
        create_node_pool(stage.control_plane, pool, consolidate_after="20s", budgets=EMPTY_AT_ONCE)
        pod = worker(f"{pool}-busy", namespace=stage.namespace, pool=pool, node_pool=pool)
        pod["spec"]["priorityClassName"] = pool
        stage.wait(partial(created, stage.control_plane, pod), f"the API server to know PriorityClass {pool}")
    nodes = {pool: stage.wait_running(pool, 1)[f"{pool}-busy"] for pool in ("low", "lowest")}
    stage.wait(lambda: stage.prices("low") and stage.prices("lowest"), "prices")
    said = doctor(stage)
    stage.wait(lambda: nodes["lowest"] not in stage.nodes("lowest"), "the node that no price can hold to go")
    deadline = time.monotonic() + 20  # two more looks
    while time.monotonic() < deadline and not stage.touched("low"):
        time.sleep(1)
    return {"touched": stage.touched("low"), "left": stage.nodes("low") == [nodes["low"]], "doctor": said}


def test_a_busy_worker_of_low_priority_keeps_its_node_as_far_as_a_price_reaches(stage: Stage) -> None:
    """And doctor names the pool that it does not reach, with the bound."""
    found = stage.outcome(of_low_priority)
    assert found["touched"] == []
    assert found["left"]
    said = found["doctor"]["karpenterPriorities"]
    told = "\n".join((said["summary"], *said["details"], said["remedy"]))
    assert said["verdict"] == "problem"
    assert "lowest" in told
    assert "-570,000,000" in told
