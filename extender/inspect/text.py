"""How a page for people is written: tables, counts, durations, and nothing that a terminal would act on. A leaf."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from textwrap import wrap


def span(duration: timedelta) -> str:
    """Write a duration in its two largest units: 3d4h, 5h12m, 7m5s, 12s."""
    seconds = max(0, int(duration.total_seconds()))
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    units = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")]
    start = next((i for i, (number, _) in enumerate(units) if number), 3)
    return "".join(f"{number}{unit}" for number, unit in units[start : start + 2] if number) or "0s"


def count(number: int, noun: str) -> str:
    """Write "1 node" or "3 nodes"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Iterable[str], most: int = 3) -> str:
    """Name the first few and count the rest: "a, b, c and 7 more"."""
    listed = list(names)
    shown = ", ".join(listed[:most])
    return f"{shown} and {len(listed) - most} more" if len(listed) > most else shown


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers_from: int | None = None) -> Iterator[str]:
    """Align columns, one line for the head and one for each row: from ``numbers_from`` on to the right."""
    lines = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    aligned = ["<" if numbers_from is None or column < numbers_from else ">" for column in range(len(head))]
    for line in lines:
        cells = zip(line, aligned, widths, strict=True)
        yield "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip()


def fill(text: str, *, width: int, first: str = "", later: str = "") -> Iterator[str]:
    """Break a text into lines that fit, and never within a word. ``first`` and ``later`` stand before the lines."""
    yield from wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def page(lines: Iterable[str]) -> str:
    """Put lines together, printable."""
    return "\n".join(map(printable, lines))


def printable(line: str) -> str:
    """Put ? for what a terminal might act on: names and annotations may come from anybody."""
    return line if line.isprintable() else "".join(each if each.isprintable() else "?" for each in line)
