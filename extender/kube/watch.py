"""Follow one collection of the API server: list it, watch it, and never give up.

Owns the list-and-watch protocol: paging, resource versions, bookmarks, expiry, reconnection. Knows no kind of object,
keeps no object, and decides nothing.
Protocol: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Generic, NoReturn, Protocol, TypeVar

import msgspec

from extender.kube.codec import Codec, decode_event, metadata
from extender.kube.errors import Forbidden, Gone, KubeError, NotFound, Unavailable, failure
from extender.kube.watch_reports import NullObserver, RelistReason, UndecodableObject, WatchObserver

__all__ = ["CallingSink", "NullObserver", "Reflector", "RelistReason", "Sink", "UndecodableObject", "WatchObserver"]

PAGE_SIZE = 500
PAGE_TIMEOUT = timedelta(seconds=60)

_WATCH_SECONDS = (300, 600)  # the server ends a watch after a random time of this range; client-go asks for the same
_SILENCE_SECONDS = (70.0, 75.0)  # bookmarks come about each minute, and the server can replay about 75 s (kopf)
_BACKOFF_SECONDS = (1.0, 30.0)  # the ceiling of the first pause, and of all
_MISSING_SECONDS = (25.0, 35.0)  # between two looks for a collection that does not exist yet
_LONGEST_WISH = timedelta(minutes=2)  # of a Retry-After
_HEALTHY_SECONDS = 60.0  # a stream that lived so long ends a series of failures
_SHORT_SECONDS = 1.0  # a stream that ended sooner is not followed by another at once
_SHORT_PAUSE_SECONDS = 0.1
_BARREN_LIMIT = 3  # streams in a row that opened, gave nothing and failed

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


class Sink(Protocol[T]):
    """Where the objects of a collection go. Called on the loop, never concurrently; must not block."""

    def replace(self, items: list[T], /) -> None:
        """The whole collection as one complete list found it: what is not in it is gone."""

    def upsert(self, item: T, /) -> None:
        """A new object, or a new version of one. The same version may come twice."""

    def delete(self, item: T, /) -> None:
        """The last version of an object that is gone or left the selection. It may be unknown."""


@dataclass(frozen=True, slots=True)
class CallingSink(Generic[T]):
    """A `Sink` made of three functions."""

    replace: Callable[[list[T]], None]
    upsert: Callable[[T], None]
    delete: Callable[[T], None]


class ListWatchClient(Protocol):
    """The part of `KubeClient` that a reflector needs, with the same promises."""

    async def get_bytes(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        timeout: timedelta = PAGE_TIMEOUT,  # noqa: ASYNC109 - see KubeClient
    ) -> bytes: ...
    def watch_stream(
        self, path: str, *, params: Mapping[str, str], silence_limit: timedelta
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


class Reflector(Generic[S, T]):
    """Keeps a sink equal to one collection: ``struct`` is decoded from the wire, ``trim`` makes the value.

    A list is paged and consistent, and replaces the sink's content in one step. Then the watch goes on from its
    resourceVersion, across reconnections, as long as the server can replay; after that the collection is listed again.
    Every failure is retried with exponential backoff and full jitter. What cannot be decoded is told and skipped.

    ``synced``: listed completely at least once (``synced_event`` is set with it). ``settled_event``: that, or missing.
    ``last_contact``: the clock's time of the last page, opened watch, event or bookmark, None before the first; older
    than two minutes means stale. (A server that accepts a watch sends all that is newer, and where etcd reports no
    progress, a quiet collection gets no bookmarks.) ``following_since``: the clock's time since when a watch is open,
    None while none is: what happens meanwhile is not known. ``problem``: what the last list or watch failed for, None
    once one works. ``missing``: the collection does not exist or may not be read (404, 403), and it is looked for about
    every half minute; what was seen before stays in the sink, unless ``forgets_missing``. With ``forgets_after`` the
    sink is emptied too when the collection cannot be read for so long for any other reason.
    """

    def __init__(
        self,
        client: ListWatchClient,
        *,
        path: str,
        struct: type[S],
        trim: Callable[[S], T],
        sink: Sink[T],
        name: str,
        random: Random,
        label_selector: str = "",
        field_selector: str = "",
        clock: Callable[[], float] | None = None,
        observer: WatchObserver | None = None,
        forgets_missing: bool = False,
        forgets_after: timedelta | None = None,
    ) -> None:
        """``path`` is the collection's, such as ``/api/v1/pods``. ``clock`` is in seconds; None: the running loop's.

        ``forgets_missing`` and ``forgets_after`` are for what only adds to the rest: rather nothing than an old state
        for ever.
        """
        self.name = name
        self.synced_event = asyncio.Event()
        self.settled_event = asyncio.Event()
        self.last_contact: float | None = None
        self.following_since: float | None = None
        self.missing = False
        self.problem: str | None = None
        self._client = client
        self._path = path
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        self._selectors = {key: value for key, value in selectors.items() if value}
        self._codec = Codec(struct, trim)
        self._sink = sink
        self._random = random
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._observer: WatchObserver = observer or NullObserver()
        self._forgets_missing = forgets_missing
        self._forgets_after = forgets_after
        self._is_emptied = False
        self._version: str | None = None  # where the next watch starts; None: list first
        self._requested = False
        self._reason = RelistReason.REQUESTED  # why the next list, if it is not the first
        self._scope: asyncio.Timeout | None = None
        self._failures = 0  # in a row; decides the pause
        self._expiries = 0  # in a row
        self._barren = 0
        self._skipped: dict[str, bool] = {}  # undecodable objects by uid: is an older version of it in the sink?

    @property
    def synced(self) -> bool:
        return self.synced_event.is_set()

    def relist(self) -> None:
        """List again now, whatever is going on: because what `trim` depends on has changed, for instance."""
        self._request_list(RelistReason.REQUESTED)

    async def run(self) -> NoReturn:
        """List and watch for ever. Only cancellation ends it."""
        while True:
            scope = self._scope = asyncio.timeout(None)  # so that `relist` can end whatever is going on
            try:
                async with scope:
                    await asyncio.sleep(await self._turn())
            except TimeoutError:
                if not scope.expired():
                    raise
            finally:
                self._scope = None

    async def _turn(self) -> float:
        """List where needed, then watch until the stream ends. Returns the seconds to pause before the next turn."""
        try:
            if self._version is None or self._requested:
                self._version = await self._list()
            return await self._watch(self._version)
        except KubeError as error:
            if isinstance(error, Gone):
                self._forget(RelistReason.EXPIRED)
                if not self._expiries:  # the server is back after an outage: no reason to wait as if it were not
                    self._failures = 0
                self._expiries += 1
            if isinstance(error, NotFound) or (isinstance(error, Forbidden) and error.status == 403):
                return self._lost(error)
            if error.reason != "Silent":  # what does not change is silent: its watch is opened anew
                self.problem = str(error)
            self._observer.watch_failed(self.name, error)
            self._forget_stale()
            wish = min(error.retry_after or timedelta(0), _LONGEST_WISH)
            return wish.total_seconds() + self._backoff()

    async def _list(self) -> str:
        """Replace the sink's content by a complete list. Returns the list's resourceVersion."""
        started = self._clock()
        self._version, self._requested = None, False
        items: list[T] = []
        skipped: list[UndecodableObject] = []
        params = {"limit": str(PAGE_SIZE), **self._selectors}  # no resourceVersion: a consistent read
        while True:
            page = self._codec.page(await self._client.get_bytes(self._path, params=params, timeout=PAGE_TIMEOUT))
            self.last_contact = self._clock()
            items += page.items
            skipped += page.skipped
            if not page.continue_:
                break
            params["continue"] = page.continue_
            await asyncio.sleep(0)  # a page costs some milliseconds: let requests be answered in between
        self._sink.replace(items)
        known, self._skipped = self._skipped, {each.uid: False for each in skipped}
        for error in skipped:
            if error.uid not in known:
                self._observer.undecodable(self.name, error)
        self.missing, self.problem, self._is_emptied = False, None, False
        self._observer.listed(self.name, len(items), self._clock() - started)
        if self.synced:
            self._observer.relisted(self.name, self._reason)
        self.synced_event.set()
        self.settled_event.set()
        return page.resource_version

    async def _watch(self, version: str) -> float:
        """Hand on events until the server ends the stream. Returns the pause before the next one."""
        params = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(self._random.randint(*_WATCH_SECONDS)),
            **self._selectors,
        }
        silence = timedelta(seconds=self._random.uniform(*_SILENCE_SECONDS))
        opened: float | None = None
        last: msgspec.Raw | None = None  # of the last event: read for its resourceVersion when the stream ends
        fragments: list[bytes] = []
        try:
            async with self._client.watch_stream(self._path, params=params, silence_limit=silence) as chunks:
                opened = self.last_contact = self.following_since = self._clock()
                self.problem = None
                async for chunk in chunks:
                    complete, newline, rest = chunk.rpartition(b"\n")
                    if not newline:
                        fragments.append(chunk)
                        continue
                    for line in b"".join((*fragments, complete)).split(b"\n"):
                        last = self._apply(line)
                    fragments = [rest]
                    self.last_contact = self._clock()
        except KubeError:
            self._barren += opened is not None and last is None
            raise
        finally:
            self.following_since = None
            if last is not None:
                self._barren = 0
                self._version = metadata(last).resource_version or version
            elif self._barren >= _BARREN_LIMIT:  # nothing comes from this version: restored from a backup, or garbage
                self._forget(RelistReason.BARREN)
            if opened is not None and self._clock() - opened >= _HEALTHY_SECONDS:
                self._failures = self._expiries = 0
        if self._clock() - opened >= _SHORT_SECONDS:
            return 0.0
        return _SHORT_PAUSE_SECONDS if last is not None else self._backoff()

    def _apply(self, line: bytes) -> msgspec.Raw:
        """Hand on one event. Returns its object. Raises what an ERROR event says."""
        event = decode_event(line)
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                self._observer.event(self.name)
                self._hand_on(event.type, event.object)
            case "ERROR":
                refusal = failure(200, event.object, {})
                raise refusal or Unavailable(0, "Malformed", f"watch of {self._path}: an ERROR event without a Status")
            case _:  # a BOOKMARK has only a resourceVersion: the rest of it does not fit the struct
                pass
        return event.object

    def _hand_on(self, kind: str, raw: msgspec.Raw) -> None:
        try:
            item = self._codec.item(raw)
        except UndecodableObject as error:
            if error.uid not in self._skipped:
                self._skipped[error.uid] = kind != "ADDED"
                self._observer.undecodable(self.name, error)
            if kind == "DELETED" and self._skipped.pop(error.uid):
                self._request_list(RelistReason.UNDECODABLE)  # the sink has an older version and cannot be told which
            return
        if self._skipped:
            self._skipped.pop(metadata(raw).uid, None)
        if kind == "DELETED":
            self._sink.delete(item)
        else:
            self._sink.upsert(item)

    def _request_list(self, reason: RelistReason) -> None:
        self._requested, self._reason = True, reason
        if self._scope is not None and self._scope.when() is None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    def _forget(self, reason: RelistReason) -> None:
        self._version, self._reason, self._barren = None, reason, 0

    def _lost(self, error: KubeError) -> float:
        """The collection is missing. What was seen of it stays in the sink: a proxy in between can say 404 as well."""
        if not self.missing:
            self._observer.watch_failed(self.name, error)
            if self._forgets_missing and self.synced:
                self._sink.replace([])
        self.missing, self.problem = True, str(error)
        self.settled_event.set()
        self._forget(RelistReason.REAPPEARED)
        return self._random.uniform(*_MISSING_SECONDS)

    def _forget_stale(self) -> None:
        """Empty the sink where the collection could not be read for ``forgets_after``. It is listed anew then."""
        if self._forgets_after is None or self._is_emptied or self.last_contact is None:
            return
        if self._clock() - self.last_contact > self._forgets_after.total_seconds():
            self._is_emptied = True
            self._sink.replace([])
            self._forget(RelistReason.REAPPEARED)

    def _backoff(self) -> float:
        """Exponential with full jitter, so that replicas do not come back together."""
        first, most = _BACKOFF_SECONDS
        ceiling = min(most, first * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return self._random.uniform(0.0, ceiling)
