"""Idleness: one protocol, decided on the pod object. Owns the predicates that every consumer uses.

The mark is the annotation ``warmnode.dev/idle-since``. Absent, unparseable or more than 30 s in the future means busy.
Nothing else implies idleness.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from extender.clock import MOST_OFF
from extender.model import Pod, ScaleIn, SkipReason
from extender.policy.defaults import ReapRules

FUTURE_TOLERANCE = timedelta(seconds=30)
CLAIM_GRACE = MOST_OFF
"""A worker is free this long after its claim has expired: the clocks of replicas differ."""
SYSTEM_NAMESPACE = "kube-system"
DAEMON_SET = "DaemonSet.apps"
NODE = "Node"
"""Owner of a static pod's mirror."""
BOUND_BY = frozenset({DAEMON_SET, NODE})


def reports_idle(worker: Pod, now: datetime) -> bool:
    """A worker reports idle when its mark is present, parseable, and at most 30 s ahead of ``now``."""
    mark = worker.idle_since
    return mark is not None and is_valid_mark(mark, now)


def is_valid_mark(mark: datetime | None, now: datetime) -> bool:
    """A mark is valid when it is there and at most 30 s ahead of ``now``."""
    return mark is not None and (mark <= now or mark <= now + FUTURE_TOLERANCE)


def is_claimed(worker: Pod, now: datetime) -> bool:
    """A worker is claimed until 5 s after its claim has expired. A claim that cannot be read never does."""
    return worker.claim is not None and now - CLAIM_GRACE < worker.claim.expires


def idle_since(worker: Pod) -> datetime | None:
    """Say since when a worker is idle: the later of its mark and the end of its last claim. None without a mark."""
    if worker.claim is None and worker.claim_ended is None:
        return worker.idle_since
    if worker.idle_since is None:
        return None
    ends = (worker.claim_ended, worker.claim.expires if worker.claim is not None else None)
    return max(worker.idle_since, *(end or worker.idle_since for end in ends))


def is_undisturbed(worker: Pod, now: datetime) -> bool:
    """A worker must not be disturbed while it is busy, claimed, or asks for it by ``karpenter.sh/do-not-disrupt``."""
    return not reports_idle(worker, now) or is_claimed(worker, now) or asks_not_to_be_disturbed(worker, now)


def asks_not_to_be_disturbed(pod: Pod, now: datetime) -> bool:
    """A pod asks for it with ``karpenter.sh/do-not-disrupt``: "true", or a duration that has not passed yet.

    What came with a claim counts no longer than the claim.
    """
    if pod.do_not_disrupt_until is None or now >= pod.do_not_disrupt_until:
        return False
    return pod.claim is None or not pod.claim.protects or is_claimed(pod, now)


def is_bound_to_its_node(pod: Pod) -> bool:
    """A DaemonSet's pod or a static pod belongs to its node: it goes with the node, and holds no node."""
    return pod.static or pod.owner in BOUND_BY


def why_not_claimable(worker: Pod, barred: SkipReason | None, now: datetime) -> SkipReason | None:
    """Say why a worker cannot be handed out, None where it can: these are the workers that the floor counts.

    1. reports idle; 2. not claimed; 3. not terminating; 4. Ready, and on this machine; 5. its node may be used:
    ``barred`` says why it may not, leaving or not heard of.
    """
    if not reports_idle(worker, now):
        return SkipReason.BUSY
    if is_claimed(worker, now):
        return SkipReason.CLAIMED
    if worker.terminating:
        return SkipReason.TERMINATING
    if worker.ready_since is None:
        return SkipReason.NOT_READY
    if worker.old_machine:
        return SkipReason.OLD_MACHINE
    return barred


@dataclass(frozen=True, slots=True)
class RulesNow:
    """A pool's rules at a moment, with the times to compare those of workers with: made once for many of them.

    A mark is valid up to ``marks_until``. Who may go is idle since before ``idle_before``, made before ``made_before``.
    ``lets_bare_go``: workers without an owner, which most have, are kept by none of the rules on owners.
    """

    rules: ReapRules
    now: datetime
    marks_until: datetime
    idle_before: datetime
    made_before: datetime
    lets_bare_go: bool

    @classmethod
    def of(cls, rules: ReapRules, now: datetime) -> RulesNow:
        """Work them out."""
        bare = rules.enabled and rules.scale_in is not ScaleIn.ANNOTATE
        return cls(rules, now, now + FUTURE_TOLERANCE, now - rules.idle_timeout, now - rules.min_pod_age, bare)


def why_not_reapable(worker: Pod, rules: ReapRules, now: datetime) -> SkipReason | None:
    """Say why a worker must not be evicted, None where it may be.

    1. reports idle; 2. not claimed; 3. neither terminating nor finished; 4. not in ``kube-system``; 5. its owner and
    the pool let it go (`why_owner_keeps`); 6. no ``karpenter.sh/do-not-disrupt``; 7. idle for longer than
    ``idle_timeout``, counted from `idle_since`; 8. older than ``min_pod_age``.
    """
    return why_idle_not_reapable(worker, RulesNow.of(rules, now)) if reports_idle(worker, now) else SkipReason.BUSY


def why_idle_not_reapable(worker: Pod, asked: RulesNow) -> SkipReason | None:
    """`why_not_reapable` for a worker that reports idle."""
    claim, owner = worker.claim, worker.owner
    if claim is not None and is_claimed(worker, asked.now):
        return SkipReason.CLAIMED
    if worker.terminating or worker.finished:
        return SkipReason.TERMINATING
    if worker.namespace == SYSTEM_NAMESPACE:
        return SkipReason.SYSTEM_NAMESPACE
    if owner is not None or worker.static or not asked.lets_bare_go:  # most have no owner: 100,000 are asked about
        keeps = why_owner_keeps(worker, asked.rules)
        if keeps is not None:
            return keeps
    if worker.do_not_disrupt_until is not None and asks_not_to_be_disturbed(worker, asked.now):
        return SkipReason.DO_NOT_DISRUPT
    # most have had no claim: a call less for each of 100,000 workers
    since = worker.idle_since if claim is None and worker.claim_ended is None else idle_since(worker)
    if since is None or since >= asked.idle_before:
        return SkipReason.IDLE_TOO_SHORT
    if worker.created >= asked.made_before:
        return SkipReason.TOO_YOUNG
    return None


def why_owner_keeps(worker: Pod, rules: ReapRules) -> SkipReason | None:
    """Say why no worker of this owner is evicted in this pool, None where it may be.

    1. a DaemonSet's or a static pod; 2. reaping is not enabled for the pool; 3. ``scaleIn``: ``annotate`` forbids all.
    ``auto`` forbids pods with a controlling owner that is not in ``evict_owners``: it would make a new pod, maybe on a
    new node. ``evict`` forbids none.
    """
    if is_bound_to_its_node(worker):
        return SkipReason.DAEMON_SET if worker.owner == DAEMON_SET else SkipReason.STATIC_POD
    if not rules.enabled:
        return SkipReason.DISABLED
    match rules.scale_in:
        case ScaleIn.ANNOTATE:
            return SkipReason.ANNOTATE_ONLY
        case ScaleIn.AUTO if worker.owner is not None and worker.owner not in rules.evict_owners:
            return SkipReason.OWNER_RECREATES
        case _:
            return None
