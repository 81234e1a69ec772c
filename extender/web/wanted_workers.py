"""How many workers a pool should have: for whatever makes workers, as a gauge and as JSON.

Owns the count. ``wanted`` is the workers that are in use, one for each call that waits here, and the spare ones.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from extender.clock import Clock, Steady
from extender.cluster.state import ClusterState
from extender.model import SkipReason
from extender.policy.claims import PoolClaims, use_on
from extender.telemetry import Figure, Metrics
from extender.web.api_bodies import WantedBody
from extender.web.claim_values import ClockOff
from extender.web.waiting_claims import Lines

NODES_BETWEEN_YIELDS = 50
EVERY = timedelta(seconds=15)
"""A look at 100,000 workers takes a tenth of a second."""
LASTS = timedelta(seconds=1)


@dataclass(slots=True, kw_only=True, eq=False)
class WantedWorkers:
    """Counts. ``settings`` gives a pool's settings or None, ``listed`` the names of those that the file lists."""

    state: ClusterState
    lines: Lines
    settings: Callable[[str], PoolClaims | None]
    listed: Callable[[], Collection[str]]
    clock: Clock
    _counts: Counter[tuple[str, SkipReason]] = field(default_factory=Counter, init=False)
    _at: Steady | None = field(default=None, init=False)

    async def run(self) -> None:
        """Count for ever, for the gauge, once everything is loaded: too few would be wanted before. Ends only by
        cancellation.
        """
        while True:
            if self.state.synced:
                await self.count()
            await asyncio.sleep((LASTS if self._at is None else EVERY).total_seconds())

    async def of(self, pool: str, settings: PoolClaims) -> WantedBody:
        """Say how many workers a pool should have now. Raises ClockOff: idle ones would look busy, and more be made."""
        if self._at is None or self.clock.steady() - self._at >= LASTS:
            await self.count()
        if self.clock.is_off:
            raise ClockOff(self.clock.told_off)
        return self._wanted(pool, settings)

    async def count(self) -> None:
        """Look at all nodes, a few at a time. With a clock that is off nothing is known afterwards."""
        counts: Counter[tuple[str, SkipReason]] = Counter()
        now = self.clock.moment()
        if self.clock.is_off:
            self._at = None
            return
        for position, name in enumerate(list(self.state.nodes), 1):
            if position % NODES_BETWEEN_YIELDS == 0:
                await asyncio.sleep(0)
            counts.update(use_on(self.state.where.workers_on(name).values(), now.now))
        self._counts, self._at = counts, now.steady

    def figures(self, metrics: Metrics) -> Iterator[Figure]:
        """Give what is shown of each pool: the workers as of the last look, the calls that wait as of now."""
        is_known = self._at is not None and not self.clock.is_off
        for pool in sorted({*self.listed(), *self.state.where.pool_names(), *self.lines.pools()}):
            settings = self.settings(pool)
            if settings is not None and settings.rules.enabled:
                wanted = self._wanted(pool, settings)
                if is_known:
                    yield Figure(metrics.pool_wanted, (pool,), wanted.wanted)
                yield Figure(metrics.claims_waiting, (pool,), wanted.waiting)

    def _wanted(self, pool: str, settings: PoolClaims) -> WantedBody:
        """``waiting`` is of this replica only: others do not tell it of theirs."""
        busy, claimed = self._counts[pool, SkipReason.BUSY], self._counts[pool, SkipReason.CLAIMED]
        waiting = self.lines.waiting(pool)
        wanted = busy + claimed + waiting + settings.spare
        return WantedBody(pool=pool, wanted=wanted, busy=busy, claimed=claimed, waiting=waiting, spare=settings.spare)
