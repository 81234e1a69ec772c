"""The reaper: evicts idle workers from the newest nodes first, down to a floor.

A pass looks at the state, asks `policy.reaping` for a plan, and carries it out one eviction at a time. Right before
each one everything is asked again: leadership, the freshness of the watches, the pod as the API server has it, the
floor. Every idle worker that stays has a reason, and every refusal is an outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from extender.kube.errors import KubeError
from extender.kube.eviction import EvictionOutcome, EvictionResult, FreshPod
from extender.model import OrderKey, Pod, Selector, SkipReason
from extender.policy.brakes import Episode, judge_episodes, paused_until, why_pool_waits
from extender.policy.departure import departure_of
from extender.policy.idleness import ReapRules, why_not_claimable, why_not_reapable
from extender.policy.pools import selects
from extender.policy.reaping import Assessment, EvictionPlan, PoolReaping, assess_node, plan_evictions
from extender.state import ClusterState
from extender.telemetry import Metrics, fields

log = logging.getLogger("warmnode.reaper")

TICK = timedelta(seconds=1)
NODES_BETWEEN_YIELDS = 50
"""Nodes that a pass looks at before the loop may do something else: a few milliseconds."""
ATTEMPTS = 3
BACKOFF = (timedelta(seconds=10), timedelta(minutes=5))
FAILURES_IN_A_PASS = 3


class Pods(Protocol):
    """The part of `kube.eviction.Evictor` that the reaper needs."""

    async def read(self, pod: Pod) -> FreshPod | None: ...
    async def evict(self, pod: Pod) -> EvictionResult: ...
    async def budget_selector(self, namespace: str, name: str) -> Selector | None: ...


class Announcer(Protocol):
    """Tells people: Kubernetes Events."""

    async def evicted(self, pod: Pod, why: str) -> None: ...
    async def paused(self, pool: str, pod: Pod, why: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """One pass: what was decided, what came of it, and why the rest stays."""

    pool: str
    plan: EvictionPlan
    outcomes: Mapping[str, EvictionOutcome]
    skipped: Mapping[str, SkipReason]
    dry_run: bool


@dataclass(slots=True)
class _Blocked:
    """A budget that said no: until when it is not asked again, and whom it covers (None: the whole namespace)."""

    until: datetime
    pause: timedelta
    selector: Selector | None


@dataclass(slots=True)
class _PoolMemory:
    next_pass: datetime | None = None
    episodes: tuple[Episode, ...] = ()
    failures: int = 0
    told_paused: bool = False
    last_skips: Mapping[str, SkipReason] = field(default_factory=dict)


class Reaper:
    """Runs the passes of every pool.

    ``is_leader`` and ``is_fresh`` are asked before each eviction. ``pool_settings`` gives a pool's settings as they are
    in force now.
    """

    def __init__(
        self,
        *,
        state: ClusterState,
        pods: Pods,
        announcer: Announcer,
        metrics: Metrics,
        pool_settings: Callable[[str], PoolReaping],
        is_leader: Callable[[], bool],
        is_fresh: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self._state = state
        self._pods = pods
        self._announcer = announcer
        self._metrics = metrics
        self._pool_settings = pool_settings
        self._is_leader = is_leader
        self._is_fresh = is_fresh
        self._clock = clock
        self._memory: dict[str, _PoolMemory] = {}
        self._blocked: dict[tuple[str, str], _Blocked] = {}
        self._held: dict[str, datetime] = {}
        self._throttled_until: datetime | None = None

    async def run(self) -> None:
        """Run passes for ever, each pool at its own interval. Ends only by cancellation.

        The one guard: a bug in a pass is logged with its traceback and counted, and the pass is tried again later.
        """
        while True:
            await asyncio.sleep(TICK.total_seconds())
            if not (self._is_leader() and self._state.synced and self._is_fresh()):
                continue
            names = self._state.pool_names()
            for gone in self._memory.keys() - names:
                del self._memory[gone]
            for pool in sorted(names):
                memory = self._memory.setdefault(pool, _PoolMemory())
                if memory.next_pass is not None and self._clock() < memory.next_pass:
                    continue
                memory.next_pass = self._clock() + self._pool_settings(pool).interval
                try:
                    await self.one_pass(pool)
                except Exception:
                    self._metrics.reap_passes.labels("crashed").inc()
                    log.exception("a pass failed", extra=fields(pool=pool))

    async def one_pass(self, pool: str) -> PassReport:
        """Look at one pool and evict what may go now."""
        settings = self._pool_settings(pool)
        memory = self._memory.setdefault(pool, _PoolMemory())
        assessments = [each async for each in self._assess(pool, settings.rules)]
        now = self._clock()
        self._held = {uid: until for uid, until in self._held.items() if now < until}
        held = dict.fromkeys(self._held, SkipReason.BUDGET_BLOCKED)
        plan = plan_evictions(assessments, settings.limits, held)
        skipped = dict(plan.skipped)
        outcomes: dict[str, EvictionOutcome] = {}
        waits = await self._why_pool_waits(pool, memory)
        if waits is not None:
            skipped.update(dict.fromkeys((victim.uid for victim in plan.victims), waits))
        elif settings.dry_run:
            for victim in plan.victims:
                log.info("would evict", extra=_about(victim, pool, self._clock()))
        else:
            await self._carry_out(pool, plan, settings, memory, outcomes, skipped)
        report = PassReport(pool=pool, plan=plan, outcomes=outcomes, skipped=skipped, dry_run=settings.dry_run)
        self._tell(report, memory, assessments, settings)
        return report

    # -- a pass -------------------------------------------------------------------------------------------------------

    async def _assess(self, pool: str, rules: ReapRules) -> AsyncIterator[Assessment]:
        now = self._clock()
        for position, name in enumerate(list(self._state.nodes), 1):
            if position % NODES_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
            assessment = self._assess_node(name, pool, rules, now)
            if assessment is not None:
                yield assessment

    def _assess_node(self, name: str, pool: str, rules: ReapRules, now: datetime) -> Assessment | None:
        node = self._state.nodes.get(name)
        workers = [worker for worker in self._state.workers_on(name).values() if worker.pool == pool]
        if node is None or not workers:
            return None
        return assess_node(
            node=name,
            order_key=self._state.order[name],
            departure=departure_of(node),
            workers=workers,
            others=self._state.holders_on(name, besides=pool),
            rules=rules,
            now=now,
        )

    async def _why_pool_waits(self, pool: str, memory: _PoolMemory) -> SkipReason | None:
        now = self._clock()
        if memory.episodes:
            memory.episodes = judge_episodes(memory.episodes, self._placed(pool), now)
        waits = why_pool_waits(unscheduled=self._state.unscheduled(pool), episodes=memory.episodes, now=now)
        is_paused = waits is SkipReason.POOL_PAUSED
        self._metrics.reap_paused.labels(self._metrics.pool_label(pool)).set(is_paused)
        if is_paused and not memory.told_paused:
            why = f"workers came back after evictions; no more until {paused_until(memory.episodes):%H:%M:%S} UTC"
            log.warning("pool paused", extra=fields(pool=pool, why=why))
            example = next((pod for pod, _ in self._placed(pool)), None)
            if example is not None:
                await self._announcer.paused(pool, example, why)
        memory.told_paused = is_paused
        return waits

    def _placed(self, pool: str) -> Iterator[tuple[Pod, OrderKey]]:
        for name, key in self._state.order.items():
            for worker in self._state.workers_on(name).values():
                if worker.pool == pool:
                    yield worker, key

    async def _carry_out(
        self,
        pool: str,
        plan: EvictionPlan,
        settings: PoolReaping,
        memory: _PoolMemory,
        outcomes: dict[str, EvictionOutcome],
        skipped: dict[str, SkipReason],
    ) -> None:
        began = self._clock()
        emptied: list[OrderKey] = []
        failures = 0
        for victim in plan.victims:
            reason = self._why_not_now(pool, victim, settings)
            if reason is None and failures >= FAILURES_IN_A_PASS:
                reason = SkipReason.BACKING_OFF
            if reason is not None:
                skipped[victim.uid] = reason
                continue
            key = self._state.order.get(victim.node or "")
            outcome = await self._evict(pool, victim, settings, skipped)
            if outcome is None:
                continue
            outcomes[victim.uid] = outcome
            self._metrics.evictions.labels(self._metrics.pool_label(pool), outcome).inc()
            failures += outcome in (EvictionOutcome.FAILED, EvictionOutcome.FORBIDDEN)
            if outcome is EvictionOutcome.EVICTED and key is not None:
                emptied.append(key)
        if emptied:
            memory.episodes = (*memory.episodes, Episode(began=began, oldest=min(emptied)))
        memory.failures = memory.failures + 1 if failures else 0
        if memory.failures:
            memory.next_pass = self._clock() + min(BACKOFF[0] * 2 ** min(memory.failures - 1, 10), BACKOFF[1])

    def _why_not_now(self, pool: str, victim: Pod, settings: PoolReaping) -> SkipReason | None:
        """Ask everything again that may have changed since the plan, from the live state."""
        now = self._clock()
        if not self._is_leader() or not self._is_fresh():
            return SkipReason.BACKING_OFF
        if self._throttled_until is not None and now < self._throttled_until:
            return SkipReason.BACKING_OFF
        if self._state.unscheduled(pool):
            return SkipReason.PENDING_WORKERS
        pod = self._state.pods.get(victim.uid)
        if pod is None:
            return SkipReason.TERMINATING
        reason = why_not_reapable(pod, settings.rules, now)
        if reason is not None:
            return reason
        return SkipReason.FLOOR if self._is_held_by_floor(pool, pod, settings, now) else None

    def _is_held_by_floor(self, pool: str, pod: Pod, settings: PoolReaping, now: datetime) -> bool:
        """True where fewer than ``floor`` claimable workers are left without this one; never on a leaving node."""
        node = self._state.nodes.get(pod.node or "")
        if node is not None and departure_of(node) is not None:
            return False
        left = settings.limits.floor
        for name in self._state.nodes:
            for worker in self._state.workers_on(name).values():
                if worker.pool == pool and worker.uid != pod.uid and self._is_claimable(worker, now):
                    left -= 1
            if left <= 0:
                return False
        return left > 0

    def _is_claimable(self, worker: Pod, now: datetime) -> bool:
        node = self._state.nodes.get(worker.node or "")
        return node is not None and why_not_claimable(worker, departure_of(node), now) is None

    async def _evict(
        self, pool: str, victim: Pod, settings: PoolReaping, skipped: dict[str, SkipReason]
    ) -> EvictionOutcome | None:
        """Evict one worker: read it, decide again on what was read, evict that very version; three tries at most.

        None where it is not to be evicted any more; the reason is in ``skipped`` then.
        """
        result = EvictionResult(outcome=EvictionOutcome.CHANGED)
        for _ in range(ATTEMPTS):
            try:
                fresh = await self._pods.read(victim)
            except KubeError as error:
                log.warning("a worker cannot be read", extra=fields(pool=pool, pod=victim.name, problem=str(error)))
                return EvictionOutcome.FAILED
            if fresh is None:
                return EvictionOutcome.GONE
            # the pool was chosen by labels; a pod whose labels changed since is somebody else's
            reason = SkipReason.BUSY if fresh.pod.pool != pool else self._why_not_fresh(pool, fresh, settings)
            if reason is not None:
                skipped[victim.uid] = reason
                return None
            # nothing is awaited between this check and the request but the request itself
            if not self._is_leader():
                skipped[victim.uid] = SkipReason.BACKING_OFF
                return None
            result = await self._pods.evict(fresh.pod)
            if result.outcome is not EvictionOutcome.CHANGED:
                break
        await self._settle(pool, victim, result)
        return result.outcome

    def _why_not_fresh(self, pool: str, fresh: FreshPod, settings: PoolReaping) -> SkipReason | None:
        now = self._clock()
        reason = why_not_reapable(fresh.pod, settings.rules, now)
        if reason is not None:
            return reason
        if self._is_held_by_floor(pool, fresh.pod, settings, now):
            return SkipReason.FLOOR
        for (namespace, _), blocked in self._blocked.items():
            if (
                namespace == fresh.pod.namespace
                and now < blocked.until
                and (blocked.selector is None or selects(blocked.selector, fresh.labels))
            ):
                self._held[fresh.pod.uid] = blocked.until
                return SkipReason.BUDGET_BLOCKED
        return None

    async def _settle(self, pool: str, victim: Pod, result: EvictionResult) -> None:
        now = self._clock()
        match result.outcome:
            case EvictionOutcome.EVICTED:
                why = f"idle since {victim.idle_since:%Y-%m-%dT%H:%M:%SZ} on node {victim.node}"
                self._state.overlay_eviction(victim.uid)
                log.info("evicted", extra=_about(victim, pool, now))
                await self._announcer.evicted(victim, why)
            case EvictionOutcome.BLOCKED:
                key = (victim.namespace, result.budget or "")
                known = self._blocked.get(key)
                pause = result.retry_after or (min(known.pause * 2, BACKOFF[1]) if known is not None else BACKOFF[0])
                selector = await self._pods.budget_selector(victim.namespace, result.budget) if result.budget else None
                self._blocked[key] = _Blocked(until=now + pause, pause=pause, selector=selector)
                self._held[victim.uid] = now + pause
            case EvictionOutcome.SEVERAL_BUDGETS:
                self._held[victim.uid] = now + BACKOFF[1]
            case EvictionOutcome.THROTTLED:
                self._throttled_until = now + (result.retry_after or BACKOFF[0])
            case _:
                pass
        if result.outcome is not EvictionOutcome.EVICTED:
            log.info(
                "not evicted", extra=fields(pool=pool, pod=victim.name, outcome=result.outcome, detail=result.detail)
            )

    # -- what is told -------------------------------------------------------------------------------------------------

    def _tell(
        self, report: PassReport, memory: _PoolMemory, assessments: list[Assessment], settings: PoolReaping
    ) -> None:
        label = self._metrics.pool_label(report.pool)
        now = self._clock()
        skips = Counter(report.skipped.values())
        for reason in SkipReason:
            self._metrics.reap_skips.labels(label, reason).set(skips[reason])
        idle, busy = sum(each.idle for each in assessments), sum(each.busy for each in assessments)
        self._metrics.pool_workers.labels(label, "idle").set(idle)
        self._metrics.pool_workers.labels(label, "busy").set(busy)
        self._metrics.pool_claimable.labels(label).set(sum(len(each.claimable) for each in assessments))
        self._metrics.pool_floor.labels(label).set(settings.limits.floor)
        self._metrics.reap_passes.labels("dryRun" if report.dry_run else "done").inc()
        self._metrics.reap_last_success.labels(label).set(now.timestamp())
        memory.last_skips = report.skipped
        counted = Counter(report.outcomes.values())
        log.info(
            "pass",
            extra=fields(
                pool=report.pool,
                dry_run=report.dry_run,
                idle=idle,
                busy=busy,
                planned=len(report.plan.victims),
                **{str(outcome): count for outcome, count in counted.items()},
                stay={str(reason): count for reason, count in skips.items()},
            ),
        )


def _about(pod: Pod, pool: str, now: datetime) -> dict[str, object]:
    idle_for = int((now - pod.idle_since).total_seconds()) if pod.idle_since is not None else None
    return fields(pool=pool, namespace=pod.namespace, pod=pod.name, node=pod.node, idle_seconds=idle_for)
