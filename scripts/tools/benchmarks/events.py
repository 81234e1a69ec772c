"""When pods were bound or went, as the API server's watch tells it. Decodes no object: that would be measured too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Self

from scripts.tools.benchmarks.cluster import NAMESPACE
from scripts.tools.controlplane import ControlPlane, wait_for
from scripts.tools.controlplane.following import Follower

_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_VERSION = re.compile(rb'"resourceVersion":"(\d+)"')


class Event(StrEnum):
    """What happens to a pod: it enters the selection of bound pods (later changes are MODIFIED), or leaves for good."""

    BOUND = "ADDED"
    GONE = "DELETED"


class EventTimes:
    """Notes the time of one event for each pod of a selection. Use it as a context manager.

    ``times`` are of the monotonic clock, in their order.
    """

    def __init__(self, plane: ControlPlane, label_selector: str, event: Event) -> None:
        self.times: list[float] = []
        self._start_of_line = f'{{"type":"{event}"'.encode()
        self._wanted = f"{event.name.lower()} pods of {label_selector}"
        query = {"fieldSelector": "spec.nodeName!=", "labelSelector": label_selector}
        version = self._version = str(plane.api("GET", _PODS, params={"limit": 1})["metadata"]["resourceVersion"])
        self._follower = Follower(plane.server_url, plane.api_client.tls, _PODS, query, version, self._take)

    def __enter__(self) -> Self:
        self._follower.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._follower.close()

    def await_count(self, count: int, timeout: float) -> list[float]:
        """Wait until it has happened ``count`` times. Raises TimeoutError after ``timeout`` seconds."""
        wait_for(
            lambda: len(self.times) >= count, timeout, lambda: f"{count} {self._wanted}; there are {len(self.times)}"
        )
        return self.times[:count]

    def _take(self, now: float, lines: Sequence[bytes]) -> str:
        for line in lines:
            if found := _VERSION.search(line):
                self._version = found[1].decode()
            if line.startswith(self._start_of_line):
                self.times.append(now)
        return self._version


def per_second(times: list[float]) -> float:
    """Return the rate from the first to the last."""
    return (len(times) - 1) / (times[-1] - times[0])
