"""What a live view shows: each worker in a cell of its node, nodes by age, and what happened in sentences."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extender.cluster.state import ClusterState
from extender.inspect.packing import PoolSet, packed, working_set_of
from extender.inspect.plan import PoolReap
from extender.inspect.view.frames import KEPT_EVERY, KEPT_FOR, Past, frame_of
from extender.inspect.view.happenings import KEPT, with_happenings
from extender.inspect.view.view_model import Beside, CellState, Trouble, View, cell_state, view_of
from extender.model import Departure, Node, Pod, SkipReason
from tests.builders import AN_HOUR_AGO, NOW, claim, minutes_ago, node, worker
from tests.listening import synced_state

OLD = node("old", created=minutes_ago(90))
YOUNG = node("young", created=minutes_ago(10))
FRESH = node("fresh", created=minutes_ago(1))


def view(nodes: list[Node], pods: list[Pod], *, before: View | None = None, at: float = 0) -> View:
    """A view of such a cluster, so many seconds after `NOW`, with what happened since ``before``."""
    return view_in(synced_state(nodes, pods), before=before, at=at)


def view_in(state: ClusterState, *, before: View | None = None, at: float = 0) -> View:
    now = NOW + timedelta(seconds=at)
    return with_happenings(view_of(state, now, Beside(), before), before)


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (worker(terminating=True, idle_since=AN_HOUR_AGO), CellState.GOING),
        (worker(claim=claim(), ready_since=None), CellState.CLAIMED),
        (worker(ready_since=None, idle_since=AN_HOUR_AGO), CellState.STARTING),
        (worker(idle_since=AN_HOUR_AGO), CellState.IDLE),
        (worker(idle_since=NOW + timedelta(hours=1)), CellState.BUSY),
        (worker(), CellState.BUSY),
    ],
)
def test_a_worker_is_the_first_state_that_holds(given: Pod, state: CellState) -> None:
    """Going, claimed, starting, idle, else busy."""
    assert cell_state(given, NOW) is state


def test_nodes_stand_by_age_also_those_that_leave() -> None:
    """A node keeps its place while it goes, without a rank; the others are ranked by preference."""
    leaving = structs.replace(OLD, unschedulable=True)
    seen = view([YOUNG, leaving, FRESH], [worker("a", node="young"), worker("b", node="old")])
    assert [(column.name, column.rank) for column in seen.columns] == [("old", None), ("young", 1), ("fresh", 2)]
    assert seen.columns[0].leaving is Departure.CORDONED


names = st.sampled_from(["old", "young", "fresh"])


@given(st.lists(st.tuples(names, st.booleans(), st.sampled_from(["x", "y", None])), max_size=20))
def test_there_is_a_cell_for_each_worker_on_its_node(given: list[tuple[str, bool, str | None]]) -> None:
    """And for nothing else; the pools' figures count the same."""
    pods = [
        worker(f"w-{number}", node=where, pool=pool, idle_since=AN_HOUR_AGO if idle else None)
        for number, (where, idle, pool) in enumerate(given)
    ]
    seen = view([OLD, YOUNG, FRESH], pods)
    drawn = {(column.name, cell.uid) for column in seen.columns for cell in column.cells}
    assert drawn == {(pod.node, pod.uid) for pod in pods if pod.pool is not None}
    for pool in seen.pools:
        assert sum(pool.counts.values()) == sum(pod.pool == pool.name for pod in pods)


def test_what_is_packed_takes_the_oldest_nodes_with_room() -> None:
    """As many workers fit on a node as the fullest of its type has; those that go need none, those that wait do."""
    big = [node(f"big-{i}", created=minutes_ago(60 - i), instance_type="big") for i in range(4)]
    pods = [worker(f"a-{i}", node="big-3") for i in range(3)] + [worker("b", node="big-0"), worker("c", node="big-1")]
    assert packed(synced_state(big, pods), "pool", NOW) == ["big-0", "big-1"]
    waiting = [worker("d", node=None), worker("e", node=None)]
    assert packed(synced_state(big, [*pods, *waiting]), "pool", NOW) == ["big-0", "big-1", "big-3"]
    assert packed(synced_state(big, [structs.replace(pod, terminating=True) for pod in pods]), "pool", NOW) == []


def test_the_working_set_of_a_look_has_room_for_one_more_and_the_slack() -> None:
    """Seven workers, and three on the fullest node of the type: the second node has room for one, the third too, the
    fourth for three; those that wait or go take none."""
    big = [node(f"big-{i}", created=minutes_ago(60 - i), instance_type="big") for i in range(5)]
    on = ["big-0", "big-0", "big-0", "big-1", "big-1", "big-2", "big-2"]
    pods = [worker(f"w-{i}", node=name, ready_since=None) for i, name in enumerate(on)]
    state = synced_state(big, [*pods, worker("waits", node=None), worker("goes", node="big-4", terminating=True)])
    order = list(state.ranking.as_of(NOW))
    assert working_set_of(state, "pool", 0.0, NOW) == PoolSet(nodes=2, last=order[1])
    assert working_set_of(state, "pool", 0.1, NOW) == PoolSet(nodes=4, last=order[3])


@given(st.lists(names, max_size=12))
def test_packed_workers_never_need_more_nodes_than_they_are_on(where: list[str]) -> None:
    """And never a node before an older one that has room."""
    state = synced_state([OLD, YOUNG, FRESH], [worker(f"w-{i}", node=name) for i, name in enumerate(where)])
    needed = packed(state, "pool", NOW)
    assert len(needed) <= len(set(where))
    assert needed == list(state.ranking.as_of(NOW))[: len(needed)]


def test_names_hold_nothing_that_acts() -> None:
    """Neither what turns the direction of text nor what a terminal obeys; markup is text, and stays as it is."""
    hostile = worker("<img src=x>\u202e", namespace="\x1b[31m", cache_key="\u2066k", node="old")
    cell = view([OLD], [hostile]).columns[0].cells[0]
    assert (cell.pod, cell.key) == ("?[31m/<img src=x>?", "?k")


def test_a_column_that_did_not_change_is_the_same_object() -> None:
    """What is sent and kept is what changed."""
    before = view([OLD, YOUNG], [worker("a", node="old")])
    after = view([OLD, YOUNG], [worker("a", node="old"), worker("b", node="young")], before=before)
    assert after.columns[0] is before.columns[0]
    assert after.columns[1] is not before.columns[1]


def test_why_a_pool_waits_is_in_words() -> None:
    """With its end where it pauses; nobody is evicted meanwhile."""
    reap = PoolReap(
        pool="pool",
        floor=2,
        dry_run=False,
        waits=SkipReason.POOL_PAUSED,
        victims=(worker(),),
        stays=(),
        costs=(),
        paused_until=NOW,
    )
    (pool,) = view_of(synced_state([OLD], [worker(node="old")]), NOW, Beside(reaps=(reap,))).pools
    assert (pool.waits, pool.would_evict) == ("evicted workers came back, so the pool pauses, until 12:00:00 UTC", 0)


def test_prices_are_added_up_where_they_are_known() -> None:
    """None at all is no sum."""
    nodes = [node("a", instance_type="big"), node("b", instance_type="big"), node("c", instance_type="odd")]
    state = synced_state(nodes)
    assert view_of(state, NOW, Beside(prices={"big": 0.4})).dollars_an_hour == pytest.approx(0.8)
    assert view_of(state, NOW, Beside()).dollars_an_hour is None


# -- what happened ----------------------------------------------------------------------------------------------------


def test_nothing_has_happened_at_first() -> None:
    """What was there when we came is no news."""
    assert view([OLD], [worker(node="old")]).lately == ()


def test_what_happened_is_said_in_sentences() -> None:
    """Who went where; who left, and whether idle; which nodes came, began to leave and are gone. The last first."""
    idle = worker("i", node="young", idle_since=AN_HOUR_AGO)
    first = view([OLD, YOUNG], [worker("a", node="old"), idle])
    second = view([OLD, YOUNG, FRESH], [worker("a", node="old"), idle, worker("b", node="old")], before=first, at=1)
    assert [each.text for each in second.lately] == ["default/b went to old, rank 1 of 3", "node fresh came"]
    third = view([structs.replace(OLD, unschedulable=True), YOUNG], [worker("a", node="old")], before=second, at=2)
    assert [each.text for each in third.lately][:4] == [
        "node fresh is gone; 0 workers were on it",
        "default/i left young, rank 1 of 1; 1 of 1 idle",
        "node old is leaving (cordoned)",
        "default/b left old, which is leaving; 0 of 1 idle",
    ]
    assert third.lately[4:] == second.lately


def test_a_burst_is_one_sentence_for_each_node() -> None:
    """Not one for each pod; and only so much is kept."""
    before = view([OLD], [])
    burst = [worker(f"w-{number}", node="old") for number in range(200)]
    after = view([OLD], burst, before=before)
    assert [each.text for each in after.lately] == ["200 workers went to old, rank 1 of 1"]
    for number in range(3 * KEPT):
        after = view([OLD], burst[: 1 + number % 2], before=after)
    assert len(after.lately) == KEPT


def test_who_leaves_is_said_once() -> None:
    """When it begins to go, and not again when it is gone."""
    first = view([OLD], [worker("a", node="old")])
    going = view([OLD], [worker("a", node="old", terminating=True)], before=first)
    gone = view([OLD], [], before=going)
    assert [each.text for each in gone.lately] == ["default/a left old, rank 1 of 1; 0 of 1 idle"]


# -- what is sent, and what is kept -----------------------------------------------------------------------------------


def test_a_frame_after_the_first_has_what_changed_only() -> None:
    """All nodes in order at first; then changed columns, and the order where it is another."""
    first = view([OLD, YOUNG], [worker("a", node="old")])
    whole = msgspec.json.decode(frame_of(first, before=None, begun=first))
    assert whole["order"] == [OLD.uid, YOUNG.uid]
    assert len(whole["columns"]) == 2
    second = view([OLD, YOUNG], [worker("a", node="old"), worker("b", node="young")], before=first)
    change = msgspec.json.decode(frame_of(second, before=first, begun=first))
    assert change["order"] is None
    assert [column["name"] for column in change["columns"]] == ["young"]
    third = view([OLD, YOUNG, FRESH], [], before=second)
    assert msgspec.json.decode(frame_of(third, before=second, begun=first))["order"] == [
        OLD.uid,
        YOUNG.uid,
        FRESH.uid,
    ]


def test_a_frame_is_one_line() -> None:
    """An event of a stream ends at a line's end, whatever an error says."""
    trouble = Trouble(what="pods", since=NOW, problem="a\nb\r\nc")
    seen = replace(view([OLD], []), troubles=(trouble,))
    frame = frame_of(seen, before=None, begun=seen)
    assert not {b"\n", b"\r"} & {frame[i : i + 1] for i in range(len(frame))}


def test_the_past_is_an_hour_and_keeps_what_did_not_change_once() -> None:
    """A view each ten seconds; older ones are forgotten; asked for a moment, the one before it is given."""
    past, state = Past(), synced_state([OLD, YOUNG], [worker("a", node="old")])
    seconds = int((KEPT_FOR + timedelta(minutes=10)).total_seconds())
    for at in range(0, seconds, 1):
        past.note(view_of(state, NOW + timedelta(seconds=at), Beside()))
    begun, now = past.begun, past.ago(timedelta(0))
    assert begun is not None
    assert now is not None
    assert now.now - begun.now <= KEPT_FOR
    assert begun.columns[0] is now.columns[0]
    earlier = past.ago(timedelta(seconds=95))
    assert earlier is not None
    assert now.now - earlier.now == timedelta(seconds=100)
    assert past.ago(timedelta(days=1)) is begun
    assert timedelta(seconds=10) == KEPT_EVERY


def test_nothing_is_known_of_a_past_that_was_not_seen() -> None:
    """An empty one gives nothing."""
    assert Past().ago(timedelta(0)) is None
