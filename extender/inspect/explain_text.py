"""Shows an explanation as a page for people. Owns the words; decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

from extender.inspect.decision_text import tell_history
from extender.inspect.explain import (
    CostMeaning,
    Explanation,
    Fate,
    NodeExplanation,
    PodExplanation,
    PoolExplanation,
    WorkerFate,
)
from extender.inspect.plan import NodeLine, Plan
from extender.inspect.plan_text import why_ranked
from extender.inspect.reason_words import words_of
from extender.inspect.recall import History
from extender.inspect.text import count, page, some, span, table
from extender.model import FOREVER, PlacementMode, Pod, PodClaim, SkipReason, later
from extender.policy.deletion_cost import CostState
from extender.policy.idleness import idle_since, is_claimed, reports_idle
from extender.settings import format_duration
from extender.settings.pool_defaults import CacheKeySettings

SHOWN = 5
"""So many schedulers and conditions are named in a line; of pods three. The JSON form has all."""
NODE_UNKNOWN = "not known, because its node is not"


def render_explanation(explanation: Explanation, plan: Plan, history: History | None = None) -> str:
    """Write the page. ``history`` None: nobody was asked."""
    match explanation:
        case PodExplanation(pod=pod):
            worker = f", a worker of pool {pod.pool}" if explanation.worker is not None else ""
            title, rows = f"pod {pod.namespace}/{pod.name}{worker}", _pod_rows(explanation, plan)
        case NodeExplanation():
            title, rows = f"node {explanation.line.name}", _node_rows(explanation, plan)
        case PoolExplanation():
            title, rows = f"pool {explanation.line.name}", _pool_rows(explanation)
        case _:
            assert_never(explanation)
    lines = list(rows)
    width = max(len(label) for label, _ in lines)
    aligned = (f"{label:<{width}}  {text}" for label, text in lines)
    workers = _workers_table(explanation, plan.now) if isinstance(explanation, NodeExplanation) else ()
    return page((title, "", *aligned, *workers, *_decided(history, plan.now), *_foot(plan)))


def render_history(not_there: str, plan: Plan, history: History) -> str:
    """Write the page of something that is not there any more."""
    return page((not_there, *_decided(history, plan.now), *_foot(plan)))


def _decided(history: History | None, now: datetime) -> Iterator[str]:
    if history is not None:
        yield ""
        yield from tell_history(history, now)


def _foot(plan: Plan) -> Iterator[str]:
    yield ""
    yield f"read from {plan.source}, as of {plan.now:%Y-%m-%d %H:%M:%S} UTC"
    yield from (f"not known: {unknown}" for unknown in plan.unknown)


# -- a pod ------------------------------------------------------------------------------------------------------------


def _pod_rows(explanation: PodExplanation, plan: Plan) -> Iterator[tuple[str, str]]:
    pod, now = explanation.pod, plan.now
    yield "node", _where(explanation.node, pod, plan)
    if explanation.no_pool is not None:
        yield "no worker", f"{explanation.no_pool}; warmnode does nothing about it"
        return
    worker, settings = explanation.worker, explanation.settings
    if worker is None or settings is None:
        return
    yield "scheduler", pod.scheduler
    if settings.cache_key is not None:
        yield "cache key", pod.cache_key or f"none: it has no label {settings.cache_key.label}"
    yield "idle", _idle_words(pod, now)
    if pod.claim is not None and is_claimed(pod, now):
        yield "claimed", _claim_words(pod.claim)
    is_node_known = explanation.node is not None
    yield "claimable", _yes_or(worker.not_claimable) if is_node_known or worker.not_claimable else NODE_UNKNOWN
    yield "reapable", _yes_or(explanation.not_reapable)
    yield "a pass now", _fate_words(worker, explanation, dry_run=settings.dry_run)
    if explanation.before and worker.fate is not Fate.BUSY:
        names = some(f"{each.namespace}/{each.name} on {each.node}" for each in explanation.before)
        yield "before it", f"{count(len(explanation.before), 'worker')}: {names}"
    if explanation.cost is not None:
        yield "deletion cost", _cost_words(explanation.cost, now, "counts as 0: above every idle worker of ours")
        lower = count(explanation.cost.lower_in_pool, "worker")
        yield "", f"lower in the pool: {lower}, which a ReplicaSet takes first as far as they are its own"
    if explanation.disruption is not None:
        yield "disruption cost", _cost_words(explanation.disruption, now, "leaves it to the deletion cost")
    reap = settings.reap
    told = f"floor {reap.floor}, idleTimeout {format_duration(reap.idle_timeout)}, scaleIn {reap.scale_in}"
    shadow = ", placement in the shadow" if settings.placement is PlacementMode.SHADOW else ""
    yield "settings", told + (", dry-run" if settings.dry_run else "") + shadow


def _where(line: NodeLine | None, pod: Pod, plan: Plan) -> str:
    if pod.node is None:
        return "none yet: kube-scheduler has found no node, or has not looked"
    if line is None:
        return f"{pod.node}, which is not known"
    rank = f"rank {line.rank} of {sum(each.rank is not None for each in plan.nodes)}" if line.rank else "no rank"
    return f"{line.name}, {rank}: {why_ranked(line, plan.now)}"


def _idle_words(pod: Pod, now: datetime) -> str:
    if pod.idle_since is None:
        return "no: it has no mark warmnode.dev/idle-since that is a time"
    since = f"{pod.idle_since:%Y-%m-%d %H:%M:%S} UTC"
    if not reports_idle(pod, now):
        return f"no: its mark is in the future ({since}), which counts as busy"
    last = idle_since(pod) or pod.idle_since
    ended = (
        "" if last == pod.idle_since or is_claimed(pod, now) else f", and its last claim ended {span(now - last)} ago"
    )
    return f"yes, for {span(now - pod.idle_since)} (since {since}){ended}"


def _claim_words(claim: PodClaim) -> str:
    if not claim.id:
        return "by somebody whose claim cannot be read: it is held for ever, until the annotation is removed"
    return f"by {claim.claimant!r} of {claim.user}, until {claim.expires:%Y-%m-%d %H:%M:%S} UTC"


def _yes_or(reason: SkipReason | None) -> str:
    return "yes" if reason is None else f"no: {words_of(reason)} ({reason})"


def _fate_words(worker: WorkerFate, explanation: PodExplanation, *, dry_run: bool) -> str:
    match worker.fate:
        case Fate.EVICTED:
            would = "would evict it, but for dry-run" if dry_run else "evicts it"
            return f"{would}: number {worker.position} of {explanation.evictions}"
        case Fate.BUSY:
            return "leaves it alone: it is busy"
        case Fate.STAYS:
            if worker.reason is None and explanation.not_reapable is None:
                return "keeps it" if explanation.node is not None else NODE_UNKNOWN
            if worker.reason in (None, explanation.not_reapable):  # said in the line above
                return f"keeps it: {explanation.not_reapable}"
            until = explanation.paused_until
            ends = f", until {until:%H:%M:%S} UTC" if until is not None and worker.reason is explanation.waits else ""
            return f"keeps it: {words_of(worker.reason)}{ends} ({worker.reason})"
        case _:
            assert_never(worker.fate)


def _cost_words(cost: CostMeaning, now: datetime, without: str) -> str:
    """Say what a price says, and ``without`` one what that means."""
    then = f"; {cost.to_write:,} would be written" if cost.to_write is not None else ""
    match cost.whose:
        case CostState.NONE:
            return f"none, which {without}{then}"
        case CostState.FOREIGN:
            return f"{cost.value}: somebody else wrote it, so it is left alone"
        case CostState.OVERWRITTEN:
            return f"{cost.value}: somebody else wrote it over ours, so it is left alone"
        case CostState.OURS:
            if cost.says_idle is None:
                return f"{cost.value}: as far as it reaches{then}"
            said = "idle" if cost.says_idle else "busy, and was idle before"
            seen = (
                f", on a node first seen {span(now - cost.node_first_seen)} ago"
                if cost.node_first_seen is not None
                else ""
            )
            return f"{cost.value}: {said}{seen}{then}"
        case _:
            assert_never(cost.whose)


# -- a node -----------------------------------------------------------------------------------------------------------


def _workers_table(explanation: NodeExplanation, now: datetime) -> Iterator[str]:
    if explanation.workers:
        yield ""
        rows = [
            (each.pod.pool or "", f"{each.pod.namespace}/{each.pod.name}", _idle_for(each.pod, now), _short_fate(each))
            for each in explanation.workers
        ]
        yield from table(("POOL", "WORKER", "IDLE FOR", "A PASS NOW"), rows)


def _node_rows(explanation: NodeExplanation, plan: Plan) -> Iterator[tuple[str, str]]:
    line, now = explanation.line, plan.now
    rank = f"{line.rank} of {explanation.ranked}" if line.rank is not None else "none"
    yield "rank", f"{rank}: {why_ranked(line, now)}"
    yield "score", f"{line.score} where every node is feasible" if line.score else "none"
    if line.first_seen is None:
        first = "not seen yet, so after all that were, by creation"
    else:
        first = f"first seen in the minute {line.first_seen:%Y-%m-%d %H:%M} UTC"
    yield "order", f"{first}; slot {explanation.key[2]} of 0 to 7; then UID {line.uid}"
    for label, other in (("before it", explanation.before), ("after it", explanation.after)):
        yield label, f"{other.name} ({why_ranked(other, now)})" if other is not None else "nothing"
    if explanation.node.node_pool is not None:
        yield "Karpenter", _karpenter_words(explanation)
    for pool, each, inside in explanation.sets:
        reach = f"{count(each.nodes, 'node')} up to {each.last}"
        yield "working set", f"of pool {pool}, {reach}: {'it is in it' if inside else 'it is not in it'}"
    if explanation.others:
        yield "others", f"{count(explanation.others, 'pod')} of no pool on it"
    yield "a pass now", "leaves it empty for Karpenter" if explanation.empties else "leaves something on it"


def _karpenter_words(explanation: NodeExplanation) -> str:
    node, claim = explanation.node, explanation.claim
    told = f"NodePool {node.node_pool}"
    if claim is None:
        return f"{told}, NodeClaim not known"
    conditions = f" ({some(sorted(claim.conditions), SHOWN)})" if claim.conditions else ""
    ends = FOREVER if claim.expire_after is None else later(claim.created, claim.expire_after)
    expires = f", expires {ends:%Y-%m-%d %H:%M} UTC" if ends < FOREVER else ""
    return f"{told}, NodeClaim {claim.name}{conditions}{expires}"


def _idle_for(pod: Pod, now: datetime) -> str:
    since = idle_since(pod)
    if is_claimed(pod, now):
        return "claimed"
    return span(now - since) if since is not None and reports_idle(pod, now) else "busy"


def _short_fate(worker: WorkerFate) -> str:
    if worker.fate is Fate.EVICTED:
        return f"evicted as number {worker.position}"
    return f"stays: {worker.reason}" if worker.reason is not None else "stays"


# -- a pool -----------------------------------------------------------------------------------------------------------


def _pool_rows(explanation: PoolExplanation) -> Iterator[tuple[str, str]]:
    line, settings, reap = explanation.line, explanation.settings, explanation.reap
    yield (
        "workers",
        f"{count(line.workers, 'worker')}: {line.idle:,} idle, "
        f"{line.busy:,} busy, {line.claimed:,} claimed, {line.pending:,} without a node; "
        f"on {count(line.nodes, 'node')}",
    )
    yield "schedulers", some((f"{name} ({number:,})" for name, number in explanation.schedulers), SHOWN) or "none"
    chosen = settings.reap
    yield (
        "reaping",
        f"floor {chosen.floor}, idleTimeout {format_duration(chosen.idle_timeout)}, scaleIn {chosen.scale_in}"
        + (", wholeNode" if chosen.whole_node else "")
        + ("" if chosen.enabled else ", switched off")
        + (", dry-run" if settings.dry_run else ""),
    )
    if settings.cache_key is not None:
        yield "cache key", f"label {settings.cache_key.label}, decides {_reach_words(settings.cache_key)}"
    if (found := line.working_set) is not None:
        yield "working set", f"{count(found.nodes, 'node')} up to {found.last}, as far as one look can say"
    handed = some(f"{pod.namespace}/{pod.name} on {pod.node}" for pod in reap.claimable)
    yield "claimable", f"{len(reap.claimable):,}, warmest first: {handed}" if handed else "none"
    if reap.waits is not None:
        until = f", until {reap.paused_until:%H:%M:%S} UTC" if reap.paused_until is not None else ""
        yield "a pass now", f"waits: {words_of(reap.waits)}{until} ({reap.waits})"
    victims = some(f"{pod.namespace}/{pod.name} on {pod.node}" for pod in reap.victims)
    yield "would evict", f"{len(reap.victims):,}, in this order: {victims}" if victims else "nobody"
    stays = Counter(reason for _, reason in reap.stays)
    for reason, number in sorted(stays.items(), key=lambda entry: (-entry[1], entry[0])):
        yield "stays", f"{number:,}: {words_of(reason)} ({reason})"
    yield "costs", f"{count(len(reap.costs), 'deletion cost')} to write"


def _reach_words(key: CacheKeySettings) -> str:
    if isinstance(key.window, int):
        return f"among the {count(key.window, 'oldest node')} that fit"
    return f"in the working set, with a slack of {key.slack:.0%}"
