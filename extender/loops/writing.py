"""Writes on many pods: a few at a time, and none more once the API server is in trouble; and what came of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from typing import TypeVar

from extender.kube.errors import Conflict, KubeError, NotFound
from extender.model import Pod
from extender.state import ClusterState
from extender.telemetry import fields

T = TypeVar("T")

AT_ONCE = 8


class WriteOutcome(StrEnum):
    """What came of one write. The metric label. After ``conflict`` the watch brings the version that won."""

    WRITTEN = "written"
    REMOVED = "removed"
    CONFLICT = "conflict"
    GONE = "gone"
    FAILED = "failed"


async def write_all(
    writes: Iterable[T], write_one: Callable[[T], Awaitable[bool]], may_write: Callable[[], bool]
) -> bool:
    """Write all, while ``may_write``. ``write_one`` says whether the API server is well. False: the rest waits."""
    limit = asyncio.Semaphore(AT_ONCE)
    healthy = True

    async def one(write: T) -> None:
        nonlocal healthy
        async with limit:
            if healthy and may_write():
                healthy = await write_one(write)

    async with asyncio.TaskGroup() as group:
        for write in writes:
            group.create_task(one(write), name="write")
    return healthy


async def carry_out(
    sent: Awaitable[Pod], pod: Pod, state: ClusterState, *, removes: bool, what: str, log: logging.Logger
) -> WriteOutcome:
    """Wait for a write that was based on ``pod``, and put what the pod is then into the state.

    Not where the watch has brought another version meanwhile. ``what`` names the write in the log line of a failure.
    """
    try:
        after = await sent
    except Conflict:
        return WriteOutcome.CONFLICT
    except NotFound:
        return WriteOutcome.GONE
    except KubeError as error:
        log.warning("not written", extra=fields(what=what, pod=pod.name, problem=str(error)))
        return WriteOutcome.FAILED
    known = state.pods.get(pod.uid)
    if known is not None and known.resource_version == pod.resource_version:
        state.upsert_pod(after)
    return WriteOutcome.REMOVED if removes else WriteOutcome.WRITTEN
