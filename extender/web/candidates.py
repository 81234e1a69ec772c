"""Which workers can be handed out, in which order, and why the others cannot: by the state, a few nodes at a time.

Owns the walk over the nodes and its pauses, and remembers for a while whom the API server refused. The order is that of
`policy.claims`; nothing is written here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from cachetools import TTLCache

from extender.clock import Clock, Steady
from extender.cluster.state import ClusterState
from extender.cluster.working_sets import reach_for_claims
from extender.model import CacheKeyRule, Pod, SkipReason
from extender.policy.affinity import Affinity
from extender.policy.claim_spread import Spread
from extender.policy.claims import claimable_on, reasons_on
from extender.policy.idleness import is_claimed, why_not_claimable
from extender.policy.scoring import Ranking, key_first

NODES_BETWEEN_YIELDS = 50
TALLY_LASTS = timedelta(seconds=1)
"""Counting a pool of 100,000 workers takes a tenth of a second: who asks a full pool again gets the same figures."""

PASSED_BY = timedelta(minutes=2)
MOST_PASSED_BY = 4096
"""Whoever is forgotten is tried once more: harmless."""


class Candidates:
    """Looks at a state that goes on changing meanwhile."""

    def __init__(self, state: ClusterState, clock: Clock, replica: str = "") -> None:
        self._replica = replica
        self._spread = Spread()
        self._in_hand: dict[str, asyncio.Event] = {}
        self._state = state
        self._clock = clock
        self._refused: TTLCache[str, None] = TTLCache(
            maxsize=MOST_PASSED_BY, ttl=PASSED_BY.total_seconds(), timer=lambda: clock.steady().seconds
        )
        self._tallies: dict[str, tuple[Steady, Mapping[SkipReason, int]]] = {}

    async def first(
        self, tried: Container[str], pool: str, key: str | None = None, rule: CacheKeyRule | None = None
    ) -> Pod | asyncio.Event | None:
        """Give the first worker that was not tried and that no other request of this process is at.

        Where there is one only that another is at, give what happens when that one is done; None where there is none.
        """
        other: asyncio.Event | None = None
        for worker in self.in_order(pool, key, rule):
            if worker is None:
                await asyncio.sleep(0)
            elif worker.uid in tried:
                continue
            elif worker.uid not in self._in_hand:
                return worker
            elif other is None:
                other = self._in_hand[worker.uid]
        return other

    def in_order(self, pool: str, key: str | None = None, rule: CacheKeyRule | None = None) -> Iterator[Pod | None]:
        """Give the workers that can be handed out, by the state as it is when each is given; None: let others work.

        1. On the nodes that the key chooses (`scoring.key_first`). 2. On all others by preference; without a key the
        first that count as equally warm are in this replica's own order (`policy.claim_spread`). 3. Those that are
        passed by.
        """
        last: list[str] = []
        for name in self._nodes(pool, key, rule):
            if name is None:
                yield None
                continue
            for worker in self._in_own_order(self._on(name, pool)):
                if worker.uid in self._refused:
                    last.append(worker.uid)
                elif (now := self._as_of_now(worker.uid, pool)) is not None:
                    yield now
        for uid in last:
            if (now := self._as_of_now(uid, pool)) is not None:
                yield now

    async def count_on(self, names: Collection[str], pool: str) -> int:
        """Count the workers on these nodes that can be handed out and that nobody is at."""
        found = 0
        for position, name in enumerate(names, 1):
            if position % NODES_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
            found += self._free_on(name, pool)
        return found

    def has_any_on(self, name: str, pools: Iterable[str]) -> bool:
        """True where a node has a worker of one of these pools that can be handed out and that nobody is at."""
        return any(self._free_on(name, pool) for pool in pools)

    def _free_on(self, name: str, pool: str) -> int:
        if name not in self._state.ranking.as_of(self._clock.now()) or not self._state.where.marked_on(name):
            return 0
        return sum(worker.uid not in self._in_hand for worker in self._on(name, pool))

    @contextmanager
    def at(self, uid: str) -> Iterator[Spread]:
        """Tell other requests of this process that one is at this worker already. Gives the spread of this moment."""
        done = self._in_hand[uid] = asyncio.Event()
        try:
            yield self._spread
        finally:
            del self._in_hand[uid]
            done.set()

    def pass_by(self, uid: str) -> bool:
        """Let a worker whose claim the API server refuses come last for two minutes; False where it did already."""
        is_new = uid not in self._refused
        self._refused[uid] = None
        return is_new

    def passed_by(self, pool: str) -> int:
        """Count the workers of a pool that could be had, were they not refused."""
        return sum(self._as_of_now(uid, pool) is not None for uid in list(self._refused))

    def was_won(self) -> None:
        """A claim on one of them went well."""
        self._spread = self._spread.won()

    def was_lost(self, begun: Spread, known: Pod, found: Pod) -> None:
        """One of them was not what it was known for: where another claim was there meanwhile, a race was lost.

        ``begun``: the spread when this request came `at` it.
        """
        if (found.claim, found.claim_ended) != (known.claim, known.claim_ended):
            self._spread = self._spread.lost(begun.nodes, known.node or "", known.uid)

    def _as_of_now(self, uid: str, pool: str) -> Pod | None:
        worker = self._state.pods.get(uid)
        return worker if worker is not None and self.can_be_had(worker, pool) else None

    def _nodes(self, pool: str, key: str | None, rule: CacheKeyRule | None) -> Iterator[str | None]:
        """Give the nodes that may have one: the first of those that have in an order of their own, see `_reordered`.

        None after each fifty that were looked at.
        """
        if not self._state.where.needed(pool).workers:
            return
        chosen: list[str] = []
        first: list[str] = []
        missing = int(self._spread.nodes)
        ranking = self._state.ranking.as_of(self._clock.now())
        if rule is None:
            key = None
        elif key is not None:
            missing = rule.window or 0
            if rule.window is None:
                reach = reach_for_claims(ranking, self._state.where.needed(pool), rule.slack)
                chosen = self._by_key(self._state.where.names_with_marks(), ranking, key, reach)
        others = ranking.places()  # as it is now: a change makes another one
        yield from chosen
        given = set(chosen)
        for position, name in enumerate(others, 1):
            if position % NODES_BETWEEN_YIELDS == 0:
                yield None
            if name in given or not self._state.where.marked_on(name):
                continue
            if not missing:
                yield name
            elif self._may_have(name, pool) if key is None else self._on(name, pool):
                first.append(name)
                missing -= 1
                if not missing:
                    yield from self._reordered(first, key)
        if missing:
            yield from self._reordered(first, key)

    def _reordered(self, names: list[str], key: str | None) -> list[str]:
        """By the key of the caller, without one in this replica's own order: they count as equally warm."""
        preference = self._state.ranking.as_of(self._clock.now())
        staying = [name for name in names if name in preference]
        if key is None or not staying:
            return self._spread.own_order(staying, self._replica)
        reach = preference.places()[staying[-1]]
        return list(dict.fromkeys([*self._by_key(staying, preference, key, reach), *staying]))

    def _by_key(self, names: Container[str], ranking: Ranking, key: str, reach: int) -> list[str]:
        return list(key_first(names, ranking, Affinity(key=key, reach=reach, history=self._state.keys.history)))

    def _may_have(self, name: str, pool: str) -> bool:
        """True unless all are claimed: what else may be in the way is looked at when it is the node's turn."""
        now = self._clock.now()
        marked = self._state.where.marked_on(name).values()
        return any(worker.pool == pool and not is_claimed(worker, now) for worker in marked)

    def _on(self, name: str, pool: str) -> list[Pod]:
        marked, now = self._state.where.marked_on(name).values(), self._clock.now()
        return claimable_on(marked, pool, self._state.objects.why_barred(name, now), now)

    def _in_own_order(self, workers: list[Pod]) -> list[Pod]:
        """Reorder those of one node, unless age alone decides."""
        if self._spread.nodes < 2 or len(workers) < 2:
            return workers
        by_uid = {worker.uid: worker for worker in workers}
        return [by_uid[uid] for uid in self._spread.own_order(by_uid, self._replica)]

    def can_be_had(self, worker: Pod, pool: str) -> bool:
        now = self._clock.now()
        return (
            worker.pool == pool
            and worker.node in self._state.ranking.as_of(now)
            and why_not_claimable(worker, self._state.objects.why_barred(worker.node, now), now) is None
        )

    async def tally(self, pool: str) -> Mapping[SkipReason, int]:
        now = self._clock.moment()
        self._tallies = {name: entry for name, entry in self._tallies.items() if now.steady - entry[0] < TALLY_LASTS}
        if pool not in self._tallies:
            counts: Counter[SkipReason] = Counter()
            for position, name in enumerate(list(self._state.nodes), 1):
                if position % NODES_BETWEEN_YIELDS == 0:
                    await asyncio.sleep(0)
                workers = self._state.where.workers_on(name).values()
                counts.update(reasons_on(workers, pool, self._state.objects.why_barred(name, now.now), now.now))
            self._tallies[pool] = (now.steady, dict(counts))
        return self._tallies[pool][1]
