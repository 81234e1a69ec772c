"""HTTP to one API server: TLS, proxy, credentials, and failures of the transport as Unavailable.

Owns how a request gets there and proves its origin. Knows no path and no object, decodes nothing, and repeats nothing
but a read that was refused with 401.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp

from extender.kube.api_request import CONNECTIONS, ApiRequest, Lane
from extender.kube.credentials import Access, Credential, TlsContexts
from extender.kube.errors import ConfigurationProblem, Unavailable, failure
from extender.logs import one_line

_CONNECT_SECONDS = 10.0
_SILENT_SECONDS = 15.0  # something was asked, and nothing at all was answered since
_REFRESH_PAUSE_SECONDS = 10.0  # refused over and over, an exec plugin is still not run more often than this


class Transport:
    """Sends requests with the right TLS context, proxy and credentials. Make it inside a running loop.

    ``clock_skew`` is described at `KubeClient`.
    """

    def __init__(
        self,
        access: Access,
        *,
        user_agent: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._last_date: str | None = None
        self._told_time: tuple[datetime, float] | None = None  # the server's, and when by our monotonic clock
        self._access = access
        self._tls = TlsContexts(access)
        self._now = now
        self._monotonic = monotonic
        self._failure: str | None = None  # of the last request that was not answered, None once one was
        self._waiting_since: float | None = None  # the first request after the last answer
        self._refused = False  # a request was answered 401: refresh before the next one
        self._refreshed_at: float | None = None
        self._sessions = {lane: _session(user_agent, access.headers) for lane in Lane}

    @property
    def problem(self) -> str | None:
        """Say why the API server cannot be reached, None while it answers, as far as anything was asked."""
        if self._failure is None and self._waiting_since is not None:
            silent = self._monotonic() - self._waiting_since
            if silent >= _SILENT_SECONDS:
                return one_line(f"the API server {self._access.server} has not answered for {silent:.0f} s")
        return self._failure

    @property
    def clock_skew(self) -> timedelta | None:
        """The server's time now, counted on from what it told last, minus ours: so a jump of ours shows at once."""
        if self._told_time is None:
            return None
        told, at = self._told_time
        return told + timedelta(seconds=self._monotonic() - at) - self._now()

    async def prepare(self) -> None:
        """Get the first credentials and read the TLS files. Raises ConfigurationProblem."""
        self._tls.context(await self._access.credential())

    @asynccontextmanager
    async def answer(self, request: ApiRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head, whatever its status; its body is there to be read until the block ends.

        A GET answered 401 is repeated once with fresh credentials.
        """
        response = await self._attempt(request)
        if response.status == 401:
            self._refused = True
            if request.method == "GET":
                response.close()
                response = await self._attempt(request)
        try:
            yield response
        finally:
            response.close()  # once it was read to its end the connection is back in the pool, and this does nothing

    @asynccontextmanager
    async def websocket(self, request: ApiRequest, protocol: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket at a path of the server, closed when the block ends. Raises the error of a refusal."""
        credential = await self._credential()
        try:
            socket = await self._sessions[request.lane].ws_connect(
                self._access.server + request.path,
                protocols=(protocol,),
                params=request.params,
                headers=_headers(request, credential),
                ssl=self._context(credential),
                server_hostname=self._access.server_name,
                proxy=self._access.proxy,
            )
        except aiohttp.WSServerHandshakeError as error:
            refusal = failure(error.status, error.message.encode(), error.headers or {})
            raise refusal or Unavailable(0, "NoWebSocket", f"{request}: the server opens no WebSocket") from error
        try:
            yield socket
        finally:
            await socket.close()

    @contextmanager
    def failures(self, request: ApiRequest, timeout: timedelta | None = None) -> Iterator[None]:
        """Raise what goes wrong on the way as Unavailable. Its text names the API server and never a header.

        Reason ``Silent``: an answer began and nothing more came of it, as at each watch of what does not change.
        """
        server = f"the API server {self._access.server}"
        try:
            yield
        except ConfigurationProblem as error:  # credentials that were there at the start cannot be renewed
            raise self._unavailable("Credentials", f"{request}: {error}") from error
        except TimeoutError as error:
            if timeout is None and request.silence_limit is not None:
                seconds = f"{request.silence_limit.total_seconds():g}"
                raise Unavailable(0, "Silent", f"{request}: {server} was silent for {seconds} s") from error
            within = f" for {timeout.total_seconds():g} s" if timeout else ""
            raise self._unavailable("Timeout", f"{request}: {server} did not answer{within}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable("Connection", f"{request}: {server}: {_said(error)}") from error

    def _unavailable(self, reason: str, text: str) -> Unavailable:
        error = Unavailable(0, reason, text)
        self._failure = str(error)
        return error

    async def close(self) -> None:
        self._access.files.close()
        for session in self._sessions.values():
            await session.close()

    async def _attempt(self, request: ApiRequest) -> aiohttp.ClientResponse:
        credential = await self._credential()
        if self._waiting_since is None:
            self._waiting_since = self._monotonic()
        silence = None if request.silence_limit is None else request.silence_limit.total_seconds()
        limit = None if request.answer_limit is None else request.answer_limit.total_seconds()
        try:
            async with asyncio.timeout(limit):
                response = await self._sessions[request.lane].request(
                    request.method,
                    self._access.server + request.path,
                    data=request.body,
                    params=request.params,
                    headers=_headers(request, credential),
                    allow_redirects=False,  # a redirect would carry the token elsewhere
                    ssl=self._context(credential),
                    server_hostname=self._access.server_name,
                    proxy=self._access.proxy,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence),
                )
        except TimeoutError as error:
            text = f"{request}: the API server {self._access.server}"
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise self._unavailable("Timeout", f"{text} took no connection for {_CONNECT_SECONDS:g} s") from error
            raise self._unavailable("Timeout", f"{text} did not answer for {limit or silence or 0:g} s") from error
        self._waiting_since = None
        if response.status < 500:  # else it may be of whatever stands before it
            self._failure = None
        self._take_time(response.headers.get("Date"))
        return response

    def _take_time(self, date: str | None) -> None:
        """Note what the server's clock says, where that is another second than the last."""
        if date is None or date == self._last_date:
            return
        told = _time_of(date)
        if told is not None:
            self._last_date, self._told_time = date, (told, self._monotonic())

    def _context(self, credential: Credential) -> ssl.SSLContext | bool:
        return self._tls.context(credential) if self._access.server.startswith("https:") else True

    async def _credential(self) -> Credential:
        refused, self._refused = self._refused, False
        if not refused:
            return await self._access.credential()
        now, last = self._monotonic(), self._refreshed_at
        if last is not None and now - last < _REFRESH_PAUSE_SECONDS:
            return await self._access.credential()
        self._refreshed_at = now
        return await self._access.credential(refresh=True)


def _headers(request: ApiRequest, credential: Credential) -> dict[str, str]:
    if credential.authorization is None:
        return dict(request.headers)
    if not (credential.authorization.isascii() and credential.authorization.isprintable()):
        raise ConfigurationProblem("the token holds a line break or another character that no header may hold")
    return {**request.headers, "Authorization": credential.authorization}


class _ConnectionLost(aiohttp.ClientError):
    """The connection broke under a write."""


class CutResponse(aiohttp.ClientResponse):
    """Cuts the connection of an answer that is given up: with TLS a polite end waits half a minute for the server's."""

    def close(self) -> None:
        transport = self.connection.transport if self.connection is not None else None
        if transport is not None:
            transport.abort()
        super().close()


def _session(user_agent: str, headers: tuple[tuple[str, str], ...]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        # Compression costs more time than it saves inside a cluster, and the API server gzips if asked.
        headers=[
            ("User-Agent", user_agent),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            *headers,
        ],
        cookie_jar=aiohttp.DummyCookieJar(),
        response_class=CutResponse,
        middlewares=(_send_writes_once,),
        trust_env=False,  # it would ignore CIDR entries of NO_PROXY, see `extender.kube.proxy`
    )


async def _send_writes_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp repeats a PUT or DELETE by itself when the connection broke; whether it was done is ours to find out."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method == "GET":
            raise
        raise _ConnectionLost(str(error)) from error


def _said(error: Exception) -> str:
    """Say what a library's error says, without the objects that it shows."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        return f"no connection to {error.host}:{error.port}: {cause.strerror or cause}"
    return str(error) or type(error).__name__


def _time_of(date: str) -> datetime | None:
    try:
        told = parsedate_to_datetime(date).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return told if told.year < 9000 else None  # it is counted on from, and the calendar ends
