"""The rule for workers, with sources outside that are wrong: any order of what everybody does, on one pod."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from hypothesis import given, settings
from hypothesis import strategies as st

from extender.kube.annotate import mark_annotations
from extender.kube.objects import IDLE_SINCE, IDLE_SOURCE
from extender.model import Pod
from extender.policy.defaults import HttpProbe
from extender.policy.idleness import reports_idle
from extender.policy.marks import format_idle_mark, read_marks
from extender.policy.sources import MarkWrite, Said, SourceRules, SourceVerdict, mark_write
from tests.builders import NOW, minutes_ago, worker

SECOND = timedelta(seconds=1)
PROBE = HttpProbe(port=8000, path="/idle", interval=10 * SECOND, timeout=SECOND)
ALONE, AGREE = (SourceRules(outside=outside, stale_after=timedelta(seconds=30)) for outside in ((), (PROBE,)))
"""The worker's own word, and the worker's word with a source that has to agree: `annotation` is a source in both."""


class Step(StrEnum):
    """What may happen next. The leader and the reaper decide and act in two steps: anything may come in between."""

    MARK = "the worker says idle"
    ACCEPT = "the worker removes its mark, and works if the answer shows no deletion"
    FINISH = "the worker is done"
    STATUS = "the kubelet writes the status"
    JUDGE_IDLE = "the leader decides on what it sees: the source says idle, whatever is true"
    JUDGE_BUSY = "the leader decides on what it sees: the source says busy"
    WRITE = "the leader's oldest decision reaches the API server"
    READ = "the reaper reads the pod, and the source says idle"
    EVICT = "the reaper's oldest eviction reaches the API server"
    RECONFIGURE = "the sources are changed, to the worker's own word or back"


@dataclass
class World:
    """One pod as the API server has it, and what is on its way to it."""

    rules: SourceRules
    annotations: dict[str, str]
    version: int = 0
    deleted: bool = False
    working: bool = False
    writes: list[tuple[int, MarkWrite]] = field(default_factory=list)
    evictions: list[int] = field(default_factory=list)

    def pod(self) -> Pod:
        note = self.annotations.get(IDLE_SOURCE)
        marks = read_marks(self.annotations.get(IDLE_SINCE), note, self.rules.basis)
        return worker(idle_since=marks.idle_since, own_mark=marks.own, source_mark=note, terminating=self.deleted)

    def patch(self, annotations: dict[str, str | None]) -> None:
        changed = {key: value for key, value in annotations.items() if self.annotations.get(key) != value}
        self.version += bool(changed)  # a patch that changes nothing moves no version
        for key, value in changed.items():
            if value is None:
                self.annotations.pop(key, None)
            else:
                self.annotations[key] = value

    def take(self, step: Step) -> None:
        match step:
            case Step.MARK if not self.working:
                self.patch({IDLE_SINCE: format_idle_mark(minutes_ago(self.version % 7))})
            case Step.ACCEPT:
                if self.pod().own_mark is not None:  # else it knows that it is not marked, and need not ask
                    self.patch({IDLE_SINCE: None})
                self.working = not self.deleted
            case Step.FINISH:
                self.working = False
            case Step.STATUS:
                self.version += 1
            case Step.JUDGE_IDLE | Step.JUDGE_BUSY:
                says = SourceVerdict(said=Said.IDLE, idle_since=minutes_ago(3))
                verdict = says if step is Step.JUDGE_IDLE else SourceVerdict(said=Said.BUSY)
                if self.rules.annotation and self.pod().own_mark is None:
                    verdict = SourceVerdict(said=Said.NOT_MARKED)
                write = mark_write(self.pod(), self.rules, verdict)
                if write is not None:
                    self.writes.append((self.version, write))
            case Step.WRITE if self.writes:
                version, write = self.writes.pop(0)
                if version == self.version:
                    self.patch(mark_annotations(write.since, whole=write.whole))
            case Step.READ:
                if reports_idle(self.pod(), NOW) and not self.deleted:
                    self.evictions.append(self.version)
            case Step.EVICT if self.evictions:
                if self.evictions.pop(0) == self.version and not self.deleted:
                    assert not self.working, "evicted at work"
                    self.deleted = True
                    self.version += 1
            case Step.RECONFIGURE:
                self.rules = AGREE if self.rules is ALONE else ALONE
            case _:
                pass


T = format_idle_mark(minutes_ago(9))
UNMARKED: list[dict[str, str]] = [
    {},
    {IDLE_SINCE: T, IDLE_SOURCE: f"marked {T}"},
    {IDLE_SOURCE: f"confirmed {T}"},
    {IDLE_SINCE: "busy at version 7"},
]
"""What a pod may carry whose worker has not marked itself, such as what warmnode made when sources alone decided."""
MARKED: list[dict[str, str]] = [{IDLE_SINCE: T}, {IDLE_SINCE: T, IDLE_SOURCE: f"confirmed {T}"}]


@settings(max_examples=2000, deadline=None)
@given(
    st.lists(st.sampled_from(Step), max_size=25),
    st.sampled_from([ALONE, AGREE]),
    st.sampled_from([(each, True) for each in UNMARKED] + [(each, False) for each in UNMARKED + MARKED]),
)
def test_work_accepted_by_the_rule_is_never_evicted(
    steps: list[Step], rules: SourceRules, before: tuple[dict[str, str], bool]
) -> None:
    """Whatever a source says, whenever decisions arrive, and whatever was left on the pod."""
    annotations, working = before
    world = World(rules=rules, annotations=dict(annotations), working=working)
    for step in steps:
        world.take(step)


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.sampled_from([Step.JUDGE_IDLE, Step.JUDGE_BUSY, Step.WRITE, Step.STATUS]), max_size=20),
    st.sampled_from(UNMARKED + MARKED),
)
def test_the_leader_alone_never_makes_or_removes_a_mark_where_it_is_the_workers(
    steps: list[Step], before: dict[str, str]
) -> None:
    """It writes the note beside it. Only a mark that it made itself goes."""
    world = World(rules=AGREE, annotations=dict(before))
    own = world.pod().own_mark
    for step in steps:
        world.take(step)
    assert world.pod().own_mark == own
    assert world.pod().idle_since in (None, minutes_ago(9), minutes_ago(3))
