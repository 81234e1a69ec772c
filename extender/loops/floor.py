"""How many claimable workers a pool has at this moment, without a look at all of its nodes.

Owns the count while one plan is carried out. It begins with what the pass counted, and counts those nodes again that
the state says have changed since. Time alone only adds claimable workers; the next pass counts those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from extender.cluster.state import ClusterState
from extender.model import Pod
from extender.policy.idleness import why_not_claimable
from extender.policy.reaping import Assessment


class ClaimableCount:
    """Counts the claimable workers of one pool. ``changed`` is from `ClusterState.changes`, begun before the pass.

    ``view`` gives the pool's workers as its idle sources have them.
    """

    def __init__(
        self,
        state: ClusterState,
        pool: str,
        assessments: Iterable[Assessment],
        changed: set[str],
        view: Callable[[str, list[Pod]], list[Pod]],
    ) -> None:
        self._state = state
        self._pool = pool
        self._changed = changed
        self._view = view
        self._on = {each.node: each.claimable for each in assessments}
        self._total = sum(self._on.values())

    def besides(self, pod: Pod, now: datetime) -> int:
        """Count those that are left without ``pod``."""
        while self._changed:
            name = self._changed.pop()
            count = self._count(self._state.where.workers_on(name).values(), now)
            self._total += count - self._on.get(name, 0)
            self._on[name] = count
        known = self._state.pods.get(pod.uid)
        return self._total - (self._count([known], now) if known is not None else 0)

    def _count(self, workers: Iterable[Pod], now: datetime) -> int:
        ours = [worker for worker in workers if worker.pool == self._pool and not worker.finished]
        return sum(
            worker.node in self._state.nodes
            and why_not_claimable(worker, self._state.why_barred(worker.node), now) is None
            for worker in self._view(self._pool, ours)
        )
