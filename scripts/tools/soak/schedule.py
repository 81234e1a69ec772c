"""Which fault and which job comes when: drawn from a seed, so that a run can be repeated. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from scripts.tools.experiment.traffic import LONGEST, Task, Traffic, arrivals
from scripts.tools.soak.faults import Fault

FIRST_AT = 20.0
"""By then workers run, and the reapers have a leader."""
APART = (1.0, 5.0)
"""Pause after a fault. Every third one does not wait for the end of the one before."""
JOB_SECONDS, WAVE_SECONDS, BURST_SECONDS = 3.0, 40.0, 4.0
SESSION_SECONDS, SESSION_WAVE_SECONDS = 8.0, 90.0
LONGEST_SESSION = LONGEST * SESSION_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One occurrence of a fault, in seconds since the start. ``number`` is its own seed within the run."""

    number: int
    name: str
    at: float
    seconds: float


def plan_faults(faults: Mapping[str, Fault], names: Sequence[str], *, seed: int, until: float) -> tuple[Planned, ...]:
    """Plan faults of these names one after the other, each as often as any other, the last one over by ``until``."""
    random = Random(f"{seed} faults")
    planned: list[Planned] = []
    at = FIRST_AT
    for number, name in enumerate(_endless(names, random)):
        least, most = faults[name].seconds
        seconds = random.uniform(least, most)
        if at + seconds > until:
            break
        planned.append(Planned(number=number, name=name, at=at, seconds=seconds))
        overlaps = number % 3 == 2
        at += seconds * (0.4 if overlaps else 1.0) + random.uniform(*APART)
    return tuple(planned)


def plan_jobs(*, at_once: float, burst: int, seed: int, until: float) -> tuple[Task, ...]:
    """Plan jobs in waves, ``at_once`` at a time on average, and in each wave a burst, for which workers are made."""
    steady = Traffic(rate=at_once / JOB_SECONDS, work=JOB_SECONDS, period=WAVE_SECONDS, swing=0.9)
    tasks = list(arrivals(steady, seed, until))
    random = Random(f"{seed} bursts")
    for wave in range(int(until / WAVE_SECONDS)):
        for _ in range(burst):
            at = (wave + 0.5) * WAVE_SECONDS + random.random() * BURST_SECONDS
            work = random.uniform(1, 2) * JOB_SECONDS
            tasks.append(Task(number=len(tasks), at=at, work=work, model=random.randrange(1000)))
    return tuple(sorted(tasks, key=lambda each: each.at))


def plan_sessions(*, at_once: float, seed: int, until: float) -> tuple[Task, ...]:
    """Plan what the Deployment's workers do: longer work in longer waves, ``at_once`` at a time on average."""
    if not at_once:
        return ()
    rate = at_once / SESSION_SECONDS
    waves = Traffic(rate=rate, work=SESSION_SECONDS, period=SESSION_WAVE_SECONDS, swing=0.9)
    return arrivals(waves, seed, until)


def _endless(names: Sequence[str], random: Random) -> Iterator[str]:
    for _ in itertools.count() if names else ():
        round_of = list(names)
        random.shuffle(round_of)
        yield from round_of
