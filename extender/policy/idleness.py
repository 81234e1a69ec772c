"""Idleness: one protocol, decided on the pod object. Owns the predicates that every consumer uses.

The mark is the annotation ``warmnode.dev/idle-since``. Absent, unparseable or more than 30 s in the future means busy.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from extender.model import Pod

FUTURE_TOLERANCE = timedelta(seconds=30)


def reports_idle(worker: Pod, now: datetime) -> bool:
    """A worker reports idle when its mark is present, parseable, and at most 30 s ahead of ``now``."""
    return worker.idle_since is not None and worker.idle_since <= now + FUTURE_TOLERANCE


def is_undisturbed(worker: Pod, now: datetime) -> bool:
    """A worker must not be disturbed while it is busy or asks for it by ``karpenter.sh/do-not-disrupt``."""
    return not reports_idle(worker, now) or asks_not_to_be_disturbed(worker, now)


def asks_not_to_be_disturbed(pod: Pod, now: datetime) -> bool:
    """A pod asks for it with ``karpenter.sh/do-not-disrupt``: "true", or a duration that has not passed yet."""
    return pod.do_not_disrupt_until is not None and now < pod.do_not_disrupt_until
