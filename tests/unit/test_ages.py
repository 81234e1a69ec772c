"""The order of nodes, and where their ages come from."""

from datetime import datetime, timedelta
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from extender.model import AgeSource
from extender.policy.ages import observed_first_seen, order_key, seeded_first_seen, slot
from extender.policy.ledger_merge import merge_earliest, missing_from
from tests.builders import NOW, minutes_ago, node, times, uids, worker

ages = st.dictionaries(uids, times, max_size=6)


def test_order_seen_node_before_unseen() -> None:
    """A node that was seen is older than one that was not, whatever their creation times."""
    young_seen = order_key(node("young", created=minutes_ago(2)), minutes_ago(1))
    old_unseen = order_key(node("old", created=minutes_ago(9999)), None)
    assert young_seen < old_unseen


@given(times, times, uids, uids)
def test_order_of_seen_nodes_is_by_whole_minute(a: datetime, b: datetime, uid_a: str, uid_b: str) -> None:
    """Seen nodes are ordered by the minute first; within one minute by slot and UID only."""
    key_a, key_b = order_key(node("a", uid=uid_a), a), order_key(node("b", uid=uid_b), b)
    minute_a, minute_b = a.timestamp() // 60, b.timestamp() // 60
    if minute_a != minute_b:
        assert (key_a < key_b) == (minute_a < minute_b)
    else:
        assert (key_a < key_b) == ((slot(uid_a), uid_a) < (slot(uid_b), uid_b))


def test_order_unseen_nodes_by_creation_second() -> None:
    """Nodes not seen yet go by their creation, to the second."""
    first = order_key(node("z", created=NOW), None)
    second = order_key(node("a", created=NOW + timedelta(seconds=1)), None)
    assert first < second


@given(st.lists(uids, min_size=2, max_size=2, unique=True), st.one_of(st.none(), times))
def test_order_is_total(pair: list[str], seen: datetime | None) -> None:
    """Two nodes never have the same key."""
    assert order_key(node("n", uid=pair[0]), seen) != order_key(node("n", uid=pair[1]), seen)


def test_order_created_ignores_first_seen() -> None:
    """With ``age: created`` only the creation counts."""
    old = node("old", created=minutes_ago(90))
    young = node("young", created=minutes_ago(5))
    assert order_key(old, None, AgeSource.CREATED) < order_key(young, minutes_ago(999), AgeSource.CREATED)


@given(uids)
def test_slot_is_one_of_eight(uid: str) -> None:
    """A slot is 0 to 7."""
    assert slot(uid) in range(8)


def test_slot_never_changes() -> None:
    """Slots are written into deletion costs and compared between releases: the hash is fixed."""
    assert [slot(uid) for uid in ("a", "b", "6ec2a2a7-0d0c-4c36-9f5c-7a8e3f2b1d90")] == [3, 1, 3]


def test_observed_is_ready_time() -> None:
    """A Ready worker shows that its node was seen at the Ready transition."""
    assert observed_first_seen(node(), worker(ready_since=minutes_ago(7)), NOW) == minutes_ago(7)


def test_observed_unready_or_finished_worker_shows_nothing() -> None:
    """A worker that is not Ready, or has finished, shows nothing."""
    assert observed_first_seen(node(), worker(ready_since=None), NOW) is None
    assert observed_first_seen(node(), worker(finished=True), NOW) is None


@given(times, times)
def test_observed_is_held_between_creation_and_now(created: datetime, ready: datetime) -> None:
    """A kubelet's wrong clock can neither make a node older than itself nor push it into the future."""
    seen = observed_first_seen(node(created=min(created, NOW)), worker(ready_since=ready), NOW)
    assert seen is not None
    assert min(created, NOW) <= seen <= NOW


def test_seed_is_creation_of_nodes_with_workers() -> None:
    """Without a ledger only nodes that have workers are seeded, with their creation."""
    with_workers, without = node("a", created=minutes_ago(5)), node("b")
    assert seeded_first_seen([with_workers, without], ["a", "gone"]) == {with_workers.uid: minutes_ago(5)}


@given(ages, ages, ages)
def test_merge_is_commutative_associative_idempotent(
    a: dict[str, datetime], b: dict[str, datetime], c: dict[str, datetime]
) -> None:
    """Replicas may merge in any order, any number of times, and agree."""
    merged = merge_earliest(a, b, c)
    assert all(merge_earliest(*order) == merged for order in permutations([a, b, c]))
    assert merge_earliest(merge_earliest(a, b), c) == merged
    assert merge_earliest(merged, merged) == merged


@given(ages, ages)
def test_merge_keeps_the_earliest(a: dict[str, datetime], b: dict[str, datetime]) -> None:
    """A first-seen time only ever moves earlier, and nothing is lost."""
    merged = merge_earliest(a, b)
    assert merged.keys() == a.keys() | b.keys()
    assert all(seen <= source[uid] for uid, seen in merged.items() for source in (a, b) if uid in source)


@given(ages, ages)
def test_missing_once_written_is_nothing(recorded: dict[str, datetime], known: dict[str, datetime]) -> None:
    """Writing what is missing leaves nothing missing, and never moves a recorded time later."""
    missing = missing_from(recorded, known)
    after = recorded | missing
    assert missing_from(after, known) == {}
    assert all(after[uid] <= seen for uid, seen in recorded.items())
