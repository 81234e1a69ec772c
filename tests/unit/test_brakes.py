"""Brakes: workers that wait, and workers that come back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from extender.model import OrderKey, Pod, SkipReason
from extender.policy.ages import order_key
from extender.policy.brakes import Episode, judge_episodes, paused_until, why_pool_waits
from tests.builders import NOW, minutes_ago, node, worker

OLD, NEW = order_key(node("old"), minutes_ago(500)), order_key(node("new"), minutes_ago(5))
EVICTED = Episode(began=minutes_ago(20), oldest=NEW)


TIMEOUT = timedelta(minutes=5)


def judge(episodes: Sequence[Episode], *arrivals: tuple[Pod, OrderKey], now: datetime = NOW) -> tuple[Episode, ...]:
    return judge_episodes(episodes, arrivals, idle_timeout=TIMEOUT, now=now)


def arrival(minutes: float, key: OrderKey, idle_after: timedelta | None = timedelta()) -> tuple[Pod, OrderKey]:
    """A worker created so many minutes ago, Ready at once, and idle so long after that (None: busy)."""
    at = minutes_ago(minutes)
    idle_since = None if idle_after is None else at + idle_after
    return worker(f"w{minutes}", created=at, ready_since=at, idle_since=idle_since), key


def came_back(*arrivals: tuple[Pod, OrderKey]) -> bool:
    return judge([EVICTED], *arrivals)[0].came_back


def test_worker_that_comes_back_on_a_new_node_is_noticed() -> None:
    """Created after the pass, within ten minutes, on a node no older than those that were emptied."""
    assert came_back(arrival(19, NEW))
    assert came_back(arrival(10, order_key(node("unseen"), None)))


def test_replacement_made_in_the_same_second_is_noticed() -> None:
    """Creation times have whole seconds, the pass has microseconds."""
    at = NOW - timedelta(minutes=5)
    episode = Episode(began=at + timedelta(microseconds=400_000), oldest=NEW)
    again = worker("again", created=at, ready_since=at, idle_since=at)
    assert judge([episode], (again, NEW))[0].came_back


@pytest.mark.parametrize("idle_after", [None, timedelta(seconds=31)])
def test_worker_that_was_needed_did_not_come_back(idle_after: timedelta | None) -> None:
    """It is busy, or became idle later than at its start: it was made for work, as in a burst."""
    assert not came_back(arrival(19, NEW, idle_after))


def test_worker_that_marks_itself_a_little_late_came_back() -> None:
    """A tenth of the idle timeout is no work."""
    assert came_back(arrival(19, NEW, timedelta(seconds=30)))


def test_worker_that_is_not_ready_yet_did_not_come_back() -> None:
    """Whether anybody needs it is not known yet."""
    pod = worker("starting", created=minutes_ago(19), ready_since=None, idle_since=minutes_ago(19))
    assert not came_back((pod, NEW))


def test_worker_on_an_older_node_did_not_come_back() -> None:
    """It went where we want it."""
    assert not came_back(arrival(19, OLD))


def test_worker_from_before_or_long_after_did_not_come_back() -> None:
    """Only the ten minutes after the pass count."""
    assert not came_back(arrival(21, NEW))
    assert not came_back(arrival(9.9, NEW))


def test_what_came_back_is_remembered_when_it_is_gone() -> None:
    """The worker may have left again; the strike stays."""
    judged = judge([EVICTED], arrival(19, NEW))
    assert judge(judged) == judged


def test_episodes_are_forgotten_after_an_hour() -> None:
    """The memory is bounded by time."""
    assert judge([EVICTED], now=NOW + timedelta(minutes=41)) == ()


def test_pool_pauses_after_two_strikes() -> None:
    """Once is growth; twice is a loop."""
    first = Episode(began=minutes_ago(20), oldest=NEW, came_back=True)
    second = Episode(began=minutes_ago(12), oldest=NEW, came_back=True)
    assert paused_until([first, EVICTED]) is None
    assert paused_until([first, second]) == minutes_ago(12) + timedelta(hours=1)
    assert why_pool_waits(unscheduled=0, episodes=[first, second], now=NOW) is SkipReason.POOL_PAUSED
    assert why_pool_waits(unscheduled=0, episodes=[first, second], now=NOW + timedelta(hours=1)) is None


def test_pool_waits_while_a_worker_has_no_node() -> None:
    """A pending worker may take the room of the idle ones."""
    assert why_pool_waits(unscheduled=1, episodes=[], now=NOW) is SkipReason.PENDING_WORKERS
    assert why_pool_waits(unscheduled=0, episodes=[], now=NOW) is None
