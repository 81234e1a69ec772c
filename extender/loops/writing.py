"""Many writes to the API server: a few at a time, and none more once it is in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 8


async def write_all(
    writes: Iterable[T], write_one: Callable[[T], Awaitable[bool]], may_write: Callable[[], bool]
) -> bool:
    """Write all, while ``may_write``. ``write_one`` says whether the API server is well. False: the rest waits."""
    limit = asyncio.Semaphore(AT_ONCE)
    healthy = True

    async def one(write: T) -> None:
        nonlocal healthy
        async with limit:
            if healthy and may_write():
                healthy = await write_one(write)

    async with asyncio.TaskGroup() as group:
        for write in writes:
            group.create_task(one(write), name="write")
    return healthy
