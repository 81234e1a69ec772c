"""What a pass of the reaper leaves behind: its report, the figures and the log line made of it, and what is remembered
of each worker that it wanted to evict. Decides nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from extender.cluster.history import DecisionHistory
from extender.kube.eviction import EvictionOutcome
from extender.logs import fields
from extender.model import Pod, SkipReason
from extender.policy.decisions import EvictionDecision
from extender.policy.idleness import idle_since
from extender.policy.judging import PoolJudgement
from extender.policy.node_pool_budgets import STAYS, Kept
from extender.policy.reaping import Skips
from extender.telemetry import Figure, Metrics

log = logging.getLogger("warmnode.reaper")

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """One pass: what was decided, what came of it, and why the rest stays."""

    judged: PoolJudgement
    outcomes: Mapping[str, EvictionOutcome]
    skipped: Skips


def tell_pass(report: PassReport) -> None:
    """Tell the log of a pass that looked at the cluster and finished."""
    judged = report.judged
    log.info(
        "pass",
        extra=fields(
            pool=judged.pool,
            dry_run=judged.dry_run,
            idle=judged.counts.idle,
            busy=judged.counts.busy,
            claimed=judged.counts.claimed,
            planned=len(judged.victims),
            **{str(outcome): count for outcome, count in Counter(report.outcomes.values()).items()},
            stay={str(reason): count for reason, count in report.skipped.count().items()},
        ),
    )


def figures_of_pass(report: PassReport, metrics: Metrics, now: datetime) -> Iterator[Figure]:
    """Give what is shown of a pool until its next pass."""
    judged, counts, skips = report.judged, report.judged.counts, report.skipped.count()
    pool = judged.pool
    for reason in SkipReason:
        yield Figure(metrics.reap_skips, (pool, reason), skips[reason])
    for state, count in (("idle", counts.idle), ("busy", counts.busy), ("claimed", counts.claimed)):
        yield Figure(metrics.pool_workers, (pool, state), count)
    yield Figure(metrics.pool_claimable, (pool,), counts.claimable)
    yield Figure(metrics.pool_floor, (pool,), judged.floor)
    yield Figure(metrics.reap_unplaced, (pool,), counts.unplaced)
    yield Figure(metrics.reap_paused, (pool,), judged.waits is SkipReason.POOL_PAUSED)
    yield Figure(metrics.reap_last_success, (pool,), now.timestamp())


def figures_of_stuck(stuck: Mapping[str, Kept | None], metrics: Metrics) -> Iterator[Figure]:
    """Give how many empty nodes Karpenter does not take, by what is known of why: over all NodePools."""
    reasons = Counter(UNKNOWN if kept is None else str(kept.reason) for kept in stuck.values())
    for reason in (*STAYS, UNKNOWN):
        yield Figure(metrics.stuck_nodes, (reason,), reasons[reason])


def about(pod: Pod, pool: str, now: datetime) -> dict[str, object]:
    """Name a worker in a log line."""
    since = idle_since(pod)
    idle_for = int((now - since).total_seconds()) if since is not None else None
    return fields(pool=pool, namespace=pod.namespace, pod=pod.name, node=pod.node, idle_seconds=idle_for)


@dataclass(slots=True, eq=False)
class EvictionHistory:
    """Puts the victims of passes into a history. One that stays is told once, for as long as the reason is the same."""

    history: DecisionHistory
    _told: dict[str, dict[str, str]] = field(default_factory=dict, init=False)

    def passed(self, pool: str, victims: Sequence[Pod], outcomes: Mapping[str, str]) -> None:
        """Take note of a pass: its victims, in order, and what came of each, by UID."""
        before = self._told.pop(pool, {})
        now = {victim.uid: outcomes[victim.uid] for victim in victims if victim.uid in outcomes}
        if now:  # else nothing is kept of a pool: their names may be anybody's
            self._told[pool] = now
        for victim in victims:
            outcome = now.get(victim.uid)
            if outcome is not None and outcome != before.get(victim.uid):
                self.history.add(
                    EvictionDecision(
                        at=self.history.now(),
                        namespace=victim.namespace,
                        pod=victim.name,
                        uid=victim.uid,
                        pool=pool,
                        node=victim.node,
                        outcome=outcome,
                        idle_since=idle_since(victim),
                    )
                )
