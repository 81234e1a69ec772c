"""docs/experiment.md out of the records: tables between its markers, and plots.

Owns what is put beside what. Every number is a median over the seeds with the lowest and the highest in brackets, and
ratios are taken seed by seed, so that what is particular to a seed drops out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from scripts.tools.benchmarks.figures import shown
from scripts.tools.benchmarks.report import Table, with_section
from scripts.tools.experiment.arms import ARMS, WARMNODE
from scripts.tools.experiment.conditions import SAMPLE_SECONDS
from scripts.tools.experiment.goals import BASE, Measured, Point, goals, over
from scripts.tools.experiment.measures import Figures, figures, quick_binds, why_disturbed
from scripts.tools.experiment.plots import Panel, Series, draw
from scripts.tools.experiment.record import Record
from scripts.tools.experiment.workloads import WORKLOADS, Kind


def write(records: Sequence[Record], docs: Path) -> list[Path]:
    """Write the document's tables and the plots. Returns the files. Raises ValueError where there are no records."""
    if not records:
        raise ValueError("there are no records of reported seeds: carry out `scripts/experiment run` first")
    document = docs / "experiment.md"
    measured = by_point(records)
    text = with_section(document.read_text(), "conditions", _conditions(records))
    text = with_section(text, "goals", goals(measured).markdown())
    written = [document]
    for kind in Kind:
        workloads = [name for name, each in WORKLOADS.items() if each.kind is kind]
        shares = {name: own for name in workloads if (own := _of(measured, name))}
        if not shares:
            continue
        plot = docs / "experiment" / f"{kind}.svg"
        plot.parent.mkdir(exist_ok=True)
        plot.write_text(draw([_panel(WORKLOADS[name].title, own) for name, own in shares.items()]))
        written.append(plot)
        tables = [_table(WORKLOADS[name].title, own).markdown() for name, own in shares.items()]
        image = f"![Node-seconds against mean latency: {kind}](experiment/{plot.name})"
        text = with_section(text, str(kind), "\n\n".join([image, *tables]))
    document.write_text(text)
    return written


def by_point(records: Iterable[Record]) -> dict[Point, dict[int, Figures]]:
    """Measure the records, in the order of workloads, consolidateAfter and arms."""
    workloads, arms = list(WORKLOADS), list(ARMS)
    found: dict[Point, dict[int, Figures]] = {}
    for record in sorted(
        records,
        key=lambda each: (
            workloads.index(each.run.workload),
            each.run.consolidate_after,
            arms.index(each.run.arm),
            each.run.seed,
        ),
    ):
        run = record.run
        found.setdefault((run.workload, run.consolidate_after, run.arm), {})[run.seed] = figures(record)
    return found


def _of(measured: Measured, workload: str) -> dict[Point, Mapping[int, Figures]]:
    return {point: runs for point, runs in measured.items() if point[0] == workload}


def _table(title: str, measured: Measured) -> Table:
    rows = []
    for point, runs in measured.items():
        workload, after, arm = point
        each = list(runs.values())
        base = (workload, after, BASE)
        rows.append(
            (
                f"{after} s",
                ARMS[arm].title,
                str(len(each)),
                shown([run.node_seconds for run in each], 0),
                _ratio(over(measured, point, base, "node_seconds")),
                shown([run.latency for run in each], 1),
                _ratio(over(measured, point, base, "latency")),
                shown([run.latency_p95 for run in each], 1),
                shown([run.in_misses for run in each], 1),
                shown([run.hits for run in each]),
                shown([float(run.nodes_created) for run in each], 0),
                shown([float(run.pods_created) for run in each], 0),
                shown([float(run.interrupted) for run in each], 0),
            )
        )
    against = f"/ {ARMS[BASE].title}"
    latency = ("latency, s: mean", against, "95 %", "in misses, s a task", "hits")
    head = (
        "after",
        "arm",
        "runs",
        "node-seconds",
        against,
        *latency,
        "nodes created",
        "workers started",
        "interrupted",
    )
    return Table(title=title, head=head, rows=tuple(rows), labels=2)


def _ratio(ratios: Sequence[float]) -> str:
    return shown(ratios) if ratios else ""


def _panel(title: str, measured: Measured) -> Panel:
    """One plot: a point for each run, and a line through each arm's medians from one consolidateAfter to the next.

    What nobody can set, as the rule that was dropped, is in the tables only.
    """
    series = []
    for arm in dict.fromkeys(arm for _, _, arm in measured if ARMS[arm].program == WARMNODE):
        runs = [list(runs.values()) for (_, _, of), runs in measured.items() if of == arm]
        series.append(
            Series(
                name=ARMS[arm].title,
                points=tuple((x.node_seconds, x.latency) for each in runs for x in each),
                line=tuple((median(x.node_seconds for x in each), median(x.latency for x in each)) for each in runs),
            )
        )
    return Panel(title=title, x="node-seconds", y="mean latency, s", series=tuple(series))


def _conditions(records: Sequence[Record]) -> str:
    seeds = sorted({each.run.seed for each in records})
    first, last = min(each.began for each in records), max(each.began for each in records)
    samples = [sample for each in records for sample in each.conditions.samples]
    own = [sum(each.conditions.own.values()) / each.run.seconds for each in records]
    binds = [median(quick) * 1000 for each in records if (quick := quick_binds(each))]
    disturbed = [f"`{each.run.id}` ({why})" for each in records if (why := why_disturbed(each)) is not None]
    repeated = [f"`{each.run.id}`" for each in records if each.run.tries > 1]
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
        f"Repeated because they failed: {', '.join(repeated) if repeated else 'none'}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _latest_sample(record: Record) -> float:
    """Return by how much the most belated sample after the warm-up came too late, in seconds."""
    times = [sample[0] for sample in record.conditions.samples if sample[0] >= record.run.warm_up]
    return max((later - earlier - SAMPLE_SECONDS for earlier, later in pairwise(times)), default=0.0)


def _percent(shares: Sequence[float]) -> str:
    return f"{shown([100 * share for share in shares], 0)} %"
