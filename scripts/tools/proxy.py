"""A reverse proxy between one warmnode and the API server: what is counted, delayed, changed or cut goes through it.

Owns the forwarding. Decides nothing by itself: a test gives it a hook, the soak overrides `before` and `pass_on`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import yarl
from aiohttp import web

from extender.kube.transport import CutResponse
from scripts.tools.controlplane import ControlPlane, wait_for
from scripts.tools.controlplane.certificates import KeyPair

T = TypeVar("T")

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as it came in. ``path`` is without the query."""

    method: str
    path: str
    body: bytes
    is_watch: bool = False

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)

    def is_eviction(self) -> bool:
        """True for POST .../eviction."""
        return self.method == "POST" and self.path.endswith("/eviction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer in place of the API server's; ``body`` None: a Status that names the code."""

    status: int
    retry_after: int | None = None
    body: bytes | None = None


Hook = Callable[[Seen], Refusal | None]


class Proxy:
    """Listens on 127.0.0.1 and forwards as ``client``, None: the administrator. Runs in a thread of its own.

    Without ``tls`` it speaks plain HTTP.

    ``hook`` is called in a further thread before a request is forwarded; the request hangs for as long as it takes, and
    what it returns is the answer then. ``seen`` are the requests that came in, in order; ``answered`` those that the
    API server answered, with the status.
    """

    def __init__(
        self, control_plane: ControlPlane, *, client: KeyPair | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.hook: Hook | None = None
        self.seen: list[Seen] = []
        self.answered: list[tuple[Seen, int]] = []
        self._is_cut = False
        self._upstream = control_plane.server_url
        self._tls = ssl.create_default_context(cafile=str(control_plane.ca_file))
        client = client or KeyPair(certificate=control_plane.client_certificate, key=control_plane.client_key)
        self._tls.load_cert_chain(client.certificate, client.key)
        self._listen_tls = tls
        self._transports: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
            "current-context": "proxy",
        }
        path.write_text(json.dumps(config))
        return path

    def cut(self) -> None:
        """Break every connection, and every new one, until `mend`."""
        self._call(self._cut())

    def mend(self) -> None:
        """Forward again."""
        self._is_cut = False

    def wait_seen(self, more: int) -> None:
        """Wait for so many further requests, half a minute at most."""
        before = len(self.seen)
        wait_for(
            lambda: len(self.seen) >= before + more, 30, lambda: f"{more} requests; {len(self.seen) - before} came"
        )

    def evictions(self) -> list[Seen]:
        """The evictions that came in."""
        return [each for each in list(self.seen) if each.is_eviction()]

    # -- in its own thread --------------------------------------------------------------------------------------------

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            response_class=CutResponse,
        )
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._listen_tls)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        self.port = server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        await self._cut()
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._session.close()
        await asyncio.sleep(0)  # connections that were cut are closed in the next turn of the loop

    async def _cut(self) -> None:
        self._is_cut = True
        for transport in self._transports:
            transport.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None or self._is_cut:
            if transport is not None:
                transport.abort()
            raise web.HTTPServiceUnavailable
        self._transports.add(transport)
        try:
            return await self._answer(request)
        except (aiohttp.ClientError, ConnectionError):
            transport.abort()  # the API server is gone: so are we
            raise web.HTTPBadGateway from None
        finally:
            self._transports.discard(transport)

    async def before(self, seen: Seen) -> Refusal | None:
        """Do what is to be done before a request is forwarded, or answer in the API server's place."""
        self.seen.append(seen)
        hook = self.hook
        return await asyncio.to_thread(hook, seen) if hook is not None else None

    def after(self, seen: Seen, status: int) -> None:
        """Take note of what the API server answered."""
        self.answered.append((seen, status))

    async def pass_on(self, chunk: bytes, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Hand on a part of the API server's answer."""
        await response.write(chunk)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = Seen(
            method=request.method, path=request.path, body=await request.read(), is_watch="watch" in request.query
        )
        refusal = await self.before(seen)
        if refusal is not None:
            retry = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
            body = json.dumps(_status(refusal.status)).encode() if refusal.body is None else refusal.body
            return web.Response(body=body, status=refusal.status, headers=retry, content_type="application/json")
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP_BY_HOP}
        url = yarl.URL(f"{self._upstream}{request.raw_path}", encoded=True)
        asked = self._session.request(request.method, url, data=seen.body or None, headers=headers)
        with closing(await asked) as upstream:
            self.after(seen, upstream.status)
            kept = {key: value for key, value in upstream.headers.items() if key.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=upstream.status, headers=kept)
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await self.pass_on(chunk, request, response)
            await response.write_eof()
            return response


def _status(code: int) -> dict[str, Any]:
    reason = {429: "TooManyRequests", 500: "InternalError"}.get(code, "Unknown")
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": f"the proxy says {code}",
    }
