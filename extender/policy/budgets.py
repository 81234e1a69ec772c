"""Disruption budgets: how many nodes of a NodePool Karpenter may take at once, and which ones it would not take at all.

Owns Karpenter's arithmetic (pkg/apis/v1/nodepool.go, pkg/controllers/disruption/helpers.go) for the reason Empty, and
the rule that no more nodes are emptied than can go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from extender.model import Departure, DisruptionBudget, Node, NodePool, Pod, SkipReason
from extender.policy.idleness import asks_not_to_be_disturbed
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What nodes count in a budget: how many of them there are, and how many are gone, going, or next to go."""

    nodes: int = 0
    used: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(nodes=self.nodes + other.nodes, used=self.used + other.used)

    def __sub__(self, other: Share) -> Share:
        return Share(nodes=self.nodes - other.nodes, used=self.used - other.used)


def share_of(node: Node, departure: Departure | None, *, is_empty: bool) -> Share:
    """Say what a node of a NodePool counts in its budget.

    Nothing until it is initialized, nor once its machine is being terminated. It is used up where it is 1. NotReady or
    2. being disrupted, as Karpenter counts, or 3. empty and may be taken: to empty another one now would only let that
    one wait behind it.
    """
    if not node.initialized or departure is Departure.INSTANCE_TERMINATING:
        return Share()
    is_next = is_empty and not node.do_not_disrupt
    return Share(nodes=1, used=int(not node.ready or departure in _GOING or is_next))


def room_to_empty(node_pool: NodePool, share: Share, now: datetime) -> int | None:
    """Say how many more nodes of a NodePool may be emptied now, None where nothing limits it."""
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


def why_node_stays(node: Node, node_pool: NodePool | None, foreign: Iterable[Pod], now: datetime) -> SkipReason | None:
    """Say why a node would stay although all workers on it were gone, None where it would go or nobody knows.

    ``foreign`` are the pods of no pool that hold it. 1. its NodePool is not known, or it is not Karpenter's: nobody
    knows; 2. the NodePool is static; 3. it never consolidates; 4. the node asks not to be disrupted; 5. a foreign pod
    holds it that Karpenter does not move: any, where the policy is WhenEmpty, else one that asks not to be disturbed.
    """
    if node_pool is None:
        return None
    if node_pool.replicas is not None:
        return SkipReason.STATIC_NODE_POOL
    if node_pool.consolidate_after is None:
        return SkipReason.NEVER_CONSOLIDATED
    if node.do_not_disrupt:
        return SkipReason.NODE_DO_NOT_DISRUPT
    moves_none = node_pool.consolidation_policy == WHEN_EMPTY
    if any(moves_none or asks_not_to_be_disturbed(pod, now) for pod in foreign if not pod.terminating):
        return SkipReason.NODE_KEEPS_OTHERS
    return None


def _limit(budget: DisruptionBudget, nodes: int) -> int:
    """Nodes that a budget allows. Raises ValueError where it cannot be read."""
    digits = budget.nodes.removesuffix("%")
    if not digits.isascii() or not digits.isdigit():
        raise ValueError(budget.nodes)
    return -(-int(digits) * nodes // 100) if budget.nodes.endswith("%") else int(digits)


def _is_active(budget: DisruptionBudget, now: datetime) -> bool:
    """A budget is always active, or for a duration after each hit of its schedule. Raises BadSchedule."""
    if budget.schedule is None and budget.duration is None:
        return True
    if budget.schedule is None or budget.duration is None:
        raise BadSchedule("schedule and duration go together")
    schedule = parse_schedule(budget.schedule)
    return schedule.never_hits or schedule.last_hit(now, budget.duration) is not None
