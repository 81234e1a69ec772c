"""What a pass of the reaper leaves behind: its report, and the figures and the log line made of it. Decides nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from extender.kube.eviction import EvictionOutcome
from extender.logs import fields
from extender.model import Pod, SkipReason
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
