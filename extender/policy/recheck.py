"""How things stand while a judgement is carried out, and whether one worker still goes right before it does.

Owns what a judgement goes by, and the two figures that each eviction changes: the room that NodePools leave, and the
claimable workers of each pool. Neither needs a look at all nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from extender.model import Pod, SkipReason
from extender.policy.brakes import holds_up
from extender.policy.cluster_view import ClusterView
from extender.policy.defaults import PoolCosts, ReapRules
from extender.policy.departure import why_barred
from extender.policy.idleness import why_not_claimable, why_not_reapable
from extender.policy.node_pool_budgets import NO_BUDGETS, PodBudgets
from extender.policy.node_pool_room import DisruptionRoom, Seen
from extender.policy.reaping import Assessment


class PoolRules(Protocol):
    """What is needed of a pool's settings."""

    @property
    def reap(self) -> ReapRules: ...
    @property
    def deletion_cost(self) -> PoolCosts: ...
    @property
    def dry_run(self) -> bool: ...


WorkersAsKnown: TypeAlias = Callable[[str, list[Pod]], list[Pod]]
"""Gives a pool's workers as its idle sources have them."""


def as_marked(pool: str, workers: list[Pod]) -> list[Pod]:
    """Take workers as their marks have them."""
    return workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a judgement goes by beside the cluster.

    ``rules`` gives a pool's rules as they are in force. ``held`` are the workers, by UID, whose eviction would be
    refused now, ``paused`` the pools that pause, and until when. ``budgets`` None: they could not be read, so nobody
    knows which nodes would go. ``seen`` is what earlier judgements saw of nodes.
    """

    rules: Callable[[str], PoolRules]
    workers: WorkersAsKnown = as_marked
    held: Mapping[str, SkipReason] = field(default_factory=dict)
    paused: Mapping[str, datetime] = field(default_factory=dict)
    budgets: PodBudgets | None = NO_BUDGETS
    seen: Seen = field(default_factory=Seen)
    is_clock_off: bool = False


class Standing:
    """The room that is left, and each pool's claimable workers.

    The judgement counts them; after it they follow the nodes whose names are in ``changed`` and ``changed_room``, two
    sets from `changes` of the cluster's state, begun before it. Time alone only adds claimable workers; the next
    judgement counts those.
    """

    def __init__(
        self,
        view: ClusterView,
        circumstances: Circumstances,
        changed: set[str] | None = None,
        changed_room: set[str] | None = None,
    ) -> None:
        self.view = view
        self.circumstances = circumstances
        self.room = DisruptionRoom(
            view,
            set() if changed_room is None else changed_room,
            budgets=circumstances.budgets or NO_BUDGETS,
            seen=circumstances.seen,
        )
        self._changed = set() if changed is None else changed
        self._claimable: dict[str, dict[str, int]] = {}  # by pool and node
        self._totals: Counter[str] = Counter()

    def count(self, assessed: Mapping[str, Iterable[Assessment]]) -> None:
        """Begin with what was counted for a judgement."""
        self._claimable = {pool: {each.node: each.claimable for each in nodes} for pool, nodes in assessed.items()}
        self._totals = Counter({pool: sum(counts.values()) for pool, counts in self._claimable.items()})

    def claimable_besides(self, pool: str, pod: Pod, now: datetime) -> int:
        """Count the claimable workers of a pool that are left without ``pod``."""
        while self._changed:
            name = self._changed.pop()
            workers = self.view.where.workers_on(name).values()
            for each, counts in self._claimable.items():
                found = self._count(each, workers, now)
                self._totals[each] += found - counts.get(name, 0)
                counts[name] = found
        known = self.view.pods.get(pod.uid)
        return self._totals[pool] - (self._count(pool, [known], now) if known is not None else 0)

    def why_not_now(self, pool: str, pod: Pod, now: datetime) -> SkipReason | None:
        """Judge one worker again, as it is now or was just read, right before it is evicted; None: it goes.

        By the rules in force now: 1. the pool is in dry-run by now; 2. a worker waits for a node; 3. it is not
        reapable; on a node that is not leaving 4. it is needed for the floor; 5. with ``whole_node``, others hold its
        node by now; 6. its node would stay, or its budget is used up.
        """
        rules = self.circumstances.rules(pool)
        if rules.dry_run:
            return SkipReason.DISABLED
        if is_held_up(self.view, pool, rules.reap, now):
            return SkipReason.PENDING_WORKERS
        reason = why_not_reapable(pod, rules.reap, now)
        if reason is not None:
            return reason
        if self.view.departure(pod.node or "") is None:
            if self.claimable_besides(pool, pod, now) < rules.reap.floor:
                return SkipReason.FLOOR
            if rules.reap.whole_node and self.view.where.holders_on(pod.node or "", besides=pool):
                return SkipReason.NODE_KEEPS_OTHERS
        return self.room.why_not(pod, now)

    def _count(self, pool: str, workers: Iterable[Pod], now: datetime) -> int:
        ours = [worker for worker in workers if worker.pool == pool and not worker.finished]
        return sum(
            (node := self.view.nodes.get(worker.node or "")) is not None
            and why_not_claimable(worker, why_barred(node, self.view.claim_of(node), now), now) is None
            for worker in self.circumstances.workers(pool, ours)
        )


def is_held_up(view: ClusterView, pool: str, reap: ReapRules, now: datetime) -> bool:
    """True while a worker that waits for a node holds up the reaping of its pool, see `brakes.holds_up`."""
    schedulers = view.where.schedulers(pool)
    return any(holds_up(each, schedulers, reap.pending_for, now) for each in view.where.waiting(pool).values())
