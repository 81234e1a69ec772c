"""The work that arrives: seeded, the same for every arm. Pure.

Owns when a task arrives, how much work it is and which model it needs. Nothing here knows of nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from extender.simulate.cache import Popularity

MODELS = 74
MODEL_EXPONENT = 1.25
"""The three most popular models have 31, 13 and 8 of 100 tasks."""
SHORTEST, LONGEST = 0.2, 4.0
"""No task is less or more work than this, in means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work. ``at`` in seconds from the start of the run; ``work`` in seconds, without the loading."""

    number: int
    at: float
    work: float
    model: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How tasks arrive: ``rate`` a second on average, of ``work`` seconds on average.

    The rate goes up and down by the part ``swing`` of itself, in waves of ``period`` seconds. ``rises`` is a second at
    which it is average and goes up.
    """

    rate: float
    work: float
    period: float
    swing: float = 0.0
    rises: float = 0.0


def arrivals(traffic: Traffic, seed: int, seconds: float) -> tuple[Task, ...]:
    """Return the tasks of ``seconds``, by time of arrival. The same seed makes the same tasks."""
    random = Random(f"{seed} tasks")
    models = Popularity(MODELS, MODEL_EXPONENT)
    tasks = []
    for number, at in enumerate(_times(traffic, Random(f"{seed} times"), seconds)):
        work = min(max(random.expovariate(1.0), SHORTEST), LONGEST) * traffic.work
        tasks.append(Task(number=number, at=at, work=work, model=models.draw(random)))
    return tuple(tasks)


def _times(traffic: Traffic, random: Random, seconds: float) -> Iterator[float]:
    """Poisson arrivals whose rate swings: drawn at the highest rate, and thinned."""
    highest = traffic.rate * (1 + traffic.swing)
    now = 0.0
    while (now := now + random.expovariate(highest)) < seconds:
        rate = traffic.rate * (1 + traffic.swing * math.sin(2 * math.pi * (now - traffic.rises) / traffic.period))
        if random.random() * highest < rate:
            yield now
