"""Plots, the comparison at equal cost, and what the report makes of records."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.experiment import report
from scripts.tools.experiment.frontier import at_equal_cost
from scripts.tools.experiment.matrix import Run
from scripts.tools.experiment.plots import Panel, Series, draw, ticks
from scripts.tools.experiment.record import Attempt, Conditions, NodeRecord, PodRecord, Record

finite = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=20))
def test_plot_of_anything_is_an_image(points: list[tuple[float, float]]) -> None:
    """Well-formed, without a number that is none, however the points lie."""
    series = Series(name="a < b", points=tuple(points), line=tuple(points))
    image = draw([Panel(title="t & u", x="x", y="y", series=(series,))])
    ElementTree.fromstring(image)  # noqa: S314 - our own
    assert "nan" not in image
    assert "inf" not in image


def test_plot_of_nothing_is_refused() -> None:
    """An empty frame would look like a result."""
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([])


@given(finite, st.floats(1e-6, 1e6))
def test_ticks_are_few_and_within(low: float, span: float) -> None:
    """Round numbers inside of the range, in order."""
    found = ticks(low, low + span)
    assert len(found) <= 11
    assert found == sorted(found)
    assert all(low - span * 1e-6 <= each <= low + span * (1 + 1e-6) for each in found)


def test_equal_cost_compares_with_the_line_between_neighbours() -> None:
    """At 150 node-seconds the base would have 0.55; outside of its range nothing is known."""
    base = [(200.0, 0.6), (100.0, 0.5)]
    assert at_equal_cost(base, [(150.0, 0.65), (99.0, 0.9), (201.0, 0.9)]) == pytest.approx([0.1])
    assert at_equal_cost(base[:1], [(200.0, 0.9)]) == []


@given(
    st.lists(st.tuples(st.floats(1, 1e6), st.floats(0, 1)), min_size=2, max_size=6, unique_by=lambda point: point[0])
)
def test_equal_cost_of_an_arm_with_itself_is_no_difference(base: list[tuple[float, float]]) -> None:
    """Every point lies on its own curve."""
    assert at_equal_cost(base, base) == pytest.approx([0.0] * len(base), abs=1e-9)


def a_record(arm: str, seed: int, deleted: float) -> Record:
    run = Run(workload="jobs", consolidate_after=15, arm=arm, seed=seed, seconds=400, warm_up=100)
    work = Attempt(task=1, tenant=0, arrived=199, duration=40, started=200, node="a", pod="p", ended=240, done=True)
    node = NodeRecord(name="a", added=110, deleted=deleted)
    return Record(
        run=run,
        began="2026-11-24T12:00:00+00:00",
        versions={"Karpenter": "1"},
        nodes=[node],
        pods=[PodRecord(name="p", added=199, node="a", bound=199.1)],
        attempts=[work],
        conditions=Conditions(cores=2, samples=[(5.0, 0.5, 1.0, 0.1)], own={"etcd": 4.0}),
    )


def test_report_pairs_runs_of_one_seed(tmp_path: Path) -> None:
    """The second arm costs half of the default in each seed, so the ratio has no range although the costs have."""
    (tmp_path / "experiment").mkdir()
    document = tmp_path / "experiment.md"
    document.write_text((ROOT / "docs" / "experiment.md").read_text())
    records = [
        a_record(arm, seed, deleted)
        for arm, seed, deleted in (
            ("default", 101, 300),
            ("default", 102, 260),
            ("packing", 101, 200),
            ("packing", 102, 180),
        )
    ]
    files = report.write(records, tmp_path)
    assert files == [document, tmp_path / "experiment" / "jobs.svg"]
    row = next(line for line in document.read_text().splitlines() if "MostAllocated | 2 |" in line)
    assert "| 90 (80-100) | 0.50 |" in row


def test_report_of_nothing_says_what_to_do(tmp_path: Path) -> None:
    """There is nothing to write before anything ran."""
    with pytest.raises(ValueError, match="scripts/experiment run"):
        report.write([], tmp_path)
