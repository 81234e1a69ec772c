"""Brakes: when a pool is not reaped although it has idle workers to spare.

Owns the rules that stop a loop of our own making: workers that wait for a node, and workers that come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from extender.model import OrderKey, Pod, SkipReason

COME_BACK_WITHIN = timedelta(minutes=10)
FIRST_MARK_WITHIN = 0.1
"""Of the idle timeout, after Ready: a worker idle since then has had no work. Some mark themselves a little late."""
STRIKES = 2
PAUSE = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One pass that evicted: when it began, the oldest node that it took from, and whether workers came back."""

    began: datetime
    oldest: OrderKey
    came_back: bool = False


def judge_episodes(
    episodes: Sequence[Episode],
    arrivals: Iterable[tuple[Pod, OrderKey]],
    *,
    idle_timeout: timedelta,
    now: datetime,
) -> tuple[Episode, ...]:
    """Mark the episodes after which a worker came back, and forget those that no longer matter.

    A worker came back when 1. it was created after the pass, within 10 minutes of it; 2. it stands on a node no older
    than the oldest that was emptied; 3. it has not worked since it became Ready: nobody needed it. One that was made
    for work that arrived is growth, however soon it follows an eviction. ``arrivals`` are the pool's placed workers
    with their nodes' keys. An episode is kept for the length of a pause.
    """
    recent = [episode for episode in episodes if now - episode.began < PAUSE]
    if not recent:
        return ()
    first = min(_second(episode.began) for episode in recent)
    born = [(pod.created, key) for pod, key in arrivals if pod.created >= first and not has_worked(pod, idle_timeout)]
    return tuple(
        replace(
            episode,
            came_back=episode.came_back
            or any(
                _second(episode.began) <= created <= episode.began + COME_BACK_WITHIN and key >= episode.oldest
                for created, key in born
            ),
        )
        for episode in recent
    )


def has_worked(worker: Pod, idle_timeout: timedelta) -> bool:
    """Say whether a worker is busy, not Ready yet, or idle since more than a tenth of the idle timeout after Ready."""
    if worker.idle_since is None or worker.ready_since is None:
        return True
    return worker.idle_since > worker.ready_since + FIRST_MARK_WITHIN * idle_timeout


def _second(time: datetime) -> datetime:
    """Creation times have whole seconds: a replacement made at once looks as old as the eviction."""
    return time.replace(microsecond=0)


def paused_until(episodes: Iterable[Episode]) -> datetime | None:
    """Say until when a pool pauses, None where it does not: workers came back after two passes within an hour."""
    struck = sorted(episode.began for episode in episodes if episode.came_back)
    return struck[-1] + PAUSE if len(struck) >= STRIKES else None


def why_pool_waits(*, unscheduled: int, episodes: Iterable[Episode], now: datetime) -> SkipReason | None:
    """Say why nothing of a pool is evicted now, None where nothing forbids it.

    1. a worker waits for a node: it may take the room of the idle ones, or the pool needs all it has; 2. workers came
    back after evictions, twice: something recreates them, and evicting only moves them about.
    """
    if unscheduled:
        return SkipReason.PENDING_WORKERS
    until = paused_until(episodes)
    if until is not None and now < until:
        return SkipReason.POOL_PAUSED
    return None
