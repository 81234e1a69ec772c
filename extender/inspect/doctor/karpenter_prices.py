"""Checks of what workers are worth to Karpenter: who writes their prices, and whose priority makes them free."""

from __future__ import annotations

from extender.inspect.doctor.evidence import Evidence, KarpenterFacts, Kind, by_pool
from extender.inspect.doctor.findings import Finding, ok, problem, unknown, well
from extender.inspect.doctor.karpenter import is_by_price, where_it_runs
from extender.inspect.text import count, some
from extender.model import Pod
from extender.policy.deletion_cost import FREE_AT, LOWEST_HELD, as_number, eviction_cost
from extender.policy.idleness import asks_not_to_be_disturbed

READS_DISRUPTION_COST = (1, 15)
"""From this version on Karpenter reads `karpenter.sh/disruption-cost`, before the deletion cost."""
GATE = "PodDeletionCostManagement"


@where_it_runs
def check_feature_gates(evidence: Evidence) -> Finding:
    """Is Karpenter told to write the deletion costs itself?"""
    gates = evidence.karpenter.feature_gates
    if gates is None:
        is_running = evidence.karpenter.is_running
        why = "a value of its pods stands elsewhere" if is_running else "no pod of Karpenter was seen"
        return unknown(
            f"{GATE}: not known, {why}",
            remedy="see its FEATURE_GATES; the check of deletion costs shows whether somebody overwrites them",
        )
    if not gates.get(GATE):
        return ok(f"{GATE} is off")
    return problem(
        f"Karpenter's feature gate {GATE} is on: it writes the deletion costs of ReplicaSets' pods itself, and a "
        "scale-in may take a busy worker",
        ("warmnode gives those up and writes karpenter.sh/disruption-cost, which no ReplicaSet reads",),
        remedy=f"switch it off ({GATE}=false), or hold busy workers (claims.doNotDisrupt: true)",
    )


@where_it_runs
def check_priorities(evidence: Evidence) -> Finding:
    """Does the priority of workers make them free to Karpenter, busy or not?"""
    if is_by_price(evidence.karpenter) is False:
        return ok("up to Karpenter 1.13 no worker is free")
    managed = {node.name for node in evidence.nodes if node.node_pool is not None}
    free = [
        each
        for each in evidence.workers
        if each.pod.node in managed
        and not asks_not_to_be_disturbed(each.pod, evidence.now)
        and _weight(each.pod, evidence.karpenter) <= 0
    ]
    if not free:
        return well(evidence, "no worker is free to Karpenter by its priority", Kind.PODS, Kind.NODES)
    first, *others = [
        f"pool {pool}: {count(len(found), 'worker')} of priority {min(each.pod.priority or 0 for each in found):,}, "
        f"such as {some([each.pod.name for each in found])}"
        for pool, found in by_pool(free).items()
    ]
    return problem(
        f"workers are free to Karpenter, which takes their nodes as empty, busy or not: {first}",
        (*others, f"without a price a pod is free at a priority of {FREE_AT:,} and below"),
        remedy=f"a PriorityClass above {FREE_AT:,}. From Karpenter 1.15 on a price holds busy workers down to "
        f"{LOWEST_HELD:,} (deletionCost.disruptionCost). Below that only claims.doNotDisrupt or a "
        "PodDisruptionBudget does",
    )


def _weight(pod: Pod, facts: KarpenterFacts) -> float:
    """Weigh a pod as this Karpenter does, and as if it were busy: a low deletion cost is for another check to tell.

    Where the version is not known it may be the newest. A price that cannot be read counts as 1.
    """
    reads_it = facts.version is None or facts.version >= READS_DISRUPTION_COST
    if reads_it and pod.disruption_cost is not None:
        price = as_number(pod.disruption_cost)
    else:
        price = as_number(pod.deletion_cost or "0")
        price = None if price is None else max(price, 0)
    return 1.0 if price is None else eviction_cost(price, pod.priority)
