"""The client of the API server: where it is by kubeconfig or service account, and requests with errors as exceptions.

Knows no kind of object and decodes nothing but failures; `transport` sends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from extender import __version__
from extender.kube.api_request import ApiRequest, Lane
from extender.kube.credentials import in_cluster_access
from extender.kube.errors import failure
from extender.kube.kubeconfig import kubeconfig_access

if TYPE_CHECKING:  # aiohttp is a quarter of what a command loads that reads a file only
    import aiohttp

    from extender.kube.transport import Transport

Params: TypeAlias = Mapping[str, str]

TIMEOUT = timedelta(seconds=30)
ANSWER_LIMIT = timedelta(seconds=20)
"""For the head of an answer to a GET: a list and a watch begin at once where an API server works."""
_REFUSAL_TIMEOUT = timedelta(seconds=10)  # for the body of a refused watch

USER_AGENT = f"warmnode/{__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """How the API server is reached, and where warmnode's own objects live. None: as kubectl would have it."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


class KubeClient:
    """Requests to one API server. Make it with `connect`, inside a running loop; close it when done.

    ``namespace`` is where we live: the pod's own in a cluster, else the context's, else ``default``.

    Every call raises a `KubeError` of `extender.kube.errors`: no answer, a time-out and an answer cut short are
    `Unavailable`. Paths start with ``/api`` or ``/apis``. There are no retries, except that a read answered 401 is
    repeated once with refreshed credentials.
    """

    def __init__(self, transport: Transport, *, namespace: str, lane: Lane = Lane.OTHER) -> None:
        self.namespace = namespace
        self._transport = transport
        self._lane = lane

    @classmethod
    async def connect(cls, *, kubeconfig: str | None = None, context: str | None = None, user_agent: str) -> KubeClient:
        """A client for the configured API server. Asks for credentials once, and sends no request to the server.

        With neither ``kubeconfig``, ``context`` nor $KUBECONFIG, and KUBERNETES_SERVICE_HOST set: the pod's service
        account. Else a kubeconfig: ``kubeconfig`` or $KUBECONFIG (a list of files, as in kubectl) or
        ``~/.kube/config``, and in it ``context`` or the current one. Raises ConfigurationProblem, one line.
        """
        from extender.kube.transport import Transport

        files = kubeconfig or os.environ.get("KUBECONFIG", "")
        if not files and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            access = in_cluster_access(os.environ)
        else:
            access = await asyncio.to_thread(kubeconfig_access, files or "~/.kube/config", context, os.environ)
        transport = Transport(access, user_agent=user_agent)
        try:
            await transport.prepare()
        except BaseException:
            await transport.close()
            raise
        return cls(transport, namespace=access.namespace)

    def on(self, lane: Lane) -> KubeClient:
        """The same client over the connections of ``lane``, for what must not wait for other requests."""
        return KubeClient(self._transport, namespace=self.namespace, lane=lane)

    @property
    def clock_skew(self) -> timedelta | None:
        """The server's clock minus ours now, by the Date of its answers, good to a second. None before one."""
        return self._transport.clock_skew

    @property
    def problem(self) -> str | None:
        """Say why the API server cannot be reached, None while it answers, as far as anything was asked."""
        return self._transport.problem

    async def get_bytes(
        self,
        path: str,
        *,
        params: Params | None = None,
        timeout: timedelta = TIMEOUT,  # noqa: ASYNC109 - no call without a limit, so each has one by default
    ) -> bytes:
        """The body of a successful GET, complete within ``timeout``."""
        request = ApiRequest(method="GET", path=path, params=params, answer_limit=ANSWER_LIMIT, lane=self._lane)
        return await self._call(request, timeout)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        params: Params | None = None,
        content_type: str = "application/json",
        timeout: timedelta = TIMEOUT,  # noqa: ASYNC109 - as above
    ) -> bytes:
        """The body of a successful POST, PUT, PATCH or DELETE, complete within ``timeout``. It is never sent twice.

        A patch needs the ``content_type`` of its kind, such as "application/merge-patch+json". After `Unavailable`
        nobody knows whether it was done.
        """
        headers = {"Content-Type": content_type}
        request = ApiRequest(method=method, path=path, body=body, params=params, headers=headers, lane=self._lane)
        return await self._call(request, timeout)

    @asynccontextmanager
    async def watch_stream(
        self, path: str, *, params: Params, silence_limit: timedelta
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Chunks of a streamed answer as they arrive, cut anywhere, until the server ends it.

        A refusal raises its error on entry. The iterator raises Unavailable when the connection breaks, or when nothing
        has come for ``silence_limit``; there is no limit on the whole.
        """
        request = ApiRequest(
            method="GET",
            path=path,
            params=params,
            silence_limit=silence_limit,
            answer_limit=ANSWER_LIMIT,
            lane=self._lane,
        )
        async with AsyncExitStack() as stack:
            with self._transport.failures(request, _REFUSAL_TIMEOUT):
                response = await stack.enter_async_context(self._transport.answer(request))
                if response.status != 200:
                    async with asyncio.timeout(_REFUSAL_TIMEOUT.total_seconds()):
                        _raise_failure(response, await response.read())
            yield await stack.enter_async_context(aclosing(self._chunks(response, request)))

    @asynccontextmanager
    async def websocket(
        self, path: str, *, params: Params, protocol: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket that speaks ``protocol``, closed when the block ends."""
        request = ApiRequest(method="GET", path=path, params=params, lane=self._lane)
        with self._transport.failures(request):
            async with self._transport.websocket(request, protocol) as socket:
                yield socket

    async def close(self) -> None:
        """Close all connections, of every lane, and remove credentials from the disk."""
        await self._transport.close()

    async def _call(self, request: ApiRequest, limit: timedelta) -> bytes:
        with self._transport.failures(request, limit):
            async with asyncio.timeout(limit.total_seconds()), self._transport.answer(request) as response:
                body = await response.read()
        _raise_failure(response, body)
        return body

    async def _chunks(self, response: aiohttp.ClientResponse, request: ApiRequest) -> AsyncGenerator[bytes, None]:
        with self._transport.failures(request):
            async for chunk in response.content.iter_any():
                yield chunk


def _raise_failure(response: aiohttp.ClientResponse, body: bytes) -> None:
    error = failure(response.status, body, response.headers)
    if error is not None:
        raise error


@asynccontextmanager
async def connected(options: ClusterOptions) -> AsyncIterator[KubeClient]:
    """A client for the cluster that a command line names, until the end of the block. Raises ConfigurationProblem."""
    client = await KubeClient.connect(kubeconfig=options.kubeconfig, context=options.context, user_agent=USER_AGENT)
    try:
        yield client
    finally:
        await client.close()
