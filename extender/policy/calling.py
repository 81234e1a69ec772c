"""Is a scheduler calling us? Owns when silence means that something is wrong.

A scheduler that does not call is the one failure that nothing else shows: pods are scheduled as without warmnode.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from extender.model import Pod
from extender.policy.idleness import is_bound_to_its_node

SILENCE = timedelta(minutes=15)
"""So long without a call, while workers are placed, is no coincidence."""


def should_have_called(worker: Pod, schedulers: frozenset[str]) -> bool:
    """A worker's scheduler should have called when it is one of ``schedulers``. DaemonSet pods have one node only."""
    return worker.scheduler in schedulers and not is_bound_to_its_node(worker)


def is_not_called(
    *,
    last_call: datetime | None,
    last_bound: datetime | None,
    watching_since: datetime,
    schedulable_nodes: int,
    now: datetime,
) -> bool:
    """Say whether a scheduler that should call does not.

    1. at least two nodes are schedulable: for one feasible node a scheduler asks nobody; 2. no replica was called for
    15 minutes, or none ever and we have watched for that long; 3. a worker was bound within them. ``last_bound`` counts
    only workers whose scheduler should have called.
    """
    if schedulable_nodes < 2 or last_bound is None:
        return False
    return now - (last_call or watching_since) >= SILENCE and now - last_bound <= SILENCE
