"""The reaper: evicts idle workers from the newest nodes first, down to a floor.

A pass has `policy.judging` judge all pools that are due, and the judgement carried out by `loops.evictions`. Owns when
a pass is made, and what is remembered of a pool between passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from extender.clock import Clock, Steady
from extender.cluster.state import ClusterState
from extender.kube.eviction import EvictionOutcome
from extender.logs import fields
from extender.loops.eviction_backoff import Holds, backoff
from extender.loops.evictions import Carried, Evictions, Hands
from extender.loops.pass_report import PassReport, about, figures_of_pass, figures_of_stuck, tell_pass
from extender.loops.pod_budget_look import BudgetLook
from extender.loops.time_slices import in_slices
from extender.model import OrderKey, Pod, PodBudget, SkipReason
from extender.policy.brakes import PAUSE, BrakeRecord, Episode, brake_record, judge_episodes, with_pass
from extender.policy.judging import PoolJudgement, judging
from extender.policy.node_pool_budgets import NO_BUDGETS, PodBudgets
from extender.policy.node_pool_room import Seen
from extender.policy.reaping import Skips
from extender.policy.recheck import Circumstances, PoolRules, Standing, WorkersAsKnown, as_marked
from extender.telemetry import Figure

log = logging.getLogger("warmnode.reaper")

TICK = timedelta(seconds=1)


@dataclass(slots=True)
class _PoolMemory:
    next_pass: Steady | None = None
    episodes: tuple[Episode, ...] = ()
    failures: int = 0
    told_paused: bool = False
    came_back: Pod | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Reaper:
    """Runs the passes of every pool, and keeps what is shown of them.

    ``rules`` gives a pool's rules as they are in force now, ``workers`` a pool's workers as its idle sources have them,
    ``pod_budgets`` reads all PodDisruptionBudgets, ``passed`` is told what came of the victims of each pass.
    """

    state: ClusterState
    hands: Hands
    clock: Clock
    rules: Callable[[str], PoolRules]
    workers: WorkersAsKnown = as_marked
    pod_budgets: Callable[[], Awaitable[Sequence[PodBudget]]] | None = None
    passed: Callable[[str, Sequence[Pod], Mapping[str, str]], None] = lambda pool, victims, outcomes: None
    _memory: dict[str, _PoolMemory] = field(default_factory=dict, init=False)
    _seen: Seen = field(default_factory=Seen, init=False)
    _budget_look: BudgetLook | None = field(init=False)
    _holds: Holds = field(default_factory=Holds, init=False)
    _evictions: Evictions = field(init=False)
    _shown: dict[str, tuple[Figure, ...]] = field(default_factory=dict, init=False)
    _shown_stuck: tuple[Figure, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self._budget_look = BudgetLook(self.pod_budgets, self.clock) if self.pod_budgets is not None else None
        self._evictions = Evictions(state=self.state, hands=self.hands, holds=self._holds, clock=self.clock)

    async def run(self) -> None:
        """Run passes for ever, each pool at its own interval. Ends only by cancellation."""
        while True:
            await asyncio.sleep(TICK.total_seconds())
            if self.state.synced and self.hands.may_evict():
                await self.pass_where_due()

    def figures(self) -> Iterator[Figure]:
        """Give what the last pass of each pool that has a worker found."""
        yield from self._shown_stuck
        for figures in self._shown.values():
            yield from figures

    @property
    def remembered(self) -> set[str]:
        """The pools of which something is kept between passes."""
        return set(self._memory)

    @property
    def brakes(self) -> dict[str, BrakeRecord]:
        """What is remembered of each pool that lost workers within the last hour."""
        now = self.clock.moment()
        records = {pool: brake_record(memory.episodes, now) for pool, memory in self._memory.items()}
        return {pool: record for pool, record in records.items() if record is not None}

    async def pass_where_due(self) -> None:
        """Run a pass of the pools whose interval is over, all together.

        A pool without a worker is remembered as long as its evictions matter: its workers may be on their way back.
        """
        names = self.state.where.pool_names()
        for absent in self._memory.keys() - names:
            if all(self.clock.steady() - episode.ended.steady >= PAUSE for episode in self._memory[absent].episodes):
                del self._memory[absent]
        self._shown = {pool: figures for pool, figures in self._shown.items() if pool in names}
        due = []
        for pool in sorted(names):
            memory = self._memory.setdefault(pool, _PoolMemory())
            if memory.next_pass is None or self.clock.steady() >= memory.next_pass:
                memory.next_pass = self.clock.steady() + self.rules(pool).reap.interval
                due.append(pool)
        if due:
            with self._guarded(*due):
                await self.one_pass(*due)

    async def one_pass(self, *pools: str) -> dict[str, PassReport]:
        """Judge these pools, and evict what may go now, one pool after the other, by name."""
        with self.state.ranking.changes() as changed, self.state.ranking.changes() as changed_room:
            standing = Standing(self.state, await self._circumstances(pools), changed, changed_room)
            judgement = await in_slices(judging(standing, pools, self.clock.now()))
            await asyncio.sleep(0)
            reports: dict[str, PassReport] = {}
            for pool, judged in judgement.pools.items():
                with self._guarded(pool):
                    reports[pool] = await self._pass(judged, standing)
                await asyncio.sleep(0)
            if not self.clock.is_off:
                stuck = standing.room.stuck(self.clock.now())  # notes what was emptied just now, too
                self._shown_stuck = tuple(figures_of_stuck(stuck, self.hands.metrics))
        return reports

    # -- a pass -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _guarded(self, *pools: str) -> Iterator[None]:
        """The one guard: a bug is logged with its traceback and counted, and the pass is tried again later."""
        try:
            yield
        except Exception:
            self.hands.metrics.reap_passes.labels("crashed").inc()
            log.exception("a pass failed", extra=fields(pools=pools))

    async def _circumstances(self, pools: Iterable[str]) -> Circumstances:
        budgets: PodBudgets | None = NO_BUDGETS
        if self._budget_look is not None and self.state.node_pools:  # without them budgets hold no node of interest
            budgets = await self._budget_look.look()
        paused = {} if self.clock.is_off else await self._paused(pools)
        is_clock_off = self.clock.is_off
        return Circumstances(
            rules=self.rules,
            workers=self.workers,
            held=self._holds.held(self.clock.steady()),
            paused=paused,
            budgets=budgets,
            seen=Seen() if is_clock_off else self._seen,  # what is noted has a date
            is_clock_off=is_clock_off,
        )

    async def _paused(self, pools: Iterable[str]) -> dict[str, datetime]:
        """Find out in which pools the evicted workers came back, and say until when those pause."""
        paused: dict[str, datetime] = {}
        for pool in pools:
            memory = self._memory.setdefault(pool, _PoolMemory())
            if not memory.episodes:
                continue
            now, idle_timeout = self.clock.moment(), self.rules(pool).reap.idle_timeout
            arrivals = await in_slices(self._arrivals(pool, memory.episodes))
            memory.episodes = judge_episodes(memory.episodes, arrivals, idle_timeout=idle_timeout, now=now)
            record = brake_record(memory.episodes, now)
            if record is not None and record.paused_until is not None:
                paused[pool] = record.paused_until
                memory.came_back = arrivals[-1][0] if arrivals else None
        return paused

    async def _pass(self, judged: PoolJudgement, standing: Standing) -> PassReport:
        pool, metrics = judged.pool, self.hands.metrics
        await self._tell_paused(judged)
        spared: dict[str, SkipReason] = {}
        outcomes: Mapping[str, EvictionOutcome] = {}
        if judged.waits is not None:
            spared = dict.fromkeys((victim.uid for victim in judged.victims), judged.waits)
        elif judged.dry_run:
            for victim in judged.victims:
                log.info("would evict", extra=about(victim, pool, self.clock.now()))
        else:
            carried = await self._carry_out(judged, standing)
            outcomes, spared = carried.outcomes, carried.skipped
        self.passed(judged.pool, judged.victims, {**spared, **outcomes})
        after_all = [(spared[victim.uid], (victim,)) for victim in judged.victims if victim.uid in spared]
        report = PassReport(judged=judged, outcomes=outcomes, skipped=Skips([*judged.skipped.groups, *after_all]))
        tell_pass(report)
        metrics.reap_passes.labels("dryRun" if judged.dry_run else "done").inc()
        self._shown[pool] = tuple(figures_of_pass(report, metrics, self.clock.now()))
        return report

    async def _tell_paused(self, judged: PoolJudgement) -> None:
        """Tell once of each pause."""
        memory = self._memory.setdefault(judged.pool, _PoolMemory())
        is_paused = judged.waits is SkipReason.POOL_PAUSED
        if is_paused and not memory.told_paused:
            why = f"workers came back after evictions; no more until {judged.paused_until:%H:%M:%S} UTC"
            log.warning("pool paused", extra=fields(pool=judged.pool, why=why))
            if memory.came_back is not None:
                await self.hands.announcer.paused(judged.pool, memory.came_back, why)
        if judged.waits is not SkipReason.CLOCK_OFF:
            memory.told_paused = is_paused

    def _arrivals(self, pool: str, episodes: Sequence[Episode]) -> Generator[None, None, list[tuple[Pod, OrderKey]]]:
        """Find the placed workers of a pool that may have come back, with their nodes' keys."""
        since = min(episode.began.now for episode in episodes).replace(
            microsecond=0
        )  # creation times have whole seconds
        oldest = min(episode.oldest for episode in episodes)
        found: list[tuple[Pod, OrderKey]] = []
        for name in list(self.state.order):
            key = self.state.order.get(name)
            if key is not None and key >= oldest:
                workers = self.state.where.workers_on(name).values()
                found += [(worker, key) for worker in workers if worker.created >= since and worker.pool == pool]
            yield
        return found

    async def _carry_out(self, judged: PoolJudgement, standing: Standing) -> Carried:
        memory, began = self._memory[judged.pool], self.clock.moment()
        carried = await self._evictions.carry_out(judged, standing)
        if carried.taken_from:
            memory.episodes = with_pass(
                memory.episodes,
                oldest=min(carried.taken_from),
                evicted=len(carried.taken_from),
                idle_timeout=self.rules(judged.pool).reap.idle_timeout,
                now=began,
            )
        memory.failures = memory.failures + 1 if carried.failures else 0
        if memory.failures:
            memory.next_pass = self.clock.steady() + backoff(memory.failures)
        return carried
