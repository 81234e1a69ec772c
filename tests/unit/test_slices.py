"""Long work lets others run between its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import timedelta

import pytest

from extender.loops.time_slices import in_slices


async def test_others_run_between_slices() -> None:
    """With a slice that is over at once, somebody else gets a turn after each step; the result comes in the end."""
    turns: list[str] = []

    def steps() -> Generator[None, None, str]:
        for number in range(3):
            turns.append(f"step {number}")
            yield
        return "done"

    async def somebody() -> None:
        while True:
            turns.append("other")
            await asyncio.sleep(0)

    other = asyncio.create_task(somebody())
    assert await in_slices(steps(), timedelta(0)) == "done"
    other.cancel()
    assert turns == ["step 0", "other", "step 1", "other", "step 2", "other"]


async def test_what_a_step_raises_is_raised() -> None:
    def steps() -> Generator[None, None, None]:
        yield
        raise LookupError("of a step")

    with pytest.raises(LookupError, match="of a step"):
        await in_slices(steps())
