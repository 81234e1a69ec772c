"""Shows a plan: a page for people, or JSON for programs. Owns the words; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import msgspec

from extender.plan.report import AgeBasis, NodeLine, Plan, PoolLine
from extender.policy.scoring import SCORED_NODES

SCHEMA = "warmnode.dev/plan/v1alpha1"


def render_json(plan: Plan) -> str:
    """Write the stable JSON form that docs/plan.md describes."""
    tree = {
        "schema": SCHEMA,
        "now": plan.now,
        "source": plan.source,
        "age": plan.age,
        "unknown": plan.unknown,
        "pods": plan.pods,
        "pools": [
            {"name": p.name, "idle": p.idle, "busy": p.busy, "pending": p.pending, "nodes": p.nodes} for p in plan.pools
        ],
        "nodes": [
            {
                "name": n.name,
                "uid": n.uid,
                "rank": n.rank,
                "score": n.score,
                "created": n.created,
                "firstSeen": n.first_seen,
                "ageBasis": n.basis,
                "leaving": n.leaving,
                "ending": n.ending,
                "workers": n.workers,
                "idle": n.idle,
                "why": explain(n, plan.now),
            }
            for n in plan.nodes
        ],
    }
    return msgspec.json.format(msgspec.json.encode(tree), indent=2).decode()


def render_table(plan: Plan, *, all_nodes: bool = False) -> str:
    """Write the page. Nodes without a score that are neither leaving nor ending are counted, not shown."""
    return "\n".join(_page(plan, all_nodes=all_nodes))


def explain(line: NodeLine, now: datetime) -> str:
    """Say in words why a node stands where it does."""
    if line.leaving is not None:
        return f"leaving ({line.leaving}): no score"
    match line.basis:
        case AgeBasis.NOT_SEEN:
            age = f"no worker seen yet, created {span(now - line.created)} ago: after all seen nodes"
        case AgeBasis.CREATED:
            age = f"created {span(now - line.created)} ago"
        case AgeBasis.ESTIMATED:
            age = f"has workers, created {span(now - line.created)} ago (estimated: no ledger)"
        case AgeBasis.RECORDED | AgeBasis.OBSERVED:
            age = f"first worker ready {span(now - (line.first_seen or now))} ago"
    if line.ending is not None:
        return f"ending ({line.ending}): after all others; {age}"
    return age


def span(duration: timedelta) -> str:
    """Write a duration in its two largest units: 3d4h, 5h12m, 7m5s, 12s."""
    seconds = max(0, int(duration.total_seconds()))
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    units = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")]
    start = next((i for i, (count, _) in enumerate(units) if count), 3)
    return "".join(f"{count}{unit}" for count, unit in units[start : start + 2] if count) or "0s"


def _page(plan: Plan, *, all_nodes: bool) -> Iterator[str]:
    workers = sum(pool.idle + pool.busy + pool.pending for pool in plan.pools)
    yield f"{plan.source}: {len(plan.nodes)} nodes, {plan.pods} pods, {workers} of them workers"
    yield f"as of {plan.now:%Y-%m-%d %H:%M:%S} UTC"
    for unknown in plan.unknown:
        yield f"not known: {unknown}"
    yield ""
    if plan.pools:
        yield from _table(("POOL", "IDLE", "BUSY", "PENDING", "ON NODES"), [_pool_row(pool) for pool in plan.pools])
    else:
        yield "No workers: label pods with warmnode.dev/pool, or name pools in a configuration file (--config)."
    yield ""
    shown = [n for n in plan.nodes if all_nodes or n.score or n.leaving or n.ending]
    yield from _table(("RANK", "SCORE", "NODE", "WORKERS", "IDLE", "WHY"), [_node_row(n, plan.now) for n in shown])
    hidden = len(plan.nodes) - len(shown)
    if hidden:
        yield f"and {hidden} more nodes after these, with no score (--all shows them)"
    yield ""
    yield (
        f"A new worker goes to the first of these that it fits on. The best {SCORED_NODES} feasible nodes get a score; "
    )
    yield "which nodes are feasible is kube-scheduler's to say."


def _pool_row(pool: PoolLine) -> Sequence[str]:
    return (pool.name, str(pool.idle), str(pool.busy), str(pool.pending), str(pool.nodes))


def _node_row(line: NodeLine, now: datetime) -> Sequence[str]:
    return (
        str(line.rank) if line.rank is not None else "-",
        str(line.score) if line.score else "-",
        line.name,
        str(line.workers),
        str(line.idle),
        explain(line, now),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
