"""A picture as PNG, painted with Pillow (the extra ``warmnode[plot]``). Owns how marks become pixels."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from typing import TYPE_CHECKING, assert_never

from extender.simulate.picture import Dot, Line, Picture, Point, Text

if TYPE_CHECKING:
    from PIL import Image as Images
    from PIL.ImageDraw import ImageDraw

SCALE = 2
"""Pixels of the file for one of the picture: sharp on dense screens."""
FINE = 2
"""Painted so many times larger yet, and shrunk: that smooths the edges."""


class PngNotPossible(Exception):
    """Pillow is not installed. The message is one line with the remedy."""


def to_png(picture: Picture) -> bytes:
    """Paint a picture as PNG.

    Raises:
        PngNotPossible: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise PngNotPossible(
            "a PNG needs Pillow: pip install 'warmnode[plot]', or write an SVG with --svg, which needs nothing"
        ) from error
    factor = SCALE * FINE
    image = Image.new("RGB", (picture.width * factor, picture.height * factor), "#ffffff")
    draw = ImageDraw.Draw(image)
    for mark in picture.marks:
        match mark:
            case Line():
                _line(draw, mark, factor)
            case Dot():
                x, y = (value * factor for value in mark.centre)
                for radius, colour in ((mark.radius + 0.5, "#ffffff"), (mark.radius - 0.5, mark.colour)):
                    reach = radius * factor
                    draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
            case Text():
                _text(image, draw, mark, factor)
            case _:
                assert_never(mark)
    out = io.BytesIO()
    size = (picture.width * SCALE, picture.height * SCALE)
    image.resize(size, Image.Resampling.LANCZOS).save(out, "PNG", optimize=True)
    return out.getvalue()


def _line(draw: ImageDraw, line: Line, factor: int) -> None:
    points = [(x * factor, y * factor) for x, y in line.points]
    width = max(1, round(line.width * factor))
    if not line.dash:
        draw.line(points, fill=line.colour, width=width, joint="curve")
        return
    for start, end in pairwise(points):
        for dash in _dashes(start, end, line.dash * factor):
            draw.line(dash, fill=line.colour, width=width)


def _dashes(start: Point, end: Point, length: float) -> list[tuple[Point, Point]]:
    """Cut a line into dashes of this length, with gaps as long between them."""
    whole = math.dist(start, end)

    def along(distance: float) -> Point:
        share = min(distance / whole, 1.0)
        return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])

    return [
        (along(number * 2 * length), along((number * 2 + 1) * length))
        for number in range(math.ceil(whole / 2 / length))
    ]


_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}
"""Of SVG and of Pillow: all on the base line."""


def _text(image: Images.Image, draw: ImageDraw, text: Text, factor: int) -> None:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(text.size * factor)
    stroke = factor * 0.15 if text.bold else 0
    x, y = (value * factor for value in text.at)
    anchor = _ANCHORS[text.anchor]
    if not text.upright:
        draw.text((x, y), text.text, fill=text.colour, font=font, anchor=anchor, stroke_width=stroke)
        return
    left, top, right, bottom = font.getbbox(text.text, anchor=anchor)
    lying = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
    ImageDraw.Draw(lying).text((-left, -top), text.text, fill=255, font=font, anchor=anchor)
    standing = lying.transpose(Image.Transpose.ROTATE_90)
    # what was left of the anchor is below it now, and what was above the base line is left of it
    image.paste(text.colour, (round(x + top), round(y - right)), standing)
