"""Disruption budgets: how many nodes of a NodePool Karpenter may take at once, and which ones it would not take at all.

Owns Karpenter's arithmetic (pkg/apis/v1/nodepool.go, pkg/controllers/disruption/helpers.go) for the reason Empty, and
the rule that no more nodes are emptied than can go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from extender.model import (
    FOREVER,
    Departure,
    DisruptionBudget,
    Node,
    NodeClaim,
    NodeClaimCondition,
    NodePool,
    Pod,
    PodBudget,
    SkipReason,
    labels_from_text,
    later,
)
from extender.policy.cluster_view import ClusterView
from extender.policy.idleness import NODE, asks_not_to_be_disturbed, is_bound_to_its_node
from extender.policy.pools import selects
from extender.policy.schedules import BadSchedule, parse_schedule

EMPTY = "Empty"
WHEN_EMPTY = "WhenEmpty"
"""The policy under which Karpenter moves no pod: whatever is not a worker holds its node until it ends by itself."""

_GOING = frozenset(
    {
        Departure.NODE_DELETING,
        Departure.NODE_CLAIM_DELETING,
        Departure.TERMINATION_TIMESTAMP,
        Departure.DISRUPTED,
        Departure.DISRUPTION_REASON,
    }
)
"""What Karpenter counts as being disrupted. A cordon is not: that node may still be taken."""


STAYS = (
    SkipReason.NODE_POOL_UNKNOWN,
    SkipReason.NODE_DO_NOT_DISRUPT,
    SkipReason.OTHER_POD_DO_NOT_DISRUPT,
    SkipReason.OTHER_POD_BUDGET,
)
"""What may keep a node that is empty although its NodePool would let it go."""
SOON = timedelta(minutes=2)
"""Karpenter takes an empty node 25 s after it may at the latest, and later where it looks at other nodes meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What nodes count in a budget, as Karpenter counts: how many of them there are, and how many are gone or going."""

    nodes: int = 0
    used: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(nodes=self.nodes + other.nodes, used=self.used + other.used)

    def __sub__(self, other: Share) -> Share:
        return Share(nodes=self.nodes - other.nodes, used=self.used - other.used)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Why a node stays, the pod that holds it where it is one, and the budgets over that pod where it is these."""

    reason: SkipReason
    pod: Pod | None = None
    budgets: tuple[str, ...] = ()


class PodBudgets:
    """PodDisruptionBudgets, by the pods that they cover. Pods of one template have the same labels and are one look."""

    def __init__(self, budgets: Iterable[PodBudget] = ()) -> None:
        self._in_namespace: defaultdict[str, list[PodBudget]] = defaultdict(list)
        for each in budgets:
            self._in_namespace[each.namespace].append(each)
        self._covering: dict[tuple[str, str], tuple[PodBudget, ...]] = {}

    def covering(self, pod: Pod) -> tuple[PodBudget, ...]:
        """Give those that cover a pod of no pool."""
        if pod.namespace not in self._in_namespace:
            return ()
        key = (pod.namespace, pod.labels)
        if key not in self._covering:
            labels = labels_from_text(pod.labels)
            self._covering[key] = tuple(
                each
                for each in self._in_namespace[pod.namespace]
                if each.selector is not None and selects(each.selector, labels)
            )
        return self._covering[key]


NO_BUDGETS = PodBudgets()


def why_kept(kept: Kept | None) -> str:
    """Say in words what keeps an empty node."""
    if kept is None:
        return "not known why, as with a CapacityBuffer: see Karpenter's Events on it"
    pod = f" on pod {kept.pod.namespace}/{kept.pod.name}" if kept.pod is not None else ""
    match kept.reason:
        case SkipReason.OTHER_POD_DO_NOT_DISRUPT:
            return f"karpenter.sh/do-not-disrupt{pod}"
        case SkipReason.OTHER_POD_BUDGET:
            several = "PodDisruptionBudgets" if len(kept.budgets) > 1 else "PodDisruptionBudget"
            return f"{several} {' and '.join(kept.budgets)}{pod}"
        case SkipReason.NODE_POOL_UNKNOWN:
            return "its NodePool is not there"
        case SkipReason.NODE_DO_NOT_DISRUPT:
            return "karpenter.sh/do-not-disrupt on the Node"
        case reason:
            return f"{reason}{pod}"


def share_of(node: Node, departure: Departure | None, claim: NodeClaim | None, *, knows_claims: bool) -> Share:
    """Say what a node of a NodePool counts in its budget, as Karpenter's NodePoolStatsFromNodes does.

    Nothing 1. without a NodeClaim, where NodeClaims are known; 2. once its machine is being terminated; 3. until it is
    initialized, unless it reboots. It is used up where it is NotReady, reboots, or is being disrupted.
    """
    conditions = claim.conditions if claim is not None else frozenset()
    is_rebooting = NodeClaimCondition.REBOOTING in conditions
    if claim is None and knows_claims:
        return Share()
    if NodeClaimCondition.INSTANCE_TERMINATING in conditions or not (node.initialized or is_rebooting):
        return Share()
    return Share(nodes=1, used=int(not node.ready or is_rebooting or departure in _GOING))


def takeable_from(claim: NodeClaim | None, consolidate_after: timedelta, emptied: datetime | None) -> datetime | None:
    """Say from when on Karpenter may take an empty node; None: nobody knows.

    The latest of 1. ``consolidate_after`` past the last pod that came or went, as Karpenter noted it; 2. past
    ``emptied``, when it was seen to fall empty: Karpenter's note may be late; 3. when it became Consolidatable.
    """
    began = [since for since in (emptied, claim.quiet_since if claim is not None else None) if since is not None]
    consolidatable = claim.consolidatable_since if claim is not None else None
    if not began:
        return consolidatable
    ready = later(max(began), consolidate_after)
    return ready if consolidatable is None else max(ready, consolidatable)


def is_next(takeable: datetime | None, free: datetime | None, now: datetime) -> bool:
    """An empty node is next to go until soon after Karpenter may take it; where nobody knows when, it always is.

    ``free`` is since when the budget is not used up, None: for as long as is known. While it was, the node only waited.
    """
    since = takeable if free is None or takeable is None else max(takeable, free)
    return since is None or now < later(since, SOON)


def room_to_disrupt(node_pool: NodePool, share: Share, now: datetime) -> int | None:
    """Say how many more empty nodes of a NodePool Karpenter may take now, None where nothing limits it."""
    allowed = allowed_disruptions(node_pool.budgets, EMPTY, share.nodes, now)
    return None if allowed is None else max(0, allowed - share.used)


def allowed_disruptions(budgets: Iterable[DisruptionBudget], reason: str, nodes: int, now: datetime) -> int | None:
    """Say how many of ``nodes`` may be disrupted at once for a reason: the least of the active budgets.

    None: no budget limits it. A percentage is rounded up. A budget that cannot be read, even for another reason, allows
    nothing, as in Karpenter.
    """
    allowed: int | None = None
    for budget in budgets:
        try:
            limit = _limit(budget, nodes) if _is_active(budget, now) else None
        except ValueError:
            return 0
        if limit is not None and (budget.reasons is None or reason in budget.reasons):
            allowed = limit if allowed is None else min(allowed, limit)
    return allowed


def opens_at(
    budgets: Collection[DisruptionBudget], reason: str, nodes: int, now: datetime, within: timedelta
) -> datetime | None:
    """Say from when on a node may be disrupted, None where budgets allow none from ``now`` until ``within`` later.

    As long as one budget that allows none is active nothing opens: so each step goes to the end of the last of them.
    """
    at = now
    while at <= now + within:
        if allowed_disruptions(budgets, reason, nodes, at) != 0:
            return at
        try:
            at = max(_closed_until(each, reason, nodes, at) for each in budgets)
        except ValueError:
            return None
    return None


def what_keeps(view: ClusterView, node_name: str, now: datetime, budgets: PodBudgets = NO_BUDGETS) -> Kept | None:
    """Say what would keep a node although all workers on it were gone, None where it would go or nobody knows.

    It is what Karpenter asks (state/statenode.go, ValidateNodeDisruptable and ValidatePodsDisruptable): 1. it is not
    Karpenter's, or NodePools are not known: nobody knows; 2. its NodePool is gone; 3. that is static; 4. or never
    consolidates; 5. it has no NodeClaim, where they are known; 6. it is not initialized; 7. it asks not to be
    disrupted; 8. a pod on it that is no worker, DaemonSets' and static ones included, asks not to be disturbed; 9.
    ``budgets`` forbid the eviction of one that would have to be evicted; 10. under WhenEmpty, a pod that is not bound
    to the node. What Karpenter keeps in memory only, a nomination or a CapacityBuffer, nobody sees.
    """
    node = view.nodes.get(node_name)
    if node is None or node.node_pool is None or not view.node_pools:
        return None
    node_pool = view.node_pools.get(node.node_pool)
    reason = _why_node_itself_stays(node, node_pool, lacks_claim=bool(view.node_claims) and view.claim_of(node) is None)
    if reason is not None:
        return Kept(reason=reason)
    active = [pod for pod in view.where.others_on(node_name) if not pod.terminating]
    for pod in active:
        if asks_not_to_be_disturbed(pod, now):
            return Kept(reason=SkipReason.OTHER_POD_DO_NOT_DISRUPT, pod=pod)
    for pod in active:
        if names := budgets_that_forbid(pod, budgets):
            return Kept(reason=SkipReason.OTHER_POD_BUDGET, pod=pod, budgets=names)
    if node_pool is not None and node_pool.consolidation_policy == WHEN_EMPTY:
        for pod in active:
            if not is_bound_to_its_node(pod):
                return Kept(reason=SkipReason.NODE_KEEPS_OTHERS, pod=pod)
    return None


def _why_node_itself_stays(node: Node, node_pool: NodePool | None, *, lacks_claim: bool) -> SkipReason | None:
    if node_pool is None:
        return SkipReason.NODE_POOL_UNKNOWN
    if node_pool.replicas is not None:
        return SkipReason.STATIC_NODE_POOL
    if node_pool.consolidate_after is None:
        return SkipReason.NEVER_CONSOLIDATED
    if lacks_claim:
        return SkipReason.NO_NODE_CLAIM
    if not node.initialized:
        return SkipReason.NODE_NOT_INITIALIZED
    return SkipReason.NODE_DO_NOT_DISRUPT if node.do_not_disrupt else None


def budgets_that_forbid(pod: Pod, budgets: PodBudgets) -> tuple[str, ...]:
    """Name the PodDisruptionBudgets for which Karpenter would not take a pod's node; none where it would.

    Those of a pod 1. that it would have to evict: neither static nor one that tolerates its taint; 2. and that either
    is covered by two, which the API server never evicts, or by one that allows none, unless the pod is not Ready and
    the budget lets such ones go.
    """
    if pod.static or pod.owner == NODE or pod.tolerates_disruption:
        return ()
    covering = budgets.covering(pod)
    if len(covering) == 1:
        (only,) = covering
        if only.allowed > 0 or (only.unhealthy_may_go and pod.ready_since is None):
            return ()
    return tuple(sorted(f"{each.namespace}/{each.name}" for each in covering))


def _limit(budget: DisruptionBudget, nodes: int) -> int:
    """Nodes that a budget allows. Raises ValueError where it cannot be read."""
    digits = budget.nodes.removesuffix("%")
    if not digits.isascii() or not digits.isdigit():
        raise ValueError(budget.nodes)
    return -(-int(digits) * nodes // 100) if budget.nodes.endswith("%") else int(digits)


def _closed_until(budget: DisruptionBudget, reason: str, nodes: int, now: datetime) -> datetime:
    """Say until when a budget allows nothing, ``now`` where it allows something. Raises ValueError as the others."""
    limit, is_active = _limit(budget, nodes), _is_active(budget, now)
    if limit or not is_active or not (budget.reasons is None or reason in budget.reasons):
        return now
    if budget.schedule is None or budget.duration is None:
        return FOREVER
    hit = parse_schedule(budget.schedule).last_hit(now, budget.duration)
    return FOREVER if hit is None else hit + budget.duration


def _is_active(budget: DisruptionBudget, now: datetime) -> bool:
    """A budget is always active, or for a duration after each hit of its schedule. Raises BadSchedule."""
    if budget.schedule is None and budget.duration is None:
        return True
    if budget.schedule is None or budget.duration is None:
        raise BadSchedule("schedule and duration go together")
    schedule = parse_schedule(budget.schedule)
    return schedule.never_hits or schedule.last_hit(now, budget.duration) is not None
