"""The three workloads: how work arrives, what runs it, and what Karpenter may do with the nodes. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scripts.tools.experiment.traffic import Traffic

PERIOD = 240.0
"""Seconds from one wave to the next: long against Karpenter's 10 s poll and 15 s validation."""
SLOTS = 4
"""Workers that fit on a node."""


class Kind(StrEnum):
    """What runs a task."""

    JOBS = "jobs"
    """A bare pod of its own, which ends with it."""
    DEPLOYMENT = "deployment"
    """A replica of a Deployment whose size an autoscaler sets."""
    SESSIONS = "sessions"
    """A long-lived bare worker, made when none is idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """``policy`` is the NodePool's consolidationPolicy. Pods that cannot be moved get WhenEmpty."""

    name: str
    title: str
    kind: Kind
    traffic: Traffic
    policy: str
    arms: tuple[str, ...]


FOUR = ("default", "packing", "placement", "warmnode")
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            name="jobs",
            title="Short jobs with bursts",
            kind=Kind.JOBS,
            traffic=Traffic(at_once=16, mean=30, period=PERIOD, burst=40),
            policy="WhenEmpty",
            # Jobs end by themselves and none is ever idle: reaper and deletion cost would have nothing to do. Each is a
            # pod of its own with its tenant's label: the work for cache keys. Window 1 is placement.
            arms=("default", "packing", "placement", "window5", "window8"),
        ),
        Workload(
            name="deployment",
            title="A Deployment that is scaled up and down",
            kind=Kind.DEPLOYMENT,
            traffic=Traffic(at_once=20, mean=25, period=PERIOD, swing=0.8, burst=16),
            policy="WhenEmptyOrUnderutilized",
            arms=FOUR,
        ),
        Workload(
            name="sessions",
            title="Long-lived workers that serve sessions",
            kind=Kind.SESSIONS,
            traffic=Traffic(at_once=20, mean=25, period=PERIOD, swing=0.8, burst=16),
            policy="WhenEmpty",
            arms=(*FOUR, "wholenode"),
        ),
    )
}

FLOOR = 2
"""Idle workers to keep, in every arm."""
IDLE_SECONDS = 30
"""How long a worker of SESSIONS is idle before it may go."""
REAP_SECONDS = 5
"""Time between two looks for idle workers."""
SCALE_SECONDS = 5
"""Time between two looks of the autoscaler."""
SCALE_DOWN_SECONDS = 30
"""The autoscaler goes down to the highest wish of this long."""
SPARE = 2
"""Replicas above what is running and waiting."""
BOOT_SECONDS = 10
"""From NodeClaim to Node: the nodeRegistrationDelay of the KWOKNodeClass."""
