"""The cache model: a node keeps the blocks that were read there last. One model for `simulate` and for the experiment.

Owns what a hit is and which blocks are popular. A node's cache is empty when the node is new and is lost with it;
nothing is loaded ahead, and nodes do not ask each other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from itertools import accumulate
from random import Random


class BlockCache:
    """The least recently used cache of one node: it holds ``capacity`` blocks, all of one size."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a cache holds at least one block, not {capacity}")
        self._capacity = capacity
        self._blocks: OrderedDict[Hashable, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def read(self, block: Hashable) -> bool:
        """Read one block through the cache: whether it was there. It is the most recently used one afterwards."""
        hit = block in self._blocks
        self._blocks[block] = None
        self._blocks.move_to_end(block)
        if len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return hit

    def read_all(self, blocks: Iterable[Hashable]) -> int:
        """Read blocks one after the other: how many were there."""
        cache, hits = self._blocks, 0
        for block in blocks:
            if block in cache:
                cache.move_to_end(block)
                hits += 1
            else:
                cache[block] = None
                if len(cache) > self._capacity:
                    cache.popitem(last=False)
        return hits


class Popularity:
    """Zipf's law over ``count`` things: thing number k, from 0, is asked for in proportion to 1 / (k + 1)^exponent."""

    def __init__(self, count: int, exponent: float) -> None:
        if count < 1:
            raise ValueError(f"there is at least one thing to ask for, not {count}")
        self._sums = list(accumulate((rank + 1) ** -exponent for rank in range(count)))

    def draw(self, random: Random, among: int | None = None) -> int:
        """Draw one number from 0 to ``count`` - 1, or one of the first ``among`` of them."""
        return bisect_left(self._sums, random.random() * self._sums[-1 if among is None else among - 1])
