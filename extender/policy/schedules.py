"""Cron schedules of disruption budgets, as Karpenter reads them: robfig/cron v3 ``ParseStandard``, in UTC.

Owns the grammar and the question whether a time lies within a duration after a hit. Five fields (minute, hour, day of
month, month, day of week) of ``*``, ``?``, numbers, names, ranges, steps and lists; or ``@yearly``, ``@annually``,
``@monthly``, ``@weekly``, ``@daily``, ``@midnight``, ``@hourly``. Where both days are restricted either one will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import lru_cache

_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_MONTHS = {
    name: i
    for i, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}
_WEEKDAYS = {name: i for i, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_NAMES: tuple[dict[str, int], ...] = ({}, {}, {}, _MONTHS, _WEEKDAYS)
_DAYS_OF_MONTH = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LONGEST_SEARCH = timedelta(days=5 * 366)
"""As in robfig/cron: what has no hit within five years has none."""


class BadSchedule(ValueError):
    """A schedule that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The minutes at which a schedule hits: it does where every field has the time's value.

    ``any_day`` is true where the day of month or the day of week is ``*``: then both must match, else one of them.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool

    @property
    def never_hits(self) -> bool:
        """True for the 31st of February and its like."""
        return self.any_day and min(self.days) > max(_DAYS_OF_MONTH[month] for month in self.months)

    def last_hit(self, now: datetime, within: timedelta) -> datetime | None:
        """Find the latest hit in (``now`` - ``within``, ``now``], None where there is none. ``now`` is in UTC."""
        for days_back in range(min(within, _LONGEST_SEARCH).days + 2):
            day = now.date() - timedelta(days=days_back)
            if not self._hits_on(day.day, day.month, day.isoweekday() % 7):
                continue
            for hour in sorted(self.hours, reverse=True):
                for minute in sorted(self.minutes, reverse=True):
                    hit = datetime.combine(day, time(hour, minute), now.tzinfo)
                    if hit <= now:
                        return hit if now - hit < within else None
        return None

    def _hits_on(self, day: int, month: int, weekday: int) -> bool:
        if month not in self.months:
            return False
        matches = (day in self.days, weekday in self.weekdays)
        return all(matches) if self.any_day else any(matches)


@lru_cache(maxsize=256)
def parse_schedule(text: str) -> Schedule:
    """Parse a schedule.

    Raises:
        BadSchedule: it is no schedule that Karpenter's parser takes; ``@every`` and time zones are not taken either.
    """
    fields = _DESCRIPTORS.get(text, text).split()
    if len(fields) != len(_BOUNDS):
        raise BadSchedule(f"{text!r} has {len(fields)} fields, not 5")
    parsed = [_parse_field(field, position) for position, field in enumerate(fields)]
    (minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday) = parsed
    return Schedule(
        minutes=minutes, hours=hours, days=days, months=months, weekdays=weekdays, any_day=any_day or any_weekday
    )


def _parse_field(field: str, position: int) -> tuple[frozenset[int], bool]:
    """Parse one field: its values, and whether it is unrestricted (``*`` or ``?``, alone or in a list)."""
    values: set[int] = set()
    unrestricted = False
    for part in filter(None, field.split(",")):
        numbers, star = _parse_range(part, position)
        values.update(numbers)
        unrestricted = unrestricted or star
    if not values:
        raise BadSchedule(f"{field!r} names no time")
    return frozenset(values), unrestricted


def _parse_range(part: str, position: int) -> tuple[range, bool]:
    low, high = _BOUNDS[position]
    span, slash, step_text = part.partition("/")
    step = _number(step_text, {}) if slash else 1
    first, dash, last = span.partition("-")
    if first in ("*", "?"):
        start, end = low, high  # robfig/cron ignores what follows the star in "*-5"
    else:
        start = _number(first, _NAMES[position])
        end = _number(last, _NAMES[position]) if dash else high if slash else start
    if not low <= start <= end <= high or step < 1:
        raise BadSchedule(f"{part!r} is not within {low}-{high}")
    return range(start, end + 1, step), first in ("*", "?") and step == 1


def _number(text: str, names: dict[str, int]) -> int:
    found = names.get(text.lower())
    if found is not None:
        return found
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadSchedule(f"{text!r} is no number")
    return int(text)
