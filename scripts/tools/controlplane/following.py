"""A watch as lines, followed by a thread: what it means is its taker's business. Nothing is missed over a reconnect."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlencode, urlsplit

PAUSE_SECONDS = 0.1
"""Before a watch that ended is resumed: an API server that starts again refuses connections for seconds."""

Taker = Callable[[float, Sequence[bytes]], str | None]
"""Takes the monotonic time and the lines that came then, each an event as JSON. Returns the last resourceVersion in
them, None to end."""


class Follower:
    """Follows one collection from ``version`` on, between `start` and `close`.

    The API server ends a watch after some minutes, or when it does not take a burst quickly enough: it is resumed where
    it ended.
    """

    def __init__(
        self, server_url: str, tls: ssl.SSLContext, path: str, query: Mapping[str, str], version: str, take: Taker
    ) -> None:
        self._address = urlsplit(server_url)
        self._tls, self._path, self._query, self._take = tls, path, dict(query), take
        self._version: str | None = version
        self._socket: socket.socket | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"watch {path}", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, if it was started."""
        self._ended.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join()

    def _follow(self) -> None:
        while not self._ended.is_set() and self._version is not None:
            connection = http.client.HTTPSConnection(
                self._address.hostname or "", self._address.port, timeout=90, context=self._tls
            )
            with suppress(OSError, http.client.HTTPException):
                query = urlencode({"watch": "1", **self._query, "resourceVersion": self._version})
                connection.request("GET", f"{self._path}?{query}")
                self._socket = connection.sock
                self._read(connection.getresponse())
            self._ended.wait(PAUSE_SECONDS)
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> None:
        if response.status == 410:  # most API servers say it in the first event
            status = {"type": "ERROR", "object": json.loads(response.read())}
            self._version = self._take(time.monotonic(), [json.dumps(status).encode()])
        if response.status != 200:
            return
        rest = b""
        while self._version is not None and (chunk := response.read1(1 << 18)):
            now = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                self._version = self._take(now, lines)
