"""The picture of a study: what stands where, and that the SVG is one."""

from __future__ import annotations

from datetime import timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.simulate.chart import BOTTOM, LEFT, RIGHT, TOP, draw_frontier
from extender.simulate.picture import Dot, Line, Picture, Text, to_svg
from extender.simulate.rules import Rule, parse_rule
from extender.simulate.study import Trial
from extender.simulate.tally import RunOutcome

RULES = tuple(map(parse_rule, ("spread", "most-allocated", "most-allocated-listed", "oldest", "window:3", "set:0.1")))


def trial(rule: Rule, minutes: int, node_hours: float, hits: int) -> Trial:
    outcome = RunOutcome(
        jobs=9,
        node_hours=node_hours,
        reads=1000,
        hits=hits,
        peak_nodes=2,
        launched_nodes=3,
        waited_jobs=0,
        waited_seconds=0,
        mean_latency_seconds=9,
        p95_latency_seconds=20,
    )
    return Trial(rule=rule, consolidate_after=timedelta(minutes=minutes), outcome=outcome)


SOME = [
    trial(rule, minutes, 100 + 9 * place + minutes, 300 + 50 * place)
    for place, rule in enumerate(RULES)
    for minutes in (1, 5)
]


def drawn(trials: list[Trial]) -> Picture:
    return draw_frontier(trials, title="Cost & warmth", subtitle="from <a file>")


def points(picture: Picture) -> list[Dot]:
    return [mark for mark in picture.marks if isinstance(mark, Dot) and mark.title]


def test_each_trial_is_a_point_right_where_it_costs_more_and_up_where_it_is_warmer() -> None:
    """Six rules and two values of consolidateAfter: twelve points, and a curve through those of a rule."""
    picture = drawn(SOME)
    assert len(points(picture)) == 12
    titles = {dot.title for dot in points(picture)}
    assert "oldest first, window 3, consolidateAfter 5m: 141 node-hours, 50.0% hits, latency 9.0s (p95 20.0s)" in titles
    by_rule = [dot for dot in points(picture) if dot.title.startswith("default spread")]
    assert by_rule[0].centre[0] < by_rule[1].centre[0]
    assert by_rule[0].radius < by_rule[1].radius
    lines = [mark for mark in picture.marks if isinstance(mark, Line) and mark.width == 2 and len(mark.points) == 2]
    assert tuple(dot.centre for dot in by_rule) in {line.points for line in lines}
    assert len({dot.colour for dot in points(picture)}) == len(RULES)


def test_with_a_price_the_ticks_are_round_sums_of_money() -> None:
    """The points stay where they are: what a node-hour costs is the same for all."""
    plain, priced = drawn(SOME), draw_frontier(SOME, title="Cost & warmth", subtitle="", price=0.7)
    for one, other in zip(points(plain), points(priced), strict=True):
        assert one.title == other.title
        assert one.centre == pytest.approx(other.centre)
    texts = [mark.text for mark in priced.marks if isinstance(mark, Text)]
    assert "cost of the nodes" in texts
    assert {"75", "80", "85"} <= set(texts)


anything = st.tuples(st.sampled_from(RULES), st.integers(0, 60), st.floats(0, 1e6), st.integers(0, 1000))


@given(st.lists(anything, min_size=1, max_size=12))
def test_whatever_came_out_fits_into_the_plot(found: list[tuple[Rule, int, float, int]]) -> None:
    """One point, equal points and extremes: every point is inside the frame, and the SVG is XML."""
    picture = drawn([trial(*each) for each in found])
    for dot in points(picture):
        assert LEFT <= dot.centre[0] <= RIGHT
        assert TOP <= dot.centre[1] <= BOTTOM
    ElementTree.fromstring(to_svg(picture))  # noqa: S314 - our own


def test_svg_says_what_it_shows_and_escapes_names() -> None:
    """A title for those who cannot see it; text from a file name is text."""
    root = ElementTree.fromstring(to_svg(drawn(SOME)))  # noqa: S314 - our own
    name = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{name}title") == "Cost & warmth: node-hours against hit ratio"
    texts = [text.text for text in root.iter(f"{name}text")]
    assert "from <a file>" in texts
    assert {rule.words for rule in RULES} <= set(texts)
    assert len(list(root.iter(f"{name}circle"))) == sum(isinstance(mark, Dot) for mark in drawn(SOME).marks)
