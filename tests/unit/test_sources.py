"""The combination of idle sources: nothing that fails, is late or makes no sense turns a worker idle."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extender.model import IdleBasis, Pod
from extender.policy.defaults import HttpProbe
from extender.policy.idleness import FUTURE_TOLERANCE
from extender.policy.marks import CONFIRMED, MARKED, format_idle_mark
from extender.policy.sources import (
    Answer,
    MarkWrite,
    Said,
    Series,
    SourceRules,
    SourceVerdict,
    combine,
    mark_write,
    series_answer,
    series_of,
)
from tests.builders import FORTY_MINUTES_AGO, NOW, minutes_ago, moment, steady, worker

SECOND = timedelta(seconds=1)
STALE_AFTER = timedelta(seconds=30)

offsets = st.integers(-7200, 120).map(lambda seconds: NOW + seconds * SECOND)
asked = st.integers(-60, 0).map(lambda seconds: steady(NOW + seconds * SECOND))
answers = st.one_of(
    st.none(),
    st.builds(Answer, asked=asked, said=st.just(Said.IDLE), idle_since=offsets),
    st.builds(Answer, asked=asked, said=st.sampled_from(Said)),
)


def rules(*, annotation: bool = False, outside: int = 1, dry_run: bool = False) -> SourceRules:
    probes = tuple(
        HttpProbe(port=8000 + number, path="/idle", interval=10 * SECOND, timeout=SECOND) for number in range(outside)
    )
    return SourceRules(annotation=annotation, outside=probes, stale_after=STALE_AFTER, dry_run=dry_run)


def idle(minutes: float = 10, *, asked: datetime = NOW) -> Answer:
    return Answer(asked=steady(asked), said=Said.IDLE, idle_since=minutes_ago(minutes))


@given(st.lists(answers, min_size=1, max_size=4), st.booleans(), st.one_of(st.none(), offsets))
def test_idle_only_where_every_source_says_so_now(
    given: list[Answer | None], annotation: bool, own: datetime | None
) -> None:
    """Idle means: each answer is there, idle and fresh; since the latest of all."""
    verdict = combine(rules(annotation=annotation, outside=len(given)), worker(own_mark=own), given, moment(NOW))
    assert (verdict.said is Said.IDLE) == (verdict.idle_since is not None)
    times = [answer.idle_since for answer in given if answer is not None and answer.said is Said.IDLE]
    fresh = [answer for answer in given if answer is not None and answer.asked >= steady(NOW - STALE_AFTER)]
    if annotation:
        times.append(own)
    latest = max((time for time in times if time is not None), default=None)
    all_say_so = len(times) == len(given) + annotation and None not in times and len(fresh) == len(given)
    if verdict.idle_since is not None:
        assert all_say_so
        assert verdict.idle_since == latest
        assert verdict.idle_since <= NOW + FUTURE_TOLERANCE
    else:
        assert not (all_say_so and latest is not None and latest <= NOW + FUTURE_TOLERANCE)


@given(st.lists(answers, min_size=1, max_size=4), answers)
def test_another_source_never_makes_a_worker_idle_or_idle_for_longer(
    given: list[Answer | None], more: Answer | None
) -> None:
    """Sources only take away; their order changes nothing but the reason."""
    before = combine(rules(outside=len(given)), worker(), given, moment(NOW))
    after = combine(rules(outside=len(given) + 1), worker(), [*given, more], moment(NOW))
    if after.idle_since is not None:
        assert before.idle_since is not None
        assert after.idle_since >= before.idle_since
    assert combine(rules(outside=len(given)), worker(), given[::-1], moment(NOW)).idle_since == before.idle_since


@given(st.lists(answers, min_size=1, max_size=3), st.integers(0, 3600))
def test_idle_verdict_ends_when_nobody_is_asked_any_more(given: list[Answer | None], seconds: int) -> None:
    """Old answers only get older."""
    later = NOW + seconds * SECOND
    verdict = combine(rules(outside=len(given)), worker(), given, moment(later))
    if seconds > 61 + STALE_AFTER.total_seconds():
        assert verdict.idle_since is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, Said.NOT_ASKED),
        (idle(asked=NOW - STALE_AFTER - timedelta(milliseconds=1)), Said.STALE),
        (idle(-1), Said.FUTURE),
        (Answer(asked=steady(NOW), said=Said.TIMEOUT), Said.TIMEOUT),
        (Answer(asked=steady(NOW), said=Said.IDLE), Said.NO_TIME),
    ],
)
def test_reason_of_a_busy_verdict(answer: Answer | None, said: Said) -> None:
    """The verdict carries the reason; an idle answer without a time is busy too."""
    verdict = combine(rules(), worker(), [answer], moment(NOW))
    assert verdict == SourceVerdict(said=said)


def test_answer_from_before_the_mark_went_does_not_count() -> None:
    """Somebody removed the mark: only what is asked after that may set it again."""
    assert combine(rules(), worker(), [idle()], moment(NOW), not_before=steady(NOW + SECOND)) == SourceVerdict(
        said=Said.NOT_ASKED
    )
    assert combine(rules(), worker(), [idle()], moment(NOW), not_before=steady(NOW)).said is Said.IDLE


def test_own_mark_is_needed_where_annotation_is_a_source() -> None:
    """A worker that does not say so itself is busy whatever others say, and so is one that marks the future."""
    both = rules(annotation=True)
    assert combine(both, worker(), [idle()], moment(NOW)) == SourceVerdict(said=Said.NOT_MARKED)
    assert combine(both, worker(own_mark=minutes_ago(-1)), [idle()], moment(NOW)) == SourceVerdict(said=Said.FUTURE)
    assert combine(both, worker(own_mark=minutes_ago(3)), [idle(10)], moment(NOW)).idle_since == minutes_ago(3)


def test_no_source_at_all_is_busy() -> None:
    """Rules that ask nobody make nobody idle."""
    assert combine(rules(outside=0), worker(), [], moment(NOW)).idle_since is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "1e300", "", "soon", "0x10"])
def test_value_that_is_no_time_is_busy(value: str) -> None:
    """NaN, infinities, negative numbers and what is past the calendar."""
    assert series_answer(value, steady(NOW)) == Answer(asked=steady(NOW), said=Said.NO_TIME)


@pytest.mark.parametrize(("value", "since"), [("0", 0), ("0.5", 0.5), ("1.7e9", 1_700_000_000)])
def test_value_is_seconds_of_the_epoch(value: str, since: float) -> None:
    """From 0 on: in UTC, whatever the zone of the machine."""
    idle_since = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=since)
    assert series_answer(value, steady(NOW)) == Answer(asked=steady(NOW), said=Said.IDLE, idle_since=idle_since)


@given(st.floats())
def test_any_value_is_a_time_or_busy(value: float) -> None:
    """No number that Prometheus can hold raises."""
    answer = series_answer(repr(value), steady(NOW))
    assert (answer.said is Said.IDLE) == (answer.idle_since is not None)


def test_series_are_picked_by_name_and_not_believed_about_an_earlier_pod() -> None:
    """No series, or one that is idle from before the pod was there: busy."""
    known = Series(asked=steady(NOW), by_pod={("default", "worker-1"): idle(10), ("default", "again"): idle(41)})
    assert series_of(known, worker()) == idle(10)
    for said, series, of in (
        (Said.NO_SERIES, known, worker("worker-2")),
        (Said.NO_SERIES, known, worker(namespace="other")),
        (Said.OTHER_POD, known, worker("again", created=FORTY_MINUTES_AGO)),
        (Said.TIMEOUT, replace(known, failed=Said.TIMEOUT), worker()),
    ):
        assert series_of(series, of) == Answer(asked=steady(NOW), said=said)


@pytest.mark.parametrize(("more", "is_believed"), [(-SECOND, True), (0 * SECOND, True), (SECOND, False)])
def test_a_series_is_about_an_earlier_pod_where_clocks_cannot_differ_so_much(
    more: timedelta, is_believed: bool
) -> None:
    """The exporter's is not the API server's, which says when the pod was made."""
    since = NOW - FUTURE_TOLERANCE - more
    told = Answer(asked=steady(NOW), said=Said.IDLE, idle_since=since)
    known = Series(asked=steady(NOW), by_pod={("default", "worker-1"): told})
    assert (series_of(known, worker(created=NOW)) == told) is is_believed


# -- the mark that follows --------------------------------------------------------------------------------------------

TWELVE_AGO = minutes_ago(12)
IDLE = SourceVerdict(said=Said.IDLE, idle_since=minutes_ago(10))
BUSY = SourceVerdict(said=Said.BUSY)


def marked(minutes: float = 10) -> Pod:
    """A worker with a mark of warmnode's, in a pool where sources alone decide."""
    note = f"{MARKED}{format_idle_mark(minutes_ago(minutes))}"
    return worker(idle_since=minutes_ago(minutes), source_mark=note)


def confirmed(minutes: float = 10, *, own: datetime | None = TWELVE_AGO) -> Pod:
    """A worker with its own mark and a confirmation, in a pool where both must agree."""
    note = f"{CONFIRMED}{format_idle_mark(minutes_ago(minutes))}"
    return worker(own_mark=own, idle_since=own and max(own, minutes_ago(minutes)), source_mark=note)


def test_sources_alone_write_and_remove_the_mark() -> None:
    """Idle: mark and note. Busy: both go. What stands is not written again."""
    alone = rules()
    assert mark_write(worker(), alone, IDLE) == MarkWrite(pod=worker(), since=minutes_ago(10), whole=True)
    assert mark_write(marked(), alone, IDLE) is None
    assert mark_write(marked(), alone, BUSY) == MarkWrite(pod=marked(), since=None, whole=True)
    assert mark_write(worker(), alone, BUSY) is None


def test_a_second_of_jitter_is_the_same_time_and_a_later_one_is_written() -> None:
    """A worker that was busy in between is idle since later; an earlier time than the mark's is not believed."""
    alone = rules()
    assert mark_write(marked(10), alone, SourceVerdict(said=Said.IDLE, idle_since=minutes_ago(10) + SECOND)) is None
    assert mark_write(marked(10), alone, SourceVerdict(said=Said.IDLE, idle_since=minutes_ago(11))) is None
    later = mark_write(marked(10), alone, SourceVerdict(said=Said.IDLE, idle_since=minutes_ago(9)))
    assert later is not None
    assert later.since == minutes_ago(9)


@given(st.sampled_from([IDLE, BUSY]), st.booleans(), st.sampled_from([None, "marked x", "confirmed y"]))
def test_mark_of_the_worker_is_never_written_or_removed_where_it_is_a_source(
    verdict: SourceVerdict, dry_run: bool, note: str | None
) -> None:
    """Where the worker marks itself, only the note beside its mark is warmnode's."""
    for outside in (0, 1):
        pod = worker(own_mark=minutes_ago(12), source_mark=note)
        write = mark_write(pod, rules(annotation=True, outside=outside, dry_run=dry_run), verdict)
        assert write is None or not write.whole


def test_confirmation_comes_and_goes_with_the_verdict() -> None:
    """Both must agree: the note is written, kept and removed; without a mark of the worker's nothing is resurrected."""
    both = rules(annotation=True)
    own = worker(own_mark=minutes_ago(12))
    assert mark_write(own, both, IDLE) == MarkWrite(pod=own, since=minutes_ago(10), whole=False)
    assert mark_write(confirmed(), both, IDLE) is None
    stale = confirmed(15, own=minutes_ago(10))  # its own mark is the later one, and says nothing of the sources
    assert mark_write(stale, both, IDLE) == MarkWrite(pod=stale, since=minutes_ago(10), whole=False)
    assert mark_write(confirmed(), both, BUSY) == MarkWrite(pod=confirmed(), since=None, whole=False)
    unmarked = confirmed(own=None)
    verdict = combine(both, unmarked, [idle()], moment(NOW))
    assert mark_write(unmarked, both, verdict) == MarkWrite(pod=unmarked, since=None, whole=False)


def test_what_is_left_of_other_settings_is_removed() -> None:
    """Sources were taken out of the configuration: warmnode's mark goes, the worker's own stays."""
    none_outside = rules(annotation=True, outside=0)
    ours = structs.replace(marked(), idle_since=None)
    assert mark_write(ours, none_outside, BUSY) == MarkWrite(pod=ours, since=None, whole=True)
    assert mark_write(confirmed(), none_outside, IDLE) == MarkWrite(pod=confirmed(), since=None, whole=False)
    assert mark_write(worker(own_mark=NOW, idle_since=NOW), none_outside, IDLE) is None


def test_foreign_mark_gives_way_where_sources_alone_decide() -> None:
    """It does not count there: idle overwrites it, busy leaves it alone."""
    foreign = worker(own_mark=minutes_ago(12))
    assert mark_write(foreign, rules(), IDLE) == MarkWrite(pod=foreign, since=minutes_ago(10), whole=True)
    assert mark_write(foreign, rules(), BUSY) is None


def test_dry_run_writes_no_mark_and_still_removes_ours() -> None:
    """As for workers that mark themselves: removing is on the safe side."""
    assert mark_write(worker(), rules(dry_run=True), IDLE) is None
    assert mark_write(marked(), rules(dry_run=True), BUSY) == MarkWrite(pod=marked(), since=None, whole=True)


def test_marks_outlive_a_change_of_the_leader_for_as_long_as_an_answer_would() -> None:
    """Not asked yet is no reason to take a mark away; not asked for too long is."""
    not_asked = SourceVerdict(said=Said.NOT_ASKED)
    assert mark_write(marked(), rules(), not_asked, STALE_AFTER) is None
    assert mark_write(marked(), rules(), BUSY, STALE_AFTER) is not None
    assert mark_write(marked(), rules(), not_asked, STALE_AFTER + SECOND) is not None
    left = structs.replace(marked(), idle_since=None)
    assert mark_write(left, rules(annotation=True, outside=0), not_asked, timedelta()) is not None


def test_pods_that_end_are_left_alone() -> None:
    """Nobody decides about them any more."""
    assert mark_write(structs.replace(marked(), terminating=True), rules(), BUSY) is None
    assert mark_write(worker(finished=True), rules(), IDLE) is None


def test_basis_follows_from_the_sources() -> None:
    """Whose word counts: the worker's, the sources', or both."""
    found = [rules(annotation=a, outside=n).basis for a, n in ((True, 0), (False, 1), (True, 2))]
    assert found == [IdleBasis.WORKER, IdleBasis.SOURCES, IdleBasis.BOTH]
