"""Which runs there are, in which order. Pure.

Owns names and order. Runs of one point (workload, consolidateAfter, seed) follow each other, so that with several
instances side by side the arms of a point run at the same time, on the same machine in the same mood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from scripts.tools.benchmarks.figures import rotated
from scripts.tools.experiment.arms import ARMS
from scripts.tools.experiment.workloads import WORKLOADS

FIRST_REPORTED_SEED = 300
"""Seeds below 200 are for trying things out, the next ones were the first experiment's: `report` reads neither."""
SEEDS = (301, 302, 303)
CONSOLIDATE_AFTER = (10, 100)
"""Seconds: one and ten jobs, loading included, at the pace of the service."""
SECONDS = 560.0
"""Length of a run: the warm-up and one whole wave."""
WARM_UP = 160.0
"""What happens before is not counted: the pool starts with no node at all, and other runs of the batch start."""
SUFFIX = ".json.xz"
"""Of the file that a run leaves, after its id."""
OLDER = {("jobs2", 100): ("packing134", "set134")}
"""Further arms of one point, those whose kube-scheduler is an older one."""
HASHED = frozenset(product(("jobs2", "jobs4", "jobs8"), CONSOLIDATE_AFTER))
"""The points that have an arm with the rule that was dropped."""
_ID = re.compile(r"(?P<workload>[a-z]+[0-9]*)-(?P<after>\d+)s-(?P<arm>[a-z0-9]+)-(?P<seed>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. ``consolidate_after``, ``seconds`` and ``warm_up`` in seconds.
    ``tries``: it was begun so often. ``slots``: workers that fit on one of its nodes.
    """

    workload: str
    consolidate_after: int
    arm: str
    seed: int
    seconds: float = SECONDS
    warm_up: float = WARM_UP
    tries: int = 1
    slots: int = 4

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
        return cls.of(found["workload"], int(found["after"]), found["arm"], int(found["seed"]))

    @classmethod
    def of(cls, workload: str, after: int, arm: str, seed: int) -> Run:
        """One run of a workload that there is."""
        slots = WORKLOADS[workload].slots
        return cls(workload=workload, consolidate_after=after, arm=arm, seed=seed, slots=slots)


def arms_of(workload: str, after: int) -> tuple[str, ...]:
    """Name the arms of a point."""
    point = (workload, after)
    return (*WORKLOADS[workload].arms, *OLDER.get(point, ()), *(("hash10",) if point in HASHED else ()))


def plan(
    workloads: Iterable[str] = tuple(WORKLOADS),
    after: Sequence[int] = CONSOLIDATE_AFTER,
    seeds: Iterable[int] = SEEDS,
    arms: Iterable[str] = tuple(ARMS),
) -> Iterator[Run]:
    """List the runs: a whole seed before the next, the arms of a point next to each other, in changing order."""
    wanted, workloads = frozenset(arms), tuple(workloads)
    for turn, (seed, seconds) in enumerate(product(seeds, after)):
        for workload in workloads:
            for arm in rotated(arms_of(workload, seconds), turn):
                if arm in wanted:
                    yield Run.of(workload, seconds, arm, seed)
