"""Which nodes are going away: *leaving* (certain and soon) and *ending* (known, not soon).

Owns the closed sets of reasons and their precedence. Only the scheduler and whoever takes a node act on that; we rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from extender.model import FOREVER, Departure, Ending, Node, NodeClaim, NodeClaimCondition, Pod, SkipReason, later
from extender.policy.defaults import EndingRules

NOT_READY_FOR = timedelta(seconds=50)
"""A node's Lease may be this old before the node controller gives it up (--node-monitor-grace-period). One that is
Unknown has been given up; one that says itself that it is not Ready, as in a restart of its network, gets as long."""

STUCK_AFTER = timedelta(minutes=5)
"""A terminating worker that is there so long after its grace hangs, by a finalizer or a volume: it says nothing of its
node."""

EXPIRY_SHARE = 10
"""A node is never *ending* for more than a tenth of its ``expireAfter``: with 1h and a horizon of 1h all would be."""


def departure_of(node: Node, claim: NodeClaim | None = None) -> Departure | None:
    """Say why a node is leaving, None where it is not. ``claim`` is its NodeClaim, None where there is none to be read.

    The most certain reason: 1. the Node is being deleted; 2. its NodeClaim is (expiry, interruption, repair, by hand:
    up to seconds before any taint); 3. its machine is being terminated; 4. it has a deadline; 5. Karpenter's disruption
    taint and 6. the condition that comes with it, which Karpenter takes back where a replacement fails; 7. the taint of
    somebody else who takes it; 8. a cordon.
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
    if node.announced is not None:
        return node.announced
    if node.unschedulable:
        return Departure.CORDONED
    return None


def ending_of(
    node: Node, workers: Iterable[Pod], claim: NodeClaim | None, rules: EndingRules, now: datetime
) -> Ending | None:
    """Say why a node is ending, None where it is not.

    1. Karpenter reboots it; 2. it was not heard of for longer than its Lease allows; 3. there are workers on it and
    every one of them is terminating, those that hang left out; 4. somebody else says that it may go; 5. it expires
    soon; 6. it has drifted, where the rules say that this counts.
    """
    if is_rebooting(claim):
        return Ending.REBOOTING
    if is_not_heard_of(node, now):
        return Ending.NOT_HEARD_OF
    terminating = [worker.terminating for worker in workers if not _hangs(worker, now)]
    if terminating and all(terminating):
        return Ending.WORKERS_TERMINATING
    if node.announced_ending is not None:
        return node.announced_ending
    if claim is None:
        return None
    if expiry_nears_at(claim, rules) <= now:
        return Ending.EXPIRES_SOON
    if rules.drifted and NodeClaimCondition.DRIFTED in claim.conditions:
        return Ending.DRIFTED
    return None


def says_the_same(pod: Pod, known: Pod | None, *, stays: bool) -> bool:
    """True where a pod, in place of what was ``known`` of it, makes no difference to `ending_of` and `turns_at`.

    1. It says of its node what it said. 2. It has come to one that ``stays`` (is not ending), and is not terminating.
    """
    says, said = _says(pod), _says(known) if known is not None and known.node == pod.node else None
    return says == said or (said is None and stays and not pod.terminating)


def _says(pod: Pod) -> tuple[bool, datetime | None] | None:
    """Give what `ending_of` and `turns_at` look at. None: they do not see a pod that is no worker, or is finished."""
    return None if pod.pool is None or pod.finished else (pod.terminating, pod.going_until)


def why_barred(node: Node, claim: NodeClaim | None, now: datetime) -> SkipReason | None:
    """Say why nobody on a node can be handed out, None where that is not so.

    1. It is leaving; 2. Karpenter reboots it; 3. it was not heard of. The last two may come back.
    """
    if departure_of(node, claim) is not None:
        return SkipReason.LEAVING_NODE
    if is_rebooting(claim):
        return SkipReason.NODE_REBOOTING
    return SkipReason.NODE_NOT_HEARD_OF if is_not_heard_of(node, now) else None


def is_rebooting(claim: NodeClaim | None) -> bool:
    """Karpenter from 1.15 on mends some nodes by a reboot: the same Node comes back, with its disk, within minutes."""
    return claim is not None and NodeClaimCondition.REBOOTING in claim.conditions


def is_not_heard_of(node: Node, now: datetime) -> bool:
    """A node is not heard of when it is Unknown, or was not Ready for longer than a Lease may be old.

    Nobody is handed out there, and a new worker could not start there. It may come back, so it is not leaving: nothing
    is refused, and no worker is evicted for it.
    """
    return _silent_from(node) <= now


def _silent_from(node: Node) -> datetime:
    if node.not_ready_since is None:
        return FOREVER
    return node.not_ready_since if node.unreachable else later(node.not_ready_since, NOT_READY_FOR)


def _hangs(worker: Pod, now: datetime) -> bool:
    return worker.terminating and worker.going_until is not None and later(worker.going_until, STUCK_AFTER) <= now


def turns_at(
    node: Node, workers: Iterable[Pod], claim: NodeClaim | None, rules: EndingRules, now: datetime
) -> datetime:
    """Say when `ending_of` may next say something else because of the time alone, `FOREVER` where it will not."""
    turns = [_silent_from(node), expiry_nears_at(claim, rules) if claim is not None else FOREVER]
    turns += [later(worker.going_until, STUCK_AFTER) for worker in workers if worker.going_until is not None]
    return min((turn for turn in turns if turn > now), default=FOREVER)


def expiry_nears_at(claim: NodeClaim, rules: EndingRules) -> datetime:
    """Say from when on a node counts as expiring soon, `FOREVER` where it never does.

    That is min(``expiry_horizon``, a tenth of ``expireAfter``) before Karpenter deletes the NodeClaim, at its creation
    + ``expireAfter`` (pkg/controllers/nodeclaim/expiration), whatever budgets say.
    """
    if claim.expire_after is None or not rules.expiry_horizon:
        return FOREVER
    horizon = min(rules.expiry_horizon, claim.expire_after / EXPIRY_SHARE)
    return later(claim.created, claim.expire_after - horizon)
