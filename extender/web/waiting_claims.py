"""Callers that wait until a worker is idle: a line for each pool, first come, first served within this process.

Owns who is next, and when there is something to be had. Claims nothing: whoever is called tries, and waits on in its
place where others were faster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count

from extender.cluster.state import ClusterState
from extender.web.candidates import Candidates
from extender.web.claim_values import Stopping

TICK = timedelta(milliseconds=20)
"""So much later than a worker is idle its first taker is called."""
LOOK_AT_ALL = timedelta(seconds=1)
"""What changes by the time alone, such as a claim that runs out, is seen then."""


class Place:
    """One caller's place in a line."""

    def __init__(self, is_awaited: Callable[[], bool]) -> None:
        self.is_awaited = is_awaited
        self.is_called = False
        self.turn = asyncio.Event()

    def call(self) -> None:
        """Tell whoever waits here to try."""
        self.is_called = True
        self.turn.set()


class Lines:
    """The lines of all pools."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[int, Place]] = {}
        self._numbers = count()
        self._somebody = asyncio.Event()
        self._closed = False

    def has(self, pool: str) -> bool:
        """True while somebody waits for a worker of a pool and was not called yet."""
        return not all(place.is_called for place in self._lines.get(pool, {}).values())

    def pools(self) -> list[str]:
        """Name the pools for whose workers somebody waits."""
        return list(self._lines)

    def waiting(self, pool: str) -> int:
        """Count the callers that wait for a worker of a pool and have not hung up."""
        return sum(place.is_awaited() for place in self._lines.get(pool, {}).values())

    def close(self) -> None:
        """Send all home: this process ends."""
        self._closed = True
        for line in self._lines.values():
            for place in line.values():
                place.call()

    @contextmanager
    def place(self, pool: str, is_awaited: Callable[[], bool]) -> Iterator[Place]:
        """Stand in line, at the end of it."""
        number, place = next(self._numbers), Place(is_awaited)
        self._lines.setdefault(pool, {})[number] = place
        self._somebody.set()
        try:
            yield place
        finally:
            line = self._lines[pool]
            del line[number]
            if not line:
                del self._lines[pool]
            if not self._lines:
                self._somebody.clear()

    async def called(self, place: Place) -> None:
        """Wait for one's turn. Raises `Stopping` where none will come."""
        place.is_called = False
        if not self._closed:
            place.turn.clear()
            await place.turn.wait()
        if self._closed:
            raise Stopping

    def call(self, pool: str, free: int) -> None:
        """Call as many as there are workers, longest waiting first. Who was called and still tries is not counted."""
        for place in self._lines.get(pool, {}).values():
            if free <= 0:
                return
            if not place.is_called:
                place.call()
                free -= 1

    async def call_for_ever(self, state: ClusterState, candidates: Candidates) -> None:
        """Look which workers are idle, some hundredths of a second after each change, while somebody waits."""
        loop = asyncio.get_running_loop()
        looked = 0.0
        with state.ranking.changes() as changed:
            while True:
                if not self._lines:
                    await self._somebody.wait()
                    looked = 0.0
                now = loop.time()
                if now - looked >= LOOK_AT_ALL.total_seconds():
                    changed.update(state.nodes)
                    looked = now
                for pool in list(self._lines):
                    self.call(pool, await candidates.count_on(changed.copy(), pool))
                changed -= {name for name in changed.copy() if not candidates.has_any_on(name, self._lines)}
                await asyncio.sleep(TICK.total_seconds())
