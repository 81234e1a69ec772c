"""Idleness: one protocol, decided on the pod object. Owns the predicates that every consumer uses.

The mark is the annotation ``warmnode.dev/idle-since``. Absent, unparseable or more than 30 s in the future means busy.
Nothing else implies idleness.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from extender.model import Departure, Pod, ScaleIn, SkipReason

FUTURE_TOLERANCE = timedelta(seconds=30)
SYSTEM_NAMESPACE = "kube-system"
DAEMON_SET = "DaemonSet.apps"
NODE = "Node"
"""Owner of a static pod's mirror."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapRules:
    """Which idle workers of a pool may be evicted at all. ``evict_owners`` are as ``Kind.group``."""

    enabled: bool = True
    idle_timeout: timedelta = timedelta(minutes=5)
    min_pod_age: timedelta = timedelta(minutes=1)
    scale_in: ScaleIn = ScaleIn.AUTO
    evict_owners: frozenset[str] = frozenset()


def reports_idle(worker: Pod, now: datetime) -> bool:
    """A worker reports idle when its mark is present, parseable, and at most 30 s ahead of ``now``."""
    return is_valid_mark(worker.idle_since, now)


def is_valid_mark(mark: datetime | None, now: datetime) -> bool:
    """A mark is valid when it is there and at most 30 s ahead of ``now``."""
    return mark is not None and (mark <= now or mark <= now + FUTURE_TOLERANCE)


def is_undisturbed(worker: Pod, now: datetime) -> bool:
    """A worker must not be disturbed while it is busy or asks for it by ``karpenter.sh/do-not-disrupt``."""
    return not reports_idle(worker, now) or asks_not_to_be_disturbed(worker, now)


def asks_not_to_be_disturbed(pod: Pod, now: datetime) -> bool:
    """A pod asks for it with ``karpenter.sh/do-not-disrupt``: "true", or a duration that has not passed yet."""
    return pod.do_not_disrupt_until is not None and now < pod.do_not_disrupt_until


def is_bound_to_its_node(pod: Pod) -> bool:
    """A DaemonSet's pod or a static pod belongs to its node: it goes with the node, and holds no node."""
    return pod.static or pod.owner in (DAEMON_SET, NODE)


def why_not_claimable(worker: Pod, departure: Departure | None, now: datetime) -> SkipReason | None:
    """Say why a worker cannot be handed out, None where it can: these are the workers that the floor counts.

    1. reports idle; 2. not terminating; 3. Ready; 4. its node is not leaving (``departure`` is the node's).
    """
    return why_idle_not_claimable(worker, departure) if reports_idle(worker, now) else SkipReason.BUSY


def why_idle_not_claimable(worker: Pod, departure: Departure | None) -> SkipReason | None:
    """`why_not_claimable` for a worker that reports idle."""
    if worker.terminating:
        return SkipReason.TERMINATING
    if worker.ready_since is None:
        return SkipReason.NOT_READY
    if departure is not None:
        return SkipReason.LEAVING_NODE
    return None


def why_not_reapable(worker: Pod, rules: ReapRules, now: datetime) -> SkipReason | None:
    """Say why a worker must not be evicted, None where it may be.

    1. reports idle; 2. not terminating; 3. not in ``kube-system``; 4. not a DaemonSet's or a static pod; 5. reaping is
    enabled for the pool; 6. its owner would not recreate it (`why_owner_keeps`); 7. no ``karpenter.sh/do-not-disrupt``;
    8. idle for longer than ``idle_timeout``; 9. older than ``min_pod_age``.
    """
    return why_idle_not_reapable(worker, rules, now) if reports_idle(worker, now) else SkipReason.BUSY


def why_idle_not_reapable(worker: Pod, rules: ReapRules, now: datetime) -> SkipReason | None:
    """`why_not_reapable` for a worker that reports idle."""
    if worker.terminating:
        return SkipReason.TERMINATING
    if worker.namespace == SYSTEM_NAMESPACE:
        return SkipReason.SYSTEM_NAMESPACE
    if worker.owner == DAEMON_SET:
        return SkipReason.DAEMON_SET
    if worker.static or worker.owner == NODE:
        return SkipReason.STATIC_POD
    if not rules.enabled:
        return SkipReason.DISABLED
    if worker.owner is not None or rules.scale_in is not ScaleIn.AUTO:
        keeps = why_owner_keeps(worker, rules)
        if keeps is not None:
            return keeps
    if worker.do_not_disrupt_until is not None and asks_not_to_be_disturbed(worker, now):
        return SkipReason.DO_NOT_DISRUPT
    if worker.idle_since is None or now - worker.idle_since <= rules.idle_timeout:
        return SkipReason.IDLE_TOO_SHORT
    if now - worker.created <= rules.min_pod_age:
        return SkipReason.TOO_YOUNG
    return None


def why_owner_keeps(worker: Pod, rules: ReapRules) -> SkipReason | None:
    """Say why ``scaleIn`` forbids the eviction, None where it does not.

    ``annotate`` forbids all. ``auto`` forbids pods with a controlling owner that is not in ``evict_owners``: it would
    make a new pod, maybe on a new node. ``evict`` forbids none.
    """
    match rules.scale_in:
        case ScaleIn.ANNOTATE:
            return SkipReason.ANNOTATE_ONLY
        case ScaleIn.AUTO if worker.owner is not None and worker.owner not in rules.evict_owners:
            return SkipReason.OWNER_RECREATES
        case _:
            return None
