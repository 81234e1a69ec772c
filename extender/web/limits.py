"""How often one caller may call. Owns the counting; who a caller is, and what is answered, is decided elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from cachetools import LRUCache

REMEMBERED_CALLERS = 16_384
"""Whoever is forgotten starts afresh: harmless, and it takes as many callers at once."""


class RateLimit:
    """A bucket of ``burst`` calls for each key, filled with ``per_second`` calls a second."""

    def __init__(self, *, per_second: float, burst: int, timer: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._timer = timer
        self._free_at: LRUCache[str, float] = LRUCache(maxsize=REMEMBERED_CALLERS)

    def take(self, key: str, calls: int = 1) -> timedelta | None:
        """Take calls out of the bucket: None where there are as many, else how long to wait for the next."""
        now = self._timer()
        # "generic cell rate algorithm": when the bucket would be full again, if no further call came
        full_at = max(self._free_at.get(key, now), now) + calls / self._per_second
        wait = full_at - now - self._burst / self._per_second
        if wait > 1e-9:
            return timedelta(seconds=wait)
        self._free_at[key] = full_at
        return None
