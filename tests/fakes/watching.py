"""The open watches of the fake API server: who sees which change, bookmarks, and the end of a stream."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from tests.fakes.selectors import Matches
from tests.fakes.store import PODS, Change, Json, Refusal, Resource, Store

_LAST_BOOKMARK_SECONDS = 2.0
_PACKET_BYTES = 2**18


class Watcher:
    """One open watch: what it wants, and the lines that wait to be sent."""

    def __init__(self, resource: Resource, namespace: str, chosen: Matches, *, bookmarks: bool) -> None:
        self._resource = resource
        self._namespace = namespace
        self._chosen = chosen
        self._bookmarks = bookmarks
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()  # None ends the stream

    def start(self, store: Store, version: str) -> None:
        """Queue what happened after ``version``; without one, everything there is. Raises 400."""
        if version in ("", "0"):
            for stored in store.select(self._resource, self._namespace):
                if self._chosen(stored.tree):
                    self._send("ADDED", stored.raw)
            return
        try:
            changes = store.since(int(version))
        except ValueError as error:
            raise Refusal(400, "BadRequest", f"invalid resource version: {version}") from error
        except Refusal as refusal:  # a real server opens the stream with 200 and says it there
            self._send("ERROR", msgspec.json.encode(refusal.status()))
            self.end()
            return
        for change in changes:
            self.tell(change)

    def tell(self, change: Change) -> None:
        """Queue the change as this selection sees it: entering it is ADDED, leaving it DELETED."""
        if change.resource != self._resource or (self._namespace and change.name[0] != self._namespace):
            return
        was = change.before is not None and self._chosen(change.before.tree)
        now = not change.deleted and self._chosen(change.after.tree)
        if now:
            self._send("MODIFIED" if was else "ADDED", change.after.raw)
        elif was:
            self._send("DELETED", change.after.raw)

    def bookmark(self, version: int) -> None:
        """Queue a mark of progress, where asked for: an object of the kind with nothing but a resourceVersion."""
        if self._bookmarks:
            meta: Json = {"resourceVersion": str(version), "creationTimestamp": None}
            tree: Json = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": meta}
            if self._resource == PODS:
                tree |= {"spec": {"containers": None}, "status": {}}
            self._send("BOOKMARK", msgspec.json.encode(tree))

    def end(self) -> None:
        """End the stream after what is queued."""
        self._lines.put_nowait(None)

    async def serve(self, response: web.StreamResponse, store: Store, *, lifetime: float, interval: float) -> None:
        """Send until the watch ends or ``lifetime`` seconds are over, with a bookmark every ``interval`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + lifetime
        bookmark_at = _next_bookmark(loop.time(), interval, deadline)
        while True:
            try:
                async with asyncio.timeout_at(min(deadline, bookmark_at)):
                    packet = await self._packet()
            except TimeoutError:
                if loop.time() >= deadline:
                    return
                self.bookmark(store.version)
                bookmark_at = _next_bookmark(loop.time(), interval, deadline)
                continue
            if not packet:
                return
            await response.write(packet)

    async def _packet(self) -> bytes:
        """The lines that wait, as many as make a packet; empty at the end of the stream."""
        line = await self._lines.get()
        packet = bytearray()
        while line is not None:
            packet += line
            if self._lines.empty() or len(packet) > _PACKET_BYTES:
                return bytes(packet)
            line = self._lines.get_nowait()
        if packet:
            self.end()
        return bytes(packet)

    def _send(self, kind: str, raw: bytes) -> None:
        self._lines.put_nowait(b'{"type":"%b","object":%b}\n' % (kind.encode(), raw))


def _next_bookmark(now: float, interval: float, deadline: float) -> float:
    """One each interval, and one two seconds before the end: nextBookmarkTime in apiserver/pkg/storage/cacher."""
    last = deadline - _LAST_BOOKMARK_SECONDS
    return min(now + interval, last) if last > now else now + interval
