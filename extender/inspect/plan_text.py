"""Shows a plan: a page for people, or JSON for programs. Owns the words; decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby, pairwise
from typing import assert_never

from extender.inspect.json_form import all_keys, encode_form, keys
from extender.inspect.plan import AgeBasis, NodeLine, Plan, PoolLine, PoolReap, StuckNode
from extender.inspect.text import count, fill, page, some, span, table
from extender.inspect.unnamed_pools import MOST_SHOWN, UnnamedPool
from extender.model import PlacementMode, Pod, SkipReason
from extender.policy.deletion_cost import standing
from extender.policy.idleness import idle_since
from extender.policy.node_pool_budgets import why_kept
from extender.policy.scoring import SCORED_NODES

SCHEMA = "warmnode.dev/plan/v1alpha1"
SHOWN_WITHOUT_SCORE = 10
"""So many leaving or ending nodes are shown beside the ones with a score: a drifted pool may have thousands."""

SHOWN_PODS = 20
"""So many evictions of a pool are shown; the JSON form has all."""


KEYS_IN_WORDS = 3

NO_POOL = (
    "No pod belongs to a pool. Label workers with warmnode.dev/pool: NAME, or select them by labels that they have "
    "(--selector app=NAME, or a configuration file: --config). Below is the order that such workers would find."
)
WHAT_IT_MEANS = (
    "A new worker goes to the first of these nodes that kube-scheduler finds feasible (room, taints, affinity). The "
    f"first {SCORED_NODES} feasible nodes get a score: shown is the score where all nodes are feasible."
)
EQUAL_MINUTES = (
    "Nodes that were first seen in the same minute are equally old: a hash of their UID orders them, so that they fill "
    "one after the other."
)


def render_json(plan: Plan) -> str:
    """Write the stable JSON form that docs/plan.md describes."""
    form = {
        **keys(plan, "now", "source", "age", "unknown", "pods"),
        "pools": [all_keys(pool) for pool in plan.pools],
        "reaping": [_reap_form(reap) for reap in plan.reaps],
        "stuckNodes": [_stuck_form(each) for each in plan.stuck],
        "looksLikePools": plan.unnamed,
        "nodes": [node_form(line, plan.now) for line in plan.nodes],
    }
    return encode_form(SCHEMA, form)


def node_form(line: NodeLine, now: datetime) -> dict[str, object]:
    cache_keys = [{"key": use.key, "workers": round(use.workers, 3)} for use in line.cache_keys]
    return {**all_keys(line), "cacheKeys": cache_keys, "why": why_ranked(line, now)}


def render_table(plan: Plan, *, all_nodes: bool = False, width: int = 80) -> str:
    """Write the page: nodes with a score, the first of the leaving and ending ones, and how many are not shown.

    Sentences stay within ``width``; a table is as wide as what is in it.
    """
    return page(_page(plan, all_nodes=all_nodes, width=width))


def why_ranked(line: NodeLine, now: datetime) -> str:
    """Say in words why a node stands where it does, and which cache keys ran there most of late."""
    keys = ", ".join(f"{use.key} {use.workers:.2g}" for use in line.cache_keys[:KEYS_IN_WORDS])
    return _place_in_words(line, now) + (f"; keys: {keys}" if keys else "")


def _place_in_words(line: NodeLine, now: datetime) -> str:
    if line.leaving is not None:
        return f"leaving ({line.leaving}): no score"
    match line.age_basis:
        case AgeBasis.NOT_SEEN:
            age = f"no worker seen yet, created {span(now - line.created)} ago"
        case AgeBasis.CREATED:
            age = f"created {span(now - line.created)} ago"
        case AgeBasis.ESTIMATED:
            age = f"has workers, created {span(now - line.created)} ago (estimated)"
        case AgeBasis.RECORDED | AgeBasis.OBSERVED:
            age = f"first worker ready {span(now - (line.first_seen or now))} ago"
        case _:
            assert_never(line.age_basis)
    if line.ending is not None:
        return f"ending ({line.ending}): after all others; {age}"
    return f"{age}: after all seen nodes" if line.age_basis is AgeBasis.NOT_SEEN else age


def _page(plan: Plan, *, all_nodes: bool, width: int) -> Iterator[str]:
    workers = sum(pool.workers for pool in plan.pools)
    yield f"{count(len(plan.nodes), 'node')}, {count(plan.pods, 'pod')}, {count(workers, 'worker')}"
    yield from fill(f"read from {plan.source}, as of {plan.now:%Y-%m-%d %H:%M:%S} UTC", width=width, later="  ")
    for unknown in plan.unknown:
        yield from fill(f"not known: {unknown}", width=width, later="  ")
    yield ""
    if plan.pools:
        yield from _pools(plan.pools, width)
    else:
        yield from _no_pool(plan.unnamed, width)
    if plan.nodes:
        yield from _order(plan, all_nodes=all_nodes, width=width)
    yield from _reap_page(plan)
    yield from _stuck_page(plan)


def _order(plan: Plan, *, all_nodes: bool, width: int) -> Iterator[str]:
    without_score = [line for line in plan.nodes if not line.score and (line.leaving or line.ending)]
    worth_showing = {line.uid for line in without_score[:SHOWN_WITHOUT_SCORE]}
    shown = [line for line in plan.nodes if all_nodes or line.score or line.uid in worth_showing]
    yield ""
    rows = [
        (line.rank or "-", line.score or "-", line.name, line.workers, line.idle, why_ranked(line, plan.now))
        for line in shown
    ]
    yield from table(("RANK", "SCORE", "NODE", "WORKERS", "IDLE", "WHY"), rows)
    if hidden := len(plan.nodes) - len(shown):
        leaving = sum(n.leaving is not None for n in plan.nodes) - sum(n.leaving is not None for n in shown)
        of_them = f", {leaving} of them leaving" if leaving else ""
        yield f"and {count(hidden, 'more node')} without a score{of_them} (--all shows them)"
    yield ""
    yield from fill(WHAT_IT_MEANS, width=width)
    if _has_equal_minutes(shown):
        yield from fill(EQUAL_MINUTES, width=width)


def _no_pool(unnamed: Sequence[UnnamedPool], width: int) -> Iterator[str]:
    yield from fill(NO_POOL, width=width)
    if unnamed:
        yield ""
        yield "What looks like a pool, largest first: is one of these your workers?"
        rows = [(each.namespace, each.pods, each.nodes, f"--selector {each.selector}") for each in unnamed[:MOST_SHOWN]]
        yield from table(("NAMESPACE", "PODS", "ON NODES", "LOOK AT IT WITH"), rows)
        if len(unnamed) > MOST_SHOWN:
            yield f"and {len(unnamed) - MOST_SHOWN} more (--output json lists them)"


def _reap_form(reap: PoolReap) -> dict[str, object]:
    return {
        **keys(reap, "pool", "floor", "dry_run", "waits", "paused_until"),
        "evictions": [_idle_form(pod) for pod in reap.victims],
        "stays": [{**_idle_form(pod), "reason": reason} for pod, reason in reap.stays],
        "deletionCosts": [
            {**_idle_form(write.pod), "price": price, "from": standing(write.pod, price)[0], "to": value}
            for write in reap.costs
            for price, value in write.values.items()
        ],
    }


def _idle_form(pod: Pod) -> dict[str, object]:
    return {"namespace": pod.namespace, "pod": pod.name, "node": pod.node, "idleSince": idle_since(pod)}


def _stuck_form(stuck: StuckNode) -> dict[str, object]:
    kept = stuck.kept
    return {
        "name": stuck.node,
        "nodePool": stuck.node_pool,
        "reason": kept.reason if kept is not None else None,
        "pod": f"{kept.pod.namespace}/{kept.pod.name}" if kept is not None and kept.pod is not None else None,
        "podDisruptionBudgets": kept.budgets if kept is not None else (),
    }


def _stuck_page(plan: Plan) -> Iterator[str]:
    if plan.stuck:
        yield ""
        yield "Empty nodes that Karpenter could have taken and has not: they use no budget"
        for each in plan.stuck[:SHOWN_PODS]:
            yield f"{each.node} of {each.node_pool}: {why_kept(each.kept)}"
        if len(plan.stuck) > SHOWN_PODS:
            yield f"and {count(len(plan.stuck) - SHOWN_PODS, 'more node')} (--output json lists them)"


def _reap_page(plan: Plan) -> Iterator[str]:
    reaps = [reap for reap in plan.reaps if reap.victims or reap.stays]
    if not reaps:
        return
    yield ""
    yield "Idle workers: what a pass of warmnode reap would do"
    rows = [row for reap in reaps for row in _reap_rows(reap, plan.now)]
    yield from table(("POOL", "WORKER", "NODE", "IDLE FOR", "WHAT HAPPENS"), rows)
    costs = sum(len(reap.costs) for reap in plan.reaps)
    if costs:
        yield f"{count(costs, 'deletion cost')} would be written (--output json lists them)"
    for reap in reaps:
        if reap.settling:
            more = count(reap.settling, "more idle worker")
            yield f"{more} of {reap.pool}: a cost is written after {span(reap.settle)} of idleness"


def _reap_rows(reap: PoolReap, now: datetime) -> Iterator[Sequence[str]]:
    """Show each that a pass would evict, then how many stay for each reason."""
    goes = "would be evicted, but for dry-run" if reap.dry_run else "evicted"
    if reap.waits is not None:
        until = f" until {reap.paused_until:%H:%M:%S} UTC" if reap.paused_until is not None else ""
        goes = f"stays for now: {reap.waits}{until}"
    for pod in reap.victims[:SHOWN_PODS]:
        since = idle_since(pod)
        yield reap.pool, pod.name, pod.node or "", span(now - since) if since is not None else "", goes
    if len(reap.victims) > SHOWN_PODS:
        yield reap.pool, f"and {len(reap.victims) - SHOWN_PODS} more", "", "", goes
    for reason, entries in groupby(reap.stays, key=lambda entry: entry[1]):
        names = some((pod.name for pod, _ in entries), most=1)
        floor = f" ({reap.floor} claimable to keep)" if reason is SkipReason.FLOOR else ""
        yield reap.pool, names, "", "", f"stays: {reason}{floor}"


def _pools(pools: Sequence[PoolLine], width: int) -> Iterator[str]:
    """Show the pools; how many workers are claimed, and placement, only where that says something."""
    columns = {"POOL": "name", "IDLE": "idle", "BUSY": "busy"}
    if any(pool.claimed for pool in pools):
        columns["CLAIMED"] = "claimed"
    columns |= {"PENDING": "pending", "ON NODES": "nodes"}
    if any(pool.placement is not PlacementMode.ACTIVE for pool in pools):
        columns["PLACEMENT"] = "placement"
    yield from table(tuple(columns), [[getattr(pool, field) for field in columns.values()] for pool in pools])
    for pool in pools:
        if 0 < pool.needs < pool.nodes:
            workers = count(pool.workers, "worker")
            of_them = f"{pool.needs:,} of their {count(pool.nodes, 'node')}"
            packed = f"Packed oldest first, the {workers} of {pool.name} need about {of_them}"
            yield from fill(packed, width=width, later="  ")
        if (found := pool.working_set) is not None:
            reach = f"{count(found.nodes, 'node')} up to {found.last}"
            yield from fill(f"Working set of {pool.name}: {reach}", width=width, later="  ")


def _has_equal_minutes(lines: Sequence[NodeLine]) -> bool:
    """True where a node stands before one that was seen a little earlier, in the same minute."""
    seen = [line.first_seen for line in lines if line.rank is not None and line.ending is None and line.first_seen]
    return any(before > after for before, after in pairwise(seen))
