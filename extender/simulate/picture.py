"""A picture as a list of marks, and as SVG. Owns the marks; knows nothing of what they show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, assert_never
from xml.sax.saxutils import escape

Point: TypeAlias = tuple[float, float]
"""(x, y) in pixels from the upper left corner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line through points. Colours are ``#rrggbb``; ``dash`` is the length of dashes and gaps, 0 for none."""

    points: tuple[Point, ...]
    colour: str
    width: float = 1.0
    dash: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A filled circle with a white edge. ``title`` is shown by a browser under the mouse."""

    centre: Point
    radius: float
    colour: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One line of text. ``anchor`` is where ``at`` is: start, middle or end, on the base line."""

    at: Point
    text: str
    size: float = 12.0
    anchor: str = "start"
    colour: str = "#1f2933"
    bold: bool = False
    upright: bool = False
    """Turned to be read from below to above."""


Mark: TypeAlias = Line | Dot | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Marks in the order in which they are drawn, on white. ``title`` is for those who cannot see it."""

    width: int
    height: int
    title: str
    marks: tuple[Mark, ...]


def to_svg(picture: Picture) -> str:
    """Write a picture as SVG that needs nothing else."""
    return "\n".join(_svg(picture)) + "\n"


def _svg(picture: Picture) -> Iterator[str]:
    size = f'width="{picture.width}" height="{picture.height}" viewBox="0 0 {picture.width} {picture.height}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, sans-serif" role="img">'
    yield f"<title>{escape(picture.title)}</title>"
    yield '<rect width="100%" height="100%" fill="#ffffff"/>'
    for mark in picture.marks:
        yield _mark(mark)
    yield "</svg>"


def _mark(mark: Mark) -> str:
    match mark:
        case Line():
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
            dash = f' stroke-dasharray="{mark.dash:g}"' if mark.dash else ""
            return (
                f'<polyline points="{points}" fill="none" stroke="{mark.colour}" stroke-width="{mark.width:g}"{dash}/>'
            )
        case Dot():
            x, y = mark.centre
            title = f"<title>{escape(mark.title)}</title>" if mark.title else ""
            place = f'cx="{x:.1f}" cy="{y:.1f}" r="{mark.radius:g}"'
            return f'<circle {place} fill="{mark.colour}" stroke="#ffffff">{title}</circle>'
        case Text():
            x, y = mark.at
            turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if mark.upright else ""
            weight = ' font-weight="bold"' if mark.bold else ""
            place = f'x="{x:.1f}" y="{y:.1f}" font-size="{mark.size:g}" text-anchor="{mark.anchor}"'
            return f'<text {place} fill="{mark.colour}"{weight}{turn}>{escape(mark.text)}</text>'
        case _:
            assert_never(mark)
