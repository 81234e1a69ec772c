"""The outcome with a real Karpenter: the newest nodes go, and no work goes to those that leave.

Every scene is played by `Stage`, all at once; each test says what must have come of one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.karpenter import (
    NODE_POOL_LABEL,
    NODE_POOLS,
    create_node_pool,
    delete_node_claim,
    karpenter_options,
    node_claims,
    nodes,
    worker,
    worker_spec,
)
from scripts.tools.controlplane.objects import has_condition, is_ready
from tests.integration.ground import epoch
from tests.integration.karpenter_stage import Stage
from tests.integration.reapers import COST, IDLE, LONG_AGO

pytestmark = pytest.mark.controlplane

EMPTY_AT_ONCE = [{"nodes": "100%"}]
NOTHING_GOES = [{"nodes": "0"}]
SMALL = "50m"
FREE = "-134217728"
"""A cost at which a pod weighs nothing to Karpenter, from 1.14 on."""

POOLS: dict[str, Json] = {
    "empty": {"floor": 1},
    "underutilized": {"floor": 1},
    "scaled-empty": {},
    "scaled-underutilized": {},
    "free": {"enabled": False},
    "budgeted": {"floor": 2},
    "whole": {"wholeNode": True},
    "never": {},
    "guarded": {},
    "foreign": {},
    "claimed": {},
    "noticed": {"floor": 1},
    "drifting": {},
    "expiring": {},
}


VERSIONS = ["1.15.0", "1.14.3"]
OLDEST = "1.13.0"
"""Of the generation before: it is played the scenes of `on_every_version` only, for a look costs minutes."""
on_every_version = pytest.mark.parametrize("stage", [*VERSIONS, OLDEST], indirect=True)


@pytest.fixture(scope="module", params=VERSIONS)
def stage(
    request: pytest.FixtureRequest, require_binaries: RequireBinaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    require_binaries(karpenter_options(request.param).binaries())
    with Stage(request.param, tmp_path_factory.mktemp("karpenter"), POOLS) as stage:
        stage.raise_curtain(SCENES_OF_OLDEST if request.param == OLDEST else SCENES)
        yield stage


# -- bursts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Burst:
    """What came of a burst: nodes by age when all stood, and when it was over; who was evicted, and who is left."""

    before: list[str]
    after: list[str]
    workers: dict[str, str]
    evicted: list[str]
    left: dict[str, str]
    disrupted: dict[str, int]
    touched: list[str]


def burst(stage: Stage, pool: str, policy: str) -> Burst:
    """Bare workers: two nodes of work, a burst that needs two more, and then the burst and one of the others idle."""
    create_node_pool(stage.control_plane, pool, policy=policy, budgets=EMPTY_AT_ONCE)
    stage.grow(pool, 4, prefix=f"{pool}-old")
    stage.grow(pool, 4, prefix=f"{pool}-new")
    before, workers = stage.nodes(pool), stage.wait_running(pool, 8)
    stage.wait(  # on one that is not, idle workers stay for now, and an older one would go in their place
        lambda: all(
            node["metadata"]["labels"].get("karpenter.sh/initialized") == "true"
            for node in nodes(stage.control_plane, pool).values()
        ),
        lambda: f"nodes of {pool} to be initialized",
    )
    stage.make_older(*before)
    idle_old = next(name for name in workers if workers[name] == before[0])
    idle = [name for name in workers if name.startswith(f"{pool}-new")] + [idle_old]
    stage.mark_idle(newest_first(idle, workers, before))
    stage.wait(lambda: len(stage.nodes(pool)) == 2, lambda: f"two nodes of {pool}: {stage.show(pool)}")
    return Burst(
        before=before,
        after=stage.nodes(pool),
        workers=workers,
        evicted=stage.evicted(pool),
        left={name: pod["spec"]["nodeName"] for name, pod in stage.pods(pool).items()},
        disrupted=stage.disrupted(pool),
        touched=stage.touched(pool),
    )


def newest_first(names: Iterable[str], workers: Mapping[str, str], nodes: Sequence[str]) -> list[str]:
    """Workers in the order in which they are to go, for marks: a pass may come between two of them."""
    return sorted(names, key=lambda name: nodes.index(workers[name]), reverse=True)


def burst_when_empty(stage: Stage) -> Burst:
    return burst(stage, "empty", "WhenEmpty")


def burst_when_underutilized(stage: Stage) -> Burst:
    return burst(stage, "underutilized", "WhenEmptyOrUnderutilized")


@on_every_version
def test_burst_of_bare_workers_takes_the_newest_nodes(stage: Stage) -> None:
    """The reaper empties the newest nodes, newest first, and Karpenter takes just these, as empty ones."""
    assert_newest_went(stage.outcome(burst_when_empty))


def test_burst_takes_the_newest_nodes_where_karpenter_moves_pods_too(stage: Stage) -> None:
    """The same under WhenEmptyOrUnderutilized: what is empty is taken before anything is moved."""
    assert_newest_went(stage.outcome(burst_when_underutilized))


def assert_newest_went(found: Burst) -> None:
    assert found.after == found.before[:2]
    order = [found.workers[name] for name in found.evicted]
    assert order == sorted(order, key=found.before.index, reverse=True)
    assert set(order) == set(found.before[2:])
    assert found.left == {name: node for name, node in found.workers.items() if node in found.before[:2]}
    assert (found.disrupted, found.touched) == ({"empty": 2}, [])


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A Deployment that was scaled in: nodes by age, the costs before it, and what was left.

    ``held`` are the nodes that Karpenter had touched before, ``control_went`` whether it took one that weighs nothing.
    """

    before: list[str]
    held: list[str]
    control_went: bool | None
    costs: dict[str, int]
    workers: dict[str, str]
    busy: set[str]
    after: list[str]
    left: dict[str, str]


def scaled(stage: Stage, pool: str, policy: str, *, with_busy: bool) -> Scaled:
    """A Deployment scaled up in two steps and down to half; ``with_busy``: one of a newer node's workers has work."""
    create_node_pool(stage.control_plane, pool, policy=policy, budgets=EMPTY_AT_ONCE)
    template = {
        "metadata": {"labels": {"warmnode.dev/pool": pool}, "annotations": {IDLE: LONG_AGO}},
        "spec": worker_spec(pool),
    }
    spec = {"replicas": 4, "selector": {"matchLabels": {"warmnode.dev/pool": pool}}, "template": template}
    metadata = {"name": pool, "namespace": stage.namespace}
    stage.control_plane.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    stage.wait_running(pool, 4)
    scale_to(stage, pool, 8)
    workers, before = stage.wait_running(pool, 8), stage.nodes(pool)
    stage.make_older(*before)
    stage.wait(lambda: len(stage.costs(pool)) == 8, lambda: f"costs of {pool}: {stage.costs(pool)}")
    busy = {next(name for name, node in workers.items() if node == before[2])} if with_busy else set()
    stage.annotate(busy, {IDLE: None})
    stage.wait(
        lambda: (
            all(stage.costs(pool)[name] > 0 for name in busy)
            and order_of(stage.costs(pool), workers, busy) == before[::-1]
        ),
        lambda: f"costs of {pool} by age: {stage.costs(pool)}",
    )
    costs = stage.costs(pool)
    # a new node after all costs were written: so long Karpenter had time, and reason to look, here too
    control_went = busy_pod_that_weighs_nothing(stage) if with_busy else None
    held = stage.touched(pool)
    goal = 5 if with_busy else 4
    scale_to(stage, pool, goal)
    stage.wait_running(pool, goal)
    kept = 3 if with_busy else 2
    stage.wait(lambda: len(stage.nodes(pool)) == kept, lambda: f"{kept} nodes of {pool}: {stage.show(pool)}")
    return Scaled(
        before=before,
        held=held,
        control_went=control_went,
        costs=costs,
        workers=workers,
        busy=busy,
        after=stage.nodes(pool),
        left=stage.wait_running(pool, goal),
    )


def order_of(costs: dict[str, int], workers: dict[str, str], busy: set[str]) -> list[str]:
    """Nodes by the cost of their idle workers, the lowest first."""
    return list(
        dict.fromkeys(workers[name] for name in sorted(costs, key=lambda name: costs[name]) if name not in busy)
    )


def scale_to(stage: Stage, name: str, replicas: int) -> None:
    path = f"/apis/apps/v1/namespaces/{stage.namespace}/deployments/{name}/scale"
    stage.control_plane.api("PATCH", path, {"spec": {"replicas": replicas}})


def scaled_when_empty(stage: Stage) -> Scaled:
    return scaled(stage, "scaled-empty", "WhenEmpty", with_busy=True)


def scaled_when_underutilized(stage: Stage) -> Scaled:
    return scaled(stage, "scaled-underutilized", "WhenEmptyOrUnderutilized", with_busy=False)


def busy_pod_that_weighs_nothing(stage: Stage) -> bool:
    """What a cost can do that is too low, written by somebody else: says whether the busy pod's node was taken."""
    create_node_pool(stage.control_plane, "free", budgets=EMPTY_AT_ONCE)
    ((_, node),) = stage.grow("free", 1, prefix="free", annotations={COST: FREE}).items()
    deadline = time.monotonic() + 45  # three looks, and the wait before acting
    while node in stage.nodes("free"):
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


@pytest.mark.parametrize("play", [scaled_when_empty, scaled_when_underutilized])
def test_scaling_a_deployment_in_takes_the_newest_nodes(stage: Stage, play: Any) -> None:
    """The ReplicaSet follows our costs: idle workers of the newest nodes go, and Karpenter takes these nodes."""
    found: Scaled = stage.outcome(play)
    assert found.after == found.before[: len(found.after)]
    assert found.busy <= found.left.keys()
    assert found.left.items() <= found.workers.items()  # nobody was made anew, or moved


def test_costs_of_ours_never_make_a_busy_node_empty(stage: Stage) -> None:
    """While Karpenter takes a busy node whose pod weighs nothing, no node with costs of ours is touched."""
    found = stage.outcome(scaled_when_empty)
    assert found.control_went
    assert len(found.costs) == 8
    assert found.held == []


# -- what the reaper leaves alone -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Budgeted:
    before: list[str]
    order: list[str]
    most_at_once: int
    waited_for_budget: bool
    after: list[str]


def emptied_within_a_budget(stage: Stage) -> Budgeted:
    """Three nodes of idle workers, of which one may go at a time and the last one is the floor."""
    pool = "budgeted"
    create_node_pool(stage.control_plane, pool, budgets=[{"nodes": "1", "reasons": ["Empty"]}, {"nodes": "100%"}])
    workers = stage.grow(pool, 6, prefix=pool)
    before = stage.nodes(pool)
    stage.make_older(*before)
    stage.mark_idle(newest_first(workers, workers, before))
    most, waited = 0, False
    seen: list[str] = []

    def is_done() -> bool:
        nonlocal most, waited
        standing = stage.nodes(pool)  # first the nodes, then the pods: in between pods only go
        holding = {pod["spec"].get("nodeName") for pod in stage.pods(pool).values()}
        most = max(most, sum(node not in holding for node in standing))
        waited = waited or stage.stays(pool, "emptyBudget") > 0
        seen.extend(node for node in before if node not in standing and node not in seen)
        return len(standing) == 1

    stage.wait(is_done, lambda: f"one node: {stage.show(pool)}")
    return Budgeted(before=before, order=seen, most_at_once=most, waited_for_budget=waited, after=stage.nodes(pool))


def test_no_more_nodes_stand_empty_than_the_budget_allows(stage: Stage) -> None:
    """One at a time, the newest first; the others say that they wait for the budget, and the floor stays."""
    found = stage.outcome(emptied_within_a_budget)
    assert found.order == found.before[:0:-1]
    assert found.after == found.before[:1]
    assert found.most_at_once == 1
    assert found.waited_for_budget


def whole_node(stage: Stage) -> dict[str, Any]:
    """wholeNode: of two nodes the newer has a busy worker, which then falls idle."""
    pool = "whole"
    create_node_pool(stage.control_plane, pool, budgets=EMPTY_AT_ONCE)
    workers = stage.grow(pool, 4, prefix=pool)
    old, new = stage.nodes(pool)
    stage.make_older(old, new)
    first, second = (name for name, node in workers.items() if node == new)
    stage.mark_idle([first])
    stage.wait(lambda: stage.stays(pool, "nodeKeepsOthers") == 1, "the node to be kept by its busy worker")
    early = stage.evicted(pool)
    stage.mark_idle([second])
    stage.wait(lambda: new not in stage.nodes(pool), lambda: f"{new} gone: {stage.show(pool)}")
    passes = [line.get("evicted", 0) for line in stage.warmnode.lines("pass") if line["pool"] == pool]
    return {"early": early, "bursts": [count for count in passes if count], "left": stage.nodes(pool), "old": old}


def test_whole_node_is_emptied_in_one_pass(stage: Stage) -> None:
    """Nothing while one of its workers is busy, then both at once: consolidateAfter starts anew only once."""
    found = stage.outcome(whole_node)
    assert found["early"] == []
    assert found["bursts"] == [2]
    assert found["left"] == [found["old"]]


def nodes_that_would_stay(stage: Stage) -> dict[str, Any]:
    """Idle workers where evicting gains nothing; then what held two of the three nodes is taken away."""
    control_plane = stage.control_plane
    create_node_pool(control_plane, "never", consolidate_after="Never")
    for pool in ("guarded", "foreign"):
        create_node_pool(control_plane, pool, budgets=EMPTY_AT_ONCE)
    workers = {pool: stage.grow(pool, 1, prefix=pool) for pool in ("never", "guarded", "foreign")}
    (guarded,) = workers["guarded"].values()
    (foreign,) = workers["foreign"].values()
    control_plane.api("PATCH", f"/api/v1/nodes/{guarded}", {"metadata": {"annotations": {GUARD: "true"}}})
    stranger = worker("stranger", namespace=stage.namespace, pool="x", node_pool="foreign")
    del stranger["metadata"]["labels"]
    stranger["spec"]["nodeName"] = foreign
    control_plane.create(stranger)
    stage.wait(lambda: is_ready(control_plane.api("GET", stage.pod_path("stranger"))), "the stranger")
    stage.wait(lambda: stage.warmnode.metric("warmnode_pods") >= 4, "warmnode to know the pods")
    for found in workers.values():
        stage.mark_idle(found)
    reasons = {"never": "neverConsolidated", "guarded": "nodeDoNotDisrupt", "foreign": "nodeKeepsOthers"}
    stage.wait(lambda: all(stage.stays(pool, why) == 1 for pool, why in reasons.items()), "the reasons")
    early = [name for pool in reasons for name in stage.evicted(pool)]
    control_plane.api("PATCH", f"/api/v1/nodes/{guarded}", {"metadata": {"annotations": {GUARD: None}}})
    stage.delete_pod("stranger")
    stage.wait(lambda: not stage.nodes("guarded") and not stage.nodes("foreign"), "both nodes to go")
    return {"early": early, "never": stage.evicted("never"), "left": stage.nodes("never")}


GUARD = "karpenter.sh/do-not-disrupt"


def test_idle_workers_stay_on_nodes_that_would_stay(stage: Stage) -> None:
    """consolidateAfter Never, do-not-disrupt on the node, a foreign pod under WhenEmpty; until that is no longer so."""
    found = stage.outcome(nodes_that_would_stay)
    assert found["early"] == []
    assert found["never"] == []
    assert len(found["left"]) == 1


# -- nodes that leave -------------------------------------------------------------------------------------------------


def two_nodes(stage: Stage, pool: str, node_pools: tuple[str, str], **given: Any) -> tuple[str, str]:
    """Two nodes full of busy workers, with room for a small one on each: the older, which is preferred, and the newer.

    None of the workers fits on the other node: Karpenter cannot let one go without a replacement.
    """
    old, new = (
        next(iter(stage.grow(pool, 2, prefix=f"{pool}-{number}", node_pool=node_pool, **given).values()))
        for number, node_pool in enumerate(node_pools)
    )
    stage.make_older(old, new)
    return old, new


def node_claim_is_deleted(stage: Stage) -> dict[str, Any]:
    """The older node's NodeClaim is deleted, and its worker will not go: the node stands there, tainted."""
    pool = "claimed"
    create_node_pool(stage.control_plane, pool, budgets=NOTHING_GOES)
    old, new = two_nodes(stage, pool, (pool, pool), annotations={GUARD: "true"})
    before = stage.preferred(old, new)
    delete_node_claim(stage.control_plane, old, pool)
    stage.wait(lambda: stage.preferred(old, new) == [new], lambda: f"{old} leaving: {stage.preferred(old, new)}")
    stage.create_worker("claimed-late", pool, tolerate_all=True, cpu=SMALL)
    return {
        "before": before == [old, new],
        "placed": stage.node_of("claimed-late") == new,
        "stands": old in stage.touched(pool),
        "counted": sum(
            stage.warmnode.metric("warmnode_leaving_nodes", reason=reason)
            for reason in ("nodeClaimDeleting", "nodeDeleting")
        ),
    }


@on_every_version
def test_no_worker_lands_on_a_node_whose_claim_is_deleted(stage: Stage) -> None:
    """Although it tolerates the taint, the node has room, stands, and was the preferred one until then."""
    found = stage.outcome(node_claim_is_deleted)
    assert (found["before"], found["placed"], found["stands"]) == (True, True, True)
    assert found["counted"] >= 1


def node_gets_a_notice(stage: Stage) -> dict[str, Any]:
    """The cloud says that the older node goes, by a taint that Karpenter does not know; then all workers are idle."""
    pool = "noticed"
    create_node_pool(stage.control_plane, pool, budgets=NOTHING_GOES)
    old, new = two_nodes(stage, pool, (pool, pool))
    on_old = {name for name, pod in stage.pods(pool).items() if pod["spec"]["nodeName"] == old}
    before = stage.preferred(old, new)
    taint = {"key": "cloud.google.com/impending-node-termination", "effect": "NoSchedule"}
    stage.control_plane.api("PATCH", f"/api/v1/nodes/{old}", {"spec": {"taints": [taint]}})
    stage.wait(lambda: stage.preferred(old, new) == [new], lambda: f"{old} leaving: {stage.preferred(old, new)}")
    stage.create_worker("noticed-late", pool, tolerate_all=True, cpu=SMALL)
    placed = stage.node_of("noticed-late")
    stage.mark_idle([*on_old, *(stage.pods(pool).keys() - on_old)])  # a pass may come in between
    stage.wait(lambda: len(stage.evicted(pool)) > len(on_old), lambda: f"evictions in {pool}: {stage.show(pool)}")
    return {
        "before": before == [old, new],
        "placed": placed == new,
        "evicted": set(stage.evicted(pool)[: len(on_old)]) == on_old,
        "leaving": next(line["leaving"] for line in plan(stage)["nodes"] if line["name"] == old),
        "touched": stage.touched(pool),
    }


def test_a_node_that_the_cloud_takes_gets_no_worker_and_is_emptied_first(stage: Stage) -> None:
    """Although its worker tolerates the taint, and Karpenter has done nothing about the node."""
    assert stage.outcome(node_gets_a_notice) == {
        "before": True,
        "placed": True,
        "evicted": True,
        "leaving": "terminationNotice",
        "touched": [],
    }


def node_drifts(stage: Stage) -> dict[str, Any]:
    """All nodes drift by an edit of the NodePool; later one may be replaced, and its replacement takes two minutes."""
    pool = "drifting"
    create_node_pool(stage.control_plane, pool, budgets=NOTHING_GOES)
    old, new = two_nodes(stage, pool, (pool, pool))
    slow = {"spec": {"template": {"spec": {"nodeClassRef": {"name": "slow"}}}}}
    stage.control_plane.api("PATCH", f"{NODE_POOLS}/{pool}", slow)
    stage.wait(
        lambda: all(has_condition(claim, "Drifted") for claim in node_claims(stage.control_plane, pool).values()),
        "both to drift",
    )
    drifted = stage.preferred(old, new)
    planned = {line["name"]: line["ending"] for line in plan(stage, ending={"drifted": True})["nodes"]}
    one = {"spec": {"disruption": {"budgets": [{"nodes": "1"}]}}}
    stage.control_plane.api("PATCH", f"{NODE_POOLS}/{pool}", one)
    (taken,) = stage.wait(lambda: stage.touched(pool), "Karpenter to taint one")
    (other,) = {old, new} - {taken}
    stage.wait(lambda: stage.preferred(old, new) == [other], lambda: f"only {other}: {stage.preferred(old, new)}")
    found = {line["name"]: line["leaving"] for line in plan(stage)["nodes"]}
    is_deleting = "deletionTimestamp" in stage.claim(taken, pool)["metadata"]
    stage.create_worker("drifting-late", pool, tolerate_all=True, cpu=SMALL)
    return {
        "drifted": drifted == [old, new],
        "ending": [planned[old], planned[new]],
        "leaving": found[taken],
        "is_deleting": is_deleting,
        "placed": stage.node_of("drifting-late") == other,
    }


def plan(stage: Stage, **top: Any) -> dict[str, Any]:
    """Run `warmnode plan` against the cluster."""
    return look(stage, "plan", **top)


def doctor(stage: Stage) -> dict[str, Any]:
    """Run `warmnode doctor` against the cluster: its findings by check."""
    return {each["check"]: each for each in look(stage, "doctor")["checks"]}


def look(stage: Stage, command: str, **top: Any) -> dict[str, Any]:
    """Run one of the commands that only look; whether what they find is well is another matter."""
    program = [sys.executable, "-m", "extender", command, "--kubeconfig", str(stage.control_plane.kubeconfig)]
    program += ["--namespace", stage.namespace, "--config", str(stage.configuration(**top)), "--output", "json"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_drift_turns_no_order_over_and_a_decided_replacement_does(stage: Stage) -> None:
    """Drifted nodes keep their rank unless a setting says otherwise; the one Karpenter has tainted gets no work."""
    found = stage.outcome(node_drifts)
    assert found["drifted"]
    assert found["ending"] == ["drifted", "drifted"]
    assert found["leaving"] == "disrupted"
    assert not found["is_deleting"]
    assert found["placed"]


def node_expires(stage: Stage) -> dict[str, Any]:
    """The older node lives for two minutes, so that it is ending for the last twelve; nothing else happens."""
    pool = "expiring"
    create_node_pool(stage.control_plane, "mortal", expire_after="2m", budgets=NOTHING_GOES)
    create_node_pool(stage.control_plane, "lasting", budgets=NOTHING_GOES)
    old, new = two_nodes(stage, pool, ("mortal", "lasting"))
    claim = stage.claim(old, "mortal")
    before = stage.preferred(old, new)
    found = doctor(stage)
    stage.wait(lambda: stage.preferred(old, new) == [new, old], lambda: f"{old} last: {stage.preferred(old, new)}")
    turned_after = time.time() - epoch(claim["metadata"]["creationTimestamp"])
    late = worker(
        "expiring-late", namespace=stage.namespace, pool=pool, node_pool="mortal", tolerate_all=True, cpu=SMALL
    )
    del late["spec"]["nodeSelector"]
    expression = {"key": NODE_POOL_LABEL, "operator": "In", "values": ["mortal", "lasting"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    late["spec"]["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    stage.control_plane.create(late)
    placed = stage.node_of("expiring-late")
    stage.wait(lambda: old not in nodes(stage.control_plane, "mortal"), "Karpenter to expire it")
    return {"before": before == [old, new], "turned_after": turned_after, "placed": placed == new, "doctor": found}


def test_no_worker_lands_on_a_node_that_expires_while_another_fits(stage: Stage) -> None:
    """By the clock alone the order turns, in the last tenth of the node's life and before Karpenter deletes it."""
    found = stage.outcome(node_expires)
    assert found["before"]
    assert 107 <= found["turned_after"] <= 121
    assert found["placed"]


def test_doctor_tells_which_of_its_settings_work_against_the_order(stage: Stage) -> None:
    """Beside the controller that runs: one NodePool gives none back, and one whose nodes expire does no harm."""
    found = stage.outcome(node_expires)["doctor"]
    assert "probably Karpenter 1.14 or newer" in found["karpenterGeneration"]["summary"]
    assert found["karpenterExpiry"]["verdict"] == "ok"
    assert "mortal (2m)" in found["karpenterExpiry"]["summary"]
    pools = found["karpenterNodePools"]
    assert pools["verdict"] == "warning"
    assert "lasting has a budget of 0" in "\n".join((pools["summary"], *pools["details"]))


@on_every_version
def test_example_of_the_page_is_a_node_pool_that_karpenter_takes(stage: Stage) -> None:
    """docs/karpenter.md: the API server checks it against the CRD of this version."""
    page = (Path(__file__).parents[2] / "docs" / "karpenter.md").read_text()
    example = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    taken = stage.control_plane.api("POST", NODE_POOLS, example, params={"dryRun": "All"})
    assert taken["spec"]["disruption"] == example["spec"]["disruption"]


SCENES = (
    node_expires,
    emptied_within_a_budget,
    burst_when_empty,
    burst_when_underutilized,
    scaled_when_empty,
    scaled_when_underutilized,
    whole_node,
    nodes_that_would_stay,
    node_claim_is_deleted,
    node_gets_a_notice,
    node_drifts,
)
SCENES_OF_OLDEST = (burst_when_empty, node_claim_is_deleted)
