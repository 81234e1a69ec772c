"""Leader election: whose turn it is, and what the Lease says next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from extender.policy.election import (
    LONGEST_TERM,
    MAX_TRANSITIONS,
    LeaseRecord,
    Sighting,
    next_record,
    released,
    sight,
    takeable_at_seconds,
)
from tests.builders import NOW

TERM, HOUR = timedelta(seconds=15), timedelta(hours=1)
HELD = LeaseRecord(holder="other", duration=TERM, acquired=NOW, renewed=NOW, transitions=3)

durations = st.timedeltas(timedelta(milliseconds=1), timedelta(days=400))
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
records = st.builds(
    LeaseRecord,
    holder=st.sampled_from(["", "me", "other", "third"]),
    duration=st.none() | durations,
    acquired=st.none() | times,
    renewed=st.none() | times | st.just(NOW),
    transitions=st.integers(0, MAX_TRANSITIONS),
)


def seen(record: LeaseRecord, at_seconds: float = 100.0) -> Sighting:
    return Sighting(record=record, at_seconds=at_seconds)


def takeable(sighting: Sighting | None) -> float:
    return takeable_at_seconds(sighting, identity="me", lease_duration=TERM)


def test_record_that_did_not_change_keeps_its_time() -> None:
    """The term counts from the first sighting of a record, and from anew with each change."""
    first = sight(None, HELD, 10.0)
    assert first == seen(HELD, 10.0)
    assert sight(first, replace(HELD), 20.0) == first
    renewed = replace(HELD, renewed=NOW + timedelta(seconds=2))
    assert sight(first, renewed, 20.0) == seen(renewed, 20.0)


def test_term_of_a_holder_runs_on_where_its_lease_was_deleted() -> None:
    """It may not know yet. A Lease that nobody held is simply gone."""
    assert sight(seen(HELD), None, 200.0) == seen(HELD)
    assert sight(seen(replace(HELD, holder="")), None, 200.0) is None
    assert sight(None, None, 200.0) is None


def test_lease_is_free_where_nobody_else_holds_it() -> None:
    assert takeable(None) == -inf
    assert takeable(seen(replace(HELD, holder=""))) == -inf
    assert takeable(seen(replace(HELD, holder="me"))) == -inf


def test_holder_keeps_the_longer_of_its_term_and_ours() -> None:
    """A holder's own leaseDuration counts, within reason; a shorter one than ours does not make us hasty."""
    assert takeable(seen(HELD)) == 115
    assert takeable(seen(replace(HELD, duration=timedelta(seconds=60)))) == 160
    assert takeable(seen(replace(HELD, duration=timedelta(seconds=1)))) == 115
    assert takeable(seen(replace(HELD, duration=None))) == 115
    assert takeable(seen(replace(HELD, duration=timedelta(days=9999)))) == 100 + LONGEST_TERM * 15


def test_take_begins_when_the_term_is_over() -> None:
    for now_seconds, expected in ((114.9, False), (115.0, True)):
        takeable_at = takeable_at_seconds(seen(HELD), identity="me", lease_duration=TERM)
        assert (now_seconds >= takeable_at) is expected


@given(record=records, at=st.floats(0, 1e9), sent=st.floats(0, 1e9), deadline=durations, longer=durations)
def test_nobody_takes_before_the_holder_has_ended(
    record: LeaseRecord, at: float, sent: float, deadline: timedelta, longer: timedelta
) -> None:
    """Seen at or after it was sent, a record of another is not taken before its holder's leadership has ended."""
    record = replace(record, holder="other")
    takeable_at = takeable_at_seconds(seen(record, sent + at), identity="me", lease_duration=deadline + longer)
    assert takeable_at >= sent + deadline.total_seconds()


def test_first_holder_is_no_transition() -> None:
    assert next_record(None, identity="me", lease_duration=TERM, now=NOW) == LeaseRecord(
        holder="me", duration=TERM, acquired=NOW, renewed=NOW, transitions=0
    )


def test_renewal_keeps_when_it_was_acquired() -> None:
    mine = replace(HELD, holder="me", acquired=NOW - timedelta(hours=1))
    later = NOW + timedelta(seconds=2)
    assert next_record(mine, identity="me", lease_duration=TERM, now=later) == replace(mine, renewed=later)


def test_renewal_says_what_holds_now() -> None:
    """Our term may be another since a restart, and a record without a time of acquiring gets one."""
    odd = replace(HELD, holder="me", duration=TERM * 2, acquired=None)
    later = NOW + timedelta(seconds=2)
    written = next_record(odd, identity="me", lease_duration=TERM, now=later)
    assert written == replace(odd, duration=TERM, acquired=later, renewed=later)


def test_another_holder_is_a_transition() -> None:
    """It counts from the record before, also from one that was released, and never leaves the API's 32 bits."""
    later = NOW + timedelta(seconds=20)
    taken = LeaseRecord(holder="me", duration=TERM, acquired=later, renewed=later, transitions=4)
    for before in (HELD, released(HELD, now=NOW)):
        assert next_record(before, identity="me", lease_duration=TERM, now=later) == taken
    worn = replace(HELD, transitions=MAX_TRANSITIONS)
    assert next_record(worn, identity="me", lease_duration=TERM, now=later).transitions == MAX_TRANSITIONS


@given(record=records, others=st.none() | times)
def test_every_write_differs_from_what_was_read(record: LeaseRecord, others: datetime | None) -> None:
    """Others look for a change: there is one, also where our wall clock stands still or was set back."""
    for now in (NOW, others or NOW):
        written = next_record(record, identity="me", lease_duration=TERM, now=now)
        assert written != record
        assert written.holder == "me"
        again = next_record(written, identity="me", lease_duration=TERM, now=now)
        third = next_record(again, identity="me", lease_duration=TERM, now=now)
        assert len({written, again, third}) == 3


def test_renewal_time_far_in_the_future_is_put_right() -> None:
    odd = replace(HELD, holder="me", renewed=datetime(9999, 12, 31, tzinfo=UTC))
    assert next_record(odd, identity="me", lease_duration=TERM, now=NOW).renewed == NOW
    for ahead, renewed in ((timedelta(minutes=59), NOW + timedelta(minutes=59, microseconds=1)), (HOUR, NOW)):
        mine = replace(HELD, holder="me", renewed=NOW + ahead)
        assert next_record(mine, identity="me", lease_duration=TERM, now=NOW).renewed == renewed


def test_released_lease_names_nobody_for_one_second() -> None:
    later = NOW + timedelta(seconds=2)
    gone = released(HELD, now=later)
    assert gone == replace(HELD, holder="", duration=timedelta(seconds=1), renewed=later)
