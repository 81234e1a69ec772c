"""What both roles of a process share: the client, the state and what feeds it, the settings in force, the metrics."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from extender.clock import Clock, Steady
from extender.cluster.feed import ClusterFeed
from extender.cluster.history import DecisionHistory
from extender.cluster.state import ClusterState
from extender.kube.api_client import KubeClient
from extender.settings.in_force import InForce
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
    history: DecisionHistory
    stopping: asyncio.Event
    clock: Clock


def real_clock(client: KubeClient) -> Clock:
    """Give the clock of this machine, which ``client`` compares with the API server's."""
    return Clock(now=lambda: datetime.now(UTC), steady=lambda: Steady(time.monotonic()), skew=lambda: client.clock_skew)
