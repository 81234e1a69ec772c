"""Plots: whatever lies on them, and how axes are divided."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.tools.experiment.plots import Panel, Series, draw, ticks

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
