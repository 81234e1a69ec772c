"""Preempt: which node, for whom, and when the input comes back unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extender.model import FOREVER, BusyVictims, Pod, Pool, Victims
from extender.policy.ages import order_key
from extender.policy.pools import PoolsInForce
from extender.policy.preemption import Choice, PreemptionView, PreemptVerdict, choose_preemption
from extender.policy.scoring import preference_key
from tests.builders import NOW, minutes_ago, node, stranger, victims, worker

IDLE = minutes_ago(10)


def view(
    *pods: Pod,
    seen: Mapping[str, datetime | None],
    leaving: tuple[str, ...] = (),
    busy: BusyVictims = BusyVictims.LAST_RESORT,
    of_pools: Sequence[Pool] | None = None,
) -> PreemptionView:
    order = {name: order_key(node(name), at) for name, at in seen.items()}
    ranked = {name: preference_key(key, None, None) for name, key in order.items() if name not in leaving}
    return PreemptionView(
        order=order,
        preference={name: key for name, key in ranked.items() if key is not None},
        pods={pod.uid: pod for pod in pods},
        pools=PoolsInForce(Pool(name="", busy_victims=busy), of_pools),
        now=NOW,
    )


OLD_AND_NEW: dict[str, datetime | None] = {"old": minutes_ago(100), "new": minutes_ago(5)}


def choose(preemptor_pool: str | None, candidates: dict[str, Victims], seen_by: PreemptionView) -> Choice:
    return choose_preemption(preemptor_pool=preemptor_pool, candidates=candidates, view=seen_by)


def test_worker_preempts_on_the_oldest_node() -> None:
    """A worker that takes the place of a placeholder takes it on the oldest node."""
    pods = [stranger("p1", node="old"), stranger("p2", node="new")]
    candidates = {"new": victims(pods[1].uid), "old": victims(pods[0].uid)}
    assert choose("pool", candidates, view(*pods, seen=OLD_AND_NEW)).nodes == ("old",)


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("b", "a")])
def test_stranger_takes_worker_from_the_newest_node(old: str, new: str) -> None:
    """Where workers are the victims they go from the newest node, whatever its UID."""
    pods = [worker("w1", node=old, idle_since=IDLE), worker("w2", node=new, idle_since=IDLE)]
    candidates = {old: victims(pods[0].uid), new: victims(pods[1].uid)}
    chosen = choose(None, candidates, view(*pods, seen={old: minutes_ago(100), new: minutes_ago(5)}))
    assert chosen == Choice(nodes=(new,), verdict=PreemptVerdict.CHOSEN)


def test_busy_worker_is_chosen_last() -> None:
    """An idle worker on the oldest node is taken before a busy one on the newest."""
    pods = [worker("w1", node="old", idle_since=IDLE), worker("w2", node="new")]
    candidates = {"old": victims(pods[0].uid), "new": victims(pods[1].uid)}
    assert choose(None, candidates, view(*pods, seen=OLD_AND_NEW)).nodes == ("old",)


def test_busy_ignored_where_the_setting_says_so() -> None:
    """``ignore`` leaves idleness out of it: age decides."""
    pods = [worker("w1", node="old", idle_since=IDLE), worker("w2", node="new")]
    candidates = {"old": victims(pods[0].uid), "new": victims(pods[1].uid)}
    assert choose(None, candidates, view(*pods, seen=OLD_AND_NEW, busy=BusyVictims.IGNORE)).nodes == ("new",)


@pytest.mark.parametrize(
    ("of_pool", "node"),
    [(BusyVictims.IGNORE, "new"), (BusyVictims.LAST_RESORT, "old"), (BusyVictims.PROTECT, "old")],
)
@pytest.mark.parametrize("of_others", BusyVictims)
def test_setting_of_the_victims_pool_counts(of_pool: BusyVictims, node: str, of_others: BusyVictims) -> None:
    """Not what pools without a setting of their own go by."""
    pods = [worker("w1", node="old", idle_since=IDLE), worker("w2", node="new")]
    candidates = {"old": victims(pods[0].uid), "new": victims(pods[1].uid)}
    seen_by = view(*pods, seen=OLD_AND_NEW, busy=of_others, of_pools=[Pool(name="pool", busy_victims=of_pool)])
    assert choose(None, candidates, seen_by).nodes == (node,)
    alone = choose(None, {"new": victims(pods[1].uid)}, seen_by)
    assert (alone.verdict is PreemptVerdict.VETOED) is (of_pool is BusyVictims.PROTECT)


def test_pdb_violations_before_busyness() -> None:
    """Fewest PDB violations come first of all."""
    pods = [worker("w1", node="old", idle_since=IDLE), worker("w2", node="new")]
    candidates = {"old": victims(pods[0].uid, violations=1), "new": victims(pods[1].uid)}
    assert choose(None, candidates, view(*pods, seen=OLD_AND_NEW)).nodes == ("new",)


def test_victim_priority_before_age() -> None:
    """A lower victim priority on the newest node wins over age."""
    pods = [stranger("p1", node="old", priority=10), stranger("p2", node="new", priority=5)]
    candidates = {"old": victims(pods[0].uid), "new": victims(pods[1].uid)}
    assert choose("pool", candidates, view(*pods, seen=OLD_AND_NEW)).nodes == ("new",)


def test_victim_of_priority_0_is_below_one_of_1() -> None:
    """0 is a priority as others are."""
    pods = [stranger("p1", node="old", priority=1), stranger("p2", node="new", priority=0)]
    candidates = {"old": victims(pods[0].uid), "new": victims(pods[1].uid)}
    assert choose("pool", candidates, view(*pods, seen=OLD_AND_NEW)).nodes == ("new",)


def test_sum_of_priorities_before_age() -> None:
    """At the same highest priority the lower sum wins over age."""
    pods = [
        stranger("p1", node="old", priority=10),
        stranger("p2", node="old", priority=10),
        stranger("p3", node="new", priority=10),
    ]
    candidates = {"old": victims(pods[0].uid, pods[1].uid), "new": victims(pods[2].uid)}
    assert choose("pool", candidates, view(*pods, seen=OLD_AND_NEW)).nodes == ("new",)


def test_worker_preempts_on_leaving_node_last() -> None:
    """The oldest node that is leaving comes after a young one that stays."""
    pods = [stranger("p1", node="old"), stranger("p2", node="new")]
    candidates = {"old": victims(pods[0].uid), "new": victims(pods[1].uid)}
    assert choose("pool", candidates, view(*pods, seen=OLD_AND_NEW, leaving=("old",))).nodes == ("new",)


def test_no_worker_involved_echoes() -> None:
    """Pods of no pool preempt each other as without the extender."""
    pods = [stranger("p1", node="old"), stranger("p2", node="new")]
    candidates = {"new": victims(pods[1].uid), "old": victims(pods[0].uid)}
    assert choose(None, candidates, view(*pods, seen=OLD_AND_NEW)) == Choice(
        nodes=("new", "old"), verdict=PreemptVerdict.NO_WORKER
    )


def test_protect_drops_nodes_with_busy_victims() -> None:
    """With ``protect`` a node with a busy victim is no candidate."""
    pods = [worker("w1", node="old", idle_since=IDLE), worker("w2", node="new")]
    candidates = {"old": victims(pods[0].uid), "new": victims(pods[1].uid)}
    assert choose(None, candidates, view(*pods, seen=OLD_AND_NEW, busy=BusyVictims.PROTECT)).nodes == ("old",)


def test_protect_with_nothing_left_vetoes() -> None:
    """All dropped: no preemption at all, so that Karpenter adds a node."""
    pod = worker("w2", node="new")
    choice = choose(None, {"new": victims(pod.uid)}, view(pod, seen=OLD_AND_NEW, busy=BusyVictims.PROTECT))
    assert choice == Choice(nodes=(), verdict=PreemptVerdict.VETOED)


def test_a_victim_that_is_being_deleted_goes_anyway() -> None:
    """It protects no node, and a node where only such workers are busy comes before one with a busy worker."""
    going = worker("w1", node="new", terminating=True)
    seen_by = view(going, seen=OLD_AND_NEW, busy=BusyVictims.PROTECT)
    assert choose(None, {"new": victims(going.uid)}, seen_by).nodes == ("new",)
    pods = [worker("w1", node="old", terminating=True), worker("w2", node="new")]
    candidates = {"old": victims(pods[0].uid), "new": victims(pods[1].uid)}
    assert choose(None, candidates, view(*pods, seen=OLD_AND_NEW)).nodes == ("old",)


def test_do_not_disrupt_counts_as_busy() -> None:
    """An idle worker that says do-not-disrupt is taken after one that does not."""
    pods = [
        worker("w1", node="old", idle_since=IDLE),
        worker("w2", node="new", idle_since=IDLE, do_not_disrupt_until=FOREVER),
    ]
    candidates = {"old": victims(pods[0].uid), "new": victims(pods[1].uid)}
    assert choose(None, candidates, view(*pods, seen=OLD_AND_NEW)).nodes == ("old",)


@pytest.mark.parametrize(("until", "node"), [(NOW, "old"), (NOW + timedelta(seconds=1), "new")])
def test_do_not_disrupt_of_a_stranger_counts_until_it_ends(until: datetime, node: str) -> None:
    """Then age decides."""
    pods = [replace(stranger("p1", node="old"), do_not_disrupt_until=until), stranger("p2", node="new")]
    candidates = {"old": victims(pods[0].uid), "new": victims(pods[1].uid)}
    assert choose("pool", candidates, view(*pods, seen=OLD_AND_NEW)).nodes == (node,)


@pytest.mark.parametrize(
    ("candidates", "verdict"),
    [
        ({"unknown": victims("uid-of-w1")}, PreemptVerdict.UNKNOWN_NODE),
        ({"old": victims("nobody")}, PreemptVerdict.UNKNOWN_POD),
        ({"new": victims("uid-of-w1")}, PreemptVerdict.UNKNOWN_POD),
        ({"old": victims()}, PreemptVerdict.NO_VICTIMS),
        ({"old": victims("uid-of-odd")}, PreemptVerdict.UNKNOWN_PRIORITY),
        ({}, PreemptVerdict.NO_WORKER),
    ],
)
def test_doubt_echoes(candidates: dict[str, Victims], verdict: PreemptVerdict) -> None:
    """Unknown nodes, pods on another node than we think, unknown priorities and empty candidates: as it came."""
    pods = [worker("w1", node="old"), worker("odd", node="old", priority=None)]
    assert choose("pool", candidates, view(*pods, seen=OLD_AND_NEW)) == Choice(nodes=tuple(candidates), verdict=verdict)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.booleans(), st.booleans()), max_size=12),
    st.sampled_from([None, "pool"]),
    st.sampled_from(BusyVictims),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2)),
    st.randoms(use_true_random=False),
)
def test_choice_is_a_subset_and_ignores_input_order(
    described: list[tuple[str, int, bool, bool]],
    preemptor_pool: str | None,
    busy: BusyVictims,
    violations: dict[str, int],
    random: object,
) -> None:
    """The answer is nothing, one candidate or all of them, and the same for every order of the input."""
    pods = [
        worker(f"p{i}", node=at, priority=p, pool="pool" if is_worker else None, idle_since=IDLE if idle else None)
        for i, (at, p, is_worker, idle) in enumerate(described)
    ]
    names = sorted({pod.node for pod in pods if pod.node})
    candidates = {
        name: victims(*(pod.uid for pod in pods if pod.node == name), violations=violations.get(name, 0))
        for name in names
    }
    at = view(*pods, seen={name: minutes_ago(ord(name)) for name in "abcd"}, busy=busy)
    choice = choose(preemptor_pool, candidates, at)
    assert set(choice.nodes) <= candidates.keys()
    assert len(choice.nodes) in (0, 1, len(candidates))
    reordered = choose(preemptor_pool, dict(reversed(candidates.items())), at)
    assert set(reordered.nodes) == set(choice.nodes)
