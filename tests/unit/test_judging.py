"""One judgement: what a plan shows is what a reaper's pass does, over pools that share nodes and NodePools."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extender.cluster.state import ClusterState
from extender.inspect.plan import Plan, look_at
from extender.inspect.snapshot import Snapshot
from extender.kube.eviction import EvictionOutcome, EvictionResult, FreshPod
from extender.loops.evictions import Hands
from extender.loops.pass_report import PassReport
from extender.loops.reaper import Reaper
from extender.model import FOREVER, DisruptionBudget, Node, NodePool, Pod, Selector, SkipReason
from extender.policy.defaults import ReapRules
from extender.policy.judging import PoolJudgement, judge
from extender.policy.recheck import Circumstances
from extender.settings import Configuration, PoolSettings
from extender.settings.in_force import InForce
from extender.telemetry import Metrics
from tests.builders import NOW, claim, clock_of, daemon, ledger, minutes_ago, node, node_pool, plan_of, stranger, worker

ONE_AT_A_TIME = node_pool("np", budgets=(DisruptionBudget(nodes="1"),))


class Obliging:
    """Stands in for the API server: pods are as the state has them, every eviction is granted, and all is told."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self.evicted: list[str] = []
        self.paused_pools: list[str] = []

    async def read(self, pod: Pod) -> FreshPod | None:
        return FreshPod(pod=self._state.pods[pod.uid], labels={})

    async def evict(self, pod: Pod) -> EvictionResult:
        self.evicted.append(pod.uid)
        return EvictionResult(outcome=EvictionOutcome.EVICTED)

    async def budget_selector(self, namespace: str, name: str) -> Selector | None:
        return None


class Silent:
    async def evicted(self, pod: Pod, why: str) -> None: ...
    async def paused(self, pool: str, pod: Pod, why: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a case is about. A pool that is not in ``pools`` has the defaults, with floor 0."""

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    node_pools: tuple[NodePool, ...] = ()
    pools: tuple[PoolSettings, ...] = ()

    def snapshot(self) -> Snapshot:
        return Snapshot(nodes=self.nodes, pods=self.pods, node_pools=self.node_pools, ledger=ledger({}), taken=NOW)

    def configuration(self) -> Configuration:
        settings = Configuration.default()
        defaults = settings.pool_defaults.model_copy(update={"reap": ReapRules(floor=0)})
        return settings.model_copy(update={"pools": self.pools or None, "pool_defaults": defaults})


def planned(cluster: Cluster) -> Plan:
    return plan_of(cluster.snapshot(), cluster.configuration(), source="the test")


async def first_pass(cluster: Cluster) -> tuple[list[str], dict[str, PassReport]]:
    """The workers that a reaper evicts in its first pass, in order, and what it reports of each pool."""
    state = look_at(cluster.snapshot(), cluster.configuration(), source="the test").state
    pods = Obliging(state)
    reaper = Reaper(
        state=state,
        hands=Hands(pods=pods, announcer=Silent(), metrics=Metrics(), may_evict=lambda: True),
        clock=clock_of(lambda: NOW),
        rules=InForce(cluster.configuration()).settings,
    )
    return pods.evicted, await reaper.one_pass(*state.where.pool_names())


def member(name: str, **given: object) -> Node:
    return structs.replace(node(name), node_pool="np", initialized=True, **given)


def idle(name: str, pool: str, at: str) -> Pod:
    return worker(name, pool=pool, node=at, idle_since=minutes_ago(20))


def pool(name: str, *, dry_run: bool = False, floor: int = 0, whole_node: bool = False) -> PoolSettings:
    return PoolSettings(name=name, reap=ReapRules(floor=floor, whole_node=whole_node), dry_run=dry_run)


def fates(plan: Plan) -> dict[str, object]:
    """By name: None for a worker that is evicted, else why it stays."""
    found: dict[str, object] = {}
    for reap in plan.reaps:
        found |= {pod.name: reap.waits for pod in reap.victims}
        found |= {pod.name: reason for pod, reason in reap.stays}
    return found


# -- pools that share a NodePool, or a node ---------------------------------------------------------------------------


def test_pools_that_share_a_node_pool_share_its_budget() -> None:
    """One node may be emptied: the first pool by name has it, the other waits, in the plan as in a pass."""
    shared = Cluster(
        nodes=(member("n1"), member("n2")),
        pods=(idle("wa", "a", "n1"), idle("wb", "b", "n2")),
        node_pools=(ONE_AT_A_TIME,),
    )
    assert fates(planned(shared)) == {"wa": None, "wb": SkipReason.EMPTY_BUDGET}


@pytest.mark.parametrize(("first", "fate"), [("dry-run", None), ("waits", None), ("real", SkipReason.EMPTY_BUDGET)])
def test_only_what_is_done_uses_room(first: str, fate: SkipReason | None) -> None:
    """A pool that waits, or is in dry-run, leaves the budget to the next one."""
    waiting = worker("new", pool="a", node=None, ready_since=None, created=minutes_ago(1))
    shared = Cluster(
        nodes=(member("n1"), member("n2")),
        pods=(idle("wa", "a", "n1"), idle("wb", "b", "n2"), *([waiting] if first == "waits" else [])),
        node_pools=(ONE_AT_A_TIME,),
        pools=(pool("a", dry_run=first == "dry-run"), pool("b")),
    )
    assert fates(planned(shared))["wb"] is fate


def test_pools_in_dry_run_share_the_room_that_is_left() -> None:
    """The preview of one counts for the preview of the next, and so does what really goes."""
    shared = Cluster(
        nodes=(member("n1"), member("n2"), member("n3")),
        pods=(idle("wa", "a", "n1"), idle("wb", "b", "n2"), idle("wc", "c", "n3")),
        node_pools=(ONE_AT_A_TIME,),
        pools=(pool("a", dry_run=True), pool("b", dry_run=True), pool("c")),
    )
    assert fates(planned(shared)) == {"wa": None, "wb": SkipReason.EMPTY_BUDGET, "wc": None}
    after_a_real_one = replace(shared, pools=(pool("a"), pool("b", dry_run=True), pool("c")))
    assert fates(planned(after_a_real_one))["wb"] is SkipReason.EMPTY_BUDGET


@pytest.mark.parametrize(("first", "fate"), [("real", None), ("dry-run", SkipReason.NODE_KEEPS_OTHERS)])
def test_victims_of_an_earlier_pool_hold_no_node_any_more(first: str, fate: SkipReason | None) -> None:
    """``wholeNode`` of the second pool finds its node empty but for its own, where the first one's really go."""
    shared = Cluster(
        nodes=(node("n1"),),
        pods=(idle("wa", "a", "n1"), idle("wb", "b", "n1")),
        pools=(pool("a", dry_run=first == "dry-run"), pool("b", whole_node=True)),
    )
    assert fates(planned(shared)) == {"wa": None, "wb": fate}


def test_pool_that_has_only_gated_workers_is_judged_too() -> None:
    """It has a place in the plan, with nobody to evict."""
    lone = Cluster(nodes=(node("n1"),), pods=(worker("w", pool="a", node=None, ready_since=None, gated=True),))
    (reap,) = planned(lone).reaps
    assert (reap.pool, reap.victims, reap.waits) == ("a", (), None)


async def test_node_that_somebody_moved_to_keeps_its_workers_with_whole_node() -> None:
    """The first pool's worker was to go and stays after all: the second pool's on that node stay as well."""
    shared = Cluster(
        nodes=(node("n1"),),
        pods=(idle("wa", "a", "n1"), idle("wb", "b", "n1")),
        pools=(pool("a"), pool("b", whole_node=True)),
    )
    state = look_at(shared.snapshot(), shared.configuration(), source="the test").state
    pods = Obliging(state)

    class Refusing(Obliging):
        async def evict(self, pod: Pod) -> EvictionResult:
            if pod.pool == "a":
                return EvictionResult(outcome=EvictionOutcome.REFUSED)
            return await pods.evict(pod)

    reaper = Reaper(
        state=state,
        hands=Hands(pods=Refusing(state), announcer=Silent(), metrics=Metrics(), may_evict=lambda: True),
        clock=clock_of(lambda: NOW),
        rules=InForce(shared.configuration()).settings,
    )
    reports = await reaper.one_pass("a", "b")
    assert pods.evicted == []
    assert reports["b"].skipped == {"uid-of-wb": SkipReason.NODE_KEEPS_OTHERS}


# -- one pool ---------------------------------------------------------------------------------------------------------


def judged(state: ClusterState, **given: Any) -> PoolJudgement:
    circumstances = Circumstances(rules=lambda name: pool(name), **given)
    return judge(state, circumstances, ["a"], NOW).pools["a"]


def state_of(*pods: Pod, nodes: tuple[Node, ...]) -> ClusterState:
    return look_at(Cluster(nodes=nodes, pods=pods).snapshot(), Configuration.default(), source="the test").state


def test_pool_waits_while_the_clock_is_off_or_budgets_are_not_known_or_it_is_paused() -> None:
    """The first of these that is so is told; a pause that is over is none."""
    state = state_of(idle("w", "a", "n1"), nodes=(node("n1"),))
    over, lasts = {"a": minutes_ago(1)}, {"a": minutes_ago(-1)}
    assert judged(state, is_clock_off=True, paused=lasts, budgets=None).waits is SkipReason.CLOCK_OFF
    paused = judged(state, paused=lasts, budgets=None)
    assert (paused.waits, paused.paused_until) == (SkipReason.POOL_PAUSED, minutes_ago(-1))
    unknown = judged(state, paused=over, budgets=None)
    assert (unknown.waits, unknown.paused_until) == (SkipReason.BACKING_OFF, None)
    assert judged(state, paused=over).waits is None


def test_workers_on_a_node_that_was_not_heard_of_are_idle_and_not_claimable() -> None:
    """The floor does not count them."""
    silent = node("n2", not_ready_since=minutes_ago(5))
    state = state_of(idle("w1", "a", "n1"), idle("w2", "a", "n2"), nodes=(node("n1"), silent))
    counts = judged(state).counts
    assert (counts.idle, counts.claimable) == (2, 1)


def test_worker_whose_cache_key_is_used_least_on_its_node_goes_first() -> None:
    """Of those that are idle for equally long."""
    keyed = [
        worker(name, pool="a", node="n1", idle_since=minutes_ago(20), cache_key=key)
        for name, key in (("w1", "x"), ("w2", "x"), ("w3", "y"))
    ]
    state = state_of(*keyed, nodes=(node("n1"),))
    assert [victim.name for victim in judged(state).victims] == ["w3", "w1", "w2"]


# -- whatever the cluster ---------------------------------------------------------------------------------------------

NODES, POOLS, NODE_POOLS = ("n1", "n2", "n3", "n4"), ("a", "b", "c"), ("np", "other")
rarely = st.sampled_from([False] * 11 + [True])
mostly = rarely.map(lambda no: not no)
some_nodes = st.tuples(
    *(
        st.builds(
            node,
            st.just(name),
            created=st.integers(60, 64).map(minutes_ago),
            node_pool=st.sampled_from(["np", "np", "other", None]),
            initialized=mostly,
            ready=mostly,
            unschedulable=rarely,
            disrupted=rarely,
            do_not_disrupt=rarely,
            not_ready_since=rarely.map(lambda silent: minutes_ago(5) if silent else None),
        )
        for name in NODES
    )
)
some_workers = st.lists(
    st.builds(
        lambda number, at, **given: worker(
            f"w{number}", node=at, ready_since=None if at is None else minutes_ago(30), **given
        ),
        st.integers(0, 30),
        st.sampled_from([*NODES * 4, None]),
        pool=st.sampled_from(POOLS),
        idle_since=st.sampled_from([minutes_ago(20), minutes_ago(10), minutes_ago(9), minutes_ago(1), None]),
        created=st.sampled_from([minutes_ago(40), minutes_ago(40), minutes_ago(0.5)]),
        do_not_disrupt_until=rarely.map(lambda asks: FOREVER if asks else None),
        terminating=rarely,
        finished=rarely,
        owner=rarely.map(lambda owned: "ReplicaSet.apps" if owned else None),
        claim=rarely.map(lambda held: claim() if held else None),
    ),
    min_size=4,
    max_size=14,
    unique_by=lambda pod: pod.uid,
)
some_others = st.lists(
    st.one_of(st.builds(stranger, st.just("s"), node=st.sampled_from(NODES)), st.builds(daemon, node=st.just("n1"))),
    max_size=2,
    unique_by=lambda pod: pod.uid,
)
some_node_pools = st.tuples(
    *(
        st.builds(
            node_pool,
            st.just(name),
            budgets=st.sampled_from(["0", "1", "1", "2", "50%"]).map(lambda nodes: (DisruptionBudget(nodes=nodes),)),
            consolidation_policy=st.sampled_from(["WhenEmpty", "WhenEmptyOrUnderutilized"]),
            consolidate_after=st.sampled_from([timedelta(0), timedelta(seconds=30)]),
        )
        for name in NODE_POOLS
    )
)
some_pools = st.tuples(
    *(
        st.builds(
            lambda name, dry_run, **reap: PoolSettings(name=name, dry_run=dry_run, reap=ReapRules(**reap)),
            st.just(name),
            st.sampled_from([False, False, False, True]),
            floor=st.integers(0, 2),
            max_per_pass=st.integers(0, 3),
            max_per_node=st.integers(0, 2),
            whole_node=st.booleans(),
        )
        for name in POOLS
    )
)
some_clusters = st.builds(
    lambda nodes, workers, others, node_pools, pools: Cluster(
        nodes=nodes, pods=(*workers, *others), node_pools=node_pools, pools=pools
    ),
    some_nodes,
    some_workers,
    some_others,
    st.one_of(some_node_pools, some_node_pools, st.just(())),
    some_pools,
)


@given(some_clusters)
async def test_a_pass_does_what_the_plan_of_the_same_state_shows(cluster: Cluster) -> None:
    """The same workers in the same order, and the same reason for each that stays."""
    reaps = planned(cluster).reaps
    evicted, reports = await first_pass(cluster)
    goes = [pod.uid for reap in reaps if reap.waits is None and not reap.dry_run for pod in reap.victims]
    assert evicted == goes
    for reap in reaps:
        stays = {pod.uid: reason for pod, reason in reap.stays}
        stays |= {pod.uid: reap.waits for pod in reap.victims if reap.waits is not None}
        assert reports[reap.pool].skipped == stays if reap.pool in reports else not stays
