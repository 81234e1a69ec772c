"""What PostHog/duckgres#451 does, statement by statement, and what became of each here.

The idea comes from that pull request: claim the idle worker on the oldest node, reap idle workers from the newest. A1
to A11 are rules read in its code, T1 to T8 its own tests. Each test states the rule, and the difference where there is
one. ("The seed" is that pull request.)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from extender.cluster.state import ClusterState
from extender.model import Node, OrderKey, Pod
from extender.policy.defaults import ReapRules
from extender.policy.idleness import RulesNow, why_not_claimable
from extender.policy.reaping import EvictionPlan, assess_node
from tests.builders import NOW, minutes_ago, node, plan_evictions, worker

OLD, MID, YOUNG = minutes_ago(60), minutes_ago(10), minutes_ago(1)
LONG_IDLE = minutes_ago(30)


def state_of(nodes: Sequence[Node], pods: Sequence[Pod] = (), *, now: datetime = NOW) -> ClusterState:
    """A state that has loaded these, with an empty ledger."""
    state = ClusterState(clock=lambda: now)
    state.replace_nodes(nodes)
    state.replace_pods(pods)
    state.take_ledger(None)
    state.synced = True
    return state


def three() -> tuple[list[Node], list[Pod]]:
    """Nodes seen 60, 10 and 1 minutes ago, an idle worker on each; the names sort the other way round."""
    nodes = [node(name, created=minutes_ago(61)) for name in ("c-old", "b-mid", "a-young")]
    seen = dict(zip(("c-old", "b-mid", "a-young"), (OLD, MID, YOUNG), strict=True))
    pods = [
        worker(f"on-{name}", node=name, ready_since=at, created=minutes_ago(61), idle_since=LONG_IDLE)
        for name, at in seen.items()
    ]
    return nodes, pods


def claim_order(state: ClusterState) -> list[str]:
    """The claimable workers in the order in which they would be handed out."""
    found: list[tuple[OrderKey, str]] = [
        (key, pod.name)
        for name, key in state.order.items()
        for pod in state.where.workers_on(name).values()
        if why_not_claimable(pod, None, NOW) is None
    ]
    return [name for _, name in sorted(found)]


def reap(state: ClusterState, *, floor: int, idle_timeout: timedelta = timedelta(minutes=5)) -> EvictionPlan:
    """The plan of one pass with the seed's defaults: a timeout of five minutes, no limit per pass."""
    rules = ReapRules(idle_timeout=idle_timeout, min_pod_age=timedelta(0))
    assessments = [
        assess_node(
            node=name,
            order_key=key,
            workers=state.where.workers_on(name).values(),
            others=0,
            asked=RulesNow.of(rules, NOW),
        )
        for name, key in state.order.items()
    ]
    return plan_evictions(assessments, ReapRules(floor=floor, max_per_pass=0))


def names(plan: EvictionPlan) -> list[str]:
    return [victim.name for victim in plan.victims]


# -- A1 to A5: first seen -------------------------------------------------------------------------------------------


def test_a1_t1_a_stamp_is_set_once() -> None:
    """The seed: the first call stores now, later ones never move it. Here it can move too, but only to earlier."""
    state = state_of([node("a")], [worker("w1", node="a", ready_since=OLD, created=OLD)])
    state.upsert_pod(worker("w2", node="a", ready_since=YOUNG, created=YOUNG))
    state.upsert_pod(worker("w1", node="a", ready_since=YOUNG, created=OLD))
    assert state.ages.first_seen(state.nodes["a"]) == OLD


def test_a1_t2_no_node_no_stamp() -> None:
    """The seed: an empty node name stamps nothing. Here a worker without a node is seen on none."""
    state = state_of([node("a")], [worker("w", node=None)])
    assert state.ages.first_seen(state.nodes["a"]) is None
    assert state.ages.unrecorded() == {}


def test_a2_a_node_is_seen_when_its_worker_is_healthy() -> None:
    """The seed stamps after its own health check of the worker; here the pod's Ready condition is that check."""
    pod = worker("w", node="a", ready_since=None, created=MID)
    state = state_of([node("a")], [pod])
    assert state.ages.first_seen(state.nodes["a"]) is None
    state.upsert_pod(worker("w", node="a", ready_since=YOUNG, created=MID))
    assert state.ages.first_seen(state.nodes["a"]) == YOUNG


def test_a3_t5_an_unknown_node_counts_as_newest() -> None:
    """A node not seen yet is newer than all others: last to be claimed from, first to be reaped."""
    nodes, pods = three()
    unknown = worker("on-unknown", node="0-unknown", ready_since=None, idle_since=LONG_IDLE)
    state = state_of([*nodes, node("0-unknown", created=minutes_ago(600))], [*pods, unknown])
    assert max(state.order, key=lambda name: state.order[name]) == "0-unknown"
    assert names(reap(state, floor=0))[0] == "on-unknown"


def test_a4_t3_only_gone_nodes_are_forgotten() -> None:
    """The seed forgets a node with its last worker. Here a node without workers stays as old as it is: its cache does.

    Only a Node object that is gone is forgotten, by UID, and never another one.
    """
    w1, w2 = (worker(name, node="a", ready_since=OLD, created=OLD) for name in ("w1", "w2"))
    w3 = worker("w3", node="b", ready_since=MID, created=MID)
    state = state_of([node("a"), node("b", created=OLD)], [w1, w2, w3])
    state.delete_pod(w1)
    state.delete_pod(w2)
    assert state.ages.first_seen(state.nodes["a"]) == OLD
    state.delete_node(state.nodes["a"])
    assert state.ages.unrecorded().keys() == {"uid-of-b"}
    state.upsert_node(node("a", uid="another"))
    assert state.ages.first_seen(state.nodes["a"]) is None
    assert state.ages.first_seen(state.nodes["b"]) == MID


def test_a5_forgetting_needs_no_reaper() -> None:
    """The seed forgets nodes in its reaper only, against its own text. Here the watch does, whatever else runs."""
    state = state_of([node("a")], [worker("w", node="a")])
    state.replace_nodes([])
    assert state.ages.unrecorded() == {}
    assert state.order == {}


# -- A6, A7: claims -------------------------------------------------------------------------------------------------


def test_a6_t4_claims_prefer_the_oldest_node() -> None:
    """Nodes seen 1 minute, 1 hour and 10 minutes ago: the worker on the one of 1 hour is handed out first."""
    state = state_of(*three())
    assert claim_order(state) == ["on-c-old", "on-b-mid", "on-a-young"]


def test_a6_busy_workers_are_not_claimed() -> None:
    """The seed knows its sessions; here whoever has no mark is busy."""
    nodes, (oldest, *rest) = three()
    busy = worker("busy", uid=oldest.uid, node="c-old", ready_since=OLD, created=OLD, idle_since=None)
    assert claim_order(state_of(nodes, [busy, *rest])) == ["on-b-mid", "on-a-young"]


def test_a7_ties_do_not_depend_on_the_order_of_the_input() -> None:
    """The seed leaves ties to Go's random map order. Here the node's UID decides, and both verbs agree on it."""
    nodes = [node(name, created=OLD) for name in ("a", "b", "c")]
    pods = [
        worker(f"on-{name}", node=name, ready_since=OLD, created=OLD, idle_since=LONG_IDLE) for name in ("a", "b", "c")
    ]
    there, back = state_of(nodes, pods), state_of(nodes[::-1], pods[::-1])
    assert claim_order(there) == claim_order(back)
    assert names(reap(there, floor=0)) == names(reap(back, floor=0)) == claim_order(there)[::-1]


# -- A8 to A11: reaping ---------------------------------------------------------------------------------------------


def test_a8_a_timeout_of_zero_means_at_once() -> None:
    """The seed does not reap where the timeout is 0. Here `reap.enabled` says that, and 0s is a timeout like others."""
    state = state_of(*three())
    assert len(names(reap(state, floor=0, idle_timeout=timedelta(0)))) == 3
    disabled = [
        assess_node(
            node="c-old",
            order_key=state.order["c-old"],
            workers=state.where.workers_on("c-old").values(),
            others=0,
            asked=RulesNow.of(ReapRules(enabled=False), NOW),
        )
    ]
    assert names(plan_evictions(disabled, ReapRules(floor=0))) == []


def test_a9_the_mark_decides_and_the_timeout_is_strict() -> None:
    """The seed never reaps a worker that has served nobody. Here the mark alone decides who is idle, and since when.

    In both the worker must be idle for longer than the timeout; exactly that long is not enough.
    """
    pods = [
        worker("never-served", node="a", idle_since=LONG_IDLE),
        worker("says-nothing", node="a"),
        worker("exactly", node="a", idle_since=minutes_ago(5)),
        worker("longer", node="a", idle_since=NOW - timedelta(minutes=5, milliseconds=1)),
    ]
    assert names(reap(state_of([node("a")], pods), floor=0)) == ["never-served", "longer"]


def test_a10_t7_the_floor_counts_whoever_can_be_claimed() -> None:
    """Three idle, floor 2: exactly the newest goes. As in the seed, idle ones inside the timeout count for the floor.

    Other than in the seed those that cannot be handed out, such as unready ones, do not.
    """
    nodes, pods = three()
    assert names(reap(state_of(nodes, pods), floor=2)) == ["on-a-young"]
    recent = worker("recent", node="c-old", ready_since=OLD, created=OLD, idle_since=YOUNG)
    assert names(reap(state_of(nodes, [*pods, recent]), floor=2)) == ["on-a-young", "on-b-mid"]
    unready = worker("unready", node="c-old", ready_since=None, created=OLD, idle_since=YOUNG)
    assert names(reap(state_of(nodes, [*pods, unready]), floor=2)) == ["on-a-young"]


def test_a11_t6_the_newest_node_is_reaped_first() -> None:
    """Three idle, floor 1: those on the youngest and the middle node go, in this order, the one on the oldest stays.

    Other than in the seed the two nodes are not forgotten: their caches are still there.
    """
    state = state_of(*three())
    assert names(reap(state, floor=1)) == ["on-a-young", "on-b-mid"]
    assert state.ages.unrecorded().keys() == {"uid-of-c-old", "uid-of-b-mid", "uid-of-a-young"}


def test_t8_workers_within_the_timeout_stay() -> None:
    """Idle for a minute with a timeout of five and a floor of 0: none goes."""
    pods = [worker(f"w{number}", node="a", idle_since=minutes_ago(1)) for number in range(3)]
    assert names(reap(state_of([node("a")], pods), floor=0)) == []
