"""Workers that answer over HTTP, well or badly: real sockets on loopback, for tests of idle sources.

Owns what a bad answer looks like on the wire. Each server has an address of its own, as pods have.
"""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

Behaviour = Callable[[socket.socket, threading.Event], None]
"""Writes an answer. The event is set when the server is closed: what hangs, hangs until then."""


class AnsweringWorker:
    """One HTTP server. ``behaviour`` may be replaced at any time; ``asked`` has the request lines and bodies."""

    def __init__(self, behaviour: Behaviour, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.behaviour = behaviour
        self.asked: list[str] = []
        self._closing = threading.Event()
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._answer(self.request)

        class Server(socketserver.ThreadingTCPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                """Whoever asked may be gone before the answer is complete."""

        self._server = Server((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="answering")

    @property
    def host(self) -> str:
        """Address that it listens on."""
        return str(self._server.server_address[0])

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and let go of what hangs."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        request = b""
        while b"\r\n\r\n" not in request:
            chunk = connection.recv(65536)
            if not chunk:
                return
            request += chunk
        head, _, body = request.partition(b"\r\n\r\n")
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                while len(body) < int(value):
                    body += connection.recv(65536)
        self.asked.append(f"{head.split(b' HTTP')[0].decode()} {body.decode()}".strip())
        self.behaviour(connection, self._closing)


def answers(status: int, body: bytes, *headers: str, content_type: str = "application/json") -> Behaviour:
    """Answer like this, completely."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers]
    content = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    return lambda connection, closing: connection.sendall(content)


def says_idle(since: datetime | str) -> Behaviour:
    """Answer that the worker is idle since then."""
    text = since if isinstance(since, str) else since.astimezone(UTC).isoformat()
    return answers(200, json.dumps({"idleSince": text}).encode())


def hangs(connection: socket.socket, closing: threading.Event) -> None:
    """Take the question and say nothing."""
    closing.wait()


def hangs_in_the_body(connection: socket.socket, closing: threading.Event) -> None:
    """Begin an answer that says idle, and never end it."""
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"idleSince": "2026')
    closing.wait()


def resets(connection: socket.socket, closing: threading.Event) -> None:
    """Reset the connection in place of an answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def ends_early(connection: socket.socket, closing: threading.Event) -> None:
    """Promise more of a body than there is."""
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"idleSince": "2026-01-01T00:00:00Z"}')


def never_ends(connection: socket.socket, closing: threading.Event) -> None:
    """Send body without end, and without saying how much."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while not closing.is_set():
        connection.sendall(b" " * 65536)


def promises_too_much(connection: socket.socket, closing: threading.Event) -> None:
    """Announce a body of a hundred gigabytes."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    closing.wait()


def no_http(connection: socket.socket, closing: threading.Event) -> None:
    """Speak another protocol."""
    connection.sendall(b"220 mail.example ESMTP\r\n")


def endless_headers(connection: socket.socket, closing: threading.Event) -> None:
    """Send one header line without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Much: ")
    while not closing.is_set():
        connection.sendall(b"x" * 65536)


WELL = says_idle("2026-01-01T00:00:00Z")
BAD_ANSWERS: dict[str, tuple[Behaviour, str]] = {
    "busy": (answers(409, b"{}"), "busy"),
    "error": (answers(500, b'{"idleSince": "2026-01-01T00:00:00Z"}'), "badStatus"),
    "no content": (answers(204, b""), "badStatus"),
    "not found": (answers(404, b'{"idleSince": "2026-01-01T00:00:00Z"}'), "badStatus"),
    "html": (answers(200, b"<html><body>idle</body></html>", content_type="text/html"), "noJson"),
    "empty": (answers(200, b""), "noJson"),
    "garbage": (answers(200, b'\xff\xfe{"idleSince"'), "noJson"),
    "list": (answers(200, b'["2026-01-01T00:00:00Z"]'), "noJson"),
    "number": (answers(200, b'{"idleSince": 1767225600}'), "noJson"),
    "nested": (answers(200, b'{"idleSince":' + b"[" * 2000 + b"]" * 2000 + b"}"), "noJson"),
    "null": (answers(200, b'{"idleSince": null}'), "noTime"),
    "other": (answers(200, b'{"status": "idle"}'), "noTime"),
    "no zone": (says_idle("2026-01-01T00:00:00"), "noTime"),
    "zipped": (answers(200, b"\x1f\x8b" + b"\0" * 100, "Content-Encoding: gzip"), "noJson"),
    "large": (answers(200, b'{"idleSince": "2026-01-01T00:00:00Z"}' + b" " * 5000), "tooLarge"),
    "endless": (never_ends, "tooLarge"),
    "announced": (promises_too_much, "tooLarge"),
    "headers": (endless_headers, "failed"),
    "early": (ends_early, "failed"),
    "reset": (resets, "failed"),
    "no http": (no_http, "failed"),
    "slow": (hangs, "timeout"),
    "slow body": (hangs_in_the_body, "timeout"),
}
"""What a worker may answer instead of idle, and what it counts as."""
