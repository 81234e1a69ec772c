"""Checks of what workers are worth to Karpenter: who writes their prices, and whose priority makes them free."""

from __future__ import annotations

from collections import defaultdict

from extender.inspect.doctor.evidence import Evidence, KarpenterFacts, Kind, WorkerFacts
from extender.inspect.doctor.findings import Check, Finding, Verdict, well
from extender.inspect.doctor.karpenter import is_absent, is_by_price
from extender.inspect.text import count, some
from extender.model import Pod
from extender.policy.deletion_cost import FREE_AT, LOWEST_HELD, eviction_cost
from extender.policy.idleness import asks_not_to_be_disturbed

READS_DISRUPTION_COST = (1, 15)
"""From this version on Karpenter reads `karpenter.sh/disruption-cost`, before the deletion cost."""
GATE = "PodDeletionCostManagement"


def check_feature_gates(evidence: Evidence) -> Finding:
    """Is Karpenter told to write the deletion costs itself?"""
    check, gates = Check.KARPENTER_FEATURE_GATES, evidence.karpenter.feature_gates
    if is_absent(evidence):
        return Finding(check=check, verdict=Verdict.OK, summary="no Karpenter in this cluster")
    if gates is None:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            summary=f"{GATE}: not known, "
            + (
                "a value of its pods stands elsewhere"
                if evidence.karpenter.is_running
                else "no pod of Karpenter was seen"
            ),
            remedy="see its FEATURE_GATES; the check of deletion costs shows whether somebody overwrites them",
        )
    if gates.get(GATE):
        return Finding(
            check=check,
            verdict=Verdict.PROBLEM,
            summary=f"Karpenter's feature gate {GATE} is on: it writes the deletion costs of ReplicaSets' pods itself, "
            "and a scale-in may take a busy worker",
            details=("warmnode gives those up and writes karpenter.sh/disruption-cost, which no ReplicaSet reads",),
            remedy=f"switch it off ({GATE}=false), or hold busy workers (claims.doNotDisrupt: true)",
        )
    return Finding(check=check, verdict=Verdict.OK, summary=f"{GATE} is off")


def check_priorities(evidence: Evidence) -> Finding:
    """Does the priority of workers make them free to Karpenter, busy or not?"""
    check, facts = Check.KARPENTER_PRIORITIES, evidence.karpenter
    if is_absent(evidence):
        return Finding(check=check, verdict=Verdict.OK, summary="no Karpenter in this cluster")
    if is_by_price(facts) is False:
        return Finding(check=check, verdict=Verdict.OK, summary="up to Karpenter 1.13 no worker is free")
    if evidence.workers is None or evidence.nodes is None:
        why = evidence.why_unread(Kind.PODS, Kind.NODES) or "pods or nodes were not read"
        return Finding(check=check, verdict=Verdict.UNKNOWN, summary=why)
    of_pool: dict[str, list[WorkerFacts]] = defaultdict(list)
    managed = {node.name for node in evidence.nodes if node.node_pool is not None}
    for each in evidence.workers:
        is_held = asks_not_to_be_disturbed(each.pod, evidence.now)
        if each.pod.node in managed and not is_held and _weight(each.pod, facts) <= 0:
            of_pool[each.pod.pool or ""].append(each)
    if not of_pool:
        return well(check, evidence, "no worker is free to Karpenter by its priority", Kind.PODS, Kind.NODES)
    told = [
        f"pool {pool}: {count(len(found), 'worker')} of priority {min(each.pod.priority or 0 for each in found):,}, "
        f"such as {some([each.pod.name for each in found])}"
        for pool, found in sorted(of_pool.items())
    ]
    return Finding(
        check=check,
        verdict=Verdict.PROBLEM,
        summary=f"workers are free to Karpenter, which takes their nodes as empty, busy or not: {told[0]}",
        details=(*told[1:], f"without a price a pod is free at a priority of {FREE_AT:,} and below"),
        remedy=f"a PriorityClass above {FREE_AT:,}. From Karpenter 1.15 on a price holds busy workers down to "
        f"{LOWEST_HELD:,} (deletionCost.disruptionCost). Below that only claims.doNotDisrupt or a "
        "PodDisruptionBudget does",
    )


def _weight(pod: Pod, facts: KarpenterFacts) -> float:
    """Weigh a pod as this Karpenter does, and as if it were busy: a low deletion cost is for another check to tell.

    Where the version is not known it may be the newest. A price that cannot be read counts as 1.
    """
    reads_it = facts.version is None or facts.version >= READS_DISRUPTION_COST
    try:
        if reads_it and pod.disruption_cost is not None:
            return eviction_cost(int(pod.disruption_cost), pod.priority)
        return eviction_cost(max(int(pod.deletion_cost or 0), 0), pod.priority)
    except ValueError:
        return 1.0
