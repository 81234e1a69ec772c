"""One run: the jobs, a pool whose nodes come and go, and one rule. A discrete-event model; owns what a node does.

A job takes one slot of a node for its duration and then goes. A job that finds no room waits, and where more wait than
the nodes that boot can take, one more node is launched; whatever room comes first is taken, oldest job first. A node
that was empty for ``consolidate_after`` is removed, with its cache; nodes with jobs are never removed, and jobs are
never moved. A job reads its blocks when it begins, and each that the node's cache has not makes it ``miss_seconds``
longer.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from heapq import heappop, heappush
from math import ceil, fsum, inf

from extender.simulate.cache import BlockCache
from extender.simulate.rules import Placement
from extender.simulate.workload import HOUR_SECONDS, Job

Progress = Callable[[int], None]
"""Told how many jobs have arrived, now and then."""

_PROGRESS_JOBS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShape:
    """The nodes of a pool. ``restart_every`` restarts warmnode so often, None never: key counts begin anew then.

    ``first_nodes`` are there at the beginning. Node-hours are counted until ``watched``, None: to the end.
    """

    slots: int = 8
    boot: timedelta = timedelta(seconds=45)
    consolidate_after: timedelta = timedelta(minutes=5)
    cache_blocks: int = 1000
    miss_seconds: float = 0.0
    restart_every: timedelta | None = None
    first_nodes: int = 0
    watched: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What came of a run. Node-hours are from launch to removal, boot included; waits are for a free slot.

    Latencies are from a job's arrival to its end.
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

    @property
    def hit_ratio(self) -> float:
        """Hits of all block reads; 0 where nothing was read."""
        return self.hits / self.reads if self.reads else 0.0

    @property
    def mean_wait_seconds(self) -> float:
        """Mean wait of all jobs, those that did not wait included."""
        return self.waited_seconds / self.jobs if self.jobs else 0.0


class _Kind(IntEnum):
    ENDS = 0
    BOOTED = 1
    EMPTY_LONG = 2
    RESTART = 3


@dataclass(slots=True, eq=False)
class _SimulatedNode:
    name: str
    launched: float
    cache: BlockCache
    running: dict[int, Job] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    removal: int = 0
    """Sequence number of the event that removes it if it stays empty until then; 0 while it has jobs."""


_Event = tuple[float, int, _Kind, "_SimulatedNode | None", int]
"""(when, sequence number, what, node, number of the job)."""


def simulate(
    jobs: Sequence[Job], shape: PoolShape, rule: Placement, progress: Progress = lambda arrived: None
) -> RunOutcome:
    """Run jobs, which are given in order of arrival, through a pool that begins with no node."""
    return _Run(jobs, shape, rule, progress).run()


class _Run:
    def __init__(self, jobs: Sequence[Job], shape: PoolShape, rule: Placement, progress: Progress) -> None:
        self._jobs = jobs
        self._shape = shape
        self._boot = shape.boot.total_seconds()
        self._consolidate_after = shape.consolidate_after.total_seconds()
        self._until = inf if shape.watched is None else shape.watched.total_seconds()
        self._rule = rule
        self._progress = progress
        self._events: list[_Event] = []
        self._sequence = 0
        self._nodes: dict[str, _SimulatedNode] = {}
        self._room: dict[str, int] = {}
        self._waiting: deque[int] = deque()
        self._booting = 0
        self._launched = 0
        self._peak = 0
        self._node_seconds = 0.0
        self._reads = self._hits = 0
        self._latencies = array("d")
        self._waited_jobs = 0
        self._waited_seconds = 0.0

    def run(self) -> RunOutcome:
        """Take arrivals and events in order of time; at one time events come first, so that freed room is there."""
        for _ in range(self._shape.first_nodes):
            self._booted(self._launch(0.0, boots=False), 0.0)
        if self._shape.restart_every is not None and self._jobs:
            self._push(self._shape.restart_every.total_seconds(), _Kind.RESTART, None, 0)
        for number, job in enumerate(self._jobs):
            self._work_until(job.arrives)
            self._arrive(number, job)
            if number % _PROGRESS_JOBS == 0:
                self._progress(number)
        self._work_until(inf)
        self._progress(len(self._jobs))
        latencies = sorted(self._latencies)
        return RunOutcome(
            jobs=len(self._jobs),
            node_hours=self._node_seconds / HOUR_SECONDS,
            reads=self._reads,
            hits=self._hits,
            peak_nodes=self._peak,
            launched_nodes=self._launched,
            waited_jobs=self._waited_jobs,
            waited_seconds=self._waited_seconds,
            mean_latency_seconds=fsum(latencies) / len(latencies) if latencies else 0.0,
            p95_latency_seconds=latencies[ceil(0.95 * len(latencies)) - 1] if latencies else 0.0,
        )

    def _work_until(self, time: float) -> None:
        events = self._events
        while events and events[0][0] <= time:
            now, sequence, kind, node, number = heappop(events)
            if node is None:
                self._restart(now)
            elif kind is _Kind.ENDS:
                self._end(node, number, now)
            elif kind is _Kind.BOOTED:
                self._booted(node, now)
            elif node.removal == sequence:
                self._remove(node, now)

    def _arrive(self, number: int, job: Job) -> None:
        if self._room:
            self._place(number, job.arrives)
            return
        self._waiting.append(number)
        if len(self._waiting) > self._booting * self._shape.slots:
            self._launch(job.arrives)

    def _launch(self, now: float, *, boots: bool = True) -> _SimulatedNode:
        self._launched += 1
        self._booting += 1
        name = f"node-{self._launched}"
        node = self._nodes[name] = _SimulatedNode(name, now, BlockCache(self._shape.cache_blocks))
        self._peak = max(self._peak, len(self._nodes))
        if boots:
            self._push(now + self._boot, _Kind.BOOTED, node, 0)
        return node

    def _booted(self, node: _SimulatedNode, now: float) -> None:
        self._booting -= 1
        self._room[node.name] = self._shape.slots
        self._rule.node_ready(node.name, self._shape.slots, now)
        self._take_waiting(now)
        if not node.running:
            self._emptied(node, now)

    def _take_waiting(self, now: float) -> None:
        while self._waiting and self._room:
            number = self._waiting.popleft()
            self._waited_jobs += 1
            self._waited_seconds += now - self._jobs[number].arrives
            self._place(number, now)

    def _place(self, number: int, now: float) -> None:
        job = self._jobs[number]
        name = self._rule.choose(self._room, job.key)
        if self._room[name] == 1:
            del self._room[name]
        else:
            self._room[name] -= 1
        node = self._nodes[name]
        node.running[number] = job
        node.since[number] = now
        node.removal = 0
        self._rule.placed(name, job.key, now)
        hits = node.cache.read_all(job.blocks)
        self._reads += len(job.blocks)
        self._hits += hits
        ends = now + job.lasts + (len(job.blocks) - hits) * self._shape.miss_seconds
        self._latencies.append(ends - job.arrives)
        self._push(ends, _Kind.ENDS, node, number)

    def _end(self, node: _SimulatedNode, number: int, now: float) -> None:
        del node.running[number], node.since[number]
        self._rule.ended(node.name)
        self._room[node.name] = self._room.get(node.name, 0) + 1
        self._take_waiting(now)
        if not node.running:
            self._emptied(node, now)

    def _emptied(self, node: _SimulatedNode, now: float) -> None:
        node.removal = self._push(now + self._consolidate_after, _Kind.EMPTY_LONG, node, 0)

    def _remove(self, node: _SimulatedNode, now: float) -> None:
        del self._nodes[node.name], self._room[node.name]
        self._rule.node_gone(node.name)
        self._node_seconds += max(0.0, min(now, self._until) - node.launched)

    def _restart(self, now: float) -> None:
        self._rule.restarted(
            (node.name, job.key, node.since[number])
            for node in self._nodes.values()
            for number, job in node.running.items()
        )
        if now < self._jobs[-1].arrives and self._shape.restart_every is not None:
            self._push(now + self._shape.restart_every.total_seconds(), _Kind.RESTART, None, 0)

    def _push(self, when: float, kind: _Kind, node: _SimulatedNode | None, number: int) -> int:
        self._sequence += 1
        heappush(self._events, (when, self._sequence, kind, node, number))
        return self._sequence
