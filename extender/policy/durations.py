"""Durations as they are written in the file: ``90s``, ``5m``, ``1h30m``, ``250ms``, ``0s``.

Owns the notation. A bare number is refused, because it does not say its unit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

LONGEST = timedelta(hours=8760)
"""One year: longer is a slip, and time arithmetic must not overflow."""

UNITS = r"([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?"
"""The notation as a pattern. It also matches the empty text, which is none, and not ``0``."""
_WRITTEN = re.compile(UNITS)
_EXAMPLES = 'must be a duration such as "90s", "5m", "1h30m" or "250ms"'


def parse_duration(value: object) -> timedelta:
    """Read a duration: hours, minutes, seconds, milliseconds, in this order, whole numbers, at most one year.

    A plain ``"0"`` is zero. ValueError says what to write instead of anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'must be a duration with a unit: write "{value}s", not {value}')
    if isinstance(value, float):
        raise ValueError('must be a duration with a unit: write "1500ms", not 1.5')
    if not isinstance(value, str):
        raise ValueError(_EXAMPLES)
    if value == "0":
        return timedelta()
    written = _WRITTEN.fullmatch(value)
    if written is None or not value:
        raise ValueError(_EXAMPLES)
    hours, minutes, seconds, milliseconds = (
        int(part.rstrip("hms")) if part is not None else 0 for part in written.groups()
    )
    duration = timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    if duration > LONGEST:
        raise ValueError(f"must be at most {format_duration(LONGEST)}, which is a year")
    return duration


def format_duration(duration: timedelta) -> str:
    """The shortest notation that `parse_duration` reads back, to the millisecond: ``1h30m``, ``0s``."""
    rest = duration // timedelta(milliseconds=1)
    written = ""
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            written += f"{count}{unit}"
    return written or "0s"


def _at_least(shortest: timedelta) -> Callable[[timedelta], timedelta]:
    def check(duration: timedelta) -> timedelta:
        if duration < shortest:
            raise ValueError(f"must be at least {format_duration(shortest)}")
        return duration

    return check


def _schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": ["90s", "5m", "1h30m", "250ms"]})


Duration: TypeAlias = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    _schema(f"^(0|(?=.){UNITS})$"),
]
"""Zero or longer."""

PositiveDuration: TypeAlias = Annotated[
    Duration, AfterValidator(_at_least(timedelta(milliseconds=1))), _schema(f"^(?=.*[1-9]){UNITS}$")
]
"""Longer than zero."""

Interval: TypeAlias = Annotated[
    Duration, AfterValidator(_at_least(timedelta(seconds=1))), _schema(f"^(?=.*[1-9]){UNITS}$")
]
"""Time between two rounds of something: one second or longer, so that a slip does not load the API server."""
