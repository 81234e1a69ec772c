"""Carries out a judgement, one worker at a time.

Right before each eviction everything is asked again: leadership, the freshness of the watches, the pod as the API
server has it, the floor. Every worker that is not evicted after all has a reason, and every refusal is an outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.kube.errors import KubeError
from extender.kube.eviction import EvictionOutcome, EvictionResult, FreshPod, result_of
from extender.logs import fields
from extender.loops.eviction_backoff import Holds
from extender.loops.pass_report import about
from extender.model import OrderKey, Pod, Selector, SkipReason
from extender.policy.idleness import idle_since
from extender.policy.judging import PoolJudgement
from extender.policy.recheck import Standing
from extender.telemetry import Metrics

log = logging.getLogger("warmnode.reaper")

ATTEMPTS = 3
FAILURES_IN_A_PASS = 3


class Pods(Protocol):
    """The part of `kube.eviction.Evictor` that evictions need."""

    async def read(self, pod: Pod) -> FreshPod | None: ...
    async def evict(self, pod: Pod) -> EvictionResult: ...
    async def budget_selector(self, namespace: str, name: str) -> Selector | None: ...


class Announcer(Protocol):
    async def evicted(self, pod: Pod, why: str) -> None: ...
    async def paused(self, pool: str, pod: Pod, why: str) -> None: ...


@dataclass(slots=True)
class Carried:
    """What came of it: outcomes and reasons by pod UID, the nodes that were taken from, and how much failed."""

    outcomes: dict[str, EvictionOutcome] = field(default_factory=dict)
    skipped: dict[str, SkipReason] = field(default_factory=dict)
    taken_from: list[OrderKey] = field(default_factory=list)
    failures: int = 0


async def as_read(pod: Pod) -> Pod:
    """Take a pod as the API server has it."""
    return pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What a reaper acts with.

    ``may_evict``: this process leads, and what it knows is fresh; asked before each one. ``confirm`` gives a pod that
    was just read as its idle sources have it: it is asked after that, so whatever changes meanwhile moves its version.
    """

    pods: Pods
    announcer: Announcer
    metrics: Metrics
    may_evict: Callable[[], bool]
    confirm: Callable[[Pod], Awaitable[Pod]] = as_read


@dataclass(slots=True, kw_only=True, eq=False)
class Evictions:
    """Evicts the victims of a judgement. ``standing`` is how things stand since it was made."""

    state: ClusterState
    hands: Hands
    holds: Holds
    clock: Clock

    async def carry_out(self, judged: PoolJudgement, standing: Standing) -> Carried:
        """Evict the victims in their order. After three failures the rest is left for a later pass.

        A failure is an API server in trouble. One that is well and refuses a worker is asked for the others.
        """
        carried, pool, metrics = Carried(), judged.pool, self.hands.metrics
        for victim in judged.victims:
            reason = self._why_not_now(pool, victim, standing)
            if reason is None and carried.failures >= FAILURES_IN_A_PASS:
                reason = SkipReason.BACKING_OFF
            if reason is not None:
                carried.skipped[victim.uid] = reason
                continue
            key = self.state.order.get(victim.node or "")
            outcome = await self._evict(pool, victim, standing)
            if isinstance(outcome, SkipReason):
                carried.skipped[victim.uid] = outcome
                continue
            carried.outcomes[victim.uid] = outcome
            metrics.evictions.labels(metrics.pool_label(pool), outcome).inc()
            carried.failures += outcome is EvictionOutcome.FAILED
            if outcome is EvictionOutcome.EVICTED and key is not None:
                carried.taken_from.append(key)
        return carried

    def _why_not_now(self, pool: str, victim: Pod, standing: Standing) -> SkipReason | None:
        """Ask everything again that may have changed since the judgement, from the live state."""
        if not self.hands.may_evict() or self.holds.is_throttled(self.clock.steady()):
            return SkipReason.BACKING_OFF
        pod = self.state.pods.get(victim.uid)
        return SkipReason.TERMINATING if pod is None else self._why_it_stays(pool, pod, standing)

    def _why_it_stays(self, pool: str, pod: Pod, standing: Standing) -> SkipReason | None:
        return SkipReason.CLOCK_OFF if self.clock.is_off else standing.why_not_now(pool, pod, self.clock.now())

    async def _evict(self, pool: str, victim: Pod, standing: Standing) -> EvictionOutcome | SkipReason:
        """Evict one worker: read it, decide again on what was read, evict that very version; three tries at most.

        A reason where it is not to be evicted any more.
        """
        result = EvictionResult(outcome=EvictionOutcome.CHANGED)
        for _ in range(ATTEMPTS):
            try:
                fresh = await self.hands.pods.read(victim)
            except KubeError as error:
                result = result_of(error)
                break
            if fresh is None:
                return EvictionOutcome.GONE
            pod = await self.hands.confirm(fresh.pod)
            # the pool was chosen by labels; a pod whose labels changed since is somebody else's
            reason = SkipReason.BUSY if pod.pool != pool else self._why_it_stays(pool, pod, standing)
            if reason is None and self.holds.is_covered(fresh, self.clock.steady()):
                reason = SkipReason.BUDGET_BLOCKED
            if reason is not None:
                return reason
            # nothing is awaited between this check and the request but the request itself
            if not self.hands.may_evict():
                return SkipReason.BACKING_OFF
            result = await self.hands.pods.evict(pod)
            if result.outcome is not EvictionOutcome.CHANGED:
                break
        await self._settle(pool, victim, result)
        return result.outcome

    async def _settle(self, pool: str, victim: Pod, result: EvictionResult) -> None:
        now = self.clock.steady()
        match result.outcome:
            case EvictionOutcome.EVICTED:
                why = f"idle since {idle_since(victim):%Y-%m-%dT%H:%M:%SZ} on node {victim.node}"
                self.state.overlay_eviction(victim.uid)
                log.info("evicted", extra=about(victim, pool, self.clock.now()))
                await self.hands.announcer.evicted(victim, why)
                return
            case EvictionOutcome.BLOCKED:
                budget = result.budget
                selector = await self.hands.pods.budget_selector(victim.namespace, budget) if budget else None
                self.holds.block(victim, budget, selector, result.retry_after, now)
            case EvictionOutcome.SEVERAL_BUDGETS:
                self.holds.block_for_long(victim, now)
            case EvictionOutcome.THROTTLED:
                self.holds.throttle(result.retry_after, now)
            case EvictionOutcome.FORBIDDEN | EvictionOutcome.REFUSED | EvictionOutcome.FAILED:
                self.holds.refuse(victim, now)
            case _:
                pass
        log.info("not evicted", extra=fields(pool=pool, pod=victim.name, outcome=result.outcome, detail=result.detail))
