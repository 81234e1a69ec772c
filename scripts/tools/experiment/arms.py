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
    OLDEST_NODE = "oldest node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One set of rules.

    ``reaper``: `warmnode reap` evicts idle workers and writes deletion costs; without it the pool itself deletes what
    is idle longest. ``cache_key`` is what is set of it besides the label, None without cache keys.
    """

    name: str
    title: str
    scheduling: Scheduling
    claim: Claim = Claim.RANDOM
    reaper: bool = False
    whole_node: bool = False
    cache_key: Mapping[str, object] | None = None


ARMS = {
    arm.name: arm
    for arm in (
        Arm(name="default", title="default scheduler", scheduling=Scheduling.DEFAULT),
        Arm(
            name="packing",
            title="MostAllocated",
            scheduling=Scheduling.MOST_ALLOCATED,
            claim=Claim.LAST_USED,
        ),
        Arm(name="placement", title="warmnode, placement only", scheduling=Scheduling.WARMNODE),
        Arm(
            name="window5",
            title="warmnode, cache keys, window 5",
            scheduling=Scheduling.WARMNODE,
            cache_key={"window": 5},
        ),
        Arm(
            name="window8",
            title="warmnode, cache keys, window 8",
            scheduling=Scheduling.WARMNODE,
            cache_key={"window": 8},
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
            name="warmnode",
            title="warmnode, all of it",
            scheduling=Scheduling.WARMNODE,
            claim=Claim.OLDEST_NODE,
            reaper=True,
        ),
        Arm(
            name="wholenode",
            title="warmnode, wholeNode",
            scheduling=Scheduling.WARMNODE,
            claim=Claim.OLDEST_NODE,
            reaper=True,
            whole_node=True,
        ),
    )
}
