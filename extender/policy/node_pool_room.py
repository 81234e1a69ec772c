"""Which nodes evictions may empty, by the state as it is: what `policy.node_pool_budgets` says, counted over a cluster.

Owns the count of each NodePool's nodes, and keeps it up to date while a plan is carried out. Acts on nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from extender.model import Pod, SkipReason
from extender.policy.cluster_view import ClusterView
from extender.policy.node_pool_budgets import (
    NO_BUDGETS,
    Kept,
    PodBudgets,
    Share,
    is_next,
    room_to_disrupt,
    share_of,
    takeable_from,
    what_keeps,
)

BY_CHOICE = frozenset({SkipReason.STATIC_NODE_POOL, SkipReason.NEVER_CONSOLIDATED})
"""A node that stays empty for these is not stuck: its NodePool is set so."""


def why_stays(state: ClusterView, node_name: str, now: datetime, budgets: PodBudgets = NO_BUDGETS) -> SkipReason | None:
    """Say why a node would stay without its workers, None where it would go or nobody knows."""
    kept = what_keeps(state, node_name, now, budgets)
    return kept.reason if kept is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Empty:
    """An empty node: from when on Karpenter may take it (None: not known), and what keeps it."""

    takeable: datetime | None
    kept: Kept | None


@dataclass(slots=True)
class Seen:
    """What was seen from pass to pass, by one process: when nodes fell empty, and NodePools' budgets were free again.

    ``held`` and ``emptied`` are by UID of the node, ``used_up`` and ``free`` by NodePool.
    """

    held: set[str] = field(default_factory=set)
    emptied: dict[str, datetime] = field(default_factory=dict)
    used_up: set[str] = field(default_factory=set)
    free: dict[str, datetime] = field(default_factory=dict)

    def node(self, uid: str, *, is_empty: bool, now: datetime) -> None:
        """Note how a node is found. One that was empty when it was first seen fell empty nobody knows when."""
        if not is_empty:
            self.held.add(uid)
            self.emptied.pop(uid, None)
        elif uid in self.held:
            self.held.discard(uid)
            self.emptied[uid] = now

    def budget(self, node_pool: str, *, is_used_up: bool, now: datetime) -> None:
        """Note how a budget is found."""
        if is_used_up:
            self.used_up.add(node_pool)
        elif node_pool in self.used_up:
            self.used_up.discard(node_pool)
            self.free[node_pool] = now

    def keep_only(self, uids: set[str]) -> None:
        """Forget the nodes that are gone."""
        self.held &= uids
        self.emptied = {uid: since for uid, since in self.emptied.items() if uid in uids}


class DisruptionRoom:
    """How many more nodes of each NodePool may be emptied. ``changed`` is from `ClusterState.changes`, of its own.

    ``seen`` is what earlier passes saw; without it nothing was. Run `counting` once before anything is asked.
    """

    def __init__(
        self, state: ClusterView, changed: set[str], *, budgets: PodBudgets = NO_BUDGETS, seen: Seen | None = None
    ) -> None:
        self._state = state
        self._changed = changed
        self.budgets = budgets
        self._seen = seen or Seen()
        self._counted: dict[str, tuple[str, Share]] = {}
        self._shares: defaultdict[str, Share] = defaultdict(Share)
        self._empty: defaultdict[str, dict[str, _Empty]] = defaultdict(dict)  # by NodePool and node

    def counting(self, now: datetime) -> Generator[None, None, None]:
        """Count every node, in steps of one."""
        if self._state.node_pools:
            for name in list(self._state.nodes):
                self._count(name, now)
                yield
            self._seen.keep_only({node.uid for node in self._state.nodes.values()})

    def left(self, now: datetime) -> dict[str, int]:
        """Say how many more nodes may be emptied, by NodePool; those that nothing limits are left out."""
        found = {name: self._left_of(name, now) for name in self._state.node_pools}
        return {name: room for name, room in found.items() if room is not None}

    def stuck(self, now: datetime) -> dict[str, Kept | None]:
        """Give the empty nodes that Karpenter could have taken and has not, with what keeps them; None: not known."""
        found: dict[str, Kept | None] = {}
        for node_pool in list(self._empty):
            self._left_of(node_pool, now)
            for name, empty in self._empty[node_pool].items():
                if not self._is_next(node_pool, empty.takeable, now):
                    found[name] = empty.kept
        return found

    def why_not(self, pod: Pod, now: datetime) -> SkipReason | None:
        """Say why the eviction of this pod would be for nothing, or too much, as of now; None where it is neither.

        On a leaving node it never is. The budget counts for the last pod that holds a node.
        """
        name = pod.node or ""
        node = self._state.nodes.get(name)
        if node is None or self._state.departure(name) is not None:
            return None
        stays = why_stays(self._state, name, now, self.budgets)
        if stays is not None or node.node_pool is None or node.node_pool not in self._state.node_pools:
            return stays
        if self._state.where.is_held(name, without=pod.uid):
            return None
        return SkipReason.EMPTY_BUDGET if self._left_of(node.node_pool, now) == 0 else None

    def _left_of(self, name: str, now: datetime) -> int | None:
        """What Karpenter may still take, less the empty nodes that are next: to empty another would let it wait."""
        while self._changed:
            self._count(self._changed.pop(), now)
        node_pool = self._state.node_pools.get(name)
        room = room_to_disrupt(node_pool, self._shares[name], now) if node_pool is not None else None
        self._seen.budget(name, is_used_up=room == 0, now=now)
        if room is None:
            return None
        waiting = (each.kept is None and self._is_next(name, each.takeable, now) for each in self._empty[name].values())
        return max(0, room - sum(waiting))

    def _is_next(self, node_pool: str, takeable: datetime | None, now: datetime) -> bool:
        """True as well while the budget is used up: then an empty node waits for that."""
        return node_pool in self._seen.used_up or is_next(takeable, self._seen.free.get(node_pool), now)

    def _count(self, name: str, now: datetime) -> None:
        before, share = self._counted.pop(name, ("", Share()))
        self._shares[before] -= share
        self._empty[before].pop(name, None)
        node = self._state.nodes.get(name)
        if node is None or node.node_pool is None:
            return
        claim, departure = self._state.claim_of(node), self._state.departure(name)
        share = share_of(node, departure, claim, knows_claims=bool(self._state.node_claims))
        self._counted[name] = (node.node_pool, share)
        self._shares[node.node_pool] += share
        is_empty = not self._state.where.is_held(name)
        self._seen.node(node.uid, is_empty=is_empty, now=now)
        if is_empty and departure is None and share.nodes > share.used:
            kept = what_keeps(self._state, name, now, self.budgets)
            if kept is None or kept.reason not in BY_CHOICE:
                node_pool = self._state.node_pools.get(node.node_pool)
                after = (node_pool.consolidate_after if node_pool is not None else None) or timedelta(0)
                takeable = takeable_from(claim, after, self._seen.emptied.get(node.uid))
                self._empty[node.node_pool][name] = _Empty(takeable=takeable, kept=kept)
