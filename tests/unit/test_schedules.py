"""Cron schedules of budgets, as robfig/cron v3 reads them.

Compared with the Go library on 40,000 random schedules, times and windows: they differ on ``@every`` only, which the
NodePool's CRD refuses.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.policy.schedules import BadSchedule, parse_schedule
from tests.builders import times

WEEK = timedelta(days=7)
SUNDAY = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def last_hit(schedule: str, now: datetime = SUNDAY, within: timedelta = 60 * WEEK) -> str | None:
    hit = parse_schedule(schedule).last_hit(now, within)
    return None if hit is None else hit.strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("schedule", "hit"),
    [
        ("* * * * *", "2026-11-01 12:00"),
        ("3/7 * * * *", "2026-11-01 11:59"),
        ("30 9-17/4 * * *", "2026-11-01 09:30"),
        ("0 9 * * mon-fri", "2026-10-30 09:00"),
        ("0 0 13 * fri", "2026-10-30 00:00"),  # either day will do where both are restricted
        ("0 0 13 * *", "2026-10-13 00:00"),
        ("0 0 13 * */1", "2026-10-13 00:00"),
        ("0 0 13 * */2", "2026-11-01 00:00"),  # a step makes the star a restriction
        ("0 0 31 * ?", "2026-10-31 00:00"),
        ("15,45 22 * JAN,Jul *", "2026-07-31 22:45"),
        ("50/5 11 * * *", "2026-11-01 11:55"),
        ("@hourly", "2026-11-01 12:00"),
        ("@daily", "2026-11-01 00:00"),
        ("@midnight", "2026-11-01 00:00"),
        ("@weekly", "2026-11-01 00:00"),
        ("@monthly", "2026-11-01 00:00"),
        ("@yearly", "2026-01-01 00:00"),
        ("@annually", "2026-01-01 00:00"),
    ],
)
def test_latest_hit_of_a_schedule(schedule: str, hit: str) -> None:
    """As of a Sunday noon, the first of a month."""
    assert last_hit(schedule) == hit


@pytest.mark.parametrize(
    "schedule",
    [
        *(
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 * ",
            "* * * * 7",
        ),
        *("5-1 * * * *", "*/0 * * * *", "1-2-3 * * * *", "1/2/3 * * * *", "a * * * *", "-1 * * * *", ", * * * *"),
        *("@every 1h", "@reboot", "@Daily", "@dailyx", "TZ=UTC * * * * *", "* * * foo *", "² * * * *"),
    ],
)
def test_what_karpenter_does_not_take_is_refused(schedule: str) -> None:
    with pytest.raises(BadSchedule):
        parse_schedule(schedule)


def test_window_is_open_at_its_end() -> None:
    """A hit counts from its own second on, and no longer when the whole duration has passed."""
    noon = parse_schedule("0 12 * * *")
    minute, second = timedelta(minutes=1), timedelta(seconds=1)
    assert noon.last_hit(SUNDAY - second, minute) is None
    assert noon.last_hit(SUNDAY, minute) == SUNDAY
    assert noon.last_hit(SUNDAY + minute - second, minute) == SUNDAY
    assert noon.last_hit(SUNDAY + minute, minute) is None


def test_day_that_never_comes() -> None:
    """The 31st of February; a weekday beside it comes."""
    assert parse_schedule("0 0 31 2 *").never_hits
    assert parse_schedule("0 0 30 feb ?").never_hits
    assert not parse_schedule("0 0 29 2 *").never_hits
    assert not parse_schedule("0 0 31 2 mon").never_hits
    assert last_hit("0 0 31 2 *") is None
    assert last_hit("0 0 29 2 *", within=timedelta(days=4000)) == "2024-02-29 00:00"


within = st.integers(1, 36 * 60).map(lambda minutes: timedelta(minutes=minutes))


@given(
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=3),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=3),
    weekdays=st.sets(st.integers(0, 6), min_size=1, max_size=3),
    within=within,
    now=times,
)
def test_hit_is_what_a_walk_minute_by_minute_finds(
    minutes: set[int], hours: set[int], weekdays: set[int], within: timedelta, now: datetime
) -> None:
    """The slow definition: the latest minute of the window whose fields match."""
    text = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * {','.join(map(str, weekdays))}"
    minute = now.replace(second=0, microsecond=0)
    found = None
    while now - minute < within:
        if minute.minute in minutes and minute.hour in hours and minute.isoweekday() % 7 in weekdays:
            found = minute
            break
        minute -= timedelta(minutes=1)
    assert parse_schedule(text).last_hit(now, within) == found


@given(st.text(max_size=30) | st.from_regex(r"[-0-9*/?, a-z@]{0,20}", fullmatch=True))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    try:
        schedule = parse_schedule(text)
    except BadSchedule:
        return
    schedule.last_hit(SUNDAY, WEEK)
