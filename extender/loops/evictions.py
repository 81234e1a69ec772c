"""Carries out an eviction plan, one worker at a time.

Right before each eviction everything is asked again: leadership, the freshness of the watches, the pod as the API
server has it, the floor. Every worker that is not evicted after all has a reason, and every refusal is an outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.kube.errors import KubeError
from extender.kube.eviction import EvictionOutcome, EvictionResult, FreshPod, result_of
from extender.loops.floor import ClaimableCount
from extender.loops.holds import Holds
from extender.loops.pass_report import about
from extender.model import OrderKey, Pod, Selector, SkipReason
from extender.policy.disruption_room import DisruptionRoom
from extender.policy.idleness import idle_since, why_not_reapable
from extender.policy.reaping import EvictionPlan
from extender.settings import PoolSettings
from extender.telemetry import Metrics, fields

log = logging.getLogger("warmnode.reaper")

ATTEMPTS = 3
FAILURES_IN_A_PASS = 3


class Pods(Protocol):
    """The part of `kube.eviction.Evictor` that evictions need."""

    async def read(self, pod: Pod) -> FreshPod | None: ...
    async def evict(self, pod: Pod) -> EvictionResult: ...
    async def budget_selector(self, namespace: str, name: str) -> Selector | None: ...


class Announcer(Protocol):
    """Tells people: Kubernetes Events."""

    async def evicted(self, pod: Pod, why: str) -> None: ...
    async def paused(self, pool: str, pod: Pod, why: str) -> None: ...


@dataclass(slots=True)
class Carried:
    """What came of a plan: outcomes and reasons by pod UID, the nodes that were taken from, and how much failed."""

    outcomes: dict[str, EvictionOutcome] = field(default_factory=dict)
    skipped: dict[str, SkipReason] = field(default_factory=dict)
    taken_from: list[OrderKey] = field(default_factory=list)
    failures: int = 0


class Evictions:
    """Evicts the victims of plans. ``pool_settings``, ``is_leader`` and ``is_fresh`` are asked before each eviction."""

    def __init__(
        self,
        *,
        state: ClusterState,
        pods: Pods,
        announcer: Announcer,
        metrics: Metrics,
        holds: Holds,
        pool_settings: Callable[[str], PoolSettings],
        is_leader: Callable[[], bool],
        is_fresh: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._state = state
        self._pods = pods
        self._announcer = announcer
        self._metrics = metrics
        self._holds = holds
        self._pool_settings = pool_settings
        self._is_leader = is_leader
        self._is_fresh = is_fresh
        self._clock = clock

    async def carry_out(
        self, pool: str, plan: EvictionPlan, claimable: ClaimableCount, rooms: DisruptionRoom
    ) -> Carried:
        """Evict the plan's victims in its order. After three failures the rest is left for a later pass.

        A failure is an API server in trouble. One that is well and refuses a worker is asked for the others.
        """
        carried = Carried()
        for victim in plan.victims:
            reason = self._why_not_now(pool, victim, claimable, rooms)
            if reason is None and carried.failures >= FAILURES_IN_A_PASS:
                reason = SkipReason.BACKING_OFF
            if reason is not None:
                carried.skipped[victim.uid] = reason
                continue
            key = self._state.order.get(victim.node or "")
            outcome = await self._evict(pool, victim, claimable)
            if isinstance(outcome, SkipReason):
                carried.skipped[victim.uid] = outcome
                continue
            carried.outcomes[victim.uid] = outcome
            self._metrics.evictions.labels(self._metrics.pool_label(pool), outcome).inc()
            carried.failures += outcome is EvictionOutcome.FAILED
            if outcome is EvictionOutcome.EVICTED and key is not None:
                carried.taken_from.append(key)
        return carried

    def _why_not_now(
        self, pool: str, victim: Pod, claimable: ClaimableCount, rooms: DisruptionRoom
    ) -> SkipReason | None:
        """Ask everything again that may have changed since the plan, from the live state."""
        if not self._is_leader() or not self._is_fresh() or self._holds.is_throttled(self._clock.steady()):
            return SkipReason.BACKING_OFF
        if self._state.is_held_up(pool, self._pool_settings(pool).reap.pending_for):
            return SkipReason.PENDING_WORKERS
        pod = self._state.pods.get(victim.uid)
        if pod is None:
            return SkipReason.TERMINATING
        return self._why_it_stays(pod, pool, claimable) or rooms.why_not(pod, self._clock.now())

    def _why_it_stays(self, pod: Pod, pool: str, claimable: ClaimableCount) -> SkipReason | None:
        """Judge a version of a worker by the settings that are in force now."""
        if self._clock.is_off:
            return SkipReason.CLOCK_OFF
        now, settings = self._clock.now(), self._pool_settings(pool)
        if settings.dry_run:
            return SkipReason.DISABLED
        reason = why_not_reapable(pod, settings.reap, now)
        if reason is None and self._is_held_by_floor(pod, settings, claimable, now):
            return SkipReason.FLOOR
        return reason

    def _is_held_by_floor(self, pod: Pod, settings: PoolSettings, claimable: ClaimableCount, now: datetime) -> bool:
        """True where fewer than ``floor`` claimable workers are left without this one; never on a leaving node."""
        if self._state.departure(pod.node or "") is not None:
            return False
        return claimable.besides(pod, now) < settings.reap.floor

    async def _evict(self, pool: str, victim: Pod, claimable: ClaimableCount) -> EvictionOutcome | SkipReason:
        """Evict one worker: read it, decide again on what was read, evict that very version; three tries at most.

        A reason where it is not to be evicted any more.
        """
        result = EvictionResult(outcome=EvictionOutcome.CHANGED)
        for _ in range(ATTEMPTS):
            try:
                fresh = await self._pods.read(victim)
            except KubeError as error:
                result = result_of(error)
                break
            if fresh is None:
                return EvictionOutcome.GONE
            # the pool was chosen by labels; a pod whose labels changed since is somebody else's
            reason = SkipReason.BUSY if fresh.pod.pool != pool else self._why_not_fresh(fresh, pool, claimable)
            if reason is not None:
                return reason
            # nothing is awaited between this check and the request but the request itself
            if not (self._is_leader() and self._is_fresh()):
                return SkipReason.BACKING_OFF
            result = await self._pods.evict(fresh.pod)
            if result.outcome is not EvictionOutcome.CHANGED:
                break
        await self._settle(pool, victim, result)
        return result.outcome

    def _why_not_fresh(self, fresh: FreshPod, pool: str, claimable: ClaimableCount) -> SkipReason | None:
        reason = self._why_it_stays(fresh.pod, pool, claimable)
        if reason is not None:
            return reason
        return SkipReason.BUDGET_BLOCKED if self._holds.is_covered(fresh, self._clock.steady()) else None

    async def _settle(self, pool: str, victim: Pod, result: EvictionResult) -> None:
        now = self._clock.steady()
        match result.outcome:
            case EvictionOutcome.EVICTED:
                why = f"idle since {idle_since(victim):%Y-%m-%dT%H:%M:%SZ} on node {victim.node}"
                self._state.overlay_eviction(victim.uid)
                log.info("evicted", extra=about(victim, pool, self._clock.now()))
                await self._announcer.evicted(victim, why)
                return
            case EvictionOutcome.BLOCKED:
                selector = await self._pods.budget_selector(victim.namespace, result.budget) if result.budget else None
                self._holds.block(victim, result.budget, selector, result.retry_after, now)
            case EvictionOutcome.SEVERAL_BUDGETS:
                self._holds.block_for_long(victim, now)
            case EvictionOutcome.THROTTLED:
                self._holds.throttle(result.retry_after, now)
            case EvictionOutcome.FORBIDDEN | EvictionOutcome.REFUSED | EvictionOutcome.FAILED:
                self._holds.refuse(victim, now)
            case _:
                pass
        log.info("not evicted", extra=fields(pool=pool, pod=victim.name, outcome=result.outcome, detail=result.detail))
