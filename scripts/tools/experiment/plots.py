"""A plot as SVG text: points and lines over two axes, in small panels beside each other. Pure.

Owns the drawing only. Each series has a shape of its own beside its colour, so that it is told apart without colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#4269d0", "#efb118", "#3ca951", "#ff725c", "#9c6b4e", "#6cc5b0")
WIDTH, HEIGHT = 300, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 44
MARGIN = 0.08
"""Of an axis, left free on both sides of the values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One arm: ``points`` are single runs, ``line`` joins what is said of them (medians), in this order."""

    name: str
    points: tuple[tuple[float, float], ...] = ()
    line: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot. Series of one name look alike in all panels."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]


def draw(panels: Sequence[Panel]) -> str:
    """Draw the panels from left to right, with one legend below. Raises ValueError where there is nothing to draw."""
    names = list(dict.fromkeys(series.name for panel in panels for series in panel.series))
    if not names:
        raise ValueError("there is nothing to draw")
    width, height = WIDTH * len(panels), HEIGHT + 20 * math.ceil(len(names) / len(panels)) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate({number * WIDTH} 0)">', *_panel(panel, names), "</g>"]
    for number, name in enumerate(names):
        x, y = LEFT / 2 + number % len(panels) * WIDTH, HEIGHT + 16 + number // len(panels) * 20
        parts += [_mark(x, y - 4, number), f'<text x="{x + 10:.1f}" y="{y}">{escape(name)}</text>']
    return "\n".join([*parts, "</svg>", ""])


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return round numbers within a range: about so many, in steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _panel(panel: Panel, names: Sequence[str]) -> list[str]:
    everything = [point for series in panel.series for point in (*series.points, *series.line)]
    across, up = _range([x for x, _ in everything]), _range([y for _, y in everything])

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + (point[0] - across[0]) / (across[1] - across[0]) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (point[1] - up[0]) / (up[1] - up[0]) * (HEIGHT - TOP - BOTTOM)
        return x, y

    middle = (LEFT + WIDTH - RIGHT) / 2
    parts = [f'<text x="{middle}" y="16" text-anchor="middle" font-weight="bold">{escape(panel.title)}</text>']
    for each in ticks(*across):
        x, _ = place((each, up[0]))
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{each:,g}</text>')
    for each in ticks(*up):
        _, y = place((across[0], each))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{each:,g}</text>')
    parts.append(f'<text x="{middle}" y="{HEIGHT - BOTTOM + 32}" text-anchor="middle">{escape(panel.x)}</text>')
    half = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="12" y="{half}" text-anchor="middle" transform="rotate(-90 12 {half})">{escape(panel.y)}</text>'
    )
    for series in panel.series:
        look = names.index(series.name)
        if len(series.line) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, series.line))
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{COLOURS[look % len(COLOURS)]}" stroke-width="1.5"/>'
            )
        parts += [_mark(*place(point), look, small=True) for point in series.points]
        parts += [_mark(*place(point), look) for point in series.line]
    return parts


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    size = max(abs(low), abs(high), 1.0)
    span = high - low if high - low > 1e-9 * size else size  # all the same: an axis around it
    room = span * MARGIN
    return low - room, high + room


def _mark(x: float, y: float, look: int, *, small: bool = False) -> str:
    """Draw one point: a circle, square, diamond or triangle; small ones are single runs, and paler."""
    size = 2.5 if small else 4.5
    style = f'fill="{COLOURS[look % len(COLOURS)]}"' + (' fill-opacity="0.55"' if small else "")
    match look % 4:
        case 0:
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" {style}/>'
        case 1:
            return f'<rect x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size}" height="{2 * size}" {style}/>'
        case 2:
            corners = [(x, y - size - 1), (x + size + 1, y), (x, y + size + 1), (x - size - 1, y)]
        case _:
            corners = [(x, y - size - 1), (x + size + 1, y + size), (x - size - 1, y + size)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return f'<polygon points="{path}" {style}/>'
