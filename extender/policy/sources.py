"""Idleness from outside: what sources say of a worker, put together into one verdict, and the mark that follows.

Owns the combination. All sources must say idle, each in an answer that is not stale; idle since the latest of them. An
answer that is missing, old, late, garbled or contradictory is busy: no source that fails turns a worker idle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from extender.clock import Moment, Steady
from extender.model import IdleBasis, Pod
from extender.policy.defaults import HttpProbe, PrometheusSource
from extender.policy.idleness import FUTURE_TOLERANCE, is_valid_mark
from extender.policy.marks import CONFIRMED, confirmed_since

SAME_TIME = timedelta(seconds=1)
"""Times of one idle spell that differ by no more than this are one: a rate computed by a query jitters."""


class Said(StrEnum):
    """What a source said of a worker. All but ``idle`` mean busy. The metric label and the explanation."""

    IDLE = "idle"
    BUSY = "busy"
    NOT_MARKED = "notMarked"
    NOT_ASKED = "notAsked"
    STALE = "stale"
    FUTURE = "future"
    NO_TIME = "noTime"
    NO_SERIES = "noSeries"
    SEVERAL_SERIES = "severalSeries"
    OTHER_POD = "otherPod"
    NO_ADDRESS = "noAddress"
    BAD_STATUS = "badStatus"
    REDIRECT = "redirect"
    NO_JSON = "noJson"
    TOO_LARGE = "tooLarge"
    TIMEOUT = "timeout"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusQuery(PrometheusSource):
    """A source as it is asked. ``max_age`` is the age of the oldest sample that may count."""

    max_age: timedelta


Source: TypeAlias = HttpProbe | PrometheusQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRules:
    """How workers of a pool are known to be idle: ``annotation`` is the worker's own mark, ``outside`` who is asked."""

    stale_after: timedelta
    annotation: bool = True
    outside: tuple[Source, ...] = ()
    dry_run: bool = False

    @property
    def basis(self) -> IdleBasis:
        """Whose word makes a worker of the pool idle."""
        if not self.outside:
            return IdleBasis.WORKER
        return IdleBasis.BOTH if self.annotation else IdleBasis.SOURCES


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one source said of one worker. ``asked`` is when the question went out, ``idle_since`` is set for idle."""

    asked: Steady
    said: Said
    idle_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What Prometheus said of all pods in one answer, by (namespace, name). ``failed`` is why there is none."""

    asked: Steady
    by_pod: Mapping[tuple[str, str], Answer]
    failed: Said | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVerdict:
    """What all sources together say. ``idle_since`` None: busy, and ``said`` is why."""

    said: Said
    idle_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkWrite:
    """A note to write on a worker, or to remove where ``since`` is None. ``whole``: the idle mark itself with it."""

    pod: Pod
    since: datetime | None
    whole: bool


def combine(
    rules: SourceRules,
    worker: Pod,
    answers: Sequence[Answer | None],
    now: Moment,
    *,
    not_before: Steady | None = None,
) -> SourceVerdict:
    """Put together what the sources say, one answer for each of ``rules.outside``; None: none yet.

    Busy, with the first reason of: 1. ``annotation`` is a source and the worker has no valid mark of its own; 2. a
    source was not asked, or not since ``not_before``; 3. its answer is older than ``stale_after``; 4. it is not idle;
    5. it is idle from more than 30 s ahead of ``now`` on. Else idle since the latest.
    """
    times: list[datetime] = []
    if rules.annotation:
        if worker.own_mark is None or not is_valid_mark(worker.own_mark, now.now):
            return SourceVerdict(said=Said.NOT_MARKED if worker.own_mark is None else Said.FUTURE)
        times.append(worker.own_mark)
    for answer in answers:
        if answer is None or (not_before is not None and answer.asked < not_before):
            return SourceVerdict(said=Said.NOT_ASKED)
        said = standing(answer, rules.stale_after, now)
        if said is not Said.IDLE or answer.idle_since is None:
            return SourceVerdict(said=said)
        times.append(answer.idle_since)
    return SourceVerdict(said=Said.IDLE, idle_since=max(times)) if times else SourceVerdict(said=Said.NOT_ASKED)


def standing(answer: Answer | None, stale_after: timedelta, now: Moment) -> Said:
    """Say what an answer is worth now. None is no answer yet."""
    if answer is None:
        return Said.NOT_ASKED
    if now.steady - answer.asked > stale_after:
        return Said.STALE
    if answer.said is not Said.IDLE:
        return answer.said
    if answer.idle_since is None:
        return Said.NO_TIME
    return Said.IDLE if is_valid_mark(answer.idle_since, now.now) else Said.FUTURE


def series_answer(value: str, asked: Steady) -> Answer:
    """Read the value of a series: since when its pod is idle, in seconds of the epoch. No such time: busy."""
    try:
        seconds = float(value)
        if seconds < 0:
            return Answer(asked=asked, said=Said.NO_TIME)
        return Answer(asked=asked, said=Said.IDLE, idle_since=datetime.fromtimestamp(seconds, UTC))
    except (ValueError, OverflowError, OSError):  # no number, infinite, or past the year 9999
        return Answer(asked=asked, said=Said.NO_TIME)


def series_of(series: Series, worker: Pod) -> Answer:
    """Pick out what was said of one worker.

    Series know a pod by its name only. One that is idle from before the worker existed on tells of an earlier pod of
    that name, or is the 0 of an exporter that knows no time: busy.
    """
    if series.failed is not None:
        return Answer(asked=series.asked, said=series.failed)
    found = series.by_pod.get((worker.namespace, worker.name))
    if found is None:
        return Answer(asked=series.asked, said=Said.NO_SERIES)
    if found.idle_since is not None and found.idle_since < worker.created - FUTURE_TOLERANCE:
        return Answer(asked=series.asked, said=Said.OTHER_POD)
    return found


def mark_write(
    worker: Pod, rules: SourceRules, verdict: SourceVerdict, asking_for: timedelta = timedelta.max
) -> MarkWrite | None:
    """Decide what to write on one worker, None for nothing.

    1. idle, sources alone: the mark and the note, whatever stood there; 2. idle, with the worker's own mark: the note
    alone; 3. busy, or no source outside any more: what warmnode wrote is removed, and no mark of anybody else; 4. what
    stands already, up to a second earlier, or later, stays: the later time is on the safe side; 5. terminating and
    finished pods are left as they are; 6. in dry-run nothing is written, but what is ours is still removed; 7. a worker
    that was not asked yet keeps what it has for ``stale_after``: ``asking_for`` is how long its sources are asked. Else
    each change of the leader would take all marks away and write them anew.
    """
    if worker.terminating or worker.finished:
        return None
    if rules.outside and verdict.said is Said.NOT_ASKED and asking_for <= rules.stale_after:
        return None
    if verdict.idle_since is None or rules.basis is IdleBasis.WORKER:
        return None if worker.source_mark is None else MarkWrite(pod=worker, since=None, whole=_mark_is_ours(worker))
    if rules.dry_run:
        return None
    sources_alone = rules.basis is IdleBasis.SOURCES
    stands = worker.idle_since if sources_alone else confirmed_since(worker.source_mark)
    if stands is not None and verdict.idle_since - stands <= SAME_TIME:
        return None
    return MarkWrite(pod=worker, since=verdict.idle_since, whole=sources_alone)


def _mark_is_ours(worker: Pod) -> bool:
    """True where the note says that warmnode made the mark, and nobody has made another one since."""
    return worker.own_mark is None and worker.source_mark is not None and not worker.source_mark.startswith(CONFIRMED)
