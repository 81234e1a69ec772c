"""The reaper: evicts idle workers from the newest nodes first, down to a floor.

A pass looks at the state, asks `policy.reaping` for a plan, and has it carried out by `loops.evictions`. Owns when a
pass is made, and what is remembered of a pool between passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from extender.clock import Clock, Steady
from extender.cluster.state import ClusterState
from extender.kube.eviction import EvictionOutcome
from extender.loops.budget_look import BudgetLook
from extender.loops.evictions import Announcer, Evictions, Pods
from extender.loops.floor import ClaimableCount
from extender.loops.holds import Holds, backoff
from extender.loops.pass_report import PassReport, about, tell_pass, tell_stuck
from extender.loops.slices import in_slices
from extender.model import OrderKey, Pod, PodBudget, SkipReason
from extender.policy.brakes import (
    PAUSE,
    BrakeRecord,
    Episode,
    brake_record,
    judge_episodes,
    why_pool_waits,
    with_pass,
)
from extender.policy.budgets import NO_BUDGETS, PodBudgets
from extender.policy.disruption_room import DisruptionRoom, Seen, why_stays
from extender.policy.idleness import ReapRules
from extender.policy.reaping import Assessment, EvictionPlan, assess_node, planning
from extender.settings import PoolSettings
from extender.telemetry import Metrics, fields

log = logging.getLogger("warmnode.reaper")

TICK = timedelta(seconds=1)


@dataclass(slots=True)
class _PoolMemory:
    next_pass: Steady | None = None
    episodes: tuple[Episode, ...] = ()
    failures: int = 0
    told_paused: bool = False


class Reaper:
    """Runs the passes of every pool.

    ``is_leader`` and ``is_fresh`` are asked before each eviction. ``pool_settings`` gives a pool's settings as they are
    in force now, ``view`` a pool's workers as its idle sources have them, ``pod_budgets`` reads all
    PodDisruptionBudgets.
    """

    def __init__(
        self,
        *,
        state: ClusterState,
        pods: Pods,
        announcer: Announcer,
        metrics: Metrics,
        pool_settings: Callable[[str], PoolSettings],
        is_leader: Callable[[], bool],
        is_fresh: Callable[[], bool],
        clock: Clock,
        view: Callable[[str, list[Pod]], list[Pod]] = lambda pool, workers: workers,
        pod_budgets: Callable[[], Awaitable[Sequence[PodBudget]]] | None = None,
    ) -> None:
        self._state = state
        self._announcer = announcer
        self._metrics = metrics
        self._pool_settings = pool_settings
        self._is_leader = is_leader
        self._is_fresh = is_fresh
        self._clock = clock
        self._view = view
        self._memory: dict[str, _PoolMemory] = {}
        self._seen = Seen()
        self._pod_budgets = BudgetLook(pod_budgets, clock) if pod_budgets is not None else None
        self._holds = Holds()
        self._evictions = Evictions(
            state=state,
            pods=pods,
            announcer=announcer,
            metrics=metrics,
            holds=self._holds,
            pool_settings=pool_settings,
            is_leader=is_leader,
            is_fresh=is_fresh,
            clock=clock,
        )

    async def run(self) -> None:
        """Run passes for ever, each pool at its own interval. Ends only by cancellation.

        The one guard: a bug in a pass is logged with its traceback and counted, and the pass is tried again later.
        """
        while True:
            await asyncio.sleep(TICK.total_seconds())
            if not (self._is_leader() and self._state.synced and self._is_fresh()):
                continue
            await self.pass_where_due()

    @property
    def remembered(self) -> set[str]:
        """The pools of which something is kept between passes."""
        return set(self._memory)

    @property
    def brakes(self) -> dict[str, BrakeRecord]:
        """What is remembered of each pool that lost workers within the last hour."""
        now = self._clock.moment()
        records = {pool: brake_record(memory.episodes, now) for pool, memory in self._memory.items()}
        return {pool: record for pool, record in records.items() if record is not None}

    async def pass_where_due(self) -> None:
        """Run a pass of every pool whose interval is over.

        A pool without a worker is remembered as long as its evictions matter: its workers may be on their way back.
        """
        names = self._state.where.pool_names()
        for absent in self._memory.keys() - names:
            if all(self._clock.steady() - episode.ended.steady >= PAUSE for episode in self._memory[absent].episodes):
                del self._memory[absent]
        for pool in sorted(names):
            memory = self._memory.setdefault(pool, _PoolMemory())
            if memory.next_pass is not None and self._clock.steady() < memory.next_pass:
                continue
            memory.next_pass = self._clock.steady() + self._pool_settings(pool).reap.interval
            try:
                await self.one_pass(pool)
            except Exception:
                self._metrics.reap_passes.labels("crashed").inc()
                log.exception("a pass failed", extra=fields(pool=pool))

    async def one_pass(self, pool: str) -> PassReport:
        """Look at one pool and evict what may go now."""
        budgets = await self._look_at_pod_budgets()
        with self._state.changes() as changed, self._state.changes() as changed_for_rooms:
            rooms = DisruptionRoom(self._state, changed_for_rooms, budgets=budgets or NO_BUDGETS, seen=self._seen)
            return await self._one_pass(pool, changed, rooms, are_budgets_known=budgets is not None)

    # -- a pass -------------------------------------------------------------------------------------------------------

    async def _look_at_pod_budgets(self) -> PodBudgets | None:
        """Read the budgets, where there are NodePools whose nodes they could hold; None where that failed."""
        if self._pod_budgets is None or not self._state.node_pools:
            return NO_BUDGETS
        return await self._pod_budgets.look()

    async def _one_pass(
        self, pool: str, changed: set[str], rooms: DisruptionRoom, *, are_budgets_known: bool
    ) -> PassReport:
        settings = self._pool_settings(pool)
        memory = self._memory.setdefault(pool, _PoolMemory())
        assessments = await in_slices(self._assessing(pool, settings.reap, rooms, self._clock.now()))
        await in_slices(rooms.counting(self._clock.now()))
        held, left = self._holds.held(self._clock.steady()), rooms.left(self._clock.now())
        plan = await in_slices(planning(assessments, settings.reap, held, left, self._state.key_use))
        await asyncio.sleep(0)
        skipped = dict(plan.skipped)
        outcomes: dict[str, EvictionOutcome] = {}
        waits = await self._why_pool_waits(pool, settings, memory)
        if waits is None and not are_budgets_known:
            waits = SkipReason.BACKING_OFF
        if waits is not None:
            skipped.update(dict.fromkeys((victim.uid for victim in plan.victims), waits))
        elif settings.dry_run:
            for victim in plan.victims:
                log.info("would evict", extra=about(victim, pool, self._clock.now()))
        else:
            claimable = ClaimableCount(self._state, pool, assessments, changed, self._view)
            outcomes = await self._carry_out(pool, plan, settings, memory, claimable, rooms, skipped)
        await asyncio.sleep(0)
        report = PassReport(pool=pool, plan=plan, outcomes=outcomes, skipped=skipped, dry_run=settings.dry_run)
        tell_pass(report, assessments, settings, self._metrics, self._clock.now())
        tell_stuck(rooms.stuck(self._clock.now()), self._metrics)
        return report

    def _assessing(
        self, pool: str, rules: ReapRules, rooms: DisruptionRoom, now: datetime
    ) -> Generator[None, None, list[Assessment]]:
        assessments = []
        for name in list(self._state.nodes):
            assessment = self._assess_node(name, pool, rules, rooms, now)
            if assessment is not None:
                assessments.append(assessment)
            yield
        return assessments

    def _assess_node(
        self, name: str, pool: str, rules: ReapRules, rooms: DisruptionRoom, now: datetime
    ) -> Assessment | None:
        node = self._state.nodes.get(name)
        workers = [worker for worker in self._state.where.workers_on(name).values() if worker.pool == pool]
        if node is None or not workers:
            return None
        return assess_node(
            node=name,
            order_key=self._state.order[name],
            departure=self._state.departure(name),
            barred=self._state.why_barred(name),
            workers=self._view(pool, workers),
            others=self._state.where.holders_on(name, besides=pool),
            rules=rules,
            now=now,
            stays=why_stays(self._state, name, now, rooms.budgets),
            node_pool=node.node_pool,
        )

    async def _why_pool_waits(self, pool: str, settings: PoolSettings, memory: _PoolMemory) -> SkipReason | None:
        if self._clock.is_off:
            return SkipReason.CLOCK_OFF
        now = self._clock.moment()
        arrivals: Sequence[tuple[Pod, OrderKey]] = ()
        if memory.episodes:
            arrivals = await in_slices(self._arrivals(pool, memory.episodes))
            idle_timeout = settings.reap.idle_timeout
            memory.episodes = judge_episodes(memory.episodes, arrivals, idle_timeout=idle_timeout, now=now)
        unplaced = len(self._state.unplaced(pool, settings.reap.pending_for))
        self._metrics.reap_unplaced.labels(self._metrics.pool_label(pool)).set(unplaced)
        is_held_up = self._state.is_held_up(pool, settings.reap.pending_for)
        record = brake_record(memory.episodes, now)
        until = None if record is None else record.paused_until
        waits = why_pool_waits(is_held_up=is_held_up, is_paused=until is not None)
        is_paused = waits is SkipReason.POOL_PAUSED
        self._metrics.reap_paused.labels(self._metrics.pool_label(pool)).set(is_paused)
        if is_paused and not memory.told_paused:
            why = f"workers came back after evictions; no more until {until:%H:%M:%S} UTC"
            log.warning("pool paused", extra=fields(pool=pool, why=why))
            if arrivals:
                await self._announcer.paused(pool, arrivals[-1][0], why)
        memory.told_paused = is_paused
        return waits

    def _arrivals(self, pool: str, episodes: Sequence[Episode]) -> Generator[None, None, list[tuple[Pod, OrderKey]]]:
        """Find the placed workers of a pool that may have come back, with their nodes' keys."""
        since = min(episode.began.now for episode in episodes).replace(
            microsecond=0
        )  # creation times have whole seconds
        oldest = min(episode.oldest for episode in episodes)
        found: list[tuple[Pod, OrderKey]] = []
        for name in list(self._state.order):
            key = self._state.order.get(name)
            if key is not None and key >= oldest:
                workers = self._state.where.workers_on(name).values()
                found += [(worker, key) for worker in workers if worker.created >= since and worker.pool == pool]
            yield
        return found

    async def _carry_out(
        self,
        pool: str,
        plan: EvictionPlan,
        settings: PoolSettings,
        memory: _PoolMemory,
        claimable: ClaimableCount,
        rooms: DisruptionRoom,
        skipped: dict[str, SkipReason],
    ) -> dict[str, EvictionOutcome]:
        began = self._clock.moment()
        carried = await self._evictions.carry_out(pool, plan, claimable, rooms)
        skipped.update(carried.skipped)
        if carried.taken_from:
            memory.episodes = with_pass(
                memory.episodes,
                oldest=min(carried.taken_from),
                evicted=len(carried.taken_from),
                idle_timeout=settings.reap.idle_timeout,
                now=began,
            )
        memory.failures = memory.failures + 1 if carried.failures else 0
        if memory.failures:
            memory.next_pass = self._clock.steady() + backoff(memory.failures)
        return carried.outcomes
