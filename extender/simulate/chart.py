"""The frontier: node-hours, or their price, against hit ratio or latency. One curve for each rule, one point for each
consolidateAfter. Owns how a study becomes a picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from textwrap import wrap

from extender.policy.durations import format_duration
from extender.simulate.picture import Dot, Line, Mark, Picture, Point, Text
from extender.simulate.rules import Order, Rule
from extender.simulate.session_rules import SessionRule
from extender.simulate.study import Trial
from extender.simulate.tally import RunOutcome

WIDTH, HEIGHT = 900, 540
LEFT, TOP, RIGHT, BOTTOM = 80, 84, 660, 470
"""Edges of the plot; the legend is right of it."""
LEGEND_CHARACTERS = 30
"""So many fit into a line of it."""

INK, GREY, PALE = "#1f2933", "#52606d", "#e4e7eb"
COLOURS = {Order.SPREAD: "#7b8794", Order.MOST_ALLOCATED: "#d55e00", Order.MOST_ALLOCATED_LISTED: "#e69f00"}
AGE_COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#6a3d9a", "#cc79a7", "#8c6d00")
"""Oldest first, then each rule with keys. After Okabe and Ito: told apart by people who do not see all colours."""
SESSION_COLOURS = (COLOURS[Order.SPREAD], COLOURS[Order.MOST_ALLOCATED], *AGE_COLOURS)
SMALLEST_DOT, DOT_STEP, LARGEST_DOT = 4.5, 1.75, 13.0


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps values to pixels. ``ticks`` are the round numbers that are shown."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    words: str = "node-hours (cost)"
    better: str = ""
    of: Callable[[RunOutcome], float] = lambda outcome: outcome.node_hours
    written: Callable[[float], str] = "{:,.6g}".format

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def draw_frontier(
    trials: Sequence[Trial],
    *,
    title: str,
    subtitle: str,
    by_latency: bool = False,
    price: float | None = None,
    observed: tuple[float, float] | None = None,
) -> Picture:
    """Draw a study. ``subtitle`` is the workload and the pool in words. ``by_latency``: the mean latency is upright in
    place of the hit ratio, and the lower left is better. ``price`` is that of a node-hour. ``observed`` are node-hours
    and hit ratio of a real pool; its latencies nobody saw."""
    seen = [] if by_latency or observed is None else [observed]
    x = _cost_axis([*(trial.outcome.node_hours for trial in trials), *(hours for hours, _ in seen)], price)
    y = _latency_axis(trials) if by_latency else _hit_axis(trials, [ratio for _, ratio in seen])
    return Picture(
        width=WIDTH,
        height=HEIGHT,
        title=f"{title}: {'cost' if price else 'node-hours'} against {'mean latency' if by_latency else 'hit ratio'}",
        marks=(
            Text(at=(LEFT, 34), text=title, size=19, bold=True),
            Text(at=(LEFT, 58), text=subtitle, size=12, colour=GREY),
            *_frame(x, y),
            *_same_age_lines(trials, x, y),
            *_curves(trials, x, y),
            *(mark for each in seen for mark in _observed(each, x, y)),
            *_legend(trials, y.better),
        ),
    )


def _cost_axis(node_hours: Sequence[float], price: float | None) -> _Axis:
    """Make the axis of node-hours. With a price its ticks are round sums of money."""
    if not price:
        return _axis(node_hours, LEFT, RIGHT, lowest=0.0)
    axis = _axis([price * hours for hours in node_hours], LEFT, RIGHT, lowest=0.0)
    return replace(
        axis,
        low=axis.low / price,
        high=axis.high / price,
        ticks=tuple(tick / price for tick in axis.ticks),
        words="cost of the nodes",
        written=lambda hours: f"{price * hours:,.6g}",
    )


def _hit_axis(trials: Sequence[Trial], seen: Sequence[float]) -> _Axis:
    axis = _axis([*(trial.outcome.hit_ratio for trial in trials), *seen], BOTTOM, TOP, lowest=0.0, highest=1.0)
    return replace(
        axis,
        words="block reads served by the node's cache",
        better="better: up and to the left",
        of=lambda outcome: outcome.hit_ratio,
        written=lambda value: f"{100 * value:.3g} %",
    )


def _latency_axis(trials: Sequence[Trial]) -> _Axis:
    axis = _axis([trial.outcome.mean_latency_seconds for trial in trials], BOTTOM, TOP, lowest=0.0)
    return replace(
        axis,
        words="mean latency, from arrival to end",
        better="better: down and to the left",
        of=lambda outcome: outcome.mean_latency_seconds,
        written=lambda value: f"{value:,.6g} s",
    )


def _axis(values: Sequence[float], start: float, end: float, *, lowest: float, highest: float = math.inf) -> _Axis:
    """Fit an axis around values, with at most eight round ticks and some room at both ends."""
    low, high = min(values), max(values)
    margin = max((high - low) * 0.08, abs(high) * 0.01, 1e-3)
    low, high = max(low - margin, lowest), min(high + margin, highest)
    step = _round_step((high - low) / 8)
    first = math.ceil(low / step - 1e-9)
    ticks = tuple(number * step for number in range(first, math.floor(high / step + 1e-9) + 1))
    return _Axis(low, high, start, end, ticks)


def _round_step(rough: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _frame(x: _Axis, y: _Axis) -> Iterator[Mark]:
    for tick in x.ticks:
        yield Line(points=((x.at(tick), TOP), (x.at(tick), BOTTOM)), colour=PALE)
        yield Text(at=(x.at(tick), BOTTOM + 18), text=x.written(tick), anchor="middle", colour=GREY)
    for tick in y.ticks:
        yield Line(points=((LEFT, y.at(tick)), (RIGHT, y.at(tick))), colour=PALE)
        yield Text(at=(LEFT - 8, y.at(tick) + 4), text=y.written(tick), anchor="end", colour=GREY)
    yield Line(points=((LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)), colour=GREY)
    yield Text(at=((LEFT + RIGHT) / 2, BOTTOM + 44), text=x.words, size=13, anchor="middle")
    middle = (TOP + BOTTOM) / 2
    yield Text(at=(24, middle), text=y.words, size=13, anchor="middle", upright=True)


def _curves(trials: Sequence[Trial], x: _Axis, y: _Axis) -> Iterator[Mark]:
    place, colour, radius = _places(x, y), _colours(trials), _radii(trials)
    for rule, colour_of_rule in colour.items():
        own = sorted((trial for trial in trials if trial.rule == rule), key=lambda trial: trial.consolidate_after)
        if len(own) > 1:
            yield Line(points=tuple(map(place, own)), colour=colour_of_rule, width=2)
        for trial in own:
            after = format_duration(trial.consolidate_after)
            found = trial.outcome
            told = f"{found.node_hours:,.0f} node-hours, {found.hit_ratio:.1%} hits"
            told += f", latency {found.mean_latency_seconds:,.1f}s (p95 {found.p95_latency_seconds:,.1f}s)"
            title = f"{rule.words}, consolidateAfter {after}: {told}"
            dot = radius[trial.consolidate_after]
            yield Dot(centre=place(trial), radius=dot, colour=colour_of_rule, title=title)


def _same_age_lines(trials: Sequence[Trial], x: _Axis, y: _Axis) -> Iterator[Mark]:
    """Join what differs by the window or the slack only."""
    place = _places(x, y)
    for after in sorted({trial.consolidate_after for trial in trials}):
        own = [trial for trial in trials if _goes_by_age(trial.rule) and trial.consolidate_after == after]
        own.sort(key=lambda trial: trial.outcome.hit_ratio)
        if len(own) > 1:
            yield Line(points=tuple(map(place, own)), colour="#9aa5b1", dash=4)


def _observed(seen: tuple[float, float], x: _Axis, y: _Axis) -> Iterator[Mark]:
    """Mark where the pool really was."""
    node_hours, hit_ratio = seen
    at = x.at(node_hours), y.at(hit_ratio)
    told = f"as observed: {node_hours:,.0f} node-hours, {hit_ratio:.1%} hits"
    yield Dot(centre=at, radius=LARGEST_DOT / 2, colour=INK, title=told)
    yield Text(at=(at[0] + 12, at[1] + 4), text="as observed", size=12)


def _legend(trials: Sequence[Trial], better: str) -> Iterator[Mark]:
    left, y = RIGHT + 32, TOP + 10
    yield Text(at=(left, y), text="rule", size=12, bold=True)
    for rule, colour in _colours(trials).items():
        y += 24
        yield Line(points=((left, y - 4), (left + 26, y - 4)), colour=colour, width=2)
        yield Dot(centre=(left + 13, y - 4), radius=5, colour=colour)
        first, *others = wrap(rule.words, LEGEND_CHARACTERS)
        yield Text(at=(left + 36, y), text=first)
        for each in others:
            y += 14
            yield Text(at=(left + 36, y), text=each)
    y += 40
    yield Text(at=(left, y), text="consolidateAfter", size=12, bold=True)
    for after, radius in _radii(trials).items():
        y += 26
        yield Dot(centre=(left + 13, y - 4), radius=radius, colour=GREY)
        yield Text(at=(left + 36, y), text=format_duration(after))
    if any(_goes_by_age(trial.rule) and trial.rule.by_key for trial in trials):
        y += 34
        yield Line(points=((left, y - 4), (left + 26, y - 4)), colour="#9aa5b1", dash=4)
        yield Text(at=(left + 36, y), text="only the key's reach differs")
    yield Text(at=(RIGHT, BOTTOM + 44), text=better, anchor="end", colour=GREY)


def _places(x: _Axis, y: _Axis) -> Callable[[Trial], Point]:
    return lambda trial: (x.at(x.of(trial.outcome)), y.at(y.of(trial.outcome)))


def _goes_by_age(rule: Rule | SessionRule) -> bool:
    return isinstance(rule, Rule) and rule.order is Order.OLDEST


def _colours(trials: Sequence[Trial]) -> dict[Rule | SessionRule, str]:
    """Give each rule its colour, in the order of the study. More than five with keys share colours."""
    found: dict[Rule | SessionRule, str] = {}
    keyed = list(dict.fromkeys(trial.rule for trial in trials if trial.rule.by_key))
    for trial in trials:
        rule = trial.rule
        if isinstance(rule, SessionRule):
            found.setdefault(rule, SESSION_COLOURS[len(found) % len(SESSION_COLOURS)])
        elif rule.order is Order.OLDEST:
            place = keyed.index(rule) + 1 if rule.by_key else 0
            found.setdefault(rule, AGE_COLOURS[place % len(AGE_COLOURS)])
        else:
            found.setdefault(rule, COLOURS[rule.order])
    return found


def _radii(trials: Sequence[Trial]) -> dict[timedelta, float]:
    """Give each consolidateAfter the size of its dots: the longer, the larger."""
    afters = sorted({trial.consolidate_after for trial in trials})
    return {after: min(SMALLEST_DOT + DOT_STEP * number, LARGEST_DOT) for number, after in enumerate(afters)}
