"""Writes deletion costs: a worker's own when its own state changes, and no other's.

Looks at workers that changed at once, and at all of them now and then, for what time alone changes (an idle worker
settles). Yields to whoever else writes the annotations: one foreign value is left alone, and of a writer that goes on
`cost_contests` knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.logs import fields
from extender.loops.bulk_writes import BATCH, Refusals, WriteOutcome, batch_of, carry_out, write_all
from extender.loops.cost_contests import Contests
from extender.model import Pod
from extender.policy.deletion_cost import (
    ALL_GO,
    REPLICA_SET,
    CostState,
    CostWrite,
    KarpenterPart,
    Price,
    cost_state,
    cost_write,
    is_untouched,
    karpenter_on,
    wants_disruption_cost,
)
from extender.policy.judging import cost_of
from extender.policy.recheck import PoolRules
from extender.telemetry import Figure, Metrics

log = logging.getLogger("warmnode.costs")

FULL_LOOK = timedelta(seconds=5)
AFTER_CHANGE = timedelta(milliseconds=200)
PROBLEM_PAUSE = timedelta(seconds=10)
NODES_BETWEEN_YIELDS = 50


@dataclass(slots=True, kw_only=True, eq=False)
class CostWriter:
    """Keeps the prices of every worker. ``write`` sends one patch and gives the pod as it is then."""

    state: ClusterState
    write: Callable[[CostWrite], Awaitable[Pod]]
    contests: Contests
    metrics: Metrics
    rules: Callable[[str], PoolRules]
    may_write: Callable[[], bool]
    clock: Clock
    _changed: set[str] = field(default_factory=set, init=False)
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _written: set[tuple[str, Price]] = field(default_factory=set, init=False)
    _refusals: Refusals = field(init=False)
    _foreign: Mapping[str, int] = field(default_factory=dict, init=False)
    _given_up: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._refusals = Refusals(self.clock)

    def changed(self, worker: Pod) -> None:
        """Take note that a worker changed: it is looked at within 200 ms."""
        self._changed.add(worker.uid)
        self._wake.set()

    def forgive(self) -> None:
        """Write again where others did: the configuration changed."""
        self.contests.forgive()

    def figures(self) -> Iterator[Figure]:
        """Give what the last look at all workers found in each pool."""
        for pool, foreign in self._foreign.items():
            yield Figure(self.metrics.cost_foreign, (pool,), foreign)
            yield Figure(
                self.metrics.cost_contested, (pool,), pool in self._given_up or self.contests.is_contested(pool)
            )

    async def run(self) -> None:
        """Look and write for ever. Ends only by cancellation."""
        while True:
            try:
                await self._keep()
            except Exception:
                self.metrics.loop_crashes.labels("costs").inc()
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
            if not (self._may_write_now() and self.state.synced):
                next_full = loop.time() + FULL_LOOK.total_seconds()
                continue
            if loop.time() >= next_full:
                next_full = loop.time() + FULL_LOOK.total_seconds()
                writes = await self.look_at_all()
            else:
                pods = (self.state.pods.get(uid) for uid in changed)
                writes = [write for pod in pods if pod is not None for write in self._decide(pod, self.rules)]
            if writes and not await self.carry_out(writes):
                await asyncio.sleep(PROBLEM_PAUSE.total_seconds())
            elif len(writes) > BATCH:
                next_full = loop.time()

    async def look_at_all(self) -> list[CostWrite]:
        """Decide about every placed worker, and count foreign values per pool."""
        writes: list[CostWrite] = []
        settings = {pool: self.rules(pool) for pool in self.state.where.placed}
        foreign: Counter[str] = Counter(dict.fromkeys(settings, 0))
        overwritten: Counter[str] = Counter()
        karpenters: list[Pod] = []
        given_up: set[str] = set()
        known = self.contests.karpenter_writes
        for position, name in enumerate(list(self.state.nodes), 1):
            if position % NODES_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
            karpenter = karpenter_on(self.state.nodes.get(name), writes=known)
            for worker in list(self.state.where.workers_on(name).values()):
                pool = worker.pool or ""
                rules = settings.get(pool)
                if rules is None or (
                    is_untouched(worker)
                    and not self._has_written(worker)
                    and not wants_disruption_cost(rules.deletion_cost, worker, karpenter)
                ):
                    continue
                is_karpenters = karpenter is not KarpenterPart.NONE and worker.owner == REPLICA_SET
                if is_karpenters and known:
                    given_up.add(pool)
                state = cost_state(worker)
                if state in (CostState.FOREIGN, CostState.OVERWRITTEN):
                    foreign[pool] += 1
                    overwritten[pool] += state is CostState.OVERWRITTEN
                    if is_karpenters and worker.deletion_cost is not None:
                        karpenters.append(worker)
                self._written |= {(worker.uid, price) for price in Price if cost_state(worker, price) is CostState.OURS}
                writes.extend(self._decide(worker, settings.get))
        writes += self._left_behind()
        self._written = {(uid, price) for uid, price in self._written if uid in self.state.pods}
        self._foreign, self._given_up = foreign, given_up
        await self.contests.look(overwritten, karpenters)
        if self.contests.karpenter_writes is not known:
            return []  # what was decided is no longer right: the next look is
        return [write for write in writes if write.removes or not self.contests.is_contested(write.pod.pool or "")]

    async def carry_out(self, writes: list[CostWrite]) -> bool:
        """Write a batch, a few at a time. False where the API server is in trouble: then the rest waits."""
        return await write_all(batch_of(writes, lambda write: write.is_urgent), self._write_one, self._may_write_now)

    def _may_write_now(self) -> bool:
        """With a clock that is off, idle and claimed may be anything."""
        return self.may_write() and not self.clock.is_off

    def _decide(self, worker: Pod, settings_of: Callable[[str], PoolRules | None]) -> list[CostWrite]:
        """Give the write that a worker needs now, if any."""
        settings = settings_of(worker.pool) if worker.pool is not None else None
        if worker.pool is None or settings is None:
            return []
        is_contested = self.contests.is_contested(worker.pool)
        if settings.dry_run or (settings.deletion_cost.enabled and is_contested):
            return []
        self._notice_vanished(worker)
        write = cost_of(self.state, worker, settings, self.clock.now(), karpenter_writes=self.contests.karpenter_writes)
        return [] if write is None or self._refusals.holds(worker.uid) else [write]

    def _left_behind(self) -> list[CostWrite]:
        """Remove ours from pods whose pool is configured no more: they are workers of none, and would keep it for ever.

        Only from those that were workers here: others may be workers of another installation. Not where a pool that is
        not listed would be in dry-run, which the defaults say.
        """
        left = [pod for pod in self.state.where.with_left_cost.values() if self._has_written(pod)]
        if not left or self.rules("").dry_run:
            return []
        now = self.clock.now()
        writes = (cost_write(pod, None, ALL_GO, settle=timedelta(0), now=now) for pod in left)
        return [write for write in writes if write is not None and not self._refusals.holds(write.pod.uid)]

    def _has_written(self, worker: Pod) -> bool:
        uid, written = worker.uid, self._written
        return (uid, Price.DELETION) in written or (uid, Price.DISRUPTION) in written

    def _notice_vanished(self, worker: Pod) -> None:
        """Take note where a value of ours is gone together with its mark."""
        gone = {
            (worker.uid, price)
            for price in Price
            if (worker.uid, price) in self._written and cost_state(worker, price) is CostState.NONE
        }
        if gone and worker.pool is not None:
            self._written -= gone
            self.contests.vanished(worker.pool)

    async def _write_one(self, write: CostWrite) -> bool:
        pod = write.pod
        outcome = await carry_out(
            self.write(write), pod, self.state, removes=write.removes, what="a deletion cost", log=log
        )
        if outcome in (WriteOutcome.WRITTEN, WriteOutcome.REMOVED):
            for price, value in write.values.items():
                (self._written.discard if value is None else self._written.add)((pod.uid, price))
        log.debug(
            "deletion cost", extra=fields(pod=pod.name, pool=pod.pool, prices=dict(write.values), outcome=outcome)
        )
        self.metrics.cost_writes.labels(self.metrics.pool_label(pod.pool or ""), outcome).inc()
        return self._refusals.goes_on(pod.uid, outcome)
