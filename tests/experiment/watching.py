"""A watch of the API server as a thread that hands every event on, with the moment at which it came."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlencode, urlsplit

from tests.controlplane import ControlPlane, Json

Sink = Callable[[float, str, Json], None]
"""Takes monotonic time, type (ADDED, MODIFIED, DELETED) and object."""


class Watch:
    """Follows one collection from its state at ``start`` on, until `close`. Nothing is missed over a reconnect."""

    def __init__(self, plane: ControlPlane, path: str, sink: Sink) -> None:
        self._plane, self._path, self._sink = plane, path, sink
        self._version = "0"
        self._socket: socket.socket | None = None
        self._ended = False
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._follow, name=f"watch {path}", daemon=True)

    def start(self) -> None:
        """Hand on what is there now as ADDED, then follow."""
        listed = self._plane.api("GET", self._path)
        now = time.monotonic()
        for item in listed["items"]:
            self._sink(now, "ADDED", item)
        self._version = listed["metadata"]["resourceVersion"]
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join()

    def _follow(self) -> None:
        address = urlsplit(self._plane.server_url)
        while not self._ended and self.failure is None:
            connection = http.client.HTTPSConnection(
                address.hostname or "", address.port, timeout=90, context=self._plane.api_client.tls
            )
            with suppress(OSError, http.client.HTTPException):
                query = urlencode({"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": self._version})
                connection.request("GET", f"{self._path}?{query}")
                self._socket = connection.sock
                self._read(connection.getresponse())
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> None:
        rest = b""
        while chunk := response.read1(1 << 18):
            now = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    self.failure = str(event["object"].get("message"))
                    return
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._sink(now, event["type"], event["object"])
