"""Writes on many pods: a few at a time, and none more once the API server is in trouble; and what came of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from enum import StrEnum
from itertools import chain, islice
from typing import TypeVar

from cachetools import TTLCache

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.kube.errors import Conflict, KubeError, NotFound
from extender.logs import fields
from extender.model import Pod

T = TypeVar("T")

AT_ONCE = 8
BATCH = 500
"""So many writes between two looks: what changes meanwhile is seen before the rest is written."""
REFUSED_PAUSE = timedelta(minutes=5)
MOST_REFUSED = 100_000
REFUSED_IN_A_ROW = 50
"""So many without a success between them are no matter of single pods: a permission is missing."""


class WriteOutcome(StrEnum):
    """What came of one write. The metric label. After ``conflict`` the watch brings the version that won.

    ``refused`` is the API server's no to this one pod, ``failed`` an API server in trouble.
    """

    WRITTEN = "written"
    REMOVED = "removed"
    CONFLICT = "conflict"
    GONE = "gone"
    REFUSED = "refused"
    FAILED = "failed"


class Refusals:
    """Remembers the pods, by UID, whose write was refused: none of them is written again for five minutes."""

    def __init__(self, clock: Clock) -> None:
        self._refused: TTLCache[str, None] = TTLCache(
            MOST_REFUSED, REFUSED_PAUSE.total_seconds(), timer=lambda: clock.steady().seconds
        )
        self._in_a_row = 0

    def goes_on(self, uid: str, outcome: WriteOutcome) -> bool:
        """Take note of what came of a write. False where others are to wait: after a failure, and many refusals."""
        if outcome is WriteOutcome.REFUSED:
            self._refused[uid] = None
            self._in_a_row += 1
            return self._in_a_row % REFUSED_IN_A_ROW != 0
        if outcome in (WriteOutcome.WRITTEN, WriteOutcome.REMOVED):
            self._in_a_row = 0
        return outcome is not WriteOutcome.FAILED

    def holds(self, uid: str) -> bool:
        """A write of this pod is not worth a try now."""
        return uid in self._refused


def batch_of(writes: Sequence[T], is_urgent: Callable[[T], bool]) -> Sequence[T]:
    """Select what to write before the next look: `BATCH` at most, the urgent ones first."""
    if len(writes) <= BATCH:
        return writes
    urgent = [write for write in writes if is_urgent(write)]
    others = (write for write in writes if not is_urgent(write))
    return list(islice(chain(urgent, others), BATCH))


async def write_all(
    writes: Iterable[T], write_one: Callable[[T], Awaitable[bool]], may_write: Callable[[], bool]
) -> bool:
    """Write all, while ``may_write``. ``write_one`` says whether the API server is well. False: the rest waits."""
    left = iter(writes)
    healthy = True

    async def work() -> None:
        nonlocal healthy
        for write in left:
            if not (healthy and may_write()):
                return
            if not await write_one(write):
                healthy = False

    async with asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(work(), name=f"write {number}")
    return healthy


async def carry_out(
    sent: Awaitable[Pod], pod: Pod, state: ClusterState, *, removes: bool, what: str, log: logging.Logger
) -> WriteOutcome:
    """Wait for a write that was based on ``pod``; the state hears of it. ``what`` names it in the log of a failure."""
    try:
        after = await sent
    except Conflict:
        return WriteOutcome.CONFLICT
    except NotFound:
        return WriteOutcome.GONE
    except KubeError as error:
        log.warning("not written", extra=fields(what=what, pod=pod.name, problem=str(error)))
        return WriteOutcome.REFUSED if error.is_about_the_object else WriteOutcome.FAILED
    state.take_written(pod, after)
    return WriteOutcome.REMOVED if removes else WriteOutcome.WRITTEN
