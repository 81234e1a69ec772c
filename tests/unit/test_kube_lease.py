"""Leases: what is read of any JSON, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.kube.errors import Unavailable
from extender.kube.lease import micro_time, spec_of, stored_lease_from
from extender.policy.election import MAX_TRANSITIONS, LeaseRecord

SPEC = {
    "holderIdentity": "a_1",
    "leaseDurationSeconds": 15,
    "acquireTime": "2026-01-02T03:04:05.000000Z",
    "renewTime": "2026-01-02T03:04:07.123456Z",
    "leaseTransitions": 2,
}
ACQUIRED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RECORD = LeaseRecord(
    holder="a_1",
    duration=timedelta(seconds=15),
    acquired=ACQUIRED,
    renewed=ACQUIRED + timedelta(seconds=2, microseconds=123456),
    transitions=2,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(st.text(), each, max_size=2),
    max_leaves=3,
)
odd_times = st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-02T03:04:05", "soon"])


def record_of(spec: Any) -> LeaseRecord:
    return stored_lease_from(json.dumps({"metadata": {"name": "a"}, "spec": spec}).encode()).record


def test_record_survives_writing_and_reading() -> None:
    assert record_of(SPEC) == RECORD
    assert spec_of(RECORD) == SPEC


@pytest.mark.parametrize("body", [b'{"metadata":{}}', b'{"metadata":{},"spec":null}', b'{"metadata":{},"spec":[]}'])
def test_lease_without_a_spec_is_held_by_nobody(body: bytes) -> None:
    assert stored_lease_from(body).record == LeaseRecord()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("holderIdentity", None, {"holder": ""}),
        ("holderIdentity", 7, {"holder": ""}),
        ("leaseDurationSeconds", -15, {"duration": None}),
        ("leaseDurationSeconds", 0, {"duration": None}),
        ("leaseDurationSeconds", 1e300, {"duration": None}),
        ("leaseDurationSeconds", 10**30, {"duration": None}),
        ("leaseDurationSeconds", True, {"duration": None}),
        ("acquireTime", "yesterday", {"acquired": None}),
        ("renewTime", "0001-01-01T00:00:00+14:00", {"renewed": None}),
        ("leaseTransitions", -1, {"transitions": 0}),
        ("leaseTransitions", MAX_TRANSITIONS + 1, {"transitions": 0}),
    ],
)
def test_nonsense_in_one_field_leaves_the_others(field: str, value: object, expected: dict[str, Any]) -> None:
    assert record_of({**SPEC, field: value}) == replace(RECORD, **expected)


@given(st.dictionaries(st.sampled_from(list(SPEC)), json_values | odd_times) | json_values)
def test_any_spec_can_be_read_and_what_is_read_can_be_written(spec: object) -> None:
    """Whatever others wrote, the next write is one that the API server takes."""
    record = record_of(spec)
    written = spec_of(record)
    assert record_of(written) == record
    assert 0 <= record.transitions <= MAX_TRANSITIONS
    assert written["leaseDurationSeconds"] != 0


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"metadata":' + b"[" * 100_000])
def test_answer_that_is_no_lease_is_unavailable(body: bytes) -> None:
    with pytest.raises(Unavailable, match="not a Lease"):
        stored_lease_from(body)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05.000000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 7, tzinfo=timezone(timedelta(hours=-5))), "2026-01-02T08:04:05.000007Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_micro_time_is_utc_with_six_digits(time: datetime, text: str) -> None:
    """Go refuses any other number of digits, also none, and anything but Z or an offset."""
    assert micro_time(time) == text


def test_part_of_a_second_is_rounded_up() -> None:
    """Rounded down, others would take the Lease while it is held; 0 is refused by the API server."""
    assert spec_of(LeaseRecord(duration=timedelta(milliseconds=1500)))["leaseDurationSeconds"] == 2
    assert spec_of(LeaseRecord(duration=timedelta(milliseconds=1)))["leaseDurationSeconds"] == 1
