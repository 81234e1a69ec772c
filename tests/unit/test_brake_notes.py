"""The note on the reapers' Lease: what is written, how long it may be, and what is read of anything."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.kube.lease import StoredLease, stored_lease_from
from extender.kube.reaper_notes import BRAKES, LIMIT_BYTES, brake_note, brakes_from
from extender.policy.brakes import BrakeRecord
from tests.builders import NOW, minutes_ago, times

QUIET = BrakeRecord(evicted=3, since=minutes_ago(9))
PAUSED = BrakeRecord(evicted=244, since=minutes_ago(9), paused_until=NOW + timedelta(minutes=51))


def lease(annotations: object, holder: str = "reap_1") -> StoredLease:
    body = {"metadata": {"name": "warmnode-reaper", "annotations": annotations}, "spec": {"holderIdentity": holder}}
    return stored_lease_from(json.dumps(body).encode())


@given(
    st.dictionaries(
        st.text(max_size=63),
        st.builds(BrakeRecord, evicted=st.integers(0, 2**31), since=times, paused_until=st.none() | times),
        max_size=20,
    )
)
def test_what_is_written_is_read(brakes: dict[str, BrakeRecord]) -> None:
    """As far as there is room."""
    read = brakes_from(lease(brake_note(brakes)))
    assert read is not None
    assert read.items() <= brakes.items()
    if len(brakes) <= 10:
        assert read == brakes


def test_note_is_bounded_and_pauses_come_first() -> None:
    """Ten thousand pools of which one is paused: the Lease stays small, and the pause is in it."""
    brakes = {f"pool-{number}": QUIET for number in range(10_000)} | {"paused": PAUSED}
    note = brake_note(brakes)
    assert len(note[BRAKES]) < LIMIT_BYTES + 100
    read = brakes_from(lease(note))
    assert read is not None
    assert read["paused"] == PAUSED
    assert len(read) > 50


@pytest.mark.parametrize(
    "text", ["", "[]", "soon", '{"pool": 3}', '{"pool": {"evicted": 1, "since": "2026-01-01T00:00:00"}}']
)
def test_note_that_makes_no_sense_says_nothing(text: str) -> None:
    """Neither does a reaper of an earlier version, which writes none: that is not known, not nothing."""
    assert brakes_from(lease({BRAKES: text})) is None
    assert brakes_from(lease(None)) is None


def test_nobody_who_leads_remembers_nothing() -> None:
    """A reaper that was stopped in order, with its note still there: the next one begins anew."""
    assert brakes_from(lease(brake_note({"pool": PAUSED}), holder="")) == {}
