"""Complete lists of one look. Owns paging without a watch; keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from extender.kube.api_client import KubeClient
from extender.kube.codec import Codec
from extender.kube.errors import Unavailable
from extender.kube.objects import ObjectMeta
from extender.kube.watch import PAGE_SIZE

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


class AnyObject(msgspec.Struct):
    """An object of any kind, reduced to its metadata."""

    metadata: ObjectMeta


async def list_objects(
    client: KubeClient,
    path: str,
    struct: type[S],
    trim: Callable[[S], T],
    *,
    label_selector: str = "",
    field_selector: str = "",
) -> list[T]:
    """List a whole collection, as of one resourceVersion.

    Raises:
        KubeError: it is not complete, or an object in it cannot be read: then nothing is known.
    """
    codec = Codec(struct, trim)
    items: list[T] = []
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    params = {"limit": str(PAGE_SIZE)} | {key: value for key, value in selectors.items() if value}
    while True:
        page = codec.page(await client.get_bytes(path, params=params))
        if page.skipped:
            raise Unavailable(200, "Unreadable", f"{path}: {page.skipped[0]}")
        items.extend(page.items)
        if not page.continue_:
            return items
        params["continue"] = page.continue_


async def list_uids(client: KubeClient, path: str) -> set[str]:
    """List the UIDs of a whole collection. Raises `KubeError`: then nothing is known."""
    return set(await list_objects(client, path, AnyObject, lambda item: item.metadata.uid))
