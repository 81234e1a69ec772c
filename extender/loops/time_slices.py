"""Long work in slices, so that a process that also answers a scheduler does so in between.

Owns how long a slice is. The work is a generator that stops after each step; a step is to be much shorter than a slice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

SLICE = timedelta(milliseconds=3)


async def in_slices(steps: Generator[None, None, T], length: timedelta = SLICE) -> T:
    """Take the steps one after the other, let others run after each 3 ms, and give what the generator returns."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + length.total_seconds()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if loop.time() >= ends:
            await asyncio.sleep(0)
            ends = loop.time() + length.total_seconds()
