"""The two clocks of a process, as values: the time of day, and one that only counts. Reads none: `app` makes it.

``now`` is compared with times on objects, and nothing else: it may jump. ``steady`` makes deadlines and intervals. The
types do not mix, so a deadline can only be made from ``steady``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

MOST_OFF = timedelta(seconds=5)
"""So far a clock may be off the API server's, and all who look at a claim still agree on whether it has ended."""
DATE_IS_GOOD_TO = timedelta(seconds=1)
"""The API server tells its time in whole seconds."""


@dataclass(frozen=True, slots=True, order=True)
class Steady:
    """A moment of one process's clock that only counts. Means nothing elsewhere, and is never compared with a date."""

    seconds: float

    def __add__(self, span: timedelta) -> Steady:
        return Steady(self.seconds + span.total_seconds())

    def __sub__(self, other: Steady) -> timedelta:
        return timedelta(seconds=self.seconds - other.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One moment on both clocks: ``now`` to be compared with times on objects, ``steady`` with other moments."""

    now: datetime
    steady: Steady


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Reads the time of day (aware UTC) and steady time.

    ``skew`` is the API server's time of day minus ours, None while it is not known.
    """

    now: Callable[[], datetime]
    steady: Callable[[], Steady]
    skew: Callable[[], timedelta | None] = lambda: None

    def moment(self) -> Moment:
        return Moment(now=self.now(), steady=self.steady())

    @property
    def told_off(self) -> str:
        """Say by how much it is off, for people."""
        skew = self.skew() or timedelta(0)
        return f"{abs(skew.total_seconds()):.0f} s {'behind' if skew > timedelta(0) else 'ahead of'} the API server's"

    @property
    def is_off(self) -> bool:
        """True where the time of day must not be compared with times on objects: others disagree on what has ended."""
        skew = self.skew()
        return skew is not None and abs(skew) > MOST_OFF + DATE_IS_GOOD_TO
