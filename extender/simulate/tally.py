"""What comes of a run, and how it is counted while it goes on."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, fsum

from extender.simulate.cache import BlockCache
from extender.simulate.pool import SimulatedPool
from extender.simulate.workload import HOUR_SECONDS, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What came of a run. Node-hours are from launch to removal, boot included; waits are for a free slot or worker.

    Latencies are from a job's arrival to its end. ``workers``: so many pods were started, which is one for each job
    where they are no sessions.
    """

    jobs: int
    node_hours: float
    reads: int
    hits: int
    peak_nodes: int
    launched_nodes: int
    waited_jobs: int
    waited_seconds: float
    mean_latency_seconds: float = 0.0
    p95_latency_seconds: float = 0.0
    workers: int = 0

    @property
    def hit_ratio(self) -> float:
        """Hits of all block reads; 0 where nothing was read."""
        return self.hits / self.reads if self.reads else 0.0

    @property
    def mean_wait_seconds(self) -> float:
        """Mean wait of all jobs, those that did not wait included."""
        return self.waited_seconds / self.jobs if self.jobs else 0.0


class Tally:
    """Counts what becomes of jobs. ``miss_seconds``: a block that is not there makes a job longer."""

    def __init__(self, miss_seconds: float) -> None:
        self._miss_seconds = miss_seconds
        self._reads = self._hits = 0
        self._latencies = array("d")
        self._waited_jobs = 0
        self._waited_seconds = 0.0

    def waited(self, seconds: float) -> None:
        """A job begins that had to wait."""
        self._waited_jobs += 1
        self._waited_seconds += seconds

    def began(self, job: Job, cache: BlockCache, now: float) -> float:
        """A job begins and reads its blocks: say when it ends."""
        hits = cache.read_all(job.blocks)
        self._reads += len(job.blocks)
        self._hits += hits
        ends = now + job.lasts + (len(job.blocks) - hits) * self._miss_seconds
        self._latencies.append(ends - job.arrives)
        return ends

    def outcome(self, jobs: Sequence[Job], pool: SimulatedPool, workers: int) -> RunOutcome:
        """Give what came of the run, when it is over."""
        latencies = sorted(self._latencies)
        return RunOutcome(
            jobs=len(jobs),
            node_hours=pool.node_seconds / HOUR_SECONDS,
            reads=self._reads,
            hits=self._hits,
            peak_nodes=pool.peak,
            launched_nodes=pool.launched,
            waited_jobs=self._waited_jobs,
            waited_seconds=self._waited_seconds,
            mean_latency_seconds=fsum(latencies) / len(latencies) if latencies else 0.0,
            p95_latency_seconds=latencies[ceil(0.95 * len(latencies)) - 1] if latencies else 0.0,
            workers=workers,
        )
