"""What placing in the shadow shows: where workers went, and where they would have gone had they been answered for.

Owns the comparison and its counts. Nothing is decided by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

from extender.cluster.state import ClusterState
from extender.model import Pod
from extender.policy.decisions import PlacementDecision

MOST_POOLS = 1000
"""Names of pools may be anybody's: of more than these nothing is kept."""


class ShadowVerdict(StrEnum):
    """What became of a worker that was placed without us. One of them; the first that is true.

    agreed: it went to the node that would have got the highest score. keyNode: it would have gone to a node where its
    key was used more. olderNode: to an older node. unknown: no candidate was known here.
    """

    AGREED = "agreed"
    KEY_NODE = "keyNode"
    OLDER_NODE = "olderNode"
    UNKNOWN = "unknown"


def shadow_verdict(decision: PlacementDecision) -> ShadowVerdict:
    """Compare where a worker was bound with what would have been answered."""
    if not decision.best:
        return ShadowVerdict.UNKNOWN
    first = decision.best[0]
    if decision.node == first.node:
        return ShadowVerdict.AGREED
    used = next((each.key_uses for each in decision.best if each.node == decision.node), 0.0)
    return ShadowVerdict.KEY_NODE if first.key_uses > used else ShadowVerdict.OLDER_NODE


class ShadowStanding(Struct, frozen=True, kw_only=True):
    """A pool in the shadow: how many workers got which verdict, and how many nodes fewer would be in use now."""

    pool: str
    verdicts: Mapping[ShadowVerdict, int]
    spared: int


@dataclass(slots=True)
class _ShadowPool:
    """One pool: how many got which verdict, where each worker would be by UID and by node, how many fit on a node."""

    counts: Counter[ShadowVerdict] = field(default_factory=Counter)
    would_be: dict[str, str] = field(default_factory=dict)
    on: dict[str, set[str]] = field(default_factory=dict)
    room: int = 1


class ShadowScore:
    """Counts the workers of pools in the shadow, and keeps where each one that is still there would be.

    A node takes as many workers of a pool as were ever seen on one of its nodes: what else has room, nobody told us. So
    which nodes would be empty is an estimate. Workers that nobody asked about are where they are.
    """

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._pools: dict[str, _ShadowPool] = {}

    def bound(self, worker: Pod, decision: PlacementDecision) -> ShadowVerdict:
        """Take note of a worker that was just bound, joined with what would have been answered."""
        verdict, name = shadow_verdict(decision), worker.pool or ""
        pool = self._pools.get(name)
        if pool is None:
            if len(self._pools) >= MOST_POOLS:
                return verdict
            pool = self._pools[name] = _ShadowPool()
        pool.counts[verdict] += 1
        others = self._state.where.workers_on(worker.node or "").values()
        pool.room = max(pool.room, 1 + sum(each.pool == name and each.uid != worker.uid for each in others))
        if len(pool.would_be) > 1000 + 2 * self._state.where.placed.get(name, 0):
            self._forget_dead(pool)
        has_room = (each.node for each in decision.best if self._held(name, pool, each.node) < pool.room)
        node = next(has_room, worker.node or "")
        pool.would_be[worker.uid] = node
        pool.on.setdefault(node, set()).add(worker.uid)
        return verdict

    def standing(self, name: str) -> ShadowStanding:
        """Say how a pool stands."""
        counts = self._pools[name].counts if name in self._pools else Counter()
        return ShadowStanding(
            pool=name, verdicts={each: counts[each] for each in ShadowVerdict}, spared=self.spared(name)
        )

    def pools(self) -> list[str]:
        """Name the pools of which a worker was placed in the shadow."""
        return sorted(self._pools)

    def spared(self, name: str) -> int:
        """Say how many nodes fewer would have workers of a pool. Nodes that other pods keep do not count."""
        pool, where = self._pools.get(name), self._state.where
        if pool is None:
            return 0
        spared = 0
        for node in where.names_with_workers() | pool.on.keys():
            is_used = any(each.pool == name for each in where.workers_on(node).values())
            if is_used != bool(self._held(name, pool, node)) and not where.holders_on(node, besides=name):
                spared += 1 if is_used else -1
        return spared

    def _held(self, name: str, pool: _ShadowPool, node: str) -> int:
        """Count the workers of a pool that would be on a node."""
        there = sum(self._is_there(uid) for uid in pool.on.get(node, ()))
        workers = self._state.where.workers_on(node)
        return there + sum(each.pool == name and uid not in pool.would_be for uid, each in workers.items())

    def _is_there(self, uid: str) -> bool:
        pod = self._state.pods.get(uid)
        return pod is not None and not pod.finished

    def _forget_dead(self, pool: _ShadowPool) -> None:
        pool.would_be = {uid: node for uid, node in pool.would_be.items() if self._is_there(uid)}
        pool.on = {}
        for uid, node in pool.would_be.items():
            pool.on.setdefault(node, set()).add(uid)
