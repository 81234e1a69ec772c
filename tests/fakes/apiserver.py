"""A Kubernetes API server in memory: lists in pages, watches, conditional writes, and faults on order.

Owns the HTTP side; `store` has the objects. Behaves as the real one does where warmnode can see it: both pass
`tests/contract/test_api_server_contract.py`. No admission, no RBAC, no controllers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web

from tests.fakes.faults import Fault, Where, matches
from tests.fakes.selectors import Matches, selection
from tests.fakes.store import (
    CONFIG_MAPS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    Change,
    Json,
    Name,
    Refusal,
    Resource,
    Store,
    Stored,
)
from tests.fakes.watching import Watcher

_ENCODE = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request that came in, at the loop's time ``at``. ``peer`` is the name in the client's certificate, if any."""

    method: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float
    peer: str | None


class FakeApiServer:
    """Use it as an async context manager; it listens on a free port of 127.0.0.1.

    ``store``: the objects, to arrange and to look at. ``requests``: what came in. ``tokens``: accepted bearer tokens,
    empty means anybody. ``blocked``: pods whose eviction a PodDisruptionBudget forbids. ``bookmark_seconds``: the time
    between bookmarks of a watch that asked for them.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        bookmark_seconds: float = 60.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.store = Store(now=now)
        for resource in (NAMESPACES, NODES, PODS, CONFIG_MAPS, LEASES):
            self.store.enable(resource)
        for name in ("default", "kube-system"):
            self.store.create(NAMESPACES, "", {"metadata": {"name": name}})
        self.requests: list[Seen] = []
        self.tokens: set[str] = set()
        self.blocked: set[Name] = set()
        self.bookmark_seconds = bookmark_seconds
        self._faults: list[tuple[Where, Fault]] = []
        self._watchers: set[Watcher] = set()
        self._snapshots: dict[str, tuple[int, list[Stored]]] = {}
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self.port = 0

    # --- for tests ------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def fail(self, where: Where, *faults: Fault) -> None:
        """Each fault spoils the next matching request that no earlier fault has taken."""
        self._faults += [(where, fault) for fault in faults]

    def watches(self) -> list[Seen]:
        """The watch requests so far."""
        return [each for each in self.requests if each.params.get("watch")]

    def lists(self) -> list[Seen]:
        """The list requests so far, first pages only."""
        return [each for each in self.requests if each.params.get("limit") and not each.params.get("continue")]

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return len(self._watchers)

    def send_bookmarks(self) -> None:
        """A bookmark to every watch that asked for them."""
        for watcher in self._watchers:
            watcher.bookmark(self.store.version)

    def end_watches(self) -> None:
        """End every watch as the server does when its time is up."""
        for watcher in self._watchers:
            watcher.end()

    def compact(self) -> None:
        """Forget the history: older versions and continue tokens are answered with 410 from now on."""
        self.store.compact()
        self._snapshots.clear()

    def write_kubeconfig(
        self, path: Path, *, user: Json | None = None, cluster: Json | None = None, namespace: str | None = None
    ) -> Path:
        """A kubeconfig (JSON is YAML) for this server with the given user and additions to the cluster."""
        context = {"cluster": "fake", "user": "tester"} | ({"namespace": namespace} if namespace else {})
        tree = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url, **(cluster or {})}}],
            "contexts": [{"name": "fake", "context": context}],
            "users": [{"name": "tester", "user": user or {}}],
        }
        path.write_text(json.dumps(tree))
        return path

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=8 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.store.listeners.append(self._broadcast)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_watches()
        self.store.listeners.remove(self._broadcast)
        assert self._runner is not None
        await self._runner.cleanup()

    # --- requests -------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        at = asyncio.get_running_loop().time()
        self.requests.append(
            Seen(
                method=request.method,
                path=request.path,
                params=dict(request.query),
                headers=request.headers,
                body=body,
                at=at,
                peer=_common_name(request),
            )
        )
        for entry in self._faults:
            if matches(entry[0], request):
                self._faults.remove(entry)
                response = await entry[1](request)
                if response is not None:
                    return response
                break
        try:
            if self.tokens and request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
                raise Refusal(401, "Unauthorized", "Unauthorized")
            return await self._serve(request, body)
        except Refusal as refusal:
            return _reply(refusal.code, _ENCODE(refusal.status()))

    async def _serve(self, request: web.Request, body: bytes) -> web.StreamResponse:
        resource, namespace, name, subresource = self._locate(request.path)
        if not name:
            if request.method == "GET":
                chosen = selection(request.query)
                if request.query.get("watch") in ("1", "true"):
                    return await self._watch(request, resource, namespace, chosen)
                return self._list(request, resource, namespace, chosen)
            if request.method == "POST":
                return _reply(201, self.store.create(resource, namespace, _tree(body)).raw)
        elif subresource == "eviction" and request.method == "POST" and resource == PODS:
            return self._evict((namespace, name), _tree(body))
        elif not subresource or subresource == "status":
            return self._one(request, resource, (namespace, name), body)
        raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _locate(self, path: str) -> tuple[Resource, str, str, str]:
        """(kind, namespace, name, subresource) of a path; the last three may be empty."""
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            api_version, rest = parts[1] if len(parts) > 1 else "", parts[2:]
        elif parts[0] == "apis":
            api_version, rest = "/".join(parts[1:3]), parts[3:]
        else:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource, *more = [*rest, "", "", ""]
        if any(more[:-1]):
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return self.store.resource(api_version, plural), namespace, name, subresource

    def _one(self, request: web.Request, resource: Resource, name: Name, body: bytes) -> web.Response:
        match request.method:
            case "GET":
                return _reply(200, self.store.get(resource, name).raw)
            case "PUT":
                return _reply(200, self.store.replace(resource, name, _tree(body)).raw)
            case "PATCH":
                if request.content_type not in (
                    "application/merge-patch+json",
                    "application/strategic-merge-patch+json",
                ):
                    raise Refusal(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
                return _reply(200, self.store.patch(resource, name, _tree(body)).raw)
            case "DELETE":
                options = _tree(body) if body else {}
                gone = self.store.delete(
                    resource, name, options.get("preconditions") or {}, grace=options.get("gracePeriodSeconds")
                )
                if resource == PODS:
                    return _reply(200, gone.raw)
                details = {"name": name[1], "kind": resource.plural, "uid": gone.tree["metadata"]["uid"]}
                done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
                return _reply(200, _ENCODE(done))
        raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _evict(self, name: Name, eviction: Json) -> web.Response:
        """The API server asks the budget before it looks at the preconditions, and sends no Retry-After with a 429."""
        self.store.get(PODS, name)
        if name in self.blocked:
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise Refusal(429, "TooManyRequests", message, cause="DisruptionBudget")
        options = eviction.get("deleteOptions") or {}
        self.store.delete(PODS, name, options.get("preconditions") or {}, grace=options.get("gracePeriodSeconds"))
        done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return _reply(201, _ENCODE(done))

    # --- collections ----------------------------------------------------------------------------------------------

    def _list(self, request: web.Request, resource: Resource, namespace: str, chosen: Matches) -> web.Response:
        limit = int(request.query.get("limit") or 0)
        token = request.query.get("continue")
        if token:
            version, rest = self._snapshot(token)
        elif request.query.get("resourceVersionMatch") == "Exact":
            version = int(request.query["resourceVersion"])
            rest = [each for each in self.store.select_as_of(resource, namespace, version) if chosen(each.tree)]
        else:
            version = self.store.version
            rest = [each for each in self.store.select(resource, namespace) if chosen(each.tree)]
        page, rest = (rest[:limit], rest[limit:]) if limit else (rest, [])
        meta: Json = {"resourceVersion": str(version)}
        if rest:
            last = page[-1].tree["metadata"]
            start = {"v": "meta.k8s.io/v1", "rv": version, "start": f"{last.get('namespace', '')}/{last['name']}\x00"}
            meta["continue"] = base64.urlsafe_b64encode(_ENCODE(start)).decode().rstrip("=")
            meta["remainingItemCount"] = len(rest)
            self._snapshots[meta["continue"]] = (version, rest)
        head = _ENCODE({"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta})
        items = b",".join(each.raw for each in page)
        return _reply(200, b'%b,"items":[%b]}' % (head[:-1], items))

    def _snapshot(self, token: str) -> tuple[int, list[Stored]]:
        try:
            version = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))["rv"]
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(400, "BadRequest", f"continue key is not valid: {error}") from error
        if version < self.store.compacted or token not in self._snapshots:
            raise Refusal(410, "Expired", "The provided continue parameter is too old to display a consistent list.")
        return self._snapshots[token]

    async def _watch(
        self, request: web.Request, resource: Resource, namespace: str, chosen: Matches
    ) -> web.StreamResponse:
        bookmarks = request.query.get("allowWatchBookmarks") in ("1", "true")
        watcher = Watcher(resource, namespace, chosen, bookmarks=bookmarks)
        watcher.start(self.store, request.query.get("resourceVersion", ""))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        lifetime = float(request.query.get("timeoutSeconds") or 1800)
        self._watchers.add(watcher)
        try:
            await watcher.serve(response, self.store, lifetime=lifetime, interval=self.bookmark_seconds)
        finally:
            self._watchers.discard(watcher)
        await response.write_eof()
        return response

    def _broadcast(self, change: Change) -> None:
        for watcher in self._watchers:
            watcher.tell(change)


def _common_name(request: web.Request) -> str | None:
    certificate = request.get_extra_info("peercert") or {}
    subject = [pair for group in certificate.get("subject", ()) for pair in group]
    return dict(subject).get("commonName")


def _reply(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def _tree(body: bytes) -> Json:
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "BadRequest", f"the object provided is unrecognized: {error}") from error
    if not isinstance(tree, dict):
        raise Refusal(400, "BadRequest", "the object provided is unrecognized")
    return tree
