"""What both roles of a process share: the client, the state and what feeds it, the settings in force, the metrics."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from extender.feed import ClusterFeed
from extender.inforce import InForce
from extender.kube.client import KubeClient
from extender.state import ClusterState
from extender.telemetry import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The parts that every role is built from. ``namespace`` is where warmnode's own objects live."""

    client: KubeClient
    namespace: str
    metrics: Metrics
    in_force: InForce
    state: ClusterState
    feed: ClusterFeed
    stopping: asyncio.Event


class SteadyClock:
    """A time of day that never jumps: that of its making, and what a monotonic clock has counted since."""

    def __init__(self) -> None:
        self._began, self._counted = utc_now(), time.monotonic()

    def __call__(self) -> datetime:
        return self._began + timedelta(seconds=time.monotonic() - self._counted)


def utc_now() -> datetime:
    """Read the clock."""
    return datetime.now(UTC)
