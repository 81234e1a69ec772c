"""Complete lists of one look. Owns paging without a watch; keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from extender.kube.client import KubeClient
from extender.kube.errors import Unavailable
from extender.kube.objects import ObjectMeta
from extender.kube.watch import PAGE_SIZE

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


class _ListMeta(msgspec.Struct, rename={"continue_": "continue"}):
    continue_: str = ""


class _Page(msgspec.Struct, Generic[S]):
    metadata: _ListMeta
    items: list[S] | None = None


class AnyObject(msgspec.Struct):
    """An object of any kind, reduced to its metadata."""

    metadata: ObjectMeta


async def list_objects(
    client: KubeClient, path: str, struct: type[S], trim: Callable[[S], T], *, label_selector: str = ""
) -> list[T]:
    """List a whole collection, as of one resourceVersion. Raises `KubeError`: then nothing is known."""
    page_type: Any = _Page
    decoder: msgspec.json.Decoder[_Page[S]] = msgspec.json.Decoder(page_type[struct])
    items: list[T] = []
    params = {"limit": str(PAGE_SIZE)} | ({"labelSelector": label_selector} if label_selector else {})
    while True:
        body = await client.get_bytes(path, params=params)
        try:
            page = decoder.decode(body)
        except msgspec.DecodeError as error:
            raise Unavailable(200, "Unreadable", f"{path}: the list cannot be read: {error}") from error
        items.extend(trim(item) for item in page.items or ())
        if not page.metadata.continue_:
            return items
        params["continue"] = page.metadata.continue_


async def list_uids(client: KubeClient, path: str) -> set[str]:
    """List the UIDs of a whole collection. Raises `KubeError`: then nothing is known."""
    return set(await list_objects(client, path, AnyObject, lambda item: item.metadata.uid))
