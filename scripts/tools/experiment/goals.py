"""What was to be reached, and what came out: the working set against MostAllocated. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from scripts.tools.benchmarks.report import Table
from scripts.tools.experiment.arms import ARMS
from scripts.tools.experiment.matrix import OLDER
from scripts.tools.experiment.measures import Figures
from scripts.tools.experiment.workloads import WORKLOADS, Kind

BASE = "packing"
Point = tuple[str, int, str]
"""(workload, consolidateAfter in seconds, arm)."""
Measured = Mapping[Point, Mapping[int, Figures]]
"""Figures by point and seed."""


def over(measured: Measured, point: Point, base: Point, figure: str) -> list[float]:
    """Divide a figure of one arm by another's, seed by seed. Empty where they have no seed in common."""
    runs, under = measured.get(point, {}), measured.get(base, {})
    return [
        getattr(runs[seed], figure) / divisor
        for seed in runs
        if point != base and seed in under and (divisor := getattr(under[seed], figure))
    ]


def goals(measured: Measured) -> Table:
    """One line for each thing that was to be reached: the median of the seeds, in the worst of its points."""
    jobs = [(workload, after) for workload, after in _places(measured) if WORKLOADS[workload].kind is Kind.JOBS]
    sessions = [(workload, after) for workload, after in _places(measured) if workload == Kind.SESSIONS]
    lines = []
    for arm in ("set10", "set25"):
        lines.append(_line(measured, "node_seconds", arm, BASE, jobs, 1.02))
        lines.append(_line(measured, "latency", arm, BASE, jobs, 0.85))
    lines += [_line(measured, "node_seconds", arm, "packing134", list(OLDER), 0.85) for arm in ("set134", "set10")]
    lines.append(_line(measured, "latency", "keyed", BASE, sessions, 0.90))
    lines.append(_line(measured, "node_seconds", "keyed", BASE, sessions, 1.02))
    head = ("what", "arm", "over", "to be reached", "came out, worst point", "points that reached it", "all points")
    rows = tuple(line for line in lines if line is not None)
    return Table(title="What was to be reached", head=head, rows=rows, labels=3)


def _places(measured: Measured) -> list[tuple[str, int]]:
    return list(dict.fromkeys((workload, after) for workload, after, _ in measured))


def _line(
    measured: Measured, figure: str, arm: str, base: str, places: Sequence[tuple[str, int]], limit: float
) -> tuple[str, ...] | None:
    """None where nothing of it was run."""
    found = {
        f"{workload} {after} s": median(ratios)
        for workload, after in places
        if (ratios := over(measured, (workload, after, arm), (workload, after, base), figure))
    }
    if not found:
        return None
    worst = max(found, key=lambda place: found[place])
    reached = sum(round(each, 2) <= limit for each in found.values())
    words = {"node_seconds": "node-seconds", "latency": "mean latency"}
    return (
        words[figure],
        ARMS[arm].title,
        ARMS[base].title,
        f"at most {limit:.2f}",
        f"{found[worst]:.2f} ({worst})",
        f"{reached} of {len(found)}",
        ", ".join(f"{each:.2f}" for each in found.values()),
    )
