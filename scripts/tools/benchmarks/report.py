"""The outcome of a benchmark as text, as Markdown and as JSON, and its place in docs/benchmarks.md. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells, as many as the head has. The first ``labels`` columns are words, the others numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1

    def text(self) -> str:
        """Align it for a terminal."""
        widths = [max(len(row[column]) for row in (self.head, *self.rows)) for column in range(len(self.head))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < self.labels else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.head, *self.rows)
        ]
        return "\n".join([self.title, lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])

    def markdown(self) -> str:
        """Write it as a GitHub table."""
        rules = [":--" if column < self.labels else "--:" for column in range(len(self.head))]
        return "\n".join(
            [f"**{self.title}**", "", *("| " + " | ".join(row) + " |" for row in (self.head, tuple(rules), *self.rows))]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A number to hold, and whether it was held. ``met`` is None where the run was too small to say."""

    what: str
    wanted: str
    measured: str
    met: bool | None

    def row(self) -> tuple[str, ...]:
        """Make the table's row of it."""
        verdict = {True: "met", False: "**missed**", None: "not measured"}[self.met]
        return (self.what, self.wanted, self.measured, verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that one benchmark found. ``conditions`` are lines on machine and versions, ``raw`` is each round."""

    name: str
    conditions: tuple[str, ...]
    tables: tuple[Table, ...]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    raw: Mapping[str, object] = field(default_factory=dict)

    def text(self) -> str:
        """Write it for a terminal."""
        parts = [f"{self.name}: {'; '.join(self.conditions)}", *(table.text() for table in self._tables())]
        return "\n\n".join([*parts, *(f"Note: {note}" for note in self.notes)])

    def markdown(self) -> str:
        """Write its section of the document."""
        parts = ["  \n".join(self.conditions), *(table.markdown() for table in self._tables())]
        return "\n\n".join([*parts, *self.notes])

    def _tables(self) -> Sequence[Table]:
        if not self.targets:
            return self.tables
        head = ("what", "target", "measured", "")
        targets = Table(title="Targets", head=head, rows=tuple(each.row() for each in self.targets), labels=4)
        return (targets, *self.tables)


def with_section(document: str, name: str, content: str) -> str:
    """Put ``content`` between the markers ``<!-- begin NAME -->`` and ``<!-- end NAME -->``, in place of what is there.

    Raises ValueError where the document does not have them once each, in this order.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if document.count(begin) != 1 or document.count(end) != 1 or not pattern.search(document):
        raise ValueError(f"the document needs one line {begin!r} and after it one line {end!r}")
    return pattern.sub(lambda _: f"{begin}\n\n{content.strip()}\n\n{end}", document)
