"""The soak's one clock: seconds since its start, and how they relate to times that others write."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Timing:
    """Begins when it is made."""

    _steady: float = field(default_factory=time.monotonic)
    _epoch: float = field(default_factory=time.time)

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._steady

    def of(self, when: datetime) -> float:
        """Give a time of day in seconds since the start."""
        return when.timestamp() - self._epoch

    async def until(self, at: float) -> None:
        """Wait until so many seconds since the start."""
        await asyncio.sleep(max(0.0, at - self.now()))
