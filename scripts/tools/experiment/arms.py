"""What is compared: the rules under which the same work runs. Each arm is data; `stage` and `workers` read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Scheduling(StrEnum):
    """Who places pods: the stock scheduler as it comes, told to pack, or asking warmnode. The scheduler's name."""

    DEFAULT = "default-scheduler"
    MOST_ALLOCATED = "most-allocated"
    WARMNODE = "warmnode"


class Claim(StrEnum):
    """Which idle worker gets the next session, where the pool can choose."""

    RANDOM = "random"
    LAST_USED = "last used"
    BY_KEY = "by key"
    """`warmnode serve` hands one out: its claim API, with the model as the cache key."""


WARMNODE = "extender"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One set of rules.

    ``reaper``: `warmnode reap` evicts idle workers and writes deletion costs; without it the pool itself deletes what
    is idle longest. ``cache_key`` is what is set of it besides the label, None without cache keys. ``binary`` is the
    kube-scheduler that places, ``program`` the module that is warmnode.
    """

    name: str
    title: str
    scheduling: Scheduling
    claim: Claim = Claim.RANDOM
    reaper: bool = False
    cache_key: Mapping[str, object] | None = None
    binary: str = "kube-scheduler"
    program: str = WARMNODE


OLDER_SCHEDULER = "kube-scheduler-1.34"
"""It breaks ties at random; from 1.35 on one without an extender takes the first of its list of nodes."""

ARMS = {
    arm.name: arm
    for arm in (
        Arm(name="default", title="default scheduler", scheduling=Scheduling.DEFAULT),
        Arm(name="packing", title="MostAllocated", scheduling=Scheduling.MOST_ALLOCATED, claim=Claim.LAST_USED),
        Arm(name="placement", title="warmnode, oldest first", scheduling=Scheduling.WARMNODE),
        Arm(
            name="window5",
            title="warmnode, window 5",
            scheduling=Scheduling.WARMNODE,
            cache_key={"window": 5},
        ),
        Arm(
            name="set10",
            title="warmnode, working set, slack 0.1",
            scheduling=Scheduling.WARMNODE,
            cache_key={"slack": 0.1},
        ),
        Arm(
            name="set25",
            title="warmnode, working set, slack 0.25",
            scheduling=Scheduling.WARMNODE,
            cache_key={"slack": 0.25},
        ),
        Arm(
            name="hash10",
            title="working set, slack 0.1, by a hash",
            scheduling=Scheduling.WARMNODE,
            cache_key={"slack": 0.1},
            program="scripts.tools.experiment.by_hash",
        ),
        Arm(
            name="packing134",
            title="MostAllocated, scheduler 1.34",
            scheduling=Scheduling.MOST_ALLOCATED,
            binary=OLDER_SCHEDULER,
        ),
        Arm(
            name="set134",
            title="warmnode, working set 0.1, scheduler 1.34",
            scheduling=Scheduling.WARMNODE,
            cache_key={"slack": 0.1},
            binary=OLDER_SCHEDULER,
        ),
        Arm(
            name="warmnode",
            title="warmnode, placement and deletion costs",
            scheduling=Scheduling.WARMNODE,
            reaper=True,
        ),
        Arm(
            name="keyed",
            title="warmnode, claims by key and reaper",
            scheduling=Scheduling.WARMNODE,
            claim=Claim.BY_KEY,
            reaper=True,
            cache_key={"slack": 0.1},
        ),
    )
}
