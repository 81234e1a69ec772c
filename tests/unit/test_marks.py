"""Idle marks: whose a mark is, and whose counts in which pool."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from extender.kube.annotate import mark_annotations
from extender.kube.objects import IDLE_SINCE, IDLE_SOURCE
from extender.model import IdleBasis
from extender.policy.marks import Marks, format_idle_mark, parse_idle_mark, read_marks
from tests.builders import NOW, minutes_ago, times

texts = st.one_of(
    st.none(),
    times.map(format_idle_mark),
    st.sampled_from(["", "marked ", "confirmed soon", "busy at version 7", "2026-13-01T00:00:00Z"]),
    st.builds("{} {}".format, st.sampled_from(["marked", "confirmed"]), times.map(format_idle_mark)),
)


def rounded(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


@given(texts, texts, st.sampled_from(IdleBasis))
def test_no_mark_is_busy_whatever_the_note_says(mark: str | None, note: str | None, basis: IdleBasis) -> None:
    """Without a mark, or with one that is no time, no worker is idle in any pool."""
    if parse_idle_mark(mark) is None:
        assert read_marks(mark, note, basis) == Marks(None, None)


@given(times, st.sampled_from(IdleBasis))
def test_mark_without_a_note_is_the_workers_own(since: datetime, basis: IdleBasis) -> None:
    """It counts where the worker's word alone does, and nowhere else."""
    found = read_marks(format_idle_mark(since), None, basis)
    assert found.own == rounded(since)
    assert found.idle_since == (rounded(since) if basis is IdleBasis.WORKER else None)


@given(times, st.sampled_from(IdleBasis))
def test_mark_of_warmnodes_counts_where_sources_alone_decide(since: datetime, basis: IdleBasis) -> None:
    """It is not the worker's word: a pool whose sources were changed to the annotation starts with busy workers."""
    written = mark_annotations(since, whole=True)
    found = read_marks(written[IDLE_SINCE], written[IDLE_SOURCE], basis)
    assert found.own is None
    assert found.idle_since == (rounded(since) if basis is IdleBasis.SOURCES else None)


@given(times, times)
def test_own_mark_and_confirmation_count_together_from_the_later_on(own: datetime, confirmed: datetime) -> None:
    """Where both are asked for, either one missing is busy; idle since the later."""
    mark, note = format_idle_mark(own), mark_annotations(confirmed, whole=False)[IDLE_SOURCE]
    assert read_marks(mark, note, IdleBasis.BOTH).idle_since == max(rounded(own), rounded(confirmed))
    assert read_marks(mark, None, IdleBasis.BOTH).idle_since is None
    assert read_marks(None, note, IdleBasis.BOTH).idle_since is None


@given(times, times)
def test_another_mark_over_warmnodes_is_the_workers_own(ours: datetime, theirs: datetime) -> None:
    """A worker that marks itself where warmnode's mark stood owns the mark from then on."""
    note = mark_annotations(ours, whole=True)[IDLE_SOURCE]
    found = read_marks(format_idle_mark(theirs), note, IdleBasis.WORKER)
    if rounded(ours) != rounded(theirs):
        assert found == Marks(rounded(theirs), rounded(theirs))


def test_confirmation_of_the_very_same_time_leaves_the_mark_the_workers() -> None:
    """A worker may tell both the same time; its mark is its own all the same."""
    note = mark_annotations(minutes_ago(5), whole=False)[IDLE_SOURCE]
    found = read_marks(format_idle_mark(minutes_ago(5)), note, IdleBasis.BOTH)
    assert found == Marks(minutes_ago(5), minutes_ago(5))


def test_what_is_removed() -> None:
    """Removing names the annotations with null, and the mark only where it was written with the note."""
    assert mark_annotations(None, whole=True) == {IDLE_SINCE: None, IDLE_SOURCE: None}
    assert mark_annotations(None, whole=False) == {IDLE_SOURCE: None}
    assert mark_annotations(NOW, whole=False) == {IDLE_SOURCE: "confirmed 2026-11-01T12:00:00.000Z"}
