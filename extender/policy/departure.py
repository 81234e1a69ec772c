"""Which nodes are going away: *leaving* (certain and soon) and *ending* (known, not soon).

Owns the closed sets of reasons and their precedence. Only the scheduler and Karpenter act on a departure; we rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from extender.model import FOREVER, Departure, Ending, Node, NodeClaim, NodeClaimCondition, Pod

EXPIRY_SHARE = 10
"""A node is never *ending* for more than a tenth of its ``expireAfter``: with 1h and a horizon of 1h all would be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndingRules:
    """When a node counts as ending: so long before it expires (0: not for that), and where it has drifted."""

    expiry_horizon: timedelta = timedelta(hours=1)
    drifted: bool = False


def departure_of(node: Node, claim: NodeClaim | None = None) -> Departure | None:
    """Say why a node is leaving, None where it is not. ``claim`` is its NodeClaim, None where there is none to be read.

    The most certain reason: 1. the Node is being deleted; 2. its NodeClaim is (expiry, interruption, repair, by hand:
    up to seconds before any taint); 3. its machine is being terminated; 4. it has a deadline; 5. Karpenter's disruption
    taint and 6. the condition that comes with it, which Karpenter takes back where a replacement fails; 7. a cordon.
    """
    conditions = claim.conditions if claim is not None else frozenset()
    if node.deleting:
        return Departure.NODE_DELETING
    if claim is not None and claim.deleting:
        return Departure.NODE_CLAIM_DELETING
    if NodeClaimCondition.INSTANCE_TERMINATING in conditions:
        return Departure.INSTANCE_TERMINATING
    if claim is not None and claim.has_deadline:
        return Departure.TERMINATION_TIMESTAMP
    if node.disrupted:
        return Departure.DISRUPTED
    if NodeClaimCondition.DISRUPTION_REASON in conditions:
        return Departure.DISRUPTION_REASON
    if node.unschedulable:
        return Departure.CORDONED
    return None


def ending_of(workers: Iterable[Pod], claim: NodeClaim | None, rules: EndingRules, now: datetime) -> Ending | None:
    """Say why a node is ending, None where it is not.

    1. there are workers on it and every one of them is terminating; 2. it expires soon; 3. it has drifted, where the
    rules say that this counts.
    """
    terminating = [worker.terminating for worker in workers]
    if terminating and all(terminating):
        return Ending.WORKERS_TERMINATING
    if claim is None:
        return None
    if expiry_nears_at(claim, rules) <= now:
        return Ending.EXPIRES_SOON
    if rules.drifted and NodeClaimCondition.DRIFTED in claim.conditions:
        return Ending.DRIFTED
    return None


def expiry_nears_at(claim: NodeClaim, rules: EndingRules) -> datetime:
    """Say from when on a node counts as expiring soon, `FOREVER` where it never does.

    That is min(``expiry_horizon``, a tenth of ``expireAfter``) before Karpenter deletes the NodeClaim, at its creation
    + ``expireAfter`` (pkg/controllers/nodeclaim/expiration), whatever budgets say.
    """
    if claim.expire_after is None or not rules.expiry_horizon:
        return FOREVER
    horizon = min(rules.expiry_horizon, claim.expire_after / EXPIRY_SHARE)
    try:
        return claim.created + (claim.expire_after - horizon)
    except OverflowError:
        return FOREVER
