"""Brakes: when a pool is not reaped although it has idle workers to spare.

Owns the rules that stop a loop of our own making: workers that wait for a node, and workers that come back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from msgspec import Struct

from extender.clock import Moment, Steady
from extender.model import OrderKey, Pod
from extender.policy.decisions import ZonedTime

COME_BACK_WITHIN = timedelta(minutes=1)
"""A replacement is made within the idle timeout, or within this where that is shorter."""
FIRST_MARK_WITHIN = 0.1
"""Of the idle timeout, after Ready: a worker idle since then has had no work. Some mark themselves a little late."""
FIRST_MARK_AT_LEAST = timedelta(seconds=5)
"""However short the idle timeout: a worker that starts, and says so, takes seconds."""
UNNEEDED_AFTER = 0.5
"""Of the idle timeout: a worker without work for so long was not made for work that was just arriving."""
STRIKES = 3
PAUSE = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """Evictions that belong together: those within one idle timeout from ``began``.

    ``ended`` is the last of its passes, ``oldest`` the oldest node that they took from, ``evicted`` how many workers.
    """

    began: Moment
    ended: Moment
    oldest: OrderKey
    evicted: int
    came_back: bool = False


def with_pass(
    episodes: Sequence[Episode], *, oldest: OrderKey, evicted: int, idle_timeout: timedelta, now: Moment
) -> tuple[Episode, ...]:
    """Add a pass that evicted: to the last episode while that is younger than the idle timeout, else as a new one.

    In a loop the replacements have to be idle for the timeout before they can be evicted: they make a new episode.
    """
    if episodes and now.steady - episodes[-1].began.steady < idle_timeout:
        last = episodes[-1]
        joined = replace(last, ended=now, oldest=min(last.oldest, oldest), evicted=last.evicted + evicted)
        return (*episodes[:-1], joined)
    return (*episodes, Episode(began=now, ended=now, oldest=oldest, evicted=evicted))


def judge_episodes(
    episodes: Sequence[Episode],
    arrivals: Iterable[tuple[Pod, OrderKey]],
    *,
    idle_timeout: timedelta,
    now: Moment,
) -> tuple[Episode, ...]:
    """Mark the episodes after which the workers came back, and forget those that no longer matter.

    They came back when at least as many workers as were evicted 1. were created in the episode or soon after it; 2.
    stand on nodes no older than the oldest that was emptied; 3. are not needed. One that was made for work that arrived
    is growth, however soon it follows an eviction. ``arrivals`` are the pool's placed workers with their nodes' keys.
    An episode is kept for the length of a pause.
    """
    recent = [episode for episode in episodes if now.steady - episode.began.steady < PAUSE]
    if not recent:
        return ()
    soon = max(idle_timeout, COME_BACK_WITHIN)
    born = [(pod.created, key) for pod, key in arrivals if is_unneeded(pod, idle_timeout, now.now)]
    return tuple(
        replace(
            episode,
            came_back=episode.came_back
            or episode.evicted
            <= sum(
                _second(episode.began.now) <= created <= episode.ended.now + soon and key >= episode.oldest
                for created, key in born
            ),
        )
        for episode in recent
    )


def is_unneeded(worker: Pod, idle_timeout: timedelta, now: datetime) -> bool:
    """A worker was not needed when it is idle since its start, give or take a mark that came a little late, and for
    half of the idle timeout already. Whoever claimed it needed it, and a claim need not touch the mark."""
    if worker.idle_since is None or worker.ready_since is None:
        return False
    if worker.claim is not None or worker.claim_ended is not None:
        return False
    little_late = max(FIRST_MARK_WITHIN * idle_timeout, FIRST_MARK_AT_LEAST)
    had_no_work = worker.idle_since <= worker.ready_since + little_late
    return had_no_work and now - worker.idle_since >= UNNEEDED_AFTER * idle_timeout


def _second(time: datetime) -> datetime:
    """Creation times have whole seconds: a replacement made at once looks as old as the eviction."""
    return time.replace(microsecond=0)


def paused_until(episodes: Sequence[Episode]) -> Steady | None:
    """Say until when a pool pauses, None where it does not: workers came back after three episodes in a row."""
    ends = [
        episodes[last].ended.steady
        for last in range(STRIKES - 1, len(episodes))
        if all(each.came_back for each in episodes[last - STRIKES + 1 : last + 1])
    ]
    return ends[-1] + PAUSE if ends else None


class BrakeRecord(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What is remembered of a pool: how many workers were evicted ``since`` then, an hour ago at most, and until when
    it is paused, None where it is not. It is noted on the reapers' Lease as it stands here."""

    evicted: int
    since: ZonedTime
    paused_until: ZonedTime | None = None


def brake_record(episodes: Sequence[Episode], now: Moment) -> BrakeRecord | None:
    """Sum up what is remembered, None where nothing is."""
    recent = [episode for episode in episodes if now.steady - episode.began.steady < PAUSE]
    if not recent:
        return None
    until = paused_until(recent)
    return BrakeRecord(
        evicted=sum(episode.evicted for episode in recent),
        since=now.now - (now.steady - recent[0].began.steady),
        paused_until=None if until is None else now.now + (until - now.steady),
    )


def holds_up(waiting: Pod, schedulers: Collection[str], pending_for: timedelta, now: datetime) -> bool:
    """A worker that waits for a node holds up the reaping of its pool: it may take the room of the idle ones, or the
    pool needs all it has.

    1. its scheduler is one of ``schedulers``, those that placed the pool's other workers: one that nobody runs places
    nothing; 2. it is no older than ``pending_for``, 0: however old it is. One that is older fits nowhere, and to keep
    idle workers makes no room for it.
    """
    return waiting.scheduler in schedulers and (not pending_for or now - waiting.created <= pending_for)
