"""Which nodes evictions may empty, by the state as it is: what `policy.budgets` says, counted over a cluster.

Owns the count of each NodePool's nodes, and keeps it up to date while a plan is carried out. The loops and `plan` ask
the same questions here. Acts on nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from datetime import datetime

from extender.model import Pod, SkipReason
from extender.policy.budgets import Share, room_to_empty, share_of, why_node_stays
from extender.state import ClusterState


def why_stays(state: ClusterState, node_name: str, now: datetime) -> SkipReason | None:
    """Say why a node would stay without its workers, None where it would go or nobody knows."""
    node = state.nodes.get(node_name)
    node_pool = state.node_pools.get(node.node_pool or "") if node is not None else None
    if node is None or node_pool is None:
        return None
    return why_node_stays(node, node_pool, state.where.strangers_on(node_name).values(), now)


class Rooms:
    """How many more nodes of each NodePool may be emptied. ``changed`` is from `ClusterState.changes`, of its own.

    Run `counting` once before anything is asked.
    """

    def __init__(self, state: ClusterState, changed: set[str]) -> None:
        self._state = state
        self._changed = changed
        self._counted: dict[str, tuple[str, Share]] = {}
        self._shares: defaultdict[str, Share] = defaultdict(Share)

    def counting(self) -> Generator[None, None, None]:
        """Count every node, in steps of one."""
        if self._state.node_pools:
            for name in list(self._state.nodes):
                self._count(name)
                yield

    def left(self, now: datetime) -> dict[str, int]:
        """Say how many more nodes may be emptied, by NodePool; those that nothing limits are left out."""
        found = {name: self._left_of(name, now) for name in self._state.node_pools}
        return {name: room for name, room in found.items() if room is not None}

    def why_not(self, pod: Pod, now: datetime) -> SkipReason | None:
        """Say why the eviction of this pod would be for nothing, or too much, as of now; None where it is neither.

        On a leaving node it never is. The budget counts for the last pod that holds a node.
        """
        name = pod.node or ""
        node = self._state.nodes.get(name)
        if node is None or self._state.departure(name) is not None:
            return None
        stays = why_stays(self._state, name, now)
        if stays is not None or node.node_pool not in self._state.node_pools:
            return stays
        if self._state.where.is_held(name, without=pod.uid):
            return None
        return SkipReason.EMPTY_BUDGET if self._left_of(node.node_pool, now) == 0 else None

    def _left_of(self, node_pool: str, now: datetime) -> int | None:
        while self._changed:
            self._count(self._changed.pop())
        return room_to_empty(self._state.node_pools[node_pool], self._shares[node_pool], now)

    def _count(self, node_name: str) -> None:
        node_pool, share = self._counted.pop(node_name, ("", Share()))
        self._shares[node_pool] -= share
        node = self._state.nodes.get(node_name)
        if node is not None and node.node_pool is not None:
            is_empty = not self._state.where.is_held(node_name)
            share = share_of(node, self._state.departure(node_name), is_empty=is_empty)
            self._counted[node_name] = (node.node_pool, share)
            self._shares[node.node_pool] += share
