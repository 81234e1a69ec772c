"""Plots: whatever lies on them, and how axes are divided."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.tools.experiment.matrix import Run
from scripts.tools.experiment.plots import Panel, Series, draw, ticks
from scripts.tools.experiment.record import NodeRecord, Record
from scripts.tools.experiment.timeline import DOCS, PICTURE, picture, steps
from scripts.tools.experiment.workloads import BOOT_SECONDS

finite = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=20))
def test_plot_of_anything_is_an_image(points: list[tuple[float, float]]) -> None:
    """Well-formed, without a number that is none, however the points lie."""
    series = Series(name="a < b", points=tuple(points), line=tuple(points))
    stairs = Series(name="c", steps=tuple(points))
    image = draw([Panel(title="t & u", x="x", y="y", series=(series, stairs))])
    ElementTree.fromstring(image)  # noqa: S314 - our own
    assert "nan" not in image
    assert "inf" not in image


def test_nodes_are_counted_from_their_launch_to_their_end() -> None:
    """From the end of the warm-up to that of the run, one step for each change."""
    run = Run(workload="jobs", consolidate_after=15, arm="default", seed=1, seconds=600, warm_up=120)
    nodes = [
        NodeRecord(name="from-the-start", added=15),
        NodeRecord(name="of-a-burst", added=180 + BOOT_SECONDS, deleted=300),
        NodeRecord(name="gone-before", added=20, deleted=60),
    ]
    assert steps(Record(run=run, began="", nodes=nodes)) == ((2, 1), (3, 2), (5, 1), (10, 1))


def test_the_picture_of_bursts_is_what_the_records_say() -> None:
    """`python -m scripts.tools.experiment.timeline` writes it."""
    assert PICTURE.read_text() == picture(DOCS / "experiment-age")


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
