"""Idle marks as they are written on a pod, and which of them counts.

Two annotations: the mark itself, a time, and beside it what warmnode noted for the sources outside. Where the sources
alone decide, warmnode writes both: ``T`` and ``marked T``. Where the worker and the sources must agree, the mark is the
worker's and warmnode never touches it: it notes ``confirmed T``. A mark is warmnode's while the note repeats it to the
letter, so whoever writes another one makes it his.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

from extender.model import IdleBasis

MARKED = "marked "
CONFIRMED = "confirmed "

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Marks:
    """``idle_since`` is what counts, None for busy; ``own`` the mark that is not warmnode's."""

    idle_since: datetime | None
    own: datetime | None


def read_marks(mark: str | None, note: str | None, basis: IdleBasis) -> Marks:
    """Read the two annotations as a pool with this basis does.

    worker: the mark, unless it is warmnode's. sources: the mark, if it is warmnode's. both: the later of the worker's
    mark and of what the note confirms, if both are there.
    """
    time = parse_idle_mark(mark)
    is_ours = note is not None and note == f"{MARKED}{mark}"
    own = None if is_ours else time
    match basis:
        case IdleBasis.WORKER:
            return Marks(own, own)
        case IdleBasis.SOURCES:
            return Marks(time if is_ours else None, own)
        case IdleBasis.BOTH:
            confirmed = confirmed_since(note)
            return Marks(max(own, confirmed) if own is not None and confirmed is not None else None, own)
        case _:
            assert_never(basis)


def confirmed_since(note: str | None) -> datetime | None:
    """Read since when the sources agree with the worker's own mark, None where the note does not say that."""
    return parse_idle_mark(note.removeprefix(CONFIRMED)) if note is not None and note.startswith(CONFIRMED) else None


def parse_idle_mark(text: str | None) -> datetime | None:
    """Parse an idle mark: an RFC 3339 time with its zone. None where it is absent or anything else: that is busy."""
    if text is None or len(text) > 40 or not _RFC_3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):  # the 31st of February, or the year 0 in another zone
        return None


def format_idle_mark(time: datetime) -> str:
    """Write a time as marks do: RFC 3339 in UTC, to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
