"""Checks of Karpenter: which of its two generations runs, and which of its settings work against us.

Up to 1.13 Karpenter orders nodes for disruption by cost x remaining lifetime (disruption/consolidation.go), from 1.14
on by price per disruption. Both are karpenter.sh/v1, so the version has to be found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from extender.inspect.doctor.evidence import Evidence, KarpenterFacts, KeptNode, Kind, Sureness
from extender.inspect.doctor.findings import Check, Finding, Verdict, well
from extender.inspect.text import count, some, span
from extender.model import DisruptionBudget, NodePool, SkipReason
from extender.policy.node_pool_budgets import EMPTY, opens_at, why_kept

NO_KARPENTER = "not in this cluster"
"""What `Evidence.unread` says of NodePools where their CRD is not installed."""
BY_PRICE = (1, 14)
"""From this version on candidates are ordered by price per disruption, and lifetime plays no part."""
OLDEST = (1, 0)
LOOKS_AHEAD = timedelta(days=31)
"""A NodePool whose budgets let no empty node go in all that time keeps them."""


def check_generation(evidence: Evidence) -> Finding:
    """Which Karpenter is it, and how sure is that?"""
    check, facts = Check.KARPENTER_GENERATION, evidence.karpenter
    if is_absent(evidence):
        return Finding(check=check, verdict=Verdict.OK, summary="no Karpenter in this cluster")
    newer = is_by_price(facts)
    if newer is None:
        unread = evidence.unread.get(Kind.NODE_POOLS, "neither its pods nor its CRDs were seen")
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            summary=f"not known ({unread})",
            remedy="look at the image of its Deployment: from 1.14 on age plays no part, up to 1.13 old nodes go first",
        )
    if facts.version is not None and facts.version < OLDEST:
        return Finding(
            check=check,
            verdict=Verdict.WARNING,
            summary=f"Karpenter {_version(facts)} is older than 1.0, whose objects warmnode reads",
            remedy="upgrade Karpenter; until then warmnode goes by Nodes and their taints only",
        )
    means = "orders nodes by price per disruption" if newer else "orders nodes by cost x remaining lifetime"
    if facts.version is None:
        guess = "1.14 or newer" if newer else "1.13 or older"
        return Finding(
            check=check,
            verdict=Verdict.OK,
            summary=f"probably Karpenter {guess}, by the CRD of NodePools: {means}",
            details=("the CRDs of a chart that was upgraded by Helm may be older than the controller",),
        )
    how = "the image that runs" if facts.sureness is Sureness.IMAGE else "a label, not the image"
    if facts.has_balanced is not None and facts.has_balanced != newer:
        return Finding(
            check=check,
            verdict=Verdict.WARNING,
            summary=f"Karpenter {_version(facts)} ({how}, {facts.where}) runs with the CRDs of another generation",
            remedy="apply the CRDs of the version that runs: Helm does not upgrade them with the chart",
        )
    return Finding(
        check=check, verdict=Verdict.OK, summary=f"Karpenter {_version(facts)} ({how}, {facts.where}): {means}"
    )


def is_by_price(facts: KarpenterFacts) -> bool | None:
    """True from 1.14 on, False up to 1.13, None where nothing tells. What runs counts more than what is installed."""
    if facts.version is not None:
        return facts.version >= BY_PRICE
    return facts.has_balanced


def check_expiry(evidence: Evidence) -> Finding:
    """Does expireAfter make Karpenter remove old nodes before new ones?"""
    check = Check.KARPENTER_EXPIRY
    if (early := _without_node_pools(check, evidence)) is not None:
        return early
    expiring = [pool for pool in _relevant(evidence) if pool.expire_after is not None and pool.replicas is None]
    if not expiring:
        return Finding(check=check, verdict=Verdict.OK, summary="no NodePool with workers has expireAfter")
    named = some([f"{pool.name} ({span(pool.expire_after or timedelta(0))})" for pool in expiring])
    newer = is_by_price(evidence.karpenter)
    if newer:
        return Finding(
            check=check,
            verdict=Verdict.OK,
            summary=f"expireAfter of {named} ends nodes and does not order them",
        )
    if newer is None:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            summary=f"expireAfter is set on {named}: up to Karpenter 1.13 that makes old nodes go first",
            remedy="find out the version (check karpenterGeneration)",
        )
    sure = evidence.karpenter.version is not None
    return Finding(
        check=check,
        verdict=Verdict.PROBLEM if sure else Verdict.WARNING,
        summary=f"expireAfter of {named}: {'' if sure else 'if this is '}Karpenter up to 1.13"
        f"{'' if sure else ', it'} disrupts old nodes before new ones, against warmnode's order",
        details=("a node counts for less the less of its lifetime is left: deletion costs do not make up for that",),
        remedy="set expireAfter: Never in the NodePool's template, or upgrade Karpenter to 1.14",
    )


def check_node_pools(evidence: Evidence) -> Finding:
    """Do NodePools let nodes go that warmnode has emptied?"""
    check = Check.KARPENTER_NODE_POOLS
    if (early := _without_node_pools(check, evidence)) is not None:
        return early
    pools = _relevant(evidence)
    faults: list[str] = []
    for pool in pools:
        if pool.replicas is not None:
            static = f"{pool.name} is static ({pool.replicas} replicas): its nodes stay, empty or not"
            faults.append(static + _first(pool))
        elif pool.consolidate_after is None:
            faults.append(f"{pool.name} has consolidateAfter: Never: nodes that are empty stay")
        elif (closed := _closed_budgets(pool, evidence)) is not None:
            faults.append(f"{pool.name} has a budget of {closed} for empty nodes: none of them goes in a month")
    if not faults:
        names = some([pool.name for pool in pools]) or "none with workers"
        return well(check, evidence, f"empty nodes go: {names}", Kind.NODE_POOLS)
    return Finding(
        check=check,
        verdict=Verdict.WARNING,
        summary=faults[0],
        details=tuple(faults[1:]),
        remedy="warmnode empties nodes for Karpenter to take: let the NodePool give them back, or do not reap there",
    )


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
    nodes = max(1, sum(node.node_pool == pool.name for node in evidence.nodes or ()))

    def close(*budgets: DisruptionBudget) -> bool:
        return opens_at(budgets, EMPTY, nodes, evidence.now, LOOKS_AHEAD) is None

    if not close(*pool.budgets):
        return None
    alone = [budget for budget in pool.budgets if close(budget)]
    return some(each.nodes + (f" at {each.schedule!r}" if each.schedule else "") for each in alone or pool.budgets)


def check_nodes(evidence: Evidence) -> Finding:
    """Which nodes would Karpenter not take, and which pods hold them?"""
    check = Check.KARPENTER_NODES
    if (early := _without_node_pools(check, evidence)) is not None:
        return early
    unread = evidence.why_unread(Kind.NODES, Kind.PODS, Kind.NODE_POOLS, Kind.NODE_CLAIMS, Kind.DISRUPTION_BUDGETS)
    faults = list(_faults_of_nodes(evidence.kept_nodes or ()))
    if faults:
        return Finding(
            check=check,
            verdict=Verdict.WARNING,
            summary=faults[0],
            details=(*faults[1:], *((unread,) if unread else ())),
            remedy="docs/karpenter.md says what to do about each: until then idle workers there stay",
        )
    if unread is not None or evidence.kept_nodes is None:
        return Finding(check=check, verdict=Verdict.UNKNOWN, summary=unread or "nodes, pods or NodePools were not read")
    return Finding(check=check, verdict=Verdict.OK, summary="Karpenter would take every node that warmnode empties")


_PASSING = frozenset(
    {
        SkipReason.STATIC_NODE_POOL,
        SkipReason.NEVER_CONSOLIDATED,
        SkipReason.NODE_NOT_INITIALIZED,
        SkipReason.NODE_KEEPS_OTHERS,
    }
)
"""Told by the check of NodePools, or what is quite usual for a node with workers."""


def _faults_of_nodes(kept_nodes: Iterable[KeptNode]) -> Iterator[str]:
    """Name empty nodes that stay, then nodes with workers that would, by reason: each with the pod that holds it."""
    empty = [each for each in kept_nodes if not each.workers]
    if empty:
        yield f"{count(len(empty), 'empty node')} that Karpenter does not take: {some(map(_held, empty))}"
    held: dict[SkipReason, list[KeptNode]] = {}
    for each in kept_nodes:
        if each.workers and each.kept is not None and each.kept.reason not in _PASSING:
            held.setdefault(each.kept.reason, []).append(each)
    for reason, nodes in sorted(held.items()):
        yield f"{count(len(nodes), 'node')} would stay without workers ({reason}): {some(map(_held, nodes))}"


def _held(node: KeptNode) -> str:
    said = f"; Karpenter: {node.said}" if node.said else ""
    return f"{node.name} ({why_kept(node.kept)}{said})"


def is_absent(evidence: Evidence) -> bool:
    """True where nothing of Karpenter is there: no API, no pod, and no node of a NodePool."""
    karpenter = evidence.karpenter
    is_seen = karpenter.version is not None or karpenter.is_running
    return (
        evidence.unread.get(Kind.NODE_POOLS) == NO_KARPENTER
        and not is_seen
        and not any(node.node_pool for node in evidence.nodes or ())
    )


def _without_node_pools(check: Check, evidence: Evidence) -> Finding | None:
    if is_absent(evidence):
        return Finding(check=check, verdict=Verdict.OK, summary="no Karpenter in this cluster")
    if evidence.node_pools is None:
        return Finding(check=check, verdict=Verdict.UNKNOWN, summary=evidence.why_unread(Kind.NODE_POOLS) or "not read")
    return None


def _relevant(evidence: Evidence) -> list[NodePool]:
    """Select the NodePools that workers run on; all of them where that is not known, or no worker runs on any."""
    pools = sorted(evidence.node_pools or (), key=lambda pool: pool.name)
    used = _used(evidence)
    return [pool for pool in pools if pool.name in used] or pools


def _used(evidence: Evidence) -> set[str]:
    pool_of = {node.name: node.node_pool for node in evidence.nodes or ()}
    names: Iterable[str | None] = (pool_of.get(worker.pod.node or "") for worker in evidence.workers or ())
    return {name for name in names if name is not None}


def _version(facts: KarpenterFacts) -> str:
    return "?" if facts.version is None else ".".join(map(str, facts.version))
