"""The state: what an event changes, and that the order of events does not matter."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extender.cluster.state import ClusterState
from extender.model import AgeSource, Departure, Ending, Node, NodeClaimCondition, Pod
from extender.policy.defaults import EndingRules
from extender.policy.departure import STUCK_AFTER
from extender.policy.scoring import score_nodes
from tests.builders import NOW, ledger, minutes_ago, node, node_claim, node_pool, stranger, worker


def new_state(**arguments: Any) -> ClusterState:
    return ClusterState(clock=lambda: NOW, **arguments)


def best(state: ClusterState, now: datetime = NOW) -> list[str]:
    return [host for host, _ in score_nodes(list(state.nodes), state.ranking.as_of(now))]


def test_seen_when_a_worker_is_ready_on_it() -> None:
    """The first Ready worker makes the node seen, at its Ready time."""
    state = new_state()
    state.upsert_node(node("a"))
    state.upsert_pod(worker(node="a", ready_since=None))
    assert state.ages.first_seen(node("a")) is None
    state.upsert_pod(worker(node="a", ready_since=minutes_ago(9)))
    assert state.ages.first_seen(node("a")) == minutes_ago(9)


def test_seen_stays_when_the_worker_leaves_or_flaps() -> None:
    """A worker that leaves, or becomes Ready again later, changes nothing."""
    state = new_state()
    state.upsert_node(node("a"))
    first = worker("first", node="a", ready_since=minutes_ago(9))
    state.upsert_pod(first)
    state.upsert_pod(worker("first", node="a", ready_since=None))
    state.upsert_pod(worker("first", node="a", ready_since=minutes_ago(1)))
    state.delete_pod(first)
    assert state.ages.first_seen(node("a")) == minutes_ago(9)


def test_seen_when_the_pod_is_known_before_its_node() -> None:
    """Collections arrive in any order."""
    state = new_state()
    state.upsert_pod(worker(node="a", ready_since=minutes_ago(9)))
    state.upsert_node(node("a"))
    assert state.ages.first_seen(node("a")) == minutes_ago(9)


def test_strangers_show_nothing() -> None:
    """A Ready pod of no pool says nothing about a node's age."""
    state = new_state()
    state.upsert_node(node("a"))
    state.upsert_pod(stranger(node="a"))
    assert state.ages.first_seen(node("a")) is None


def test_name_reused_is_another_node() -> None:
    """A node of the same name with another UID starts anew."""
    state = new_state()
    state.upsert_node(node("a", uid="one"))
    pod = worker(node="a")
    state.upsert_pod(pod)
    state.delete_pod(pod)
    state.upsert_node(node("a", uid="two"))
    assert state.ages.first_seen(state.nodes["a"]) is None
    state.delete_node(node("a", uid="one"))
    assert "a" in state.nodes


def test_ledger_makes_a_node_older_never_younger() -> None:
    """The earliest of what was ever observed or recorded counts."""
    state = new_state()
    state.upsert_node(node("a"))
    state.upsert_pod(worker(node="a", ready_since=minutes_ago(9)))
    state.take_ledger(ledger({node("a").uid: minutes_ago(2)}))
    assert state.ages.first_seen(node("a")) == minutes_ago(9)
    state.take_ledger(ledger({node("a").uid: minutes_ago(500)}))
    assert state.ages.first_seen(node("a")) == minutes_ago(500)
    state.take_ledger(ledger({node("a").uid: minutes_ago(2)}))
    assert state.ages.first_seen(node("a")) == minutes_ago(500)


def test_ledger_that_is_lost_changes_no_order_and_is_written_again() -> None:
    """What was recorded of a live node stays known, and is missing from the new ledger."""
    state = new_state()
    state.upsert_node(node("a"))
    state.take_ledger(ledger({node("a").uid: minutes_ago(500), "gone": minutes_ago(900)}))
    state.take_ledger(None)
    assert state.ages.first_seen(node("a")) == minutes_ago(500)
    assert state.ages.unrecorded() == {node("a").uid: minutes_ago(500)}


def test_begin_without_ledger_seeds_nodes_with_workers() -> None:
    """No ledger at all degrades to creation order, for nodes that have workers."""
    state = new_state()
    state.replace_nodes([node("a", created=minutes_ago(99)), node("b", created=minutes_ago(300))])
    state.replace_pods([worker(node="a", ready_since=minutes_ago(1))])
    state.begin()
    assert state.ages.first_seen(state.nodes["a"]) == minutes_ago(99)
    assert state.ages.first_seen(state.nodes["b"]) is None


def test_begin_with_ledger_seeds_nothing() -> None:
    """Where there is a ledger it is believed."""
    state = new_state()
    state.replace_nodes([node("a", created=minutes_ago(99))])
    state.replace_pods([worker(node="a", ready_since=minutes_ago(1))])
    state.take_ledger(ledger({}))
    state.begin()
    assert state.ages.first_seen(state.nodes["a"]) == minutes_ago(1)


def test_seeds_in_place_of_a_ledger_that_could_not_be_read_are_never_recorded() -> None:
    """Recorded times only move earlier: a guess that is written once would be the order for ever."""
    state = new_state()
    state.replace_nodes([node("a", created=minutes_ago(99)), node("b", created=minutes_ago(300))])
    state.replace_pods(
        [worker(node="a", ready_since=minutes_ago(1)), worker("w2", node="b", ready_since=minutes_ago(2))]
    )
    state.begin(may_have_ledger=True)
    assert state.ages.first_seen(state.nodes["a"]) == minutes_ago(99)
    assert state.ages.unrecorded() == {state.nodes["a"].uid: minutes_ago(1), state.nodes["b"].uid: minutes_ago(2)}
    state.take_ledger(ledger({state.nodes["a"].uid: minutes_ago(50), state.nodes["b"].uid: minutes_ago(40)}))
    assert state.ages.first_seen(state.nodes["a"]) == minutes_ago(50)
    assert list(state.ranking.as_of(NOW)) == ["a", "b"]
    assert state.ages.unrecorded() == {}


def test_seeds_are_recorded_once_it_is_known_that_there_is_no_ledger() -> None:
    """Then it is a first installation, as it is where the ledger could be read at once."""
    state = new_state()
    state.replace_nodes([node("a", created=minutes_ago(99))])
    state.replace_pods([worker(node="a", ready_since=minutes_ago(1))])
    state.begin(may_have_ledger=True)
    state.take_ledger(None)
    assert state.ages.first_seen(state.nodes["a"]) == minutes_ago(99)
    assert state.ages.unrecorded() == {state.nodes["a"].uid: minutes_ago(99)}


def test_unrecorded_leaves_nonsense_keys_alone() -> None:
    """What the ledger lacks is written, but a key with a value that makes no sense is not destroyed."""
    state = new_state()
    state.replace_nodes([node("a"), node("b"), node("c")])
    state.replace_pods([worker(name, node=name, ready_since=minutes_ago(5)) for name in "abc"])
    state.take_ledger(ledger({node("a").uid: minutes_ago(50)}, node("b").uid))
    assert state.ages.unrecorded() == {node("c").uid: minutes_ago(5)}


@pytest.mark.parametrize(
    "leaving",
    [node("a", deleting=True), node("a", disrupted=True), node("a", unschedulable=True)],
    ids=["deleting", "disrupted", "cordoned"],
)
def test_leaving_node_is_out_of_preference_and_back(leaving: Node) -> None:
    """A leaving node scores nothing; a cordon or a taint may be taken back."""
    state = new_state()
    state.upsert_node(leaving)
    assert "a" not in state.ranking.as_of(NOW)
    assert "a" in state.order
    state.upsert_node(node("a"))
    assert "a" in state.ranking.as_of(NOW)


def test_ending_while_every_worker_terminates() -> None:
    """A node whose workers all terminate comes last, until a new one is placed there."""
    state = new_state()
    state.replace_nodes([node("old", created=minutes_ago(99)), node("new", created=minutes_ago(1))])
    state.upsert_pod(worker("w", node="old", terminating=True))
    assert state.ranking.ending("old", NOW) is Ending.WORKERS_TERMINATING
    assert best(state) == ["new", "old"]
    state.upsert_pod(worker("w2", node="old"))
    assert state.ranking.ending("old", NOW) is None
    assert best(state) == ["old", "new"]


def test_age_created_needs_no_worker() -> None:
    """With ``age: created`` creation decides alone."""
    state = new_state(age=AgeSource.CREATED)
    state.replace_nodes([node("old", created=minutes_ago(99)), node("new", created=minutes_ago(1))])
    state.upsert_pod(worker(node="new"))
    assert best(state) == ["old", "new"]


names = st.sampled_from("abc")
events = st.lists(
    st.one_of(
        st.tuples(st.just("node"), names, st.sampled_from(["one", "two"]), st.booleans()),
        st.tuples(st.just("gone"), names, st.sampled_from(["one", "two"]), st.booleans()),
        st.tuples(st.just("pod"), names, st.sampled_from(["p", "q", "r"]), st.booleans()),
        st.tuples(st.just("evicted"), names, st.sampled_from(["p", "q", "r"]), st.booleans()),
    ),
    max_size=25,
)


@given(events)
def test_event_by_event_equals_fresh_lists(happened: list[tuple[str, str, str, bool]]) -> None:
    """After any events the order is that of a state that lists the same objects and knows the same first-seen times."""
    state = new_state()
    for kind, name, which, flag in happened:
        if kind == "node":
            state.upsert_node(node(name, uid=f"{name}-{which}", unschedulable=flag))
        elif kind == "gone":
            state.delete_node(node(name, uid=f"{name}-{which}"))
        elif kind == "pod":
            state.upsert_pod(worker(which, node=name, terminating=flag, ready_since=minutes_ago(ord(which) % 7)))
        else:
            state.delete_pod(worker(which, node=name))
    assert_order_is_that_of_fresh_lists(state)


def assert_order_is_that_of_fresh_lists(state: ClusterState) -> None:
    seen: dict[str, datetime] = {}
    for known in state.nodes.values():
        first = state.ages.first_seen(known)
        if first is not None:
            seen[known.uid] = first
    fresh = new_state()
    fresh.take_ledger(ledger(seen))
    fresh.replace_pods(state.pods.values())
    fresh.replace_nodes(state.nodes.values())
    assert fresh.order == state.order
    for now in (NOW, NOW + STUCK_AFTER):
        assert fresh.ranking.as_of(now) == state.ranking.as_of(now)


VERSIONS: dict[str, list[Any]] = {
    "node": [None, "a", "b"],
    "pool": ["pool", None],
    "ready_since": [None, minutes_ago(3), minutes_ago(30)],
    "terminating": [False, True],
    "going_until": [None, minutes_ago(1), minutes_ago(60)],
    "finished": [False, True],
}


@pytest.mark.parametrize("changed", VERSIONS)
def test_a_pod_that_changes_ranks_its_node_as_a_list_would(changed: str) -> None:
    """A node is ranked again only where a version differs from the one before in what ranks it."""
    for values in product(*VERSIONS.values()):
        before = dict(zip(VERSIONS, values, strict=True))
        for value, others in product(VERSIONS[changed], ([], [worker("q", node="a", terminating=True)])):
            state = new_state()
            for name in "ab":
                state.upsert_node(node(name))
            for version in (*others, worker("p", **before), worker("p", **{**before, changed: value})):
                state.upsert_pod(version)
            assert_order_is_that_of_fresh_lists(state)


def test_overlay_keeps_an_evicted_pod_terminating_until_the_watch_shows_it() -> None:
    """An event that was under way when we evicted does not bring the pod back to life."""
    state = new_state()
    state.upsert_node(node("a"))
    state.upsert_pod(worker("w", node="a"))
    state.overlay_eviction(worker("w").uid)
    state.upsert_pod(worker("w", node="a"))
    assert state.where.workers_on("a")[worker("w").uid].terminating
    state.replace_pods([worker("w", node="a")])
    assert state.where.workers_on("a")[worker("w").uid].terminating
    state.delete_pod(worker("w", node="a"))
    state.upsert_pod(worker("w", node="a"))
    assert not state.where.workers_on("a")[worker("w").uid].terminating


def at_version(number: int, *, idle: bool) -> Pod:
    made = worker("w", node="a", idle_since=NOW if idle else None)
    return structs.replace(made, resource_version=str(number))


def test_event_of_a_write_that_a_later_one_of_ours_followed_changes_nothing() -> None:
    """A watch is some milliseconds behind: a worker that was claimed and released meanwhile is not claimed again."""
    state = new_state()
    first, claimed, released = at_version(1, idle=True), at_version(2, idle=False), at_version(3, idle=True)
    state.upsert_pod(first)
    state.take_written(first, claimed)
    state.take_written(claimed, released)
    assert not state.take_event(claimed)
    assert state.pods[first.uid] == released
    assert state.take_event(released)
    somebody = at_version(4, idle=False)
    assert state.take_event(somebody)
    assert state.take_event(released), "nothing is kept of writes that events have shown"


def test_event_of_a_write_whose_answer_is_known_changes_nothing() -> None:
    """Each of our writes has one: that the node is ranked and told of once is enough."""
    state = new_state()
    first, claimed = at_version(1, idle=True), at_version(2, idle=False)
    state.upsert_node(node("a"))
    state.upsert_pod(first)
    state.take_written(first, claimed)
    with state.ranking.changes() as changed:
        assert state.take_event(claimed)
    assert not changed


def test_event_of_a_write_is_taken_where_an_older_one_came_again() -> None:
    """What is known is compared, not assumed: where it is not what the write made, the event is taken."""
    state = new_state()
    first, claimed = at_version(1, idle=True), at_version(2, idle=False)
    state.upsert_pod(first)
    state.take_written(first, claimed)
    state.take_event(first)
    assert state.take_event(claimed)
    assert state.pods[first.uid] == claimed


def test_write_that_changed_nothing_is_not_waited_for() -> None:
    """It has no event: a webhook that takes our notes off would have one more remembered with each write."""
    state = new_state()
    pod = at_version(1, idle=True)
    state.upsert_pod(pod)
    state.take_written(pod, pod)
    assert not state._written


@pytest.mark.parametrize("gone", [True, False])
def test_event_of_a_write_that_a_list_had_not_is_taken(gone: bool) -> None:
    """A list may be older than what we wrote while it was read: then the events tell it, one after the other."""
    state = new_state()
    first, claimed, released = at_version(1, idle=True), at_version(2, idle=False), at_version(3, idle=True)
    state.upsert_pod(first)
    state.take_written(first, claimed)
    state.take_written(claimed, released)
    if gone:
        state.delete_pod(released)
        state.upsert_pod(first)
    else:
        state.replace_pods([first])
    assert state.take_event(claimed)
    assert state.pods[first.uid] == claimed


def test_holders_are_pods_that_keep_a_node() -> None:
    """Strangers and workers of other pools hold a node; DaemonSet, static, terminating and finished pods do not."""
    state = new_state()
    for pod in (
        worker("ours", node="a"),
        worker("other", node="a", pool="other"),
        stranger("stranger", node="a"),
        worker("daemon", node="a", pool=None, owner="DaemonSet.apps"),
        worker("static", node="a", pool=None, static=True),
        worker("going", node="a", pool=None, terminating=True),
        worker("done", node="a", pool=None, finished=True),
    ):
        state.upsert_pod(pod)
    assert state.where.holders_on("a", besides="pool") == 2
    state.delete_pod(stranger("stranger", node="a"))
    assert state.where.holders_on("a", besides="pool") == 1


def test_waiting_workers_are_those_without_a_node() -> None:
    """Until they are placed, finish or go; one behind a scheduling gate waits for somebody else."""
    state = new_state()
    state.upsert_pod(worker("gated", node=None, gated=True))
    state.upsert_pod(worker("w", node=None))
    state.upsert_pod(worker("v", node=None))
    state.upsert_pod(worker("going", node=None, terminating=True))
    assert waiting(state) == ["v", "w"]
    state.upsert_pod(worker("w", node="a"))
    assert waiting(state) == ["v"]
    state.delete_pod(worker("v", node=None))
    assert waiting(state) == []
    state.upsert_pod(worker("gated", node=None))
    assert waiting(state) == ["gated"]
    assert state.where.pool_names() == {"pool"}


def waiting(state: ClusterState) -> list[str]:
    return sorted(pod.name for pod in state.where.waiting("pool").values())


def test_schedulers_of_a_pool_are_those_that_placed_its_workers() -> None:
    """As long as such a worker is there."""
    state = new_state()
    state.upsert_pod(worker("w", node=None, scheduler="nobody-runs-it"))
    assert set(state.where.schedulers("pool")) == set()
    state.upsert_pod(worker("v", node="a", scheduler="warmnode"))
    state.upsert_pod(worker("u", node="a", scheduler="warmnode"))
    state.upsert_pod(worker("t", node="a", scheduler="other"))
    state.delete_pod(worker("u", node="a", scheduler="warmnode"))
    assert set(state.where.schedulers("pool")) == {"warmnode", "other"}
    state.delete_pod(worker("v", node="a", scheduler="warmnode"))
    assert set(state.where.schedulers("pool")) == {"other"}
    state.delete_pod(worker("t", node="a", scheduler="other"))
    assert set(state.where.schedulers("pool")) == set()


def test_placed_counts_workers_on_nodes_by_pool() -> None:
    """Terminating ones included, finished ones and those without a node not; a pool without any is not named."""
    state = new_state()
    state.replace_pods(
        [
            worker("w", node="a"),
            worker("going", node="b", terminating=True),
            worker("done", node="a", finished=True),
            worker("waits", node=None),
            worker("other", node="a", pool="other"),
            stranger("stranger", node="a"),
        ]
    )
    state.upsert_pod(worker("w", node="a", idle_since=minutes_ago(1)))
    state.upsert_pod(worker("waits", node="b"))
    assert state.where.placed == {"pool": 3, "other": 1}
    state.upsert_pod(worker("w", node="a", finished=True))
    state.delete_pod(worker("w", node="a", finished=True))
    state.delete_pod(worker("other", node="a", pool="other"))
    assert state.where.placed == {"pool": 2}


# -- Karpenter's objects ----------------------------------------------------------------------------------------------


DAY = timedelta(days=1)


def claimed_node(name: str, **given: Any) -> Node:
    return node(name, node_claim=f"uid-of-claim-{name}", **given)


def test_node_is_leaving_when_its_node_claim_is() -> None:
    """Joined by UID, whichever comes first; a claim that is gone says nothing any more."""
    leaving = node_claim("claim-a", deleting=True)
    for claim_first in (True, False):
        state = new_state()
        if claim_first:
            state.upsert_node_claim(leaving)
        state.upsert_node(claimed_node("a"))
        state.upsert_node(claimed_node("b"))
        state.upsert_node_claim(leaving)
        assert best(state) == ["b"]
        assert state.departure("a") is Departure.NODE_CLAIM_DELETING
        state.delete_node_claim(leaving)
        assert set(best(state)) == {"a", "b"}


def test_node_gets_its_claim_when_karpenter_registers_it() -> None:
    """The owner reference comes after the Node."""
    state = new_state()
    state.upsert_node_claim(node_claim("claim-a", deleting=True))
    state.upsert_node(node("a"))
    assert state.departure("a") is None
    state.upsert_node(claimed_node("a"))
    assert state.departure("a") is Departure.NODE_CLAIM_DELETING


def test_forgotten_claims_let_nodes_stay() -> None:
    """An empty list is what comes when NodeClaims may not be read any more."""
    state = new_state()
    state.replace_nodes([claimed_node("a")])
    state.replace_node_claims([node_claim("claim-a", NodeClaimCondition.DISRUPTION_REASON)])
    assert best(state) == []
    state.replace_node_claims([])
    assert best(state) == ["a"]
    assert state.departure("a") is None


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_a_ranking_depends_on_the_time_that_it_is_asked_for_alone(hours: list[int]) -> None:
    """Not on the times that it was asked for before, nor on when the events came."""

    def expiring(now: datetime) -> ClusterState:
        state = ClusterState(clock=lambda: now)
        state.replace_nodes([claimed_node(name) for name in "abc"])
        for hours, name in enumerate("abc", 1):
            ends = NOW + timedelta(hours=2 * hours)
            state.upsert_node_claim(node_claim(f"claim-{name}", created=ends - DAY, expire_after=DAY))
        return state

    asked = expiring(NOW)
    for now in (NOW + timedelta(hours=hour) for hour in hours):
        assert asked.ranking.as_of(now) == expiring(now).ranking.as_of(now)


def test_order_turns_when_the_clock_passes_the_horizon_without_an_event() -> None:
    """A node near its expiry goes behind the others by the clock alone, and the one after it too."""
    clock = [NOW]
    state = ClusterState(clock=lambda: clock[0])
    day = timedelta(days=1)
    for position, name in enumerate("abc"):
        state.upsert_node(claimed_node(name))
        state.upsert_pod(worker(name, node=name, ready_since=minutes_ago(30 - position)))
        expires_in = timedelta(hours=2 + position)
        state.upsert_node_claim(node_claim(f"claim-{name}", created=NOW + expires_in - day, expire_after=day))
    assert best(state, clock[0]) == ["a", "b", "c"]
    clock[0] = NOW + timedelta(minutes=59)
    assert best(state, clock[0]) == ["a", "b", "c"]
    clock[0] = NOW + timedelta(hours=1)
    assert best(state, clock[0]) == ["b", "c", "a"]
    assert state.ranking.ending("a", clock[0]) is Ending.EXPIRES_SOON
    clock[0] = NOW + timedelta(hours=2)
    assert best(state, clock[0]) == ["c", "a", "b"]
    clock[0] = NOW + timedelta(hours=30)
    assert best(state, clock[0]) == ["a", "b", "c"]


def test_order_turns_back_when_the_clock_is_set_back_without_an_event() -> None:
    """For a moment it was hours ahead: what came near its expiry by it has not."""
    clock, day = [NOW], timedelta(days=1)
    state = ClusterState(clock=lambda: clock[0])
    for name in "ab":
        state.upsert_node(claimed_node(name))
        state.upsert_pod(worker(name, node=name, ready_since=minutes_ago(30 if name == "a" else 20)))
    state.upsert_node_claim(node_claim("claim-a", created=NOW + timedelta(hours=3) - day, expire_after=day))
    assert best(state, clock[0]) == ["a", "b"]
    clock[0] = NOW + timedelta(hours=2, minutes=30)
    assert best(state, clock[0]) == ["b", "a"]
    clock[0] = NOW + timedelta(seconds=1)
    assert best(state, clock[0]) == ["a", "b"]
    clock[0] = NOW + timedelta(hours=2)
    assert best(state, clock[0]) == ["b", "a"]


def test_node_is_not_first_seen_by_a_clock_that_is_off() -> None:
    """Two hours slow it would be seen at its creation, and stay so: the next event of the node shows it rightly."""
    clock, off = [NOW - timedelta(hours=2)], [True]
    state = ClusterState(clock=lambda: clock[0], is_clock_off=lambda: off[0])
    old = node("old", created=minutes_ago(200))
    state.upsert_node(old)
    state.upsert_pod(worker("w", node="old", ready_since=minutes_ago(5)))
    assert state.ages.unrecorded() == {}
    clock[0], off[0] = NOW, False
    state.upsert_node(old)
    assert state.ages.unrecorded() == {old.uid: minutes_ago(5)}


def test_replica_that_starts_later_has_the_same_order() -> None:
    """What passed by is not remembered: the order depends on the objects and the clock."""
    clock = [NOW]
    nodes = [claimed_node("a"), claimed_node("b", created=NOW)]
    claim = node_claim("claim-a", created=NOW, expire_after=timedelta(days=1))
    early, late = (ClusterState(clock=lambda: clock[0]) for _ in range(2))
    early.replace_nodes(nodes)
    early.replace_node_claims([claim])
    assert best(early, clock[0]) == ["a", "b"]
    clock[0] = NOW + timedelta(hours=24)
    late.replace_node_claims([claim])
    late.replace_nodes(nodes)
    assert early.ranking.as_of(clock[0]) == late.ranking.as_of(clock[0])
    assert best(early, clock[0]) == best(late, clock[0]) == ["b", "a"]


def test_new_ending_rules_turn_the_order_at_once() -> None:
    """The configuration file is read again while running."""
    state = new_state()
    state.replace_nodes([claimed_node("a"), claimed_node("b", created=NOW)])
    state.upsert_node_claim(node_claim("claim-a", NodeClaimCondition.DRIFTED))
    assert best(state) == ["a", "b"]
    state.go_by(EndingRules(drifted=True))
    assert best(state) == ["b", "a"]
    state.go_by(EndingRules())
    assert best(state) == ["a", "b"]


def test_node_pool_of_the_same_name_is_another_one() -> None:
    """A late delete event of the old one does not take the new one."""
    state = new_state()
    old = node_pool("workers")
    state.objects.put_node_pool(replace(old, uid="new"))
    state.objects.take_node_pool(old)
    assert state.node_pools["workers"].uid == "new"
    state.objects.replace_node_pools([])
    assert state.node_pools == {}
