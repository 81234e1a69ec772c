"""Simulates what the documentation says about cache keys, and writes its tables.

1. The trial: each rule under two kinds of traffic and two sizes of cache, beside the numbers of an earlier model that
was written by others for the same question. 2. How fast counts should fade. 3. What a restart costs. 4. How many keys
are worth remembering. 5. What the working set is worth. All together take about six minutes of two cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from random import Random

from extender.policy.affinity import HALF_LIFE, KEYS_PER_NODE, KeyHistory
from extender.settings import format_duration
from extender.simulate.pool import PoolShape
from extender.simulate.rules import OldestFirst, Order, Rule, parse_rule, placement
from extender.simulate.run import simulate
from extender.simulate.tally import RunOutcome
from extender.simulate.workload import Arrivals, DataSets, Job, Traffic, make_jobs
from scripts.tools.benchmarks.report import with_section

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "simulate.md"
SEEDS = (1, 2)
RULES = tuple(map(parse_rule, ("spread", "most-allocated", "oldest", "window:3", "window:5", "window:8")))
"""Those of the earlier model."""
SETS = tuple(map(parse_rule, ("most-allocated", "oldest", "window:5", "set:0.05", "set:0.1", "set:0.2")))
WINDOW = 5

DAILY = Arrivals(jobs=21_600)
BURSTS = Arrivals(traffic=Traffic.BURSTS, jobs=36_000)
THREE_DAYS = replace(DAILY, period=timedelta(hours=72), jobs=3 * DAILY.jobs)
SLOW = replace(THREE_DAYS, jobs=THREE_DAYS.jobs // 12, duration=timedelta(hours=1))
DATA = DataSets()
MANY_KEYS = replace(DATA, keys=1000, key_skew=0.8)
LARGE, SMALL = PoolShape(cache_blocks=1000), PoolShape(cache_blocks=500)
NEVER = timedelta(days=365_000_000)
"""Counts with this half-life differ by time so little that it decides nothing."""
MOVING = timedelta(hours=6)

EARLIER = {
    ("daily wave", "large"): "380 .580 / 403 .577|276 .527 / 279 .519|279 .574 / 281 .573|283 .640 / 284 .638"
    "|285 .670 / 285 .662|288 .692 / 291 .691",
    ("hourly bursts", "large"): "831 .541 / 824 .543|494 .365 / 500 .357|505 .481 / 509 .474|507 .523 / 512 .515"
    "|511 .544 / 517 .541|519 .569 / 520 .561",
    ("daily wave", "small"): "380 .421 / 403 .421|276 .407 / 279 .404|279 .415 / 281 .414|283 .480 / 284 .478"
    "|285 .519 / 285 .507|288 .546 / 291 .540",
    ("hourly bursts", "small"): "831 .407 / 824 .408|494 .335 / 500 .331|505 .363 / 509 .359|507 .404 / 512 .398"
    "|511 .429 / 517 .425|519 .456 / 520 .449",
}
"""Node-hours and hit ratio of the earlier model, for two seeds, in the order of `RULES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run. ``half_life`` None: counts never fade. ``moving``: which keys are popular changes every `MOVING`."""

    arrivals: Arrivals
    seed: int = 1
    data: DataSets = DATA
    shape: PoolShape = LARGE
    rule: Rule = Rule(order=Order.OLDEST, window=WINDOW)  # noqa: RUF009 - frozen
    half_life: timedelta | None = HALF_LIFE
    keys_per_node: int = KEYS_PER_NODE
    moving: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cases on two cores and write the tables."""
    parser = argparse.ArgumentParser(prog="scripts/trial", description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write them into docs/{DOCUMENT.name}")
    parser.add_argument("--only", choices=TABLES, nargs="+", default=TABLES, help="these tables (default: all)")
    options = parser.parse_args(arguments)
    cases = list(dict.fromkeys(case for name in options.only for case in _cases(TABLES[name][0])))
    with ProcessPoolExecutor(2) as processes:
        found: dict[Case, RunOutcome] = {}
        for case, outcome in zip(cases, processes.map(run, cases), strict=True):
            found[case] = outcome
            print(f"\r{len(found)} of {len(cases)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    sections = {name: _trial(found) if name == "trial" else _table(*TABLES[name], found) for name in options.only}
    if not options.write:
        print("\n\n".join(f"{name}\n\n{text}" for name, text in sections.items()))
        return 0
    document = DOCUMENT.read_text(encoding="utf-8")
    for name, text in sections.items():
        document = with_section(document, name, text)
    DOCUMENT.write_text(document, encoding="utf-8")
    return 0


def run(case: Case) -> RunOutcome:
    """Run one case."""
    jobs = _jobs(case.arrivals, case.data, case.seed)
    if case.moving:
        jobs = _moved(jobs, case)
    if case.rule.order is Order.OLDEST:
        half_life = case.half_life or NEVER
        rule = OldestFirst(case.rule, lambda: KeyHistory(keys_per_node=case.keys_per_node, half_life=half_life))
        return simulate(jobs, case.shape, rule)
    return simulate(jobs, case.shape, placement(case.rule, Random(case.seed)))  # noqa: S311 - a model


@cache
def _jobs(arrivals: Arrivals, data: DataSets, seed: int) -> list[Job]:
    return make_jobs(arrivals, data, Random(seed))  # noqa: S311 - a model


def _moved(jobs: list[Job], case: Case) -> list[Job]:
    """Give the jobs of each key to another key, a new one every `MOVING`; a key keeps its data."""
    moved = []
    names = sorted({job.key for job in jobs})
    for job in jobs:
        others = list(range(case.data.keys))
        Random(int(job.arrives // MOVING.total_seconds())).shuffle(others)  # noqa: S311 - a model
        place = names.index(job.key)
        target = others[place]
        first = min(job.blocks) // case.data.blocks * case.data.blocks if job.blocks else 0
        blocks = tuple(block - first + target * case.data.blocks for block in job.blocks)
        moved.append(replace(job, key=f"key-{target}", blocks=blocks))
    return moved


# -- the tables -------------------------------------------------------------------------------------------------------

Rows = dict[str, dict[str, Case]]
"""Row to column to case."""


def _trial_cases() -> Rows:
    rows: Rows = {}
    for words, shape in (("large", LARGE), ("small", SMALL)):
        for traffic, arrivals in (("daily wave", DAILY), ("hourly bursts", BURSTS)):
            rows[f"{traffic}, {words}"] = {
                f"{rule} {seed}": Case(arrivals=arrivals, seed=seed, shape=shape, rule=rule)
                for rule in RULES
                for seed in SEEDS
            }
    return rows


def _loads(make: Callable[[Case], Case]) -> dict[str, Case]:
    return {
        "daily wave": make(Case(arrivals=DAILY)),
        "hourly bursts": make(Case(arrivals=BURSTS)),
        "three days": make(Case(arrivals=THREE_DAYS)),
        "three days, popularity moves": make(Case(arrivals=THREE_DAYS, moving=True)),
        "three days, jobs of an hour": make(Case(arrivals=SLOW)),
    }


def _fading() -> Rows:
    rows: Rows = {"age only (window 1)": _loads(lambda case: replace(case, rule=Rule(order=Order.OLDEST)))}
    for minutes in (None, 480, 120, 60, 30, 15):
        half_life = timedelta(minutes=minutes) if minutes is not None else None
        words = format_duration(half_life) if half_life is not None else "none: counts never fade"
        rows[f"**{words}**" if half_life == HALF_LIFE else words] = _loads(
            lambda case, half_life=half_life: replace(case, half_life=half_life)  # type: ignore[misc]
        )
    return rows


def _restarts() -> Rows:
    def every(hours: int | None) -> Callable[[Case], Case]:
        restart = timedelta(hours=hours) if hours is not None else None
        return lambda case: replace(case, shape=replace(case.shape, restart_every=restart))

    words = {None: "never", 24: "every 24h", 6: "every 6h", 1: "every hour"}
    return {text: _loads(every(hours)) for hours, text in words.items()}


def _bounds() -> Rows:
    rows: Rows = {}
    for bound in (4, 16, KEYS_PER_NODE, 1000):
        rows[f"**{bound}**" if bound == KEYS_PER_NODE else str(bound)] = {
            "60 keys, three days": Case(arrivals=THREE_DAYS, keys_per_node=bound),
            "1,000 keys, three days": Case(arrivals=THREE_DAYS, keys_per_node=bound, data=MANY_KEYS),
            "1,000 keys, hourly bursts": Case(arrivals=BURSTS, keys_per_node=bound, data=MANY_KEYS),
        }
    return rows


def _sets() -> Rows:
    """Give pools of all sizes and jobs of three lengths, each with the traffic for so many nodes of so many slots."""
    rows: Rows = {}
    hours = {
        (30, 3, 8): 24,
        (30, 30, 8): 2,
        (300, 3, 8): 24,
        (300, 30, 8): 24,
        (300, 100, 8): 12,
        (3600, 30, 8): 72,
        (3600, 300, 8): 24,
        (300, 30, 2): 24,
        (300, 10, 32): 24,
        (3600, 10, 32): 72,
    }
    for (seconds, nodes, slots), length in hours.items():
        jobs = round(nodes * slots / 1.7 * length * 3600 / seconds)
        arrivals = Arrivals(period=timedelta(hours=length), jobs=jobs, duration=timedelta(seconds=seconds))
        words = f"{format_duration(arrivals.duration)}, {nodes}" + (
            f" of {slots} slots" if slots != LARGE.slots else ""
        )
        data = replace(DATA, keys=20 * nodes)
        shape = replace(LARGE, slots=slots, cache_blocks=LARGE.cache_blocks // LARGE.slots * slots)
        rows[words] = {rule.words: Case(arrivals=arrivals, data=data, shape=shape, rule=rule) for rule in SETS}
    rows["5m, 20, 60 tenants"] = {rule.words: Case(arrivals=DAILY, rule=rule) for rule in SETS}
    rows["5m, 40, bursts, 60 tenants"] = {rule.words: Case(arrivals=BURSTS, rule=rule) for rule in SETS}
    return rows


TABLES: dict[str, tuple[Callable[[], Rows], str]] = {
    "trial": (_trial_cases, "traffic, cache"),
    "fading": (_fading, "half-life of counts"),
    "restarts": (_restarts, "warmnode restarted"),
    "bounds": (_bounds, "keys remembered for a node"),
    "sets": (_sets, "jobs, nodes at the peak"),
}
"""By its name: the cases of a table, and its first column."""


def _cases(table: Callable[[], Rows]) -> Iterator[Case]:
    for row in table().values():
        yield from row.values()


def _trial(found: dict[Case, RunOutcome]) -> str:
    lines = ["| traffic, cache | " + " | ".join(rule.words for rule in RULES) + " |", "| --- |" + " --- |" * len(RULES)]
    for name, row in _trial_cases().items():
        cells = []
        for rule in RULES:
            first, second = (found[row[f"{rule} {seed}"]] for seed in SEEDS)
            cells.append(f"{_short(first)} / {_short(second)}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        traffic, words = name.split(", ")
        lines.append(f"| *earlier model* | {EARLIER[traffic, words].replace('|', ' | ')} |")
    return "\n".join(lines)


def _short(outcome: RunOutcome) -> str:
    return f"{outcome.node_hours:.0f} {outcome.hit_ratio:.3f}".replace(" 0.", " .")


def _table(table: Callable[[], Rows], corner: str, found: dict[Case, RunOutcome]) -> str:
    rows = table()
    columns = list(next(iter(rows.values())))
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(_short(found[row[column]]) for column in columns) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
