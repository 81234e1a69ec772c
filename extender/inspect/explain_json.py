"""Writes an explanation as JSON for programs: an interface, which docs/explain.md describes. Decides nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

from extender.inspect.explain import Explanation, NodeExplanation, PodExplanation, PoolExplanation, WorkerFate
from extender.inspect.json_form import all_keys, encode_form, keys
from extender.inspect.plan import NodeLine, Plan
from extender.inspect.plan_text import node_form
from extender.inspect.recall import History
from extender.model import Pod
from extender.policy.idleness import idle_since, is_claimed, reports_idle
from extender.settings import PoolSettings, format_duration

SCHEMA = "warmnode.dev/explain/v1alpha1"


def encode_explanation(explanation: Explanation, plan: Plan, history: History | None = None) -> str:
    """Write the stable JSON form that docs/explain.md describes."""
    match explanation:
        case PodExplanation():
            form: dict[str, object] = {"pod": _pod_form(explanation, plan.now)}
        case NodeExplanation():
            form = {"node": _node_form(explanation, plan.now)}
        case PoolExplanation():
            form = {"pool": _pool_form(explanation)}
        case _:
            assert_never(explanation)
    told = None if history is None else _history_form(history)
    return encode_form(SCHEMA, {**keys(plan, "now", "source", "unknown"), **form, "history": told})


def encode_history(not_there: str, plan: Plan, history: History) -> str:
    """Write the same of something that is not there any more."""
    form = {"notThere": not_there, "history": _history_form(history)}
    return encode_form(SCHEMA, {**keys(plan, "now", "source", "unknown"), **form})


def _history_form(history: History) -> dict[str, object]:
    return {
        "decisions": history.decisions,
        "replicas": [
            {**keys(each.replica, "namespace", "name"), **keys(each, "oldest", "problem")} for each in history.replicas
        ],
        "shadow": history.shadow,
        "problem": history.problem,
    }


def _pod_form(explanation: PodExplanation, now: datetime) -> dict[str, object]:
    pod, worker, cost = explanation.pod, explanation.worker, explanation.cost
    claim = pod.claim if is_claimed(pod, now) else None
    return {
        **keys(pod, "namespace", "name", "uid", "pool"),
        "noPool": explanation.no_pool,
        "node": None if explanation.node is None else _place(explanation.node, now),
        **keys(pod, "scheduler", "cache_key"),
        "idle": reports_idle(pod, now),
        "idleSince": idle_since(pod),
        "claim": None if claim is None else keys(claim, "claimant", "user", "expires"),
        "notClaimable": None if worker is None else worker.not_claimable,
        "notReapable": explanation.not_reapable,
        "pass": None if worker is None else _pass(worker),
        **keys(explanation, "waits", "paused_until"),
        "before": [_name(each) for each in explanation.before],
        "deletionCost": None if cost is None else all_keys(cost),
        "disruptionCost": None if explanation.disruption is None else all_keys(explanation.disruption),
    }


def _node_form(explanation: NodeExplanation, now: datetime) -> dict[str, object]:
    unseen, when, slot, _ = explanation.key
    return {
        **_place(explanation.line, now),
        "ranked": explanation.ranked,
        "order": {"seen": not unseen, "minute": None if unseen else when, "slot": slot},
        "before": explanation.before.name if explanation.before is not None else None,
        "after": explanation.after.name if explanation.after is not None else None,
        "nodePool": explanation.node.node_pool,
        "nodeClaim": explanation.claim.name if explanation.claim is not None else None,
        "otherPods": explanation.others,
        "emptyAfterPass": explanation.empties,
        "workingSets": [{"pool": pool, **all_keys(each), "inside": inside} for pool, each, inside in explanation.sets],
        "workers": [
            {
                **_name(worker.pod),
                "pool": worker.pod.pool,
                "idleSince": idle_since(worker.pod),
                "notClaimable": worker.not_claimable,
                "pass": _pass(worker),
            }
            for worker in explanation.workers
        ],
    }


def _pool_form(explanation: PoolExplanation) -> dict[str, object]:
    settings, reap = explanation.settings, explanation.reap
    return {
        **all_keys(explanation.line),
        "schedulers": dict(explanation.schedulers),
        "settings": _settings(settings),
        "cacheKey": None if settings.cache_key is None else keys(settings.cache_key, "label", "window", "slack"),
        "claimable": [_name(pod) for pod in reap.claimable],
        **keys(reap, "waits", "paused_until"),
        "evictions": [_name(pod) for pod in reap.victims],
        "stays": [{**_name(pod), "reason": reason} for pod, reason in reap.stays],
        "deletionCostsToWrite": len(reap.costs),
    }


def _name(pod: Pod) -> dict[str, object]:
    return {"namespace": pod.namespace, "pod": pod.name, "node": pod.node}


def _pass(worker: WorkerFate) -> dict[str, object]:
    return keys(worker, "fate", "reason", "position")


def _place(line: NodeLine, now: datetime) -> dict[str, object]:
    form = node_form(line, now)
    for key in ("workers", "idle", "cacheKeys"):
        del form[key]
    return form


def _settings(settings: PoolSettings) -> dict[str, object]:
    reap = settings.reap
    durations = keys(reap, "idle_timeout", "min_pod_age", "pending_for")
    return {
        "floor": reap.floor,
        **{key: format_duration(duration) for key, duration in durations.items() if isinstance(duration, timedelta)},
        **keys(reap, "max_per_pass", "max_per_node", "whole_node", "scale_in"),
        "reapEnabled": reap.enabled,
        "deletionCostEnabled": settings.deletion_cost.enabled,
        "dryRun": settings.dry_run,
    }
