"""docs/experiment.md out of the records: tables between its markers, and one plot for each workload.

Owns what is put beside what. Every number is a median over the seeds with the lowest and the highest in brackets, and
differences are taken seed by seed, so that what is particular to a seed drops out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from scripts.tools.benchmarks.figures import ratios, shown
from scripts.tools.benchmarks.report import Table, with_section
from scripts.tools.experiment.arms import ARMS
from scripts.tools.experiment.conditions import SAMPLE_SECONDS
from scripts.tools.experiment.frontier import at_equal_cost
from scripts.tools.experiment.measures import (
    CACHES,
    Figures,
    figures,
    lifetimes,
    quick_binds,
    start_ages,
    why_disturbed,
)
from scripts.tools.experiment.plots import Panel, Series, draw
from scripts.tools.experiment.record import Record
from scripts.tools.experiment.workloads import WORKLOADS

BASE = "default"
BASES = ("default", "packing")
"""Arms whose lines the others are held against."""
Point = tuple[int, str]
"""(consolidateAfter in seconds, arm)."""
Measured = Mapping[Point, Mapping[int, Figures]]
"""Figures by point and seed."""


def write(records: Sequence[Record], docs: Path) -> list[Path]:
    """Write the document's tables and the plots. Returns the files. Raises ValueError where there are no records."""
    if not records:
        raise ValueError("there are no records of reported seeds: carry out `scripts/experiment run` first")
    document = docs / "experiment.md"
    text = with_section(document.read_text(), "conditions", _conditions(records))
    written = [document]
    for name, workload in WORKLOADS.items():
        own = [record for record in records if record.run.workload == name]
        if not own:
            continue
        measured = by_point(own)
        tables = [
            _cost(measured),
            _warmth(measured),
            _equal_cost(measured),
            _distributions(own),
            _suffering(measured),
        ]
        plot = docs / "experiment" / f"{name}.svg"
        plot.write_text(draw(_panels(measured)))
        written.append(plot)
        image = f"![{workload.title}: node-seconds against block hits](experiment/{plot.name})"
        text = with_section(text, name, "\n\n".join([image, *(table.markdown() for table in tables)]))
    document.write_text(text)
    return written


def by_point(records: Iterable[Record]) -> dict[Point, dict[int, Figures]]:
    """Measure the records of one workload, in the order of consolidateAfter and of the arms."""
    order = list(ARMS)
    found: dict[Point, dict[int, Figures]] = {}
    for record in sorted(
        records, key=lambda each: (each.run.consolidate_after, order.index(each.run.arm), each.run.seed)
    ):
        point = (record.run.consolidate_after, record.run.arm)
        found.setdefault(point, {})[record.run.seed] = figures(record)
    return found


def _against_base(measured: Measured, point: Point) -> list[tuple[Figures, Figures]]:
    """Pair each run with the default scheduler's at the same consolidateAfter and seed."""
    base = measured.get((point[0], BASE), {})
    return [(each, base[seed]) for seed, each in measured[point].items() if seed in base]


def _cost(measured: Measured) -> Table:
    rows = []
    for point, runs in measured.items():
        all_of_it = list(runs.values())
        pairs = _against_base(measured, point) if point[1] != BASE else []
        costs = ratios([each.node_seconds for each, _ in pairs], [base.node_seconds for _, base in pairs])
        rows.append(
            (
                f"{point[0]} s",
                ARMS[point[1]].title,
                str(len(runs)),
                shown([each.node_seconds for each in all_of_it], 0),
                shown(costs) if costs else "1",
                shown([each.used for each in all_of_it]),
                shown([float(each.nodes_created) for each in all_of_it], 0),
            )
        )
    head = ("after", "arm", "runs", "node-seconds", "/ default", "slots used", "nodes created")
    return Table(title="Cost", head=head, rows=tuple(rows), labels=2)


def _warmth(measured: Measured) -> Table:
    rows = []
    for point, runs in measured.items():
        pairs = _against_base(measured, point) if point[1] != BASE else []
        row = [f"{point[0]} s", ARMS[point[1]].title]
        for cache in CACHES:
            row.append(shown([each.hits[cache] for each in runs.values()], 3))
            row.append(_signed([each.hits[cache] - base.hits[cache] for each, base in pairs]))
        row += [shown([each.fetched[cache] or 0.0 for each in runs.values()], 1) for cache in CACHES]
        rows.append(tuple(row))
    hits = [head for cache in CACHES for head in (f"hits, {cache} cache", "- default")]
    head = ("after", "arm", *hits, *(f"blocks fetched a task, {cache}" for cache in CACHES))
    return Table(title="Warmth", head=head, rows=tuple(rows), labels=2)


def _distributions(records: Sequence[Record]) -> Table:
    rows = []
    for point in by_point(records):
        own = [each for each in records if (each.run.consolidate_after, each.run.arm) == point]
        lives = [life for record in own for life in lifetimes(record)]
        went = [length for length, gone in lives if gone]
        ages = [age for record in own for age in start_ages(record)]
        rows.append(
            (
                f"{point[0]} s",
                ARMS[point[1]].title,
                _quartiles(went),
                f"{len(went)} of {len(lives)}",
                _quartiles(ages),
            )
        )
    head = ("after", "arm", "lifetime of nodes that went, s", "nodes that went", "age of the node as work starts, s")
    return Table(title="Nodes: quartiles over all runs (25 % / 50 % / 75 %)", head=head, rows=tuple(rows), labels=2)


def _suffering(measured: Measured) -> Table:
    rows = []
    for point, runs in measured.items():
        all_of_it = list(runs.values())
        rows.append(
            (
                f"{point[0]} s",
                ARMS[point[1]].title,
                shown([float(each.pods_created) for each in all_of_it], 0),
                shown([float(each.evicted) for each in all_of_it], 0),
                shown([float(each.disturbed) for each in all_of_it], 0),
                shown([each.time_to_place or 0.0 for each in all_of_it], 2),
                shown([each.time_to_place_p95 or 0.0 for each in all_of_it], 1),
                shown([each.wait or 0.0 for each in all_of_it], 1),
                shown([each.wait_p95 or 0.0 for each in all_of_it], 1),
            )
        )
    waits = ("time to place, s: median", "95 %", "wait for a start, s: mean", "95 %")
    head = ("after", "arm", "pods created", "pods evicted", "tasks interrupted", *waits)
    return Table(title="What it meant for the work", head=head, rows=tuple(rows), labels=2)


def _equal_cost(measured: Measured) -> Table:
    arms = [arm for arm in dict.fromkeys(arm for _, arm in measured) if arm != BASE]
    rows = []
    for arm in arms:
        for cache in CACHES:
            row = [ARMS[arm].title, cache]
            for base in BASES:
                above = _above(measured, base, arm, cache) if base != arm else []
                row += [str(len(above)), _signed(above)]
            rows.append(tuple(row))
    against = [head for base in BASES for head in ("points", f"- {ARMS[base].title}")]
    return Table(
        title="Hits at equal node-seconds, above another arm's line",
        head=("arm", "cache", *against),
        rows=tuple(rows),
        labels=2,
    )


def _above(measured: Measured, base: str, arm: str, cache: str) -> list[float]:
    """Hold the arm's points against the base's line, seed by seed."""
    afters = sorted({after for after, _ in measured})
    return [
        difference
        for seed in sorted({seed for runs in measured.values() for seed in runs})
        for difference in at_equal_cost(
            _curve(measured, base, afters, seed, cache), _curve(measured, arm, afters, seed, cache)
        )
    ]


def _curve(measured: Measured, arm: str, afters: Iterable[int], seed: int, cache: str) -> list[tuple[float, float]]:
    points = [measured.get((after, arm), {}).get(seed) for after in afters]
    return [(each.node_seconds, each.hits[cache]) for each in points if each is not None]


def _panels(measured: Measured) -> list[Panel]:
    arms = list(dict.fromkeys(arm for _, arm in measured))
    panels = []
    for cache, blocks in CACHES.items():
        series = []
        for arm in arms:
            runs = [runs for (_, of), runs in measured.items() if of == arm]
            series.append(
                Series(
                    name=ARMS[arm].title,
                    points=tuple((x.node_seconds, x.hits[cache]) for each in runs for x in each.values()),
                    line=tuple(
                        (
                            median(x.node_seconds for x in each.values()),
                            median(x.hits[cache] for x in each.values()),
                        )
                        for each in runs
                    ),
                )
            )
        title = f"{cache} caches ({blocks:,} blocks)"
        panels.append(Panel(title=title, x="node-seconds", y="block hits", series=tuple(series)))
    return panels


def _conditions(records: Sequence[Record]) -> str:
    seeds = sorted({each.run.seed for each in records})
    first, last = min(each.began for each in records), max(each.began for each in records)
    samples = [sample for each in records for sample in each.conditions.samples]
    own = [sum(each.conditions.own.values()) / each.run.seconds for each in records]
    binds = [median(quick) * 1000 for each in records if (quick := quick_binds(each))]
    disturbed = [f"`{each.run.id}` ({why})" for each in records if (why := why_disturbed(each)) is not None]
    length = {(each.run.seconds, each.run.warm_up) for each in records}
    versions = ", ".join(f"{name} {number}" for name, number in records[0].versions.items())
    lines = [
        f"{len(records)} runs, seeds {', '.join(map(str, seeds))}, {first[:16]} to {last[:16]} UTC",
        "; ".join(
            f"{seconds:.0f} s each, of which the first {warm_up:.0f} are not counted" for seconds, warm_up in length
        ),
        f"{versions}; {records[0].conditions.cores} cores",
        f"The whole machine, with the runs that went on side by side: its cores were busy for "
        f"{_percent([each[1] for each in samples])} of the time, something waited for a core for "
        f"{_percent([each[3] for each in samples])}, the load average was {shown([each[2] for each in samples], 1)}",
        f"One run took {shown(own)} of a core; a pod that found room at once was bound after {shown(binds, 0)} ms; one "
        f"action of the harness in twenty came {shown([each.conditions.late_p95 for each in records])} s late or more",
        f"After the warm-up the harness's own sample, one every {SAMPLE_SECONDS:.0f} s, came "
        f"{max(_latest_sample(each) for each in records):.1f} s late at most, in all runs",
        f"Disturbed runs: {', '.join(disturbed) if disturbed else 'none'}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _latest_sample(record: Record) -> float:
    """Return by how much the most belated sample after the warm-up came too late, in seconds."""
    times = [sample[0] for sample in record.conditions.samples if sample[0] >= record.run.warm_up]
    return max((later - earlier - SAMPLE_SECONDS for earlier, later in pairwise(times)), default=0.0)


def _percent(shares: Sequence[float]) -> str:
    return f"{shown([100 * share for share in shares], 0)} %"


def _signed(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    middle = f"{median(values):+.3f}"
    return middle if len(values) == 1 else f"{middle} ({low:+.3f} to {high:+.3f})"


def _quartiles(values: Sequence[float]) -> str:
    if not values:
        return "none"
    ordered = sorted(values)
    return " / ".join(f"{ordered[min(len(ordered) - 1, int(part * len(ordered)))]:.0f}" for part in (0.25, 0.5, 0.75))
