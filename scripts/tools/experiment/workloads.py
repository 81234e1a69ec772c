"""The workloads: how work arrives, what runs it, and what Karpenter may do with the nodes. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scripts.tools.experiment.traffic import Traffic

TIMES_FASTER = 3
"""All times of the image generation service that this is like are divided by it: requests of half a minute on average,
of which loading a model takes 2.9 s where the node has it and 32.7 s where not."""
PERIOD = 400.0
"""Seconds from one wave to the next: long against Karpenter's 10 s poll and 15 s validation."""
WORK = 17.0 / TIMES_FASTER
"""Seconds of a task on average, without the loading."""
SWING = 0.5
EARLY, LATE = 100.0, 200.0
"""When the waves rise: there is little work while runs start, and not all side by side have their crest at once."""


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
    """``slots`` are the workers that fit on a node, of which the cache holds the models of one more.

    ``policy`` is the NodePool's consolidationPolicy: pods that cannot be moved get WhenEmpty.
    """

    name: str
    title: str
    kind: Kind
    slots: int
    traffic: Traffic
    policy: str
    arms: tuple[str, ...]

    @property
    def models(self) -> int:
        """Models that a node's cache holds."""
        return self.slots + 1


def _traffic(rate: float, rises: float) -> Traffic:
    return Traffic(rate=rate, work=WORK, period=PERIOD, swing=SWING, rises=rises)


def _jobs(slots: int, rate: float, rises: float) -> Workload:
    return Workload(
        name=f"jobs{slots}",
        title=f"Jobs, {slots} a node",
        kind=Kind.JOBS,
        slots=slots,
        traffic=_traffic(rate, rises),
        policy="WhenEmpty",
        # Jobs end by themselves and none is ever idle: reaper and deletion cost would have nothing to do.
        arms=("default", "packing", "placement", "window5", "set10", "set25"),
    )


WORKLOADS = {
    workload.name: workload
    for workload in (
        _jobs(1, 0.7, EARLY),
        _jobs(2, 0.8, LATE),
        _jobs(4, 0.9, EARLY),
        _jobs(8, 1.2, LATE),
        Workload(
            name="sessions",
            title="Long-lived workers that serve sessions",
            kind=Kind.SESSIONS,
            slots=4,
            traffic=_traffic(0.8, EARLY),
            policy="WhenEmpty",
            arms=("default", "packing", "keyed"),
        ),
        Workload(
            name="deployment",
            title="A Deployment that is scaled up and down",
            kind=Kind.DEPLOYMENT,
            slots=4,
            traffic=_traffic(0.8, LATE),
            policy="WhenEmptyOrUnderutilized",
            arms=("default", "packing", "warmnode"),
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
