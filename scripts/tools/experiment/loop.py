"""A loop of timed actions in real time, woken by what the recorder hears. One thread runs all of it.

Owns when something is done, and by how much too late.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from queue import Empty, Queue
from statistics import median

Action = Callable[[], None]


class Stopped(Exception):
    """The run was asked to end before its time."""


class Loop:
    """Actions at times, in seconds since ``start`` (of the monotonic clock)."""

    def __init__(self, start: float, stop: threading.Event) -> None:
        self._start, self._stop = start, stop
        self._timed: list[tuple[float, int, Action]] = []
        # Not a SimpleQueue: its get waits for ever where it is woken for nothing after its time (Python 3.11), and did.
        self._heard: Queue[Action] = Queue()
        self._count = itertools.count()
        self._late: list[float] = []

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def at(self, when: float, action: Action) -> None:
        """Do something at a time, at once where it has passed. Only for use within the loop."""
        heapq.heappush(self._timed, (when, next(self._count), action))

    def every(self, seconds: float, action: Action) -> None:
        """Do something again and again, ``seconds`` after it was due the last time."""

        def again(due: float) -> None:
            action()
            self.at(due + seconds, lambda: again(due + seconds))

        first = self.now() + seconds
        self.at(first, lambda: again(first))

    def hear(self, action: Action) -> None:
        """Have something done soon, from any thread."""
        self._heard.put(action)

    def run(self, until: float) -> None:
        """Run until a time. Raises Stopped when asked to end earlier."""
        while (now := self.now()) < until:
            if self._stop.is_set():
                raise Stopped
            if self._timed and self._timed[0][0] <= now:
                when, _, action = heapq.heappop(self._timed)
                self._late.append(now - when)
                action()
                continue
            due = min(self._timed[0][0] if self._timed else until, until) - now
            try:
                action = self._heard.get(timeout=min(max(due, 0.0), 0.5))
            except Empty:
                continue
            action()
            while not self._heard.empty():
                self._heard.get_nowait()()

    def late(self) -> tuple[float, float, float]:
        """By how much timed actions came too late: median, 95th percentile and worst, in seconds."""
        late = sorted(self._late) or [0.0]
        return median(late), late[int(0.95 * len(late))], late[-1]
