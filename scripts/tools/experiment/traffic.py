"""The work that arrives: seeded, the same for every arm. Pure.

Owns when a task arrives, how long it takes, whose it is, and which blocks it reads. Nothing here knows of nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from extender.simulate.cache import Popularity

Block = tuple[int, int]
"""(whose, number)."""

TENANTS = 8
TENANT_EXPONENT = 1.0
BLOCKS_PER_TENANT = 500
BLOCK_EXPONENT = 0.8
READS_PER_TASK = 40
SHORTEST, LONGEST = 0.2, 4.0
"""No task is shorter or longer than this, in mean durations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work. ``at`` and ``duration`` in seconds, ``tenant`` is whose data it reads."""

    number: int
    at: float
    duration: float
    tenant: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How tasks arrive. Times in seconds.

    ``at_once``: tasks that run at once on average, without bursts. ``mean``: their mean duration. ``swing``: the rate
    goes up and down by this part of itself, in waves of ``period`` (0: level). ``burst``: further tasks in each period,
    all within ``burst_within`` from a random moment of it (0: none).
    """

    at_once: float
    mean: float
    period: float
    swing: float = 0.0
    burst: int = 0
    burst_within: float = 10.0


def arrivals(traffic: Traffic, seed: int, seconds: float) -> tuple[Task, ...]:
    """Return the tasks of ``seconds``, by time of arrival. The same seed makes the same tasks."""
    times = sorted([*_steady(traffic, Random(f"{seed} steady"), seconds), *_bursts(traffic, seed, seconds)])
    random = Random(f"{seed} tasks")
    whose = Popularity(TENANTS, TENANT_EXPONENT)
    tasks = []
    for number, at in enumerate(times):
        duration = min(max(random.expovariate(1.0), SHORTEST), LONGEST) * traffic.mean
        tasks.append(Task(number=number, at=at, duration=duration, tenant=whose.draw(random)))
    return tuple(tasks)


def _steady(traffic: Traffic, random: Random, seconds: float) -> Iterator[float]:
    """Poisson arrivals whose rate swings: drawn at the highest rate, and thinned."""
    mean_rate = traffic.at_once / traffic.mean
    highest = mean_rate * (1 + traffic.swing)
    now = 0.0
    while (now := now + random.expovariate(highest)) < seconds:
        rate = mean_rate * (1 + traffic.swing * math.sin(2 * math.pi * now / traffic.period))
        if random.random() * highest < rate:
            yield now


def _bursts(traffic: Traffic, seed: int, seconds: float) -> Iterator[float]:
    random = Random(f"{seed} bursts")
    for number in range(math.ceil(seconds / traffic.period)):
        begin = (number + random.uniform(0.1, 0.7)) * traffic.period
        for _ in range(traffic.burst):
            if (at := begin + random.random() * traffic.burst_within) < seconds:
                yield at


@cache
def blocks_of(seed: int, number: int, tenant: int) -> tuple[Block, ...]:
    """Return the blocks that a task reads, in this order: the same however often and wherever it runs."""
    random = Random(f"{seed} blocks {number}")
    popular = _block_popularity()
    return tuple((tenant, popular.draw(random)) for _ in range(READS_PER_TASK))


@cache
def _block_popularity() -> Popularity:
    return Popularity(BLOCKS_PER_TENANT, BLOCK_EXPONENT)
