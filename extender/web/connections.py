"""One connection: who is let in and for how long, TLS, and what is answered to bytes that are no HTTP.

Owns aiohttp's side of a connection. Knows no address to listen at, and nothing of what is served.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import (
    BadHttpMethod,
    BadStatusLine,
    ContentEncodingError,
    ContentLengthError,
    HttpProcessingError,
    InvalidHeader,
    InvalidURLError,
    LineTooLong,
    TransferEncodingError,
)

from extender.logs import fields, one_line
from extender.web.admission import Admission
from extender.web.requests import Handler, problem
from extender.web.tls import ServerTls


@dataclass(frozen=True, slots=True)
class Door:
    """Who is let in, and stays; ``turned_away`` is told the address of who is not let in."""

    admission: Admission
    turned_away: Callable[[str], None]
    tls: ServerTls | None

    @property
    def client_ca_version(self) -> int:
        """Goes up when clients that were trusted are so no more."""
        return 0 if self.tls is None else self.tls.client_ca_version


HANDSHAKE = timedelta(seconds=10)
"""What a TLS handshake may take, with a place held. A kube-scheduler waits for a quarter of a second in all."""


class ConnectionServer(web.Server):
    """aiohttp's server, with `_Connection` for each connection."""

    def __init__(self, handler: Handler, *, door: Door, refused: Callable[[HTTPStatus], None], **options: Any) -> None:
        super().__init__(handler, **options)
        self._door = door
        self._refused = refused
        self._options = options

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self, door=self._door, refused=self._refused, loop=asyncio.get_running_loop(), **self._options
        )


class _Connection(web.RequestHandler):
    """One connection. What cannot be read as HTTP gets the same one-line problem as any other mistake."""

    __slots__ = ("_client_ca_version", "_door", "_early", "_handshake", "_place", "_refused")

    def __init__(
        self, server: ConnectionServer, *, door: Door, refused: Callable[[HTTPStatus], None], **options: Any
    ) -> None:
        super().__init__(server, **options)
        self._door = door
        self._client_ca_version = door.client_ca_version
        self._early = b""  # what came with the end of the handshake
        self._handshake: asyncio.Task[None] | None = None
        self._place: str | None = None  # the address as which it was let in
        self._refused = refused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or end it at once. TLS begins here, so that a handshake that never ends holds a place as well."""
        transport = cast(asyncio.Transport, transport)
        address = str((transport.get_extra_info("peername") or ("",))[0])
        if not self._door.admission.admits(address):
            self._door.turned_away(address)
            transport.abort()
            return
        self._place = address
        if self._door.tls is None:
            super().connection_made(transport)
        else:
            transport.pause_reading()
            self._handshake = asyncio.create_task(self._shake_hands(transport, self._door.tls))

    async def _shake_hands(self, transport: asyncio.Transport, tls: ServerTls) -> None:
        try:
            encrypted = await asyncio.get_running_loop().start_tls(
                transport, self, tls.context, server_side=True, ssl_handshake_timeout=HANDSHAKE.total_seconds()
            )
        except OSError:  # `ServerTls.tell` says why
            encrypted = None
        self._handshake = None
        if encrypted is None or encrypted.is_closing():
            self._leave()
            return
        super().connection_made(encrypted)
        if self._early:
            self.data_received(self._early)
            self._early = b""

    def data_received(self, data: bytes) -> None:
        """Take what comes, unless a client CA was withdrawn since, which may have vouched for the caller."""
        if self._handshake is not None:
            self._early += data
        elif self._client_ca_version == self._door.client_ca_version:
            super().data_received(data)
        else:
            self._end()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give its place to another one."""
        super().connection_lost(exc)
        self._leave()

    def _leave(self) -> None:
        if self._place is not None:
            self._door.admission.leave(self._place)
            self._place = None

    def _end(self) -> None:
        """End it now: over TLS a close waits for the peer's, for half a minute, and keeps the buffers until then."""
        assert self.transport is not None  # noqa: S101 - called while the connection is there
        self.transport.abort()
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer in one line; a mistake of our own is aiohttp's to answer and to log, with its traceback."""
        if not isinstance(exc, HttpProcessingError) or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        detail = f"this is no HTTP request: {_what_is_wrong(exc)}"
        http_log.warning("bad HTTP", extra=fields(status=status, problem=detail))
        self._refused(HTTPStatus(status))
        response = problem(HTTPStatus(status), detail)
        response.force_close()
        return response


def _what_is_wrong(error: HttpProcessingError) -> str:
    """Say it in words of ours: the library's show what was sent, and that may be a token."""
    match error:
        case LineTooLong():
            return "a line is too long"
        case InvalidHeader():
            return "a header is not well formed"
        case BadHttpMethod():
            return "the method is none"
        case BadStatusLine() | InvalidURLError():
            return "the first line is not that of a request"
        case ContentLengthError() | TransferEncodingError() | ContentEncodingError():
            return "the body is not encoded as its head says"
        case _:
            return "it is not well formed"


class _WithoutTraceback(logging.Filter):
    """What a caller sent wrong is one line; only our own mistakes show a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | ConnectionError | ssl.SSLError):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            text = _what_is_wrong(error) if isinstance(error, HttpProcessingError) else one_line(error, 200)
            record.msg, record.args = "bad HTTP", None
            record.__dict__ |= fields(problem=text)
            record.exc_info = None
        return True


http_log = logging.getLogger("warmnode.http")
http_log.addFilter(_WithoutTraceback())
