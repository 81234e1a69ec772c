"""Jobs from a CSV that a user exports. Owns its columns and what is said about rows that are no good.

A header names the columns, in any order; others than these are ignored:

- ``arrives``: an RFC 3339 time with its zone, or seconds since anything;
- ``duration``: seconds, or a duration such as ``5m``;
- ``key``: whose data the job uses; empty for none;
- ``blocks``, optional: how many blocks the key has, the same wherever it is given; empty: as with made-up jobs;
- ``reads``, optional: how many of them the job draws; empty: as with made-up jobs.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import TypeVar

from extender.policy.durations import parse_duration
from extender.simulate.workload import MOST_BLOCKS, BlockDrawer, DataSets, Job

T = TypeVar("T")

REQUIRED = ("arrives", "duration", "key")
OPTIONAL = ("blocks", "reads")
SHOWN = 20
"""So many mistakes are told; a file with a wrong column has one in each row."""
LONGEST_FIELD = 200
MOST_READS = 100_000


class JobsFileError(Exception):
    """A CSV that is no good: one line for each mistake, ``file:line: column: what is wrong (got X)``."""


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    arrives: float
    is_time: bool
    duration: float
    key: str
    blocks: int | None
    reads: int | None


class _BadValue(ValueError):
    """A value that cannot be read. The message says what to write instead."""


def read_jobs(content: bytes, data: DataSets, random: Random, *, source: str) -> list[Job]:
    """Read jobs, in order of arrival, the first at 0. Rows may be in any order.

    Raises:
        JobsFileError: a column is missing, a row is no good, or there is none.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise JobsFileError(f"{source}:{line}: it is not UTF-8; export it as UTF-8") from error
    mistakes: list[str] = []
    rows = list(_rows(text, source, mistakes))
    drawer = BlockDrawer(data, random, _sizes(rows, source, mistakes))
    kinds = {row.is_time for row in rows}
    if len(kinds) > 1:
        odd = next(row for row in rows if row.is_time is not rows[0].is_time)
        mistakes.append(f"{source}:{odd.line}: arrives: write times or seconds in all rows, not both")
    if mistakes:
        more = [f"and {len(mistakes) - SHOWN:,} more"] if len(mistakes) > SHOWN else []
        raise JobsFileError("\n".join([*mistakes[:SHOWN], *more]))
    if not rows:
        raise JobsFileError(f"{source}: there is no job in it, only a header")
    rows.sort(key=lambda row: (row.arrives, row.line))
    first = rows[0].arrives
    return [
        Job(arrives=row.arrives - first, lasts=row.duration, key=row.key, blocks=drawer.draw(row.key, row.reads))
        for row in rows
    ]


def _sizes(rows: Iterable[_Row], source: str, mistakes: list[str]) -> dict[str, int]:
    """Say how many blocks keys have, as far as rows say."""
    sizes: dict[str, int] = {}
    mistakes.extend(
        f"{source}:{row.line}: blocks: must be {known:,}, as in another row of its key (got '{row.blocks}')"
        for row in rows
        if row.blocks is not None and (known := sizes.setdefault(row.key, row.blocks)) != row.blocks
    )
    return sizes


def _rows(text: str, source: str, mistakes: list[str]) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for values in reader:
            line = reader.line_num
            if not any(value.strip() for value in values):
                continue
            if header is None:
                header = [value.strip().lower() for value in values]
                _check_header(header, f"{source}:{line}")
            elif len(values) != len(header):
                mistakes.append(f"{source}:{line}: has {len(values)} values, the header has {len(header)}")
            else:
                row = _row(dict(zip(header, values, strict=True)), line, source, mistakes)
                if row is not None:
                    yield row
    except csv.Error as error:
        mistakes.append(f"{source}:{reader.line_num}: it is not CSV: {error}")
    if header is None:
        raise JobsFileError(f"{source}: it is empty; begin with a header: {','.join((*REQUIRED, *OPTIONAL))}")


def _check_header(header: list[str], place: str) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise JobsFileError(f"{place}: no column {', '.join(missing)}; the header must name {', '.join(REQUIRED)}")
    twice = [name for name in (*REQUIRED, *OPTIONAL) if header.count(name) > 1]
    if twice:
        raise JobsFileError(f"{place}: column {twice[0]} is there twice")


def _row(values: dict[str, str], line: int, source: str, mistakes: list[str]) -> _Row | None:
    def take(column: str, read: Callable[[str], T]) -> T | None:
        text = values.get(column, "").strip()
        try:
            return read(text)
        except _BadValue as error:
            got = text if len(text) <= LONGEST_FIELD else text[:LONGEST_FIELD] + "..."
            mistakes.append(f"{source}:{line}: {column}: {error} (got {got!r})")
            return None

    arrives = take("arrives", _arrives)
    duration = take("duration", _duration)
    key = take("key", _key)
    blocks = take("blocks", lambda text: _whole(text, 1, MOST_BLOCKS) if text else None)
    reads = take("reads", lambda text: _whole(text, 0, MOST_READS) if text else None)
    if arrives is None or duration is None or key is None:
        return None
    seconds, is_time = arrives
    return _Row(line=line, arrives=seconds, is_time=is_time, duration=duration, key=key, blocks=blocks, reads=reads)


def _arrives(text: str) -> tuple[float, bool]:
    """Read seconds, and whether they are of a time. Raises `_BadValue`, as all readers of a value."""
    seconds = _number(text)
    if seconds is not None:
        return seconds, False
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise _BadValue("must be a time such as 2026-11-24T09:30:00Z, or seconds") from error
    if time.tzinfo is None:
        raise _BadValue("must be a time with its zone, such as 2026-11-24T09:30:00Z")
    return time.timestamp(), True


def _key(text: str) -> str:
    if len(text) > LONGEST_FIELD:
        raise _BadValue(f"must have at most {LONGEST_FIELD} characters")
    return text


def _whole(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise _BadValue(f"must be a whole number from {least} to {most:,}")
    return int(text)


def _duration(text: str) -> float:
    seconds = _number(text)
    if seconds is None:
        try:
            seconds = parse_duration(text).total_seconds()
        except ValueError as error:
            raise _BadValue("must be seconds, or a duration such as 5m") from error
    if seconds < 0:
        raise _BadValue("must not be negative")
    return seconds


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) < 1e12 else None
