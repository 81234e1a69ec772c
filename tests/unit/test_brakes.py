"""Brakes: workers that wait, and workers that come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from extender.model import OrderKey, Pod
from extender.policy.ages import order_key
from extender.policy.brakes import (
    BrakeRecord,
    Episode,
    brake_record,
    holds_up,
    judge_episodes,
    paused_until,
    with_pass,
)
from tests.builders import NOW, claim, minutes_ago, moment, node, steady, worker

OLD, NEW = order_key(node("old"), minutes_ago(500)), order_key(node("new"), minutes_ago(5))
TIMEOUT = timedelta(minutes=5)
EVICTED = Episode(began=moment(minutes_ago(20)), ended=moment(minutes_ago(18)), oldest=NEW, evicted=1)


def judge(episodes: Sequence[Episode], *arrivals: tuple[Pod, OrderKey], now: datetime = NOW) -> tuple[Episode, ...]:
    return judge_episodes(episodes, arrivals, idle_timeout=TIMEOUT, now=moment(now))


def arrival(minutes: float, key: OrderKey = NEW, idle_after: timedelta | None = timedelta()) -> tuple[Pod, OrderKey]:
    """A worker created so many minutes ago, Ready at once, and idle so long after that (None: busy)."""
    at = minutes_ago(minutes)
    idle_since = None if idle_after is None else at + idle_after
    return worker(f"w{minutes}", created=at, ready_since=at, idle_since=idle_since), key


def came_back(*arrivals: tuple[Pod, OrderKey], episode: Episode = EVICTED) -> bool:
    return judge([episode], *arrivals)[0].came_back


def test_worker_that_comes_back_on_a_new_node_is_noticed() -> None:
    """Created in the episode or within the idle timeout after it, on a node no older than those that were emptied."""
    assert came_back(arrival(20))
    assert came_back(arrival(13, order_key(node("unseen"), None)))


def test_replacement_made_in_the_same_second_is_noticed() -> None:
    """Creation times have whole seconds, the pass has microseconds."""
    at = NOW - timedelta(minutes=5)
    began = at + timedelta(microseconds=400_000)
    again = worker("again", created=at, ready_since=at, idle_since=at)
    assert came_back((again, NEW), episode=replace(EVICTED, began=moment(began), ended=moment(began)))


def test_fewer_than_were_evicted_did_not_come_back() -> None:
    """Whatever makes workers again makes them all; a burst makes one too many now and then."""
    three = replace(EVICTED, evicted=3)
    assert not came_back(arrival(19), arrival(18), episode=three)
    assert came_back(arrival(19), arrival(18), arrival(17), episode=three)


@pytest.mark.parametrize("idle_after", [None, timedelta(seconds=31)])
def test_worker_that_was_needed_did_not_come_back(idle_after: timedelta | None) -> None:
    """It is busy, or became idle later than at its start: it was made for work, as in a burst."""
    assert not came_back(arrival(19, idle_after=idle_after))


@pytest.mark.parametrize("had", [{"claim": claim(expires=minutes_ago(10))}, {"claim_ended": minutes_ago(10)}])
def test_worker_that_was_claimed_did_not_come_back(had: Any) -> None:
    """A claim, over or not, is work, and leaves the mark from its start where it is."""
    pod, key = arrival(19)
    assert came_back((pod, key))
    assert not came_back((structs.replace(pod, **had), key))


def test_worker_that_marks_itself_a_little_late_came_back() -> None:
    """A tenth of the idle timeout is no work."""
    assert came_back(arrival(19, idle_after=timedelta(seconds=30)))


def test_loop_with_a_short_idle_timeout_is_noticed() -> None:
    """A Deployment of three, a timeout of 5 s, first marks 2 s after Ready: what is evicted is there again."""
    timeout, now = timedelta(seconds=5), NOW
    episodes: tuple[Episode, ...] = ()
    turns = 0
    while paused_until(episodes) is None and turns < 10:
        turns += 1
        ready = now + timedelta(seconds=2)
        again = [
            worker(f"w{turns}-{number}", created=now, ready_since=ready, idle_since=ready + timedelta(seconds=2))
            for number in range(2)
        ]
        now += timedelta(seconds=10)
        episodes = judge_episodes(episodes, [(pod, NEW) for pod in again], idle_timeout=timeout, now=moment(now))
        if paused_until(episodes) is None:
            episodes = with_pass(episodes, oldest=NEW, evicted=2, idle_timeout=timeout, now=moment(now))
    assert turns == 4


def test_worker_that_is_idle_for_a_moment_may_still_get_work() -> None:
    """Half of the idle timeout has to pass before it is known that nobody needs it."""
    episode = replace(EVICTED, began=moment(minutes_ago(4)), ended=moment(minutes_ago(4)))
    assert not came_back(arrival(2.4), episode=episode)
    assert came_back(arrival(2.5), episode=episode)


def test_worker_that_is_not_ready_yet_did_not_come_back() -> None:
    """Whether anybody needs it is not known yet."""
    pod = worker("starting", created=minutes_ago(19), ready_since=None, idle_since=minutes_ago(19))
    assert not came_back((pod, NEW))


def test_worker_on_an_older_node_did_not_come_back() -> None:
    """It went where we want it."""
    assert not came_back(arrival(19, OLD))


def test_worker_from_before_or_long_after_did_not_come_back() -> None:
    """Only the episode and the idle timeout after it count."""
    assert not came_back(arrival(21))
    assert not came_back(arrival(12.9))


def test_short_idle_timeout_leaves_a_minute_to_come_back() -> None:
    """A controller that looks once a minute is a loop all the same."""
    episode = replace(EVICTED, began=moment(minutes_ago(10)), ended=moment(minutes_ago(10)))
    for minutes, expected in ((9, True), (8.9, False)):
        judged = judge_episodes([episode], [arrival(minutes)], idle_timeout=timedelta(seconds=5), now=moment(NOW))
        assert judged[0].came_back is expected


def test_what_came_back_is_remembered_when_it_is_gone() -> None:
    """The worker may have left again; the strike stays."""
    judged = judge([EVICTED], arrival(19))
    assert judge(judged) == judged


def test_episodes_are_forgotten_after_an_hour() -> None:
    """The memory is bounded by time."""
    assert judge([EVICTED], now=NOW + timedelta(minutes=41)) == ()


def test_passes_within_the_idle_timeout_are_one_episode() -> None:
    """A wave that ebbs takes many passes. What comes back has to be idle first, so it makes a new one."""
    episodes = with_pass((), oldest=NEW, evicted=2, idle_timeout=TIMEOUT, now=moment(NOW))
    episodes = with_pass(episodes, oldest=OLD, evicted=3, idle_timeout=TIMEOUT, now=moment(NOW + timedelta(minutes=4)))
    assert episodes == (Episode(began=moment(NOW), ended=moment(NOW + timedelta(minutes=4)), oldest=OLD, evicted=5),)
    assert len(with_pass(episodes, oldest=NEW, evicted=1, idle_timeout=TIMEOUT, now=moment(NOW + TIMEOUT))) == 2


def test_pool_pauses_after_three_strikes_in_a_row() -> None:
    """Now and then is growth; every time is a loop."""
    quiet = [replace(EVICTED, ended=moment(minutes_ago(minutes))) for minutes in (20, 15, 10, 5)]
    struck = [replace(each, came_back=True) for each in quiet]
    assert paused_until(struck[:2]) is None
    assert paused_until([struck[0], quiet[1], struck[2], struck[3]]) is None
    assert paused_until(struck[:3]) == steady(minutes_ago(10)) + timedelta(hours=1)
    assert paused_until([*struck[:3], quiet[3]]) == steady(minutes_ago(10)) + timedelta(hours=1)


def test_what_is_remembered_is_summed_up() -> None:
    """How many were evicted within the hour, since when, and until when it is paused, by the time of day."""
    struck = [replace(EVICTED, ended=moment(minutes_ago(minutes)), came_back=True) for minutes in (20, 15, 10)]
    now = moment(NOW)
    assert brake_record([], now) is None
    assert brake_record(struck[:2], now) == BrakeRecord(evicted=2, since=EVICTED.began.now)
    until = minutes_ago(10) + timedelta(hours=1)
    assert brake_record(struck, now) == BrakeRecord(evicted=3, since=EVICTED.began.now, paused_until=until)
    assert brake_record(struck, moment(NOW + timedelta(hours=1))) is None


def test_an_episode_is_remembered_for_less_than_an_hour() -> None:
    """From when it began: at that moment nothing is left of it."""
    an_hour_on = EVICTED.began.now + timedelta(hours=1)
    for now, is_kept in ((an_hour_on - timedelta(seconds=1), True), (an_hour_on, False)):
        assert (judge([EVICTED], now=now) != ()) is is_kept
        assert (brake_record([EVICTED], moment(now)) is not None) is is_kept


def pending(minutes: float, scheduler: str = "warmnode") -> Pod:
    return worker(node=None, ready_since=None, created=minutes_ago(minutes), scheduler=scheduler)


@pytest.mark.parametrize(
    ("waiting", "pending_for", "expected"),
    [
        (pending(0), 15, True),
        (pending(15), 15, True),
        (pending(15.1), 15, False),
        (pending(2 * 24 * 60), 0, True),
        (pending(-5), 15, True),
        (pending(1, "nobody-runs-it"), 15, False),
        (pending(1, "nobody-runs-it"), 0, False),
    ],
)
def test_a_waiting_worker_holds_up_its_pool_while_it_is_young(waiting: Pod, pending_for: int, expected: bool) -> None:
    """One that fits nowhere must not keep idle workers for ever; nor one of a scheduler that places nobody."""
    assert holds_up(waiting, {"warmnode"}, timedelta(minutes=pending_for), NOW) is expected
