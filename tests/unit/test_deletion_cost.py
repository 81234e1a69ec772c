"""Deletion cost: the values, and when one is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.model import Pod
from extender.policy.ages import order_key
from extender.policy.deletion_cost import (
    CostState,
    busy_cost,
    cost_state,
    cost_write,
    idle_cost,
    is_untouched,
    removals,
)
from tests.builders import NOW, minutes_ago, node, times, uids, worker

KEY = order_key(node(), minutes_ago(60))
UNSEEN = order_key(node(), None)
SETTLE = timedelta(seconds=30)
OURS = str(idle_cost(KEY))


def value(pod: Pod, key: tuple[int, int, int, str] | None = KEY, *, enabled: bool = True) -> int | str | None:
    write = cost_write(pod, key, enabled=enabled, settle=SETTLE, now=NOW)
    return "nothing" if write is None else write.value


def with_cost(cost: str | None, mark: str | None, *, idle: bool = True) -> Pod:
    return worker(idle_since=minutes_ago(5) if idle else None, deletion_cost=cost, cost_mark=mark)


@given(times, times, uids, uids)
def test_idle_costs_follow_the_order(a: datetime, b: datetime, uid_a: str, uid_b: str) -> None:
    """The newer the node, the lower the cost; nodes of one minute differ by their slot."""
    since_2026 = datetime(2026, 1, 1, tzinfo=UTC)
    key_a, key_b = (order_key(node("n", uid=uid), max(at, since_2026)) for uid, at in ((uid_a, a), (uid_b, b)))
    assert (idle_cost(key_a) > idle_cost(key_b)) == (key_a[:3] < key_b[:3])
    assert (busy_cost(key_a) > busy_cost(key_b)) == (key_a[:3] < key_b[:3])


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9000, 1, 1), timezones=st.just(UTC)), uids)  # noqa: DTZ001
def test_costs_stay_far_from_free(seen: datetime, uid: str) -> None:
    """Within +-100,000,000: Karpenter 1.14 takes a value of -134,217,728 or less for a pod that is free to lose."""
    key = order_key(node("n", uid=uid), seen)
    assert -84_200_000 <= idle_cost(key) < 0 < busy_cost(key) <= 100_000_000


def test_busy_is_above_every_idle() -> None:
    """A ReplicaSet takes idle pods of the oldest node before a busy one of the newest."""
    oldest, newest = (
        order_key(node("a"), datetime(2020, 1, 1, tzinfo=UTC)),
        order_key(node("b"), datetime(2045, 12, 1, tzinfo=UTC)),
    )
    assert busy_cost(newest) > 0 > idle_cost(oldest)


def test_idle_is_written_after_settling() -> None:
    """Not before it has been idle for ``settle``, so that short jobs cost nothing."""
    assert value(worker(idle_since=NOW - timedelta(seconds=29))) == "nothing"
    assert value(worker(idle_since=NOW - SETTLE)) == idle_cost(KEY)


def test_never_idle_is_not_written() -> None:
    """0 ranks above every idle worker already."""
    assert value(worker()) == "nothing"


def test_busy_again_is_written_at_once() -> None:
    """A worker that has an idle value of ours and is busy gets the busy one."""
    assert value(with_cost(OURS, OURS, idle=False)) == busy_cost(KEY)


def test_written_once_per_state() -> None:
    """Two writes per cycle: what stands there already is not written again."""
    assert value(with_cost(OURS, OURS)) == "nothing"
    busy = str(busy_cost(KEY))
    assert value(with_cost(busy, busy, idle=False)) == "nothing"


def test_unseen_node_is_not_written() -> None:
    """Without an age there is no value."""
    assert value(worker(idle_since=minutes_ago(5)), UNSEEN) == "nothing"
    assert value(worker(idle_since=minutes_ago(5)), None) == "nothing"


@pytest.mark.parametrize(
    ("cost", "mark", "state"),
    [
        (None, None, CostState.NONE),
        ("5", None, CostState.FOREIGN),
        ("garbage", None, CostState.FOREIGN),
        (OURS, OURS, CostState.OURS),
        ("5", OURS, CostState.OVERWRITTEN),
        (None, OURS, CostState.OVERWRITTEN),
    ],
)
def test_cost_state_by_mark(cost: str | None, mark: str | None, state: CostState) -> None:
    """Ours is a value that equals the mark written with it."""
    assert cost_state(with_cost(cost, mark)) is state


@pytest.mark.parametrize(("cost", "mark"), [("5", None), ("5", OURS), (None, OURS)])
@pytest.mark.parametrize("enabled", [True, False])
def test_foreign_value_is_left_alone(cost: str | None, mark: str | None, enabled: bool) -> None:
    """We yield to whoever writes beside us."""
    assert value(with_cost(cost, mark), enabled=enabled) == "nothing"


def test_switched_off_removes_ours() -> None:
    """Off leaves nothing of ours behind."""
    assert value(with_cost(OURS, OURS), enabled=False) is None
    assert value(with_cost(None, None), enabled=False) == "nothing"


def test_removals_take_every_mark() -> None:
    """Cleaning up finds ours, and marks whose value is another's by now."""
    ours, overwritten, foreign = with_cost(OURS, OURS), with_cost("5", OURS), with_cost("5", None)
    assert [write.pod for write in removals([ours, overwritten, foreign])] == [ours, overwritten]


@given(st.sampled_from([None, "5", OURS]), st.sampled_from([None, OURS]), st.booleans(), st.booleans(), times)
def test_untouched_pod_is_never_written(
    cost: str | None, mark: str | None, idle: bool, enabled: bool, now: datetime
) -> None:
    """Whatever the settings and the time; and a pod that is to be written is not untouched."""
    pod = with_cost(cost, mark, idle=idle)
    write = cost_write(pod, KEY, enabled=enabled, settle=timedelta(0), now=now)
    assert not is_untouched(pod) or write is None
