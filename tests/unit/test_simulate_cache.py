"""The cache model: what is a hit, what is forgotten, and how popular blocks are."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.simulate.cache import BlockCache, Popularity


def hits(capacity: int, blocks: list[int]) -> list[bool]:
    cache = BlockCache(capacity)
    return [cache.read(block) for block in blocks]


def test_cache_first_read_misses_second_hits() -> None:
    """A block is there once it was read."""
    assert hits(2, [1, 1, 2, 1]) == [False, True, False, True]


def test_cache_forgets_the_block_read_longest_ago() -> None:
    """Reading a block keeps it: 1 was read after 2, so 2 goes when 3 comes."""
    assert hits(2, [1, 2, 1, 3, 1, 2]) == [False, False, True, False, True, False]


@given(st.integers(1, 8), st.lists(st.integers(0, 12), max_size=80))
def test_cache_hits_exactly_the_last_distinct_blocks(capacity: int, blocks: list[int]) -> None:
    """A read hits if and only if the block is among the ``capacity`` distinct blocks that were read last."""
    for at, hit in enumerate(hits(capacity, blocks)):
        last_distinct = list(dict.fromkeys(reversed(blocks[:at])))[:capacity]
        assert hit == (blocks[at] in last_distinct)


@given(st.integers(1, 8), st.lists(st.integers(0, 12), max_size=80))
def test_cache_larger_never_hits_less(capacity: int, blocks: list[int]) -> None:
    """Whatever hits in a cache hits in a larger one."""
    assert all(
        not small or large for small, large in zip(hits(capacity, blocks), hits(capacity + 1, blocks), strict=True)
    )


@given(st.integers(1, 50), st.floats(0, 2), st.integers())
def test_popularity_draws_what_there_is(count: int, exponent: float, seed: int) -> None:
    """Every drawn number names one of the things."""
    assert 0 <= Popularity(count, exponent).draw(Random(seed)) < count


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0, 2), st.integers())
def test_popularity_among_the_first_is_that_of_so_many(count: int, among: int, exponent: float, seed: int) -> None:
    """Whatever else there is, among the first few each is drawn as often as if they were all."""
    all_of_them, random, other = Popularity(count + among, exponent), Random(seed), Random(seed)
    assert all_of_them.draw(random, among) == Popularity(among, exponent).draw(other)


def test_popularity_follows_zipf() -> None:
    """With exponent 1 the first is drawn twice as often as the second, and three times as often as the third."""
    popularity, random = Popularity(3, 1.0), Random(7)
    drawn = Counter(popularity.draw(random) for _ in range(11_000))
    assert [round(drawn[each] / 1000) for each in range(3)] == [6, 3, 2]


@pytest.mark.parametrize("make", [lambda: BlockCache(0), lambda: Popularity(0, 1.0)])
def test_sizes_of_zero_are_refused(make: object) -> None:
    """Nothing to hold and nothing to ask for are mistakes of the caller."""
    with pytest.raises(ValueError, match="at least one"):
        make()  # type: ignore[operator]
