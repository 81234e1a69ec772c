"""One run of jobs: each is a worker of its own, that takes a slot, reads its blocks, runs, and goes.

A job that finds no room waits, and where more wait than the nodes that boot can take, one more node is launched;
whatever room comes first is taken, oldest job first. A node that was empty for ``consolidate_after`` is removed, with
its cache; nodes with jobs are never removed, and jobs are never moved. A job reads its blocks when it begins, and each
that the node's cache has not makes it ``miss_seconds`` longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from extender.simulate.pool import Agenda, PoolShape, SimulatedNode, SimulatedPool
from extender.simulate.rules import Placement
from extender.simulate.tally import RunOutcome, Tally
from extender.simulate.workload import Job

Progress = Callable[[int], None]
"""Told how many jobs have arrived, now and then."""

PROGRESS_JOBS = 1000


def simulate(
    jobs: Sequence[Job], shape: PoolShape, rule: Placement, progress: Progress = lambda arrived: None
) -> RunOutcome:
    """Run jobs, which are given in order of arrival, through a pool that begins with its ``first_nodes``."""
    return _Run(jobs, shape, rule).run(progress)


class _Run:
    def __init__(self, jobs: Sequence[Job], shape: PoolShape, rule: Placement) -> None:
        self._jobs = jobs
        self._rule = rule
        self._every = shape.restart_every.total_seconds() if shape.restart_every is not None else inf
        self._agenda = Agenda()
        self._tally = Tally(shape.miss_seconds)
        self._waiting: deque[int] = deque()
        self._running: dict[int, tuple[str, str, float]] = {}  # node, key, since when
        self._pool = SimulatedPool(shape, self._agenda, rule, self._take_waiting)

    def run(self, progress: Progress) -> RunOutcome:
        """Take arrivals and events in order of time; at one time events come first, so that freed room is there."""
        if self._every < inf and self._jobs:
            self._agenda.at(self._every, self._restart)
        for number, job in enumerate(self._jobs):
            self._agenda.work_until(job.arrives)
            self._arrive(number, job)
            if number % PROGRESS_JOBS == 0:
                progress(number)
        self._agenda.work_until(inf)
        progress(len(self._jobs))
        return self._tally.outcome(self._jobs, self._pool, workers=len(self._jobs))

    def _arrive(self, number: int, job: Job) -> None:
        if self._pool.room:
            self._place(number, job.arrives)
            return
        self._waiting.append(number)
        self._pool.launch_for(len(self._waiting), job.arrives)

    def _take_waiting(self, now: float) -> None:
        while self._waiting and self._pool.room:
            number = self._waiting.popleft()
            self._tally.waited(now - self._jobs[number].arrives)
            self._place(number, now)

    def _place(self, number: int, now: float) -> None:
        job = self._jobs[number]
        node = self._pool.take(job.key, now)
        self._running[number] = node.name, job.key, now
        self._agenda.at(self._tally.began(job, node.cache, now), partial(self._end, node, number))

    def _end(self, node: SimulatedNode, number: int, now: float) -> None:
        del self._running[number]
        self._pool.give_back(node, now)

    def _restart(self, now: float) -> None:
        self._rule.restarted(self._running.values())
        if now < self._jobs[-1].arrives:
            self._agenda.at(now + self._every, self._restart)
