"""What a pass of the reaper leaves behind: its report, and the metrics and the log line made of it. Decides nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from extender.kube.eviction import EvictionOutcome
from extender.model import Pod, SkipReason
from extender.policy.budgets import STAYS, Kept
from extender.policy.idleness import idle_since
from extender.policy.reaping import Assessment, EvictionPlan
from extender.settings import PoolSettings
from extender.telemetry import Metrics, fields

log = logging.getLogger("warmnode.reaper")

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """One pass: what was decided, what came of it, and why the rest stays."""

    pool: str
    plan: EvictionPlan
    outcomes: Mapping[str, EvictionOutcome]
    skipped: Mapping[str, SkipReason]
    dry_run: bool


def tell_pass(
    report: PassReport, assessments: Sequence[Assessment], settings: PoolSettings, metrics: Metrics, now: datetime
) -> None:
    """Tell metrics and log of a pass that looked at the cluster and finished."""
    label = metrics.pool_label(report.pool)
    skips = Counter(report.skipped.values())
    for reason in SkipReason:
        metrics.reap_skips.labels(label, reason).set(skips[reason])
    idle, busy = sum(each.idle for each in assessments), sum(each.busy for each in assessments)
    metrics.pool_workers.labels(label, "idle").set(idle)
    metrics.pool_workers.labels(label, "busy").set(busy)
    claimed = sum(each.claimed for each in assessments)
    metrics.pool_workers.labels(label, "claimed").set(claimed)
    metrics.pool_claimable.labels(label).set(sum(each.claimable for each in assessments))
    metrics.pool_floor.labels(label).set(settings.reap.floor)
    metrics.reap_passes.labels("dryRun" if report.dry_run else "done").inc()
    metrics.reap_last_success.labels(label).set(now.timestamp())
    log.info(
        "pass",
        extra=fields(
            pool=report.pool,
            dry_run=report.dry_run,
            idle=idle,
            busy=busy,
            claimed=claimed,
            planned=len(report.plan.victims),
            **{str(outcome): count for outcome, count in Counter(report.outcomes.values()).items()},
            stay={str(reason): count for reason, count in skips.items()},
        ),
    )


def tell_stuck(stuck: Mapping[str, Kept | None], metrics: Metrics) -> None:
    """Tell how many empty nodes Karpenter does not take, by what is known of why: over all NodePools."""
    reasons = Counter(UNKNOWN if kept is None else str(kept.reason) for kept in stuck.values())
    for reason in (*STAYS, UNKNOWN):
        metrics.stuck_nodes.labels(reason).set(reasons[reason])


def about(pod: Pod, pool: str, now: datetime) -> dict[str, object]:
    """Name a worker in a log line."""
    since = idle_since(pod)
    idle_for = int((now - since).total_seconds()) if since is not None else None
    return fields(pool=pool, namespace=pod.namespace, pod=pod.name, node=pod.node, idle_seconds=idle_for)
