"""Writes deletion costs: a worker's own when its own state changes, and no other's.

Looks at workers that changed at once, and at all of them now and then, for what time alone changes (an idle worker
settles). Yields to whoever else writes the annotation: one foreign value is left alone, a writer that keeps overwriting
ours makes us stop for the pool.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.loops.writing import BATCH, Refusals, WriteOutcome, batch_of, carry_out, write_all
from extender.model import Pod
from extender.policy.deletion_cost import CostState, CostWrite, cost_state, cost_write, is_untouched
from extender.policy.judging import cost_of
from extender.policy.standing import PoolRules
from extender.telemetry import Figure, Metrics, fields

log = logging.getLogger("warmnode.costs")

FULL_LOOK = timedelta(seconds=5)
AFTER_CHANGE = timedelta(milliseconds=200)
PROBLEM_PAUSE = timedelta(seconds=10)
CONTESTED = 3
"""So many values of ours overwritten, or removed within an hour, in a pool, and we stop there."""
CONTEST_WINDOW = timedelta(hours=1)
NODES_BETWEEN_YIELDS = 50


class CostWriter:
    """Keeps the deletion cost of every worker. ``write`` sends one and gives the pod as it is then."""

    def __init__(
        self,
        *,
        state: ClusterState,
        write: Callable[[CostWrite], Awaitable[Pod]],
        metrics: Metrics,
        rules: Callable[[str], PoolRules],
        may_write: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._state = state
        self._write = write
        self._metrics = metrics
        self._rules = rules
        self._may_write = may_write
        self._clock = clock
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._written: dict[str, str] = {}
        self._refusals = Refusals(clock)
        self._vanished: Counter[str] = Counter()
        self._counted_since = clock.steady()
        self._contested: set[str] = set()
        self._foreign: Mapping[str, int] = {}

    def changed(self, worker: Pod) -> None:
        """Take note that a worker changed: it is looked at within 200 ms."""
        self._changed.add(worker.uid)
        self._wake.set()

    def forgive(self) -> None:
        """Write again in contested pools: the configuration changed."""
        self._contested.clear()
        self._vanished.clear()

    def figures(self) -> Iterator[Figure]:
        """Give what the last look at all workers found in each pool."""
        for pool, foreign in self._foreign.items():
            yield Figure(self._metrics.cost_foreign, (pool,), foreign)
            yield Figure(self._metrics.cost_contested, (pool,), pool in self._contested)

    async def run(self) -> None:
        """Look and write for ever. Ends only by cancellation.

        The one guard: a bug is logged with its traceback and counted, and a while later all is looked at anew.
        """
        while True:
            try:
                await self._keep()
            except Exception:
                self._metrics.loop_crashes.labels("costs").inc()
                log.exception("a look at deletion costs failed")
                await asyncio.sleep(PROBLEM_PAUSE.total_seconds())

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        next_full = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(next_full):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(AFTER_CHANGE.total_seconds())
            self._wake.clear()
            changed, self._changed = self._changed, set()
            if not (self._may_write_now() and self._state.synced):
                next_full = loop.time() + FULL_LOOK.total_seconds()
                continue
            if loop.time() >= next_full:
                next_full = loop.time() + FULL_LOOK.total_seconds()
                writes = await self.look_at_all()
            else:
                pods = (self._state.pods.get(uid) for uid in changed)
                writes = [write for pod in pods if pod is not None for write in self._decide(pod, self._rules)]
            if writes and not await self.carry_out(writes):
                await asyncio.sleep(PROBLEM_PAUSE.total_seconds())
            elif len(writes) > BATCH:
                next_full = loop.time()

    async def look_at_all(self) -> list[CostWrite]:
        """Decide about every placed worker, and count foreign values per pool."""
        writes: list[CostWrite] = []
        settings = {pool: self._rules(pool) for pool in self._state.where.placed}
        if self._clock.steady() - self._counted_since > CONTEST_WINDOW:
            self._vanished.clear()
            self._counted_since = self._clock.steady()
        foreign: Counter[str] = Counter(dict.fromkeys(settings, 0))
        overwritten: Counter[str] = Counter()
        for position, name in enumerate(list(self._state.nodes), 1):
            if position % NODES_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
            for worker in list(self._state.where.workers_on(name).values()):
                if is_untouched(worker) and worker.uid not in self._written:
                    continue
                state = cost_state(worker)
                foreign[worker.pool or ""] += state in (CostState.FOREIGN, CostState.OVERWRITTEN)
                overwritten[worker.pool or ""] += state is CostState.OVERWRITTEN
                if state is CostState.OURS:
                    self._written[worker.uid] = worker.deletion_cost or ""
                writes.extend(self._decide(worker, settings.get))
        writes += self._left_behind()
        self._written = {uid: value for uid, value in self._written.items() if uid in self._state.pods}
        self._refusals.keep_only(self._state.pods)
        for pool in foreign:
            self._judge_contest(pool, overwritten[pool])
        self._foreign = foreign
        return [write for write in writes if write.pod.pool not in self._contested or write.value is None]

    async def carry_out(self, writes: list[CostWrite]) -> bool:
        """Write a batch, a few at a time. False where the API server is in trouble: then the rest waits."""
        return await write_all(batch_of(writes, _is_urgent), self._write_one, self._may_write_now)

    def _may_write_now(self) -> bool:
        """With a clock that is off, idle and claimed may be anything."""
        return self._may_write() and not self._clock.is_off

    def _decide(self, worker: Pod, settings_of: Callable[[str], PoolRules | None]) -> list[CostWrite]:
        """Give the write that a worker needs now, if any."""
        settings = settings_of(worker.pool) if worker.pool is not None else None
        if worker.pool is None or settings is None:
            return []
        if settings.dry_run or (settings.deletion_cost.enabled and worker.pool in self._contested):
            return []
        self._notice_vanished(worker)
        write = cost_of(self._state, worker, settings, self._clock.now())
        return [] if write is None or self._refusals.holds(worker.uid) else [write]

    def _left_behind(self) -> list[CostWrite]:
        """Remove ours from pods whose pool is configured no more: they are workers of none, and would keep it for ever.

        Only from those that were workers here: others may be workers of another installation. Not where a pool that is
        not listed would be in dry-run, which the defaults say.
        """
        left = [pod for uid, pod in self._state.where.with_left_cost.items() if uid in self._written]
        if not left or self._rules("").dry_run:
            return []
        now = self._clock.now()
        writes = (cost_write(pod, None, enabled=False, settle=timedelta(0), now=now) for pod in left)
        return [write for write in writes if write is not None and not self._refusals.holds(write.pod.uid)]

    def _notice_vanished(self, worker: Pod) -> None:
        """Count a value of ours that is gone together with its mark: somebody clears what we write."""
        if worker.uid in self._written and cost_state(worker) is CostState.NONE and worker.pool is not None:
            del self._written[worker.uid]
            self._vanished[worker.pool] += 1
            self._judge_contest(worker.pool, 0)

    def _judge_contest(self, pool: str, overwritten: int) -> None:
        if pool not in self._contested and overwritten + self._vanished[pool] >= CONTESTED:
            self._contested.add(pool)
            log.warning(
                "deletion costs are left alone: another writer overwrites them",
                extra=fields(pool=pool, overwritten=overwritten, removed=self._vanished[pool]),
            )

    async def _write_one(self, write: CostWrite) -> bool:
        pod, removes = write.pod, write.value is None
        outcome = await carry_out(
            self._write(write), pod, self._state, removes=removes, what="a deletion cost", log=log
        )
        match outcome:
            case WriteOutcome.REMOVED:
                self._written.pop(pod.uid, None)
            case WriteOutcome.WRITTEN:
                self._written[pod.uid] = str(write.value)
            case _:
                pass
        log.debug("deletion cost", extra=fields(pod=pod.name, pool=pod.pool, value=write.value, outcome=outcome))
        self._metrics.cost_writes.labels(self._metrics.pool_label(pod.pool or ""), outcome).inc()
        return self._refusals.goes_on(pod.uid, outcome)


def _is_urgent(write: CostWrite) -> bool:
    """A removal, or a worker that is busy and still looks cheap to delete."""
    return write.value is None or write.value >= 0
