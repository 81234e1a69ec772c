"""Which runs there are, in which order. Pure.

Owns names and order. Runs of one point (workload, consolidateAfter, seed) follow each other, so that with several
instances side by side the arms of a point run at the same time, on the same machine in the same mood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scripts.tools.benchmarks.figures import rotated
from scripts.tools.experiment.arms import ARMS
from scripts.tools.experiment.workloads import WORKLOADS

FIRST_REPORTED_SEED = 200
"""Seeds below are for trying things out: `report` does not read them."""
SEEDS = (201, 202, 203)
CONSOLIDATE_AFTER = (15, 90)
"""Seconds."""
SECONDS = 600.0
"""Length of a run: two waves and a half."""
WARM_UP = 120.0
"""What happens before is not counted: the pool starts with no node at all. Two waves are left."""
_ID = re.compile(r"(?P<workload>[a-z]+)-(?P<after>\d+)s-(?P<arm>[a-z0-9]+)-(?P<seed>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. ``consolidate_after``, ``seconds`` and ``warm_up`` in seconds. ``tries``: this one is the so manieth."""

    workload: str
    consolidate_after: int
    arm: str
    seed: int
    seconds: float = SECONDS
    warm_up: float = WARM_UP
    tries: int = 1

    @property
    def id(self) -> str:
        return f"{self.workload}-{self.consolidate_after}s-{self.arm}-{self.seed}"

    @classmethod
    def parse(cls, text: str) -> Run:
        """Read an id. Raises ValueError with what is possible."""
        found = _ID.fullmatch(text)
        if found is None or found["workload"] not in WORKLOADS or found["arm"] not in ARMS:
            raise ValueError(
                f"{text!r}: not WORKLOAD-SECONDSs-ARM-SEED with a workload of {', '.join(WORKLOADS)} "
                f"and an arm of {', '.join(ARMS)}"
            )
        return cls(
            workload=found["workload"], consolidate_after=int(found["after"]), arm=found["arm"], seed=int(found["seed"])
        )


def plan(
    workloads: Iterable[str] = tuple(WORKLOADS),
    after: Sequence[int] = CONSOLIDATE_AFTER,
    seeds: Iterable[int] = SEEDS,
    arms: Iterable[str] = tuple(ARMS),
) -> Iterator[Run]:
    """List the runs: a whole seed before the next, the arms of a point next to each other, in changing order."""
    wanted = frozenset(arms)
    turn = 0
    workloads = tuple(workloads)
    for seed in seeds:
        for seconds in after:
            for workload in workloads:
                for arm in rotated(WORKLOADS[workload].arms, turn):
                    if arm in wanted:
                        yield Run(workload=workload, consolidate_after=seconds, arm=arm, seed=seed)
                turn += 1
