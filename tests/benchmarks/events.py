"""When pods were bound or went, as the API server's watch tells it. Decodes no object: that would be measured too."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from contextlib import suppress
from enum import StrEnum
from typing import Self
from urllib.parse import urlencode, urlsplit

from tests.benchmarks.cluster import NAMESPACE
from tests.controlplane import ControlPlane, wait_for

_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_VERSION = re.compile(rb'"resourceVersion":"(\d+)"')


class Event(StrEnum):
    """What happens to a pod: it enters the selection of bound pods (later changes are MODIFIED), or leaves for good."""

    BOUND = "ADDED"
    GONE = "DELETED"


class EventTimes:
    """Notes the time of one event for each pod of a selection. Use it as a context manager.

    ``times`` are of the monotonic clock, in their order. The API server ends a watch that does not take a burst quickly
    enough; it is resumed where it ended, so nothing is missed.
    """

    def __init__(self, plane: ControlPlane, label_selector: str, event: Event) -> None:
        self.times: list[float] = []
        self._start_of_line = f'{{"type":"{event}"'.encode()
        self._wanted = f"{event.name.lower()} pods of {label_selector}"
        self._plane = plane
        self._query = {"watch": "1", "fieldSelector": "spec.nodeName!=", "labelSelector": label_selector}
        self._version: str = plane.api("GET", _PODS, params={"limit": 1})["metadata"]["resourceVersion"]
        self._socket: socket.socket | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._follow, name=f"watch {event}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def await_count(self, count: int, timeout: float) -> list[float]:
        """Wait until it has happened ``count`` times. Raises TimeoutError after ``timeout`` seconds."""
        wait_for(
            lambda: len(self.times) >= count, timeout, lambda: f"{count} {self._wanted}; there are {len(self.times)}"
        )
        return self.times[:count]

    def _follow(self) -> None:
        address = urlsplit(self._plane.server_url)
        while not self._ended:
            connection = http.client.HTTPSConnection(
                address.hostname or "", address.port, timeout=60, context=self._plane.api_client.tls
            )
            with suppress(OSError, http.client.HTTPException):
                query = urlencode(self._query | {"resourceVersion": self._version})
                connection.request("GET", f"{_PODS}?{query}")
                self._socket = connection.sock
                self._read(connection.getresponse())
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> None:
        rest = b""
        while chunk := response.read1(1 << 18):
            now = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if found := _VERSION.search(line):
                    self._version = found[1].decode()
                if line.startswith(self._start_of_line):
                    self.times.append(now)


def per_second(times: list[float]) -> float:
    """Return the rate from the first to the last."""
    return (len(times) - 1) / (times[-1] - times[0])
