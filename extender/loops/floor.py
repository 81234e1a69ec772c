"""How many claimable workers a pool has at this moment, without a look at all of its nodes.

Owns the count while one plan is carried out. It begins with what the pass counted, and counts those nodes again that
the state says have changed since. Time alone only adds claimable workers; the next pass counts those.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from extender.model import Pod
from extender.policy.idleness import why_not_claimable
from extender.policy.reaping import Assessment
from extender.state import ClusterState


class ClaimableCount:
    """Counts the claimable workers of one pool. ``changed`` is from `ClusterState.changes`, begun before the pass."""

    def __init__(self, state: ClusterState, pool: str, assessments: Iterable[Assessment], changed: set[str]) -> None:
        self._state = state
        self._pool = pool
        self._changed = changed
        self._on = {each.node: each.claimable for each in assessments}
        self._total = sum(self._on.values())

    def besides(self, pod: Pod, now: datetime) -> int:
        """Count those that are left without ``pod``."""
        while self._changed:
            name = self._changed.pop()
            count = sum(self._counts(worker, now) for worker in self._state.workers_on(name).values())
            self._total += count - self._on.get(name, 0)
            self._on[name] = count
        known = self._state.pods.get(pod.uid)
        return self._total - (known is not None and self._counts(known, now))

    def _counts(self, worker: Pod, now: datetime) -> bool:
        return (
            worker.pool == self._pool
            and not worker.finished
            and worker.node in self._state.nodes
            and why_not_claimable(worker, self._state.departure(worker.node), now) is None
        )
