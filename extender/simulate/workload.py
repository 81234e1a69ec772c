"""The jobs of a simulation: when each arrives, how long it runs, whose data it reads. Owns how they are made up.

Everything random comes from one generator, so the same parameters and seed are the same jobs, and all rules see them.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from random import Random
from types import MappingProxyType

from extender.simulate.cache import Popularity

DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600


class Traffic(StrEnum):
    """How arrivals are spread over time."""

    DAILY = "daily"
    BURSTS = "bursts"
    CONSTANT = "constant"


class Distribution(StrEnum):
    """How durations, or sizes, are spread around their mean. Heavy-tailed: a lognormal, of which half are less than a
    third of the mean and one in a hundred is more than ten times the mean."""

    EQUAL = "equal"
    EXPONENTIAL = "exponential"
    HEAVY = "heavy"


_SIGMA = 1.5
MOST_BLOCKS = 1_000_000
"""Of one key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One worker's life, in seconds; ``arrives`` from the beginning. ``blocks`` are what it reads, each once.

    ``key`` is empty for a job without a key: age alone places it, and it reads nothing.
    """

    arrives: float
    lasts: float
    key: str
    blocks: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When jobs come: ``jobs`` are expected in ``period``. ``duration`` is their mean.

    ``swing`` is for daily traffic: 0.7 is a peak of 1.7 times and a low of 0.3 times the mean. ``burst`` and
    ``burst_factor`` are for bursts: so long in each hour there are so many times as many jobs as in the rest of it.
    """

    traffic: Traffic = Traffic.DAILY
    period: timedelta = timedelta(hours=24)
    jobs: int = 21_600
    duration: timedelta = timedelta(minutes=5)
    durations: Distribution = Distribution.EXPONENTIAL
    swing: float = 0.7
    burst: timedelta = timedelta(minutes=20)
    burst_factor: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSets:
    """Whose data is read: ``keys`` of Zipf popularity, each with blocks of its own, of Zipf popularity too.

    A key has ``blocks`` in the mean, whatever its popularity. Of one that has so many a job draws ``reads``, of a
    larger or smaller one in proportion: all where that is as many as there are. One that it draws twice it reads once.
    """

    keys: int = 60
    key_skew: float = 1.0
    blocks: int = 100
    sizes: Distribution = Distribution.EQUAL
    block_skew: float = 1.0
    reads: int = 20


class BlockDrawer:
    """Draws blocks of keys. No two keys share one; a key gets its own when it is first asked for.

    ``sizes`` are what is known of how many blocks keys have; those of others are drawn.
    """

    def __init__(self, data: DataSets, random: Random, sizes: Mapping[str, int] = MappingProxyType({})) -> None:
        self._data = data
        self._random = random
        self._sizes = sizes
        self._draw_size = _draws(data.sizes, data.blocks, random)
        self._popularity = Popularity(data.blocks, data.block_skew)
        self._largest = data.blocks
        self._of: dict[str, range] = {}
        self._given = 0

    def draw(self, key: str, reads: int | None = None) -> Sequence[int]:
        """Draw so many blocks, None: as many as `DataSets` says. As many as there are: each once. No key: none."""
        if not key:
            return ()
        own = self._of.get(key)
        if own is None:
            own = self._of[key] = self._new(key)
        if reads is None:
            usual = self._data.reads
            reads = max(min(usual, 1), round(usual * len(own) / self._data.blocks))
        if reads >= len(own):
            return own
        draw, random, first, size = self._popularity.draw, self._random, own.start, len(own)
        return array("Q", dict.fromkeys(first + draw(random, size) for _ in range(reads)))

    def _new(self, key: str) -> range:
        size = self._sizes.get(key) or min(max(1, round(self._draw_size())), MOST_BLOCKS)
        if size > self._largest:
            self._largest, self._popularity = size, Popularity(size, self._data.block_skew)
        self._given += size
        return range(self._given - size, self._given)


def make_jobs(arrivals: Arrivals, data: DataSets, random: Random) -> list[Job]:
    """Make up jobs, in order of arrival."""
    popularity = Popularity(data.keys, data.key_skew)
    names = [f"key-{number:0{len(str(data.keys))}}" for number in range(1, data.keys + 1)]
    drawer = BlockDrawer(data, random)
    draw = _draws(arrivals.durations, arrivals.duration.total_seconds(), random)
    jobs = []
    for arrives in _arrival_times(arrivals, random):
        key = names[popularity.draw(random)]
        blocks = drawer.draw(key)
        jobs.append(Job(arrives=arrives, lasts=draw(), key=key, blocks=blocks))
    return jobs


def _draws(distribution: Distribution, mean: float, random: Random) -> Callable[[], float]:
    match distribution:
        case Distribution.EQUAL:
            return lambda: mean
        case Distribution.EXPONENTIAL:
            return lambda: random.expovariate(1 / mean)
        case Distribution.HEAVY:
            return lambda: random.lognormvariate(math.log(mean) - _SIGMA**2 / 2, _SIGMA)


def _arrival_times(arrivals: Arrivals, random: Random) -> Iterable[float]:
    """Draw a Poisson process whose rate follows the traffic, by thinning one of the highest rate."""
    period = arrivals.period.total_seconds()
    intensity = _intensity(arrivals)
    minutes = range(0, math.ceil(period), 60)
    highest = max(map(intensity, range(0, DAY_SECONDS, 60)))
    rate = arrivals.jobs / period / (sum(map(intensity, minutes)) / len(minutes))
    time = 0.0
    while (time := time + random.expovariate(rate * highest)) < period:
        if random.random() * highest < intensity(time):
            yield time


def _intensity(arrivals: Arrivals) -> Callable[[float], float]:
    """Give the rate of arrivals at a second of the simulation, in no particular unit. Daily traffic begins low."""
    match arrivals.traffic:
        case Traffic.DAILY:
            return lambda second: 1 - arrivals.swing * math.cos(2 * math.pi * second / DAY_SECONDS)
        case Traffic.BURSTS:
            burst_seconds = arrivals.burst.total_seconds()
            return lambda second: arrivals.burst_factor if second % HOUR_SECONDS < burst_seconds else 1.0
        case Traffic.CONSTANT:
            return lambda second: 1.0
