"""A listener: an address, a handler, TLS that follows its files, and a stop that resets nobody.

Owns sockets and connections. Knows nothing of what is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

from aiohttp import web

from extender.logs import fields
from extender.policy.scheduler_silence import HandshakeFailure
from extender.web.admission import PLACES, Admission, Places, is_loopback
from extender.web.connections import ConnectionServer, Door, http_log
from extender.web.requests import Handler
from extender.web.tls import ServerTls

log = logging.getLogger("warmnode.listener")

KEEP_ALIVE_SECONDS = 180.0
"""kube-scheduler keeps idle connections for 90 s and does not send a POST again that met a closed one."""
MOST_HEADERS = 40
"""Of 8 KiB each, twice in memory while they are read; aiohttp would take 128. A caller and its proxies send 5 to 25."""
DRAIN = timedelta(seconds=5)
TOLD_EVERY = timedelta(minutes=1)
"""One line for each reason and so long: a scheduler with a wrong CA tries with every pod. The metric counts all."""


class ListenerProblem(Exception):
    """A listener cannot start. The message is one line with the remedy."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 takes a free one; an empty host means all interfaces, of IPv4 and IPv6."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host:port``, ``[v6]:port`` or ``:port`` (all interfaces).

        Raises:
            ValueError: it is none of these; the message says what to write.
        """
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f'write host:port, like "127.0.0.1:8888" or "[::1]:8888" (got {text!r})')
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """True where only this machine, or this pod, can connect."""
        return self.host == "localhost" or is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedAway:
    """Who is told of what does not become a request, once for each.

    ``refused``: bytes that are no HTTP were answered with a 4xx. ``handshake_failed``: why a TLS connection did not
    come about. ``crowded``: there was no place for a connection.
    """

    refused: Callable[[HTTPStatus], None] = lambda status: None
    handshake_failed: Callable[[HandshakeFailure], None] = lambda failure: None
    crowded: Callable[[], None] = lambda: None


class Listener:
    """Serves one handler on one address. Connections for which there is no place any more are ended at once."""

    def __init__(
        self,
        *,
        name: str,
        address: Address,
        handler: Handler,
        tls: ServerTls | None = None,
        turned_away: TurnedAway = TurnedAway(),
        places: Places = PLACES,
    ) -> None:
        self.name = name
        self.address = address
        self.tls = tls
        self._turned_away = turned_away
        self._told: dict[str, tuple[float, int]] = {}
        self._admission = Admission(places.plain if tls is None else places.tls)
        self._handler = handler
        self._draining = False
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Listen. ``address`` then holds the port that was taken.

        Raises:
            ListenerProblem: the address cannot be had.
        """
        if self.tls is not None:
            self.tls.tell(self._note_handshake)
        server = ConnectionServer(
            self._handle,
            door=Door(self._admission, self._note_crowd, self.tls),
            refused=self._turned_away.refused,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            auto_decompress=False,
            max_headers=MOST_HEADERS,
            logger=http_log,
        )
        runner = web.ServerRunner(server, shutdown_timeout=DRAIN.total_seconds() / 2)
        await runner.setup()
        site = web.TCPSite(runner, self.address.host or None, self.address.port)  # TLS begins with a place: connections
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ListenerProblem(
                f"the {self.name} listener cannot use {self.address}: {reason}; choose another address with "
                f"--{self.name}-listen"
            ) from error
        self._runner = runner
        port = runner.addresses[0][1]
        self.address = Address(self.address.host, port)
        log.info("listening", extra=fields(listener=self.name, address=str(self.address), tls=self.tls is not None))

    async def stop(self) -> None:
        """Stop listening, let every answer in flight finish, and close: 5 s at most.

        Answers say ``Connection: close`` from now on, so callers go elsewhere by themselves; only connections that stay
        silent are closed by us, after half of that time.
        """
        if self._runner is None:
            return
        self._draining = True
        for site in list(self._runner.sites):
            await site.stop()
        server = self._runner.server
        # aiohttp tells nobody when a connection closes
        deadline = asyncio.get_running_loop().time() + DRAIN.total_seconds() / 2
        while server is not None and server.connections and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await self._runner.cleanup()
        self._runner = None

    def _note_handshake(self, failure: HandshakeFailure) -> None:
        self._turned_away.handshake_failed(failure)
        self._warn("TLS handshake failed", failure, failure.meaning)

    def _note_crowd(self, address: str) -> None:
        self._turned_away.crowded()
        self._warn("connection refused", "crowded", f"there are too many, of {address} or of all: see docs/security.md")

    def _warn(self, message: str, reason: str, problem: str) -> None:
        """Log a warning once a minute for each reason, and how many were left out since."""
        now, quiet = asyncio.get_running_loop().time(), TOLD_EVERY.total_seconds()
        told, untold = self._told.get(reason, (-quiet, 0))
        if now - told < quiet:
            self._told[reason] = (told, untold + 1)
            return
        self._told[reason] = (now, 0)
        log.warning(message, extra=fields(listener=self.name, reason=reason, problem=problem, untold=untold))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._handler(request)
        if self._draining:
            response.force_close()
        return response
