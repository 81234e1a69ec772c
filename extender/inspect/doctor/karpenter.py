"""Checks of Karpenter: which of its two generations runs, and which of its settings work against us.

Up to 1.13 Karpenter orders nodes for disruption by cost x remaining lifetime (disruption/consolidation.go), from 1.14
on by price per disruption. Both are karpenter.sh/v1, so the version has to be found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import wraps

from extender.inspect.doctor.evidence import NOT_HERE, Evidence, KarpenterFacts, KeptNode, Kind
from extender.inspect.doctor.findings import Finding, Judge, Verdict, needs, ok, together, unknown, warning, well
from extender.inspect.text import count, some, span
from extender.model import DisruptionBudget, NodePool, SkipReason
from extender.policy.node_pool_budgets import EMPTY, opens_at, why_kept

BY_PRICE = (1, 14)
"""From this version on candidates are ordered by price per disruption, and lifetime plays no part."""
OLDEST = (1, 0)
LOOKS_AHEAD = timedelta(days=31)
"""A NodePool whose budgets let no empty node go in all that time keeps them."""


def where_it_runs(judge: Judge) -> Judge:
    """A check that has nothing to say without Karpenter: where there is no API, no pod, and no node of a NodePool."""

    @wraps(judge)
    def judged(evidence: Evidence) -> Finding:
        karpenter = evidence.karpenter
        is_seen = karpenter.version is not None or karpenter.is_running or any(n.node_pool for n in evidence.nodes)
        if evidence.unread.get(Kind.NODE_POOLS) == NOT_HERE and not is_seen:
            return ok("no Karpenter in this cluster")
        return judge(evidence)

    return judged


@where_it_runs
def check_generation(evidence: Evidence) -> Finding:
    """Which Karpenter is it, and how sure is that?"""
    facts = evidence.karpenter
    newer = is_by_price(facts)
    if newer is None:
        unread = evidence.unread.get(Kind.NODE_POOLS, "neither its pods nor its CRDs were seen")
        return unknown(
            f"not known ({unread})",
            remedy="look at the image of its Deployment: from 1.14 on age plays no part, up to 1.13 old nodes go first",
        )
    means = "orders nodes by price per disruption" if newer else "orders nodes by cost x remaining lifetime"
    if facts.version is None:
        return ok(
            f"probably Karpenter {'1.14 or newer' if newer else '1.13 or older'}, by the CRD of NodePools: {means}",
            ("the CRDs of a chart that was upgraded by Helm may be older than the controller",),
        )
    version = ".".join(map(str, facts.version))
    if facts.version < OLDEST:
        return warning(
            f"Karpenter {version} is older than 1.0, whose objects warmnode reads",
            remedy="upgrade Karpenter; until then warmnode goes by Nodes and their taints only",
        )
    if facts.has_balanced is not None and facts.has_balanced != newer:
        return warning(
            f"Karpenter {version} ({facts.where}) runs with the CRDs of another generation",
            remedy="apply the CRDs of the version that runs: Helm does not upgrade them with the chart",
        )
    return ok(f"Karpenter {version} ({facts.where}): {means}")


def is_by_price(facts: KarpenterFacts) -> bool | None:
    """True from 1.14 on, False up to 1.13, None where nothing tells. What runs counts more than what is installed."""
    if facts.version is not None:
        return facts.version >= BY_PRICE
    return facts.has_balanced


@where_it_runs
@needs(Kind.NODE_POOLS)
def check_expiry(evidence: Evidence) -> Finding:
    """Does expireAfter make Karpenter remove old nodes before new ones?"""
    named = some(
        f"{pool.name} ({span(pool.expire_after)})"
        for pool in _relevant(evidence)
        if pool.expire_after is not None and pool.replicas is None
    )
    if not named:
        return ok("no NodePool with workers has expireAfter")
    newer = is_by_price(evidence.karpenter)
    if newer:
        return ok(f"expireAfter of {named} ends nodes and does not order them")
    if newer is None:
        return unknown(
            f"expireAfter is set on {named}: up to Karpenter 1.13 that makes old nodes go first",
            remedy="find out the version (check karpenterGeneration)",
        )
    is_sure = evidence.karpenter.version is not None
    who = "Karpenter up to 1.13" if is_sure else "if this is Karpenter up to 1.13, it"
    return Finding(
        Verdict.PROBLEM if is_sure else Verdict.WARNING,
        f"expireAfter of {named}: {who} disrupts old nodes before new ones, against warmnode's order",
        ("a node counts for less the less of its lifetime is left: deletion costs do not make up for that",),
        remedy="set expireAfter: Never in the NodePool's template, or upgrade Karpenter to 1.14",
    )


@where_it_runs
@needs(Kind.NODE_POOLS)
def check_node_pools(evidence: Evidence) -> Finding:
    """Do NodePools let nodes go that warmnode has emptied?"""
    pools = _relevant(evidence)
    faults: list[Finding] = []
    for pool in pools:
        if pool.replicas is not None:
            static = f"{pool.name} is static ({pool.replicas} replicas): its nodes stay, empty or not"
            faults.append(warning(static + _first(pool)))
        elif pool.consolidate_after is None:
            faults.append(warning(f"{pool.name} has consolidateAfter: Never: nodes that are empty stay"))
        elif (closed := _closed_budgets(pool, evidence)) is not None:
            budget = f"{pool.name} has a budget of {closed} for empty nodes"
            faults.append(warning(f"{budget}: none of them goes in a month"))
    if faults:
        remedy = "warmnode empties nodes for Karpenter to take: let the NodePool give them back, or do not reap there"
        return together(faults, remedy)
    names = some([pool.name for pool in pools]) or "none with workers"
    return well(evidence, f"empty nodes go: {names}", Kind.NODE_POOLS)


def _first(pool: NodePool) -> str:
    """Say which nodes of a static NodePool go when its replicas are lowered (pkg/controllers/static/deprovisioning)."""
    if pool.expire_after is None:
        return ""
    return (
        "; when replicas are lowered the oldest go first, after empty ones, by the life that they have left: "
        "set expireAfter: Never before, and karpenter.sh/do-not-disrupt on workers that are to stay"
    )


def _closed_budgets(pool: NodePool, evidence: Evidence) -> str | None:
    """Name the budgets that let no empty node go at any time within a month; None where one goes some time."""
    nodes = max(1, sum(node.node_pool == pool.name for node in evidence.nodes))

    def close(*budgets: DisruptionBudget) -> bool:
        return opens_at(budgets, EMPTY, nodes, evidence.now, LOOKS_AHEAD) is None

    if not close(*pool.budgets):
        return None
    alone = [budget for budget in pool.budgets if close(budget)]
    return some(each.nodes + (f" at {each.schedule!r}" if each.schedule else "") for each in alone or pool.budgets)


@where_it_runs
@needs(Kind.NODE_POOLS)
def check_nodes(evidence: Evidence) -> Finding:
    """Which nodes would Karpenter not take, and which pods hold them?"""
    unread = evidence.why_unread(Kind.NODES, Kind.PODS, Kind.NODE_CLAIMS, Kind.DISRUPTION_BUDGETS)
    faults = list(_faults_of_nodes(evidence.kept_nodes))
    if not faults:
        return unknown(unread) if unread else ok("Karpenter would take every node that warmnode empties")
    if unread is not None:
        faults.append(unknown(unread))
    return together(faults, "docs/karpenter.md says what to do about each: until then idle workers there stay")


_PASSING = frozenset(
    {
        SkipReason.STATIC_NODE_POOL,
        SkipReason.NEVER_CONSOLIDATED,
        SkipReason.NODE_NOT_INITIALIZED,
        SkipReason.NODE_KEEPS_OTHERS,
    }
)
"""Told by the check of NodePools, or what is quite usual for a node with workers."""


def _faults_of_nodes(kept_nodes: Iterable[KeptNode]) -> Iterator[Finding]:
    """Name empty nodes that stay, then nodes with workers that would, by reason: each with the pod that holds it."""
    empty = [each for each in kept_nodes if not each.workers]
    if empty:
        yield warning(f"{count(len(empty), 'empty node')} that Karpenter does not take: {some(map(_held, empty))}")
    held: dict[SkipReason, list[KeptNode]] = {}
    for each in kept_nodes:
        if each.workers and each.kept is not None and each.kept.reason not in _PASSING:
            held.setdefault(each.kept.reason, []).append(each)
    for reason, nodes in sorted(held.items()):
        stay = f"{count(len(nodes), 'node')} would stay without workers ({reason})"
        yield warning(f"{stay}: {some(map(_held, nodes))}")


def _held(node: KeptNode) -> str:
    said = f"; Karpenter: {node.said}" if node.said else ""
    return f"{node.name} ({why_kept(node.kept)}{said})"


def _relevant(evidence: Evidence) -> list[NodePool]:
    """Select the NodePools that workers run on; all of them where that is not known, or no worker runs on any."""
    pools = sorted(evidence.node_pools, key=lambda pool: pool.name)
    node_pools = {node.name: node.node_pool for node in evidence.nodes}
    used = {node_pools.get(worker.pod.node or "") for worker in evidence.workers}
    return [pool for pool in pools if pool.name in used] or pools
