"""Brakes: workers that wait, and workers that come back."""

from __future__ import annotations

from datetime import timedelta

from extender.model import OrderKey, Pod, SkipReason
from extender.policy.ages import order_key
from extender.policy.brakes import Episode, judge_episodes, paused_until, why_pool_waits
from tests.builders import NOW, minutes_ago, node, worker

OLD, NEW = order_key(node("old"), minutes_ago(500)), order_key(node("new"), minutes_ago(5))
EVICTED = Episode(began=minutes_ago(20), oldest=NEW)


def arrival(minutes: float, key: OrderKey) -> tuple[Pod, OrderKey]:
    return worker(f"w{minutes}", created=minutes_ago(minutes)), key


def came_back(*arrivals: tuple[Pod, OrderKey]) -> bool:
    return judge_episodes([EVICTED], arrivals, NOW)[0].came_back


def test_worker_that_comes_back_on_a_new_node_is_noticed() -> None:
    """Created after the pass, within ten minutes, on a node no older than those that were emptied."""
    assert came_back(arrival(19, NEW))
    assert came_back(arrival(10, order_key(node("unseen"), None)))


def test_replacement_made_in_the_same_second_is_noticed() -> None:
    """Creation times have whole seconds, the pass has microseconds."""
    at = NOW - timedelta(minutes=5)
    episode = Episode(began=at + timedelta(microseconds=400_000), oldest=NEW)
    assert judge_episodes([episode], [(worker("again", created=at), NEW)], NOW)[0].came_back


def test_worker_on_an_older_node_did_not_come_back() -> None:
    """It went where we want it."""
    assert not came_back(arrival(19, OLD))


def test_worker_from_before_or_long_after_did_not_come_back() -> None:
    """Only the ten minutes after the pass count."""
    assert not came_back(arrival(21, NEW))
    assert not came_back(arrival(9.9, NEW))


def test_what_came_back_is_remembered_when_it_is_gone() -> None:
    """The worker may have left again; the strike stays."""
    judged = judge_episodes([EVICTED], [arrival(19, NEW)], NOW)
    assert judge_episodes(judged, [], NOW) == judged


def test_episodes_are_forgotten_after_an_hour() -> None:
    """The memory is bounded by time."""
    assert judge_episodes([EVICTED], [], NOW + timedelta(minutes=41)) == ()


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
