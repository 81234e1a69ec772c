"""When a snapshot was taken. It has no time of its own: who wrote what is in it, and whose clocks agree, says it.

The API server dates what it creates and who wrote to it. Everything else is dated by the clock of whoever wrote, a
kubelet mostly, and one of them may be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from extender.inspect.text import some
from extender.model import FOREVER

AHEAD = timedelta(minutes=10)
"""A kubelet tells its time every five minutes only (nodeStatusReportFrequency), so the clocks of two that are well
differ by no more. One that is further ahead is wrong."""

EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), FOREVER - timedelta(days=36_525)
"""Before Kubernetes, and a hundred years before the end of all calendars. Times beyond say nothing."""

Time = Annotated[datetime, Meta(tz=True)]


class _Condition(Struct, rename="camel"):
    status: str = ""
    last_heartbeat_time: Time | None = None
    last_transition_time: Time | None = None


class _NodeStatus(Struct, rename="camel"):
    conditions: list[_Condition] | None = None


class _Named(Struct, frozen=True):
    name: str = ""


class NodeTimes(Struct):
    """The times of a Node's conditions."""

    metadata: _Named = _Named()
    status: _NodeStatus | None = None


class _ManagedFields(Struct, frozen=True):
    time: Time | None = None


class _Meta(Struct, frozen=True, rename="camel"):
    creation_timestamp: Time | None = None
    managed_fields: list[_ManagedFields] | None = None


class _Dated(Struct):
    metadata: _Meta = _Meta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """When a snapshot was taken, None where it holds no time at all, and what speaks against that time."""

    at: datetime | None
    doubts: tuple[str, ...] = ()


def server_times(raw: Raw) -> Iterable[datetime]:
    """Give the times that the API server wrote on an object; none where they make no sense."""
    try:
        meta = msgspec.json.decode(raw, type=_Dated).metadata
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
        return []
    times = [meta.creation_timestamp, *(each.time for each in meta.managed_fields or ())]
    return [time.astimezone(UTC) for time in times if time is not None]


def kubelet_times(node: NodeTimes) -> Iterable[datetime]:
    """Give the times by a node's own clock: where it is silent, the control plane says Unknown, by another clock."""
    for condition in (node.status.conditions if node.status is not None else None) or ():
        if condition.status != "Unknown":
            for time in (condition.last_heartbeat_time, condition.last_transition_time):
                if time is not None:
                    yield time.astimezone(UTC)


def when_taken(
    server: Iterable[datetime],
    kubelets: Mapping[str, Iterable[datetime]],
    marks: Iterable[datetime],
    *,
    has_nodes: bool,
) -> Taken:
    """Find the newest time that can be believed. ``kubelets`` is by node, ``marks`` are by the clocks of workers.

    1. the newest time that the API server wrote, or that at least half of the nodes have reached by their own clocks,
    whichever is later; 2. what other nodes say, if it is no more than ten minutes later; 3. likewise marks. Without
    Nodes nothing in it goes on telling the time but marks, so that the newest is believed, and said to be alone.
    """
    wrote = max(_sane(server), default=None)
    newest = {node: max(times) for node, each in kubelets.items() if (times := list(_sane(each)))}
    reached = sorted(newest.values())[(len(newest) - 1) // 2] if newest else None
    base = max((time for time in (wrote, reached) if time is not None), default=None)
    if base is None:
        return Taken(at=None)
    at = max([base, *(time for time in newest.values() if time - base <= AHEAD)])
    believed = max([at, *(mark for mark in _sane(marks) if not has_nodes or mark - at <= AHEAD)])
    if believed - at > AHEAD:
        why = f"by a worker's mark alone, {_span(believed - at)} after all else in it; --show-managed-fields tells"
        return Taken(at=believed, doubts=(f"what time it was ({why})",))
    return Taken(at=believed, doubts=tuple(_doubts(newest, wrote, believed, base)))


def _sane(times: Iterable[datetime]) -> Iterable[datetime]:
    return (time for time in times if EARLIEST <= time < LATEST)


def _doubts(newest: Mapping[str, datetime], wrote: datetime | None, at: datetime, base: datetime) -> Iterable[str]:
    ahead = sorted(node for node, time in newest.items() if time - base > AHEAD)
    if ahead:
        by = _span(max(newest.values()) - at)
        yield f"what time it was (ahead of all others, by up to {by}: {some(ahead)})"
    elif len(newest) == 1 and wrote is not None and at - wrote > AHEAD:
        said = f"by the clock of {next(iter(newest))} alone, {_span(at - wrote)} after the API server wrote last"
        yield f"what time it was ({said})"


def _span(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"
