"""List pages and watch events, from bytes to values.

Owns the envelope that all collections share. Decodes twice: the envelope with the object left raw, then the object with
the caller's struct, because a BOOKMARK or an ERROR carries an object that is none. Does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from extender.kube.errors import Unavailable
from extender.kube.watch_reports import UndecodableObject

UNDECODABLE = (msgspec.DecodeError, ValueError, RecursionError)  # ValueError includes UnicodeDecodeError

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


def decode_answer(body: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[T], otherwise: str) -> T:
    """Decode a successful answer. Raises Unavailable, saying that it is ``otherwise``: a proxy may have answered."""
    try:
        return decoder.decode(body)
    except UNDECODABLE as error:
        raise Unavailable(200, "Unreadable", f"the answer is {otherwise}: {error}") from error


def check_answer(body: bytes) -> None:
    """Check that a successful answer, which nobody reads, is some object of an API server. Raises Unavailable."""
    decode_answer(body, _ANY_KIND, "no object")


def decode_part(raw: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Decode a part of an object that anybody may have written. None where it does not fit."""
    try:
        return decoder.decode(raw)
    except UNDECODABLE:
        return None


class Event(msgspec.Struct):
    """One line of a watch. ``type``: ADDED, MODIFIED, DELETED, BOOKMARK, ERROR, and whatever comes later."""

    type: str
    object: msgspec.Raw


class Metadata(msgspec.Struct, rename="camel"):
    """The part of ObjectMeta that following a collection needs. A bookmark has only the ``resource_version``."""

    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""


class _AnyObject(msgspec.Struct):
    metadata: Metadata


class _AnyKind(msgspec.Struct):
    kind: str


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str
    continue_: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct, Generic[S]):
    metadata: _ListMeta
    items: list[S] | None


_EVENT = msgspec.json.Decoder(Event)
_ANY_KIND = msgspec.json.Decoder(_AnyKind)
_ANY_OBJECT = msgspec.json.Decoder(_AnyObject)
_RAW_PAGE = msgspec.json.Decoder(_Page[msgspec.Raw])  # type: ignore[type-var]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a list. ``continue_`` is the token of the next one, empty on the last."""

    items: list[T]
    skipped: list[UndecodableObject]
    resource_version: str
    continue_: str


class Codec(Generic[S, T]):
    """Decodes objects as ``struct`` and reduces them with ``trim``, which may raise ValueError."""

    def __init__(self, struct: type[S], trim: Callable[[S], T]) -> None:
        self._trim = trim
        self._object = msgspec.json.Decoder(struct)
        page: Any = _Page
        self._page: msgspec.json.Decoder[_Page[S]] = msgspec.json.Decoder(page[struct])

    def page(self, body: bytes) -> Page[T]:
        """The objects of a page. Raises Unavailable where it is no list at all.

        An object that cannot be decoded costs a second look at the page, and only itself.
        """
        skipped: list[UndecodableObject] = []
        try:
            whole = self._page.decode(body)
            meta, items = whole.metadata, [self._trim(each) for each in whole.items or ()]
        except UNDECODABLE:
            meta, items = self._one_by_one(body, skipped)
        return Page(items=items, skipped=skipped, resource_version=meta.resource_version, continue_=meta.continue_)

    def item(self, raw: msgspec.Raw) -> T:
        """One object. Raises UndecodableObject."""
        try:
            return self._trim(self._object.decode(raw))
        except UNDECODABLE as error:
            about = metadata(raw)
            key = f"{about.namespace}/{about.name}" if about.namespace else about.name
            raise UndecodableObject(key, about.uid, error) from error

    def _one_by_one(self, body: bytes, skipped: list[UndecodableObject]) -> tuple[_ListMeta, list[T]]:
        try:
            page = _RAW_PAGE.decode(body)
        except UNDECODABLE as error:
            raise Unavailable(0, "Malformed", f"the answer is no list of objects: {error}") from error
        items = []
        for raw in page.items or ():
            try:
                items.append(self.item(raw))
            except UndecodableObject as error:
                skipped.append(error)
        return page.metadata, items


def decode_event(line: bytes) -> Event:
    """One event. Raises Unavailable where the line is none."""
    try:
        return _EVENT.decode(line)
    except UNDECODABLE as error:
        raise Unavailable(0, "Malformed", f"the stream holds something that is no event: {error}") from error


def metadata(raw: msgspec.Raw) -> Metadata:
    """The object's metadata, empty where even that cannot be read."""
    found = decode_part(raw, _ANY_OBJECT)
    return Metadata() if found is None else found.metadata
