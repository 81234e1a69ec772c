"""The autoscaler of the soak's Deployment: its size follows what warmnode says is wanted.

Up at once, down to the most that was wanted lately, as KEDA and the HPA do it. Which of the workers go is for the
ReplicaSet to choose; what they do is in `crew`, as for all others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus

from scripts.tools.soak.asking import Asking
from scripts.tools.soak.observer import FLEET
from scripts.tools.soak.timing import Timing

LOOK_SECONDS, DOWN_SECONDS = 2.0, 12.0


class Autoscaler:
    """``path`` is the Deployment's, ``most`` its largest size."""

    def __init__(self, asking: Asking, timing: Timing, path: str, *, most: int) -> None:
        self._asking, self._timing, self._path, self._most = asking, timing, path, most
        self._wanted: deque[tuple[float, int]] = deque()

    async def follow(self) -> None:
        """Set the size again and again. Ends by cancellation."""
        while True:
            status, answer = await self._asking.replica("GET", f"/v1/pools/{FLEET}/wanted")
            now = self._timing.now()
            if status == HTTPStatus.OK and answer is not None:
                self._wanted.append((now, answer["wanted"]))
            while len(self._wanted) > 1 and self._wanted[0][0] < now - DOWN_SECONDS:
                self._wanted.popleft()
            if self._wanted:
                replicas = min(self._most, max(each for _, each in self._wanted))
                await self._asking.server("PATCH", self._path, {"spec": {"replicas": replicas}})
            await asyncio.sleep(LOOK_SECONDS)
