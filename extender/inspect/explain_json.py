"""Writes an explanation as JSON for programs: an interface, which docs/explain.md describes. Decides nothing."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

import msgspec

from extender.inspect.explain import Explanation, NodeExplanation, PodExplanation, PoolExplanation, WorkerFate
from extender.inspect.plan import NodeLine, Plan
from extender.inspect.plan_text import why_ranked
from extender.model import Pod
from extender.policy.idleness import idle_since, is_claimed, reports_idle
from extender.settings import PoolSettings, format_duration

SCHEMA = "warmnode.dev/explain/v1alpha1"


def encode_explanation(explanation: Explanation, plan: Plan) -> str:
    """Write the stable JSON form that docs/explain.md describes."""
    match explanation:
        case PodExplanation():
            kind, tree = "pod", _pod_tree(explanation, plan)
        case NodeExplanation():
            kind, tree = "node", _node_tree(explanation, plan)
        case PoolExplanation():
            kind, tree = "pool", _pool_tree(explanation, plan)
        case _:
            assert_never(explanation)
    whole = {"schema": SCHEMA, "now": plan.now, "source": plan.source, "unknown": plan.unknown, kind: tree}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()


def _pod_tree(explanation: PodExplanation, plan: Plan) -> dict[str, object]:
    pod, worker, cost = explanation.pod, explanation.worker, explanation.cost
    return {
        "namespace": pod.namespace,
        "name": pod.name,
        "uid": pod.uid,
        "pool": pod.pool,
        "noPool": explanation.no_pool,
        "node": None if explanation.node is None else _line_tree(explanation.node, plan.now),
        "scheduler": pod.scheduler,
        "cacheKey": pod.cache_key,
        "idle": reports_idle(pod, plan.now),
        "idleSince": idle_since(pod),
        "claim": _claim_tree(pod, plan.now),
        "notClaimable": None if worker is None else worker.not_claimable,
        "notReapable": explanation.not_reapable,
        "pass": None if worker is None else _fate_tree(worker),
        "waits": explanation.waits,
        "pausedUntil": explanation.paused_until,
        "before": [_name_tree(each) for each in explanation.before],
        "deletionCost": None
        if cost is None
        else {
            "value": cost.value,
            "whose": cost.state,
            "saysIdle": cost.says_idle,
            "nodeFirstSeen": cost.node_seen,
            "lowerInPool": cost.lower,
            "toWrite": cost.to_write,
        },
    }


def _node_tree(explanation: NodeExplanation, plan: Plan) -> dict[str, object]:
    unseen, when, slot, _ = explanation.key
    return {
        **_line_tree(explanation.line, plan.now),
        "ranked": explanation.ranked,
        "order": {"seen": not unseen, "minute": None if unseen else when, "slot": slot},
        "before": explanation.before.name if explanation.before is not None else None,
        "after": explanation.after.name if explanation.after is not None else None,
        "nodePool": explanation.node.node_pool,
        "nodeClaim": explanation.claim.name if explanation.claim is not None else None,
        "otherPods": explanation.others,
        "emptyAfterPass": explanation.empties,
        "workers": [
            {
                **_name_tree(worker.pod),
                "pool": worker.pod.pool,
                "idleSince": idle_since(worker.pod),
                "notClaimable": worker.not_claimable,
                "pass": _fate_tree(worker),
            }
            for worker in explanation.workers
        ],
    }


def _pool_tree(explanation: PoolExplanation, plan: Plan) -> dict[str, object]:
    line, settings, reap = explanation.line, explanation.settings, explanation.reap
    key = settings.cache_key
    return {
        "name": line.name,
        "idle": line.idle,
        "busy": line.busy,
        "claimed": line.claimed,
        "pending": line.pending,
        "nodes": line.nodes,
        "schedulers": dict(explanation.schedulers),
        "settings": _settings_tree(settings),
        "cacheKey": None if key is None else {"label": key.label, "window": key.window},
        "claimable": [_name_tree(pod) for pod in explanation.claimable],
        "waits": reap.waits,
        "pausedUntil": reap.paused_until,
        "evictions": [_name_tree(pod) for pod in reap.victims],
        "stays": [{**_name_tree(pod), "reason": reason} for pod, reason in reap.stays],
        "deletionCostsToWrite": len(reap.costs),
    }


def _name_tree(pod: Pod) -> dict[str, object]:
    return {"namespace": pod.namespace, "pod": pod.name, "node": pod.node}


def _fate_tree(worker: WorkerFate) -> dict[str, object]:
    return {"fate": worker.fate, "reason": worker.because, "position": worker.position}


def _line_tree(line: NodeLine, now: datetime) -> dict[str, object]:
    return {
        "name": line.name,
        "uid": line.uid,
        "rank": line.rank,
        "score": line.score,
        "created": line.created,
        "firstSeen": line.first_seen,
        "ageBasis": line.basis,
        "leaving": line.leaving,
        "ending": line.ending,
        "why": why_ranked(line, now),
    }


def _claim_tree(pod: Pod, now: datetime) -> dict[str, object] | None:
    if pod.claim is None or not is_claimed(pod, now):
        return None
    return {"claimant": pod.claim.claimant, "user": pod.claim.user, "expires": pod.claim.expires}


def _settings_tree(settings: PoolSettings) -> dict[str, object]:
    reap = settings.reap
    return {
        "floor": reap.floor,
        "idleTimeout": format_duration(reap.idle_timeout),
        "minPodAge": format_duration(reap.min_pod_age),
        "pendingFor": format_duration(reap.pending_for),
        "maxPerPass": reap.max_per_pass,
        "maxPerNode": reap.max_per_node,
        "wholeNode": reap.whole_node,
        "scaleIn": reap.scale_in,
        "reapEnabled": reap.enabled,
        "deletionCostEnabled": settings.deletion_cost.enabled,
        "dryRun": settings.dry_run,
    }
