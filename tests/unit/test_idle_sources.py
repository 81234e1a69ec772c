"""The loop over idle sources: who is asked and when, which marks follow, and what an eviction is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from msgspec import structs

from extender.cluster.state import ClusterState
from extender.kube.annotate import mark_annotations
from extender.kube.errors import Conflict, Forbidden, Unavailable
from extender.kube.eviction import EvictionOutcome, EvictionResult, FreshPod
from extender.kube.objects import IDLE_SINCE, IDLE_SOURCE
from extender.loops.evictions import Hands
from extender.loops.idle_answers import Answers
from extender.loops.idle_sources import IdleSources
from extender.loops.reaper import Reaper
from extender.model import IdleBasis, Pod, Selector, SkipReason
from extender.policy.defaults import HttpProbe, ReapRules
from extender.policy.marks import read_marks
from extender.policy.sources import Answer, MarkWrite, PrometheusQuery, Said, Series, Source, SourceRules
from extender.settings import PoolSettings
from extender.sources.prometheus import PrometheusAnswer
from extender.telemetry import Metrics
from tests.builders import NOW, clock_of, minutes_ago, node, steady, worker
from tests.unit.test_reaper import Told

SECOND = timedelta(seconds=1)
PROBE = HttpProbe(port=8000, path="/idle", interval=10 * SECOND, timeout=2 * SECOND)
QUERY = PrometheusQuery(url="http://p", query="q", interval=15 * SECOND, timeout=5 * SECOND, max_age=30 * SECOND)

FAILURES = [said for said in Said if said not in (Said.IDLE, Said.NOT_ASKED)]
"""What a source may answer, and idle is not."""


class Scene:
    """Workers w-1 to w-3 on one node, sources that say what the test tells them, and an API server that takes marks."""

    def __init__(self, *outside: Source, annotation: bool = False, dry_run: bool = False) -> None:
        self.now = NOW
        self.ahead = timedelta(0)
        self.leads = True
        self.fresh = True
        self.rules = SourceRules(
            annotation=annotation, outside=outside or (PROBE,), stale_after=30 * SECOND, dry_run=dry_run
        )
        self.says: dict[str, Answer] = {}
        """By the worker's address."""
        self.series: dict[tuple[str, str], Answer] = {}
        self.failed: Said | None = None
        self.problem = ""
        self.unnamed = 0
        self.asked: list[str] = []
        self.written: list[MarkWrite] = []
        self.refusal: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.metrics = Metrics()
        self.state = ClusterState(clock=self.clock)
        self.state.replace_nodes([node()])
        self.state.replace_pods([worker(f"w-{n}", ip=f"10.0.0.{n}") for n in (1, 2, 3)])
        self.state.begin()
        self.answers = Answers(
            ask_worker=self._ask_worker,
            ask_prometheus=self._ask_prometheus,
            metrics=self.metrics,
            clock=clock_of(self.clock, lambda: self.ahead),
        )
        self.sources = IdleSources(
            state=self.state,
            answers=self.answers,
            write=self._write,
            metrics=self.metrics,
            rules=lambda pool: self.rules,
            asks_anybody=lambda: bool(self.rules.outside),
            is_leader=lambda: self.leads,
            may_write=lambda: self.leads and self.fresh,
            clock=clock_of(self.clock, lambda: self.ahead),
        )
        self.metrics.show(self.sources.figures)

    def clock(self) -> datetime:
        return self.now

    def pod(self, number: int = 1) -> Pod:
        return self.state.pods[f"uid-of-w-{number}"]

    def change(self, number: int, **values: object) -> None:
        """Change a worker in the cluster, as its watch shows it."""
        self.state.upsert_pod(structs.replace(self.pod(number), **values))

    def idle(self, number: int = 1, minutes: float = 10) -> None:
        """Have a worker, or the series about it, say idle from now on."""
        answer = Answer(asked=steady(self.now), said=Said.IDLE, idle_since=minutes_ago(minutes))
        self.says[f"10.0.0.{number}"] = answer
        self.series[("default", f"w-{number}")] = answer

    def busy(self, number: int = 1, said: Said = Said.BUSY) -> None:
        self.says[f"10.0.0.{number}"] = Answer(asked=steady(self.now), said=said)
        self.series.pop(("default", f"w-{number}"), None)

    async def look(self, *, seconds: float = 0) -> None:
        """Let time pass, look twice: the second look sees the answers to the questions of the first."""
        self.now += seconds * SECOND
        await self.sources.look()
        for _ in range(20):
            await asyncio.sleep(0)
        await self.sources.look()

    def counted(self, source: str, said: Said) -> float:
        labels = {"pool": "pool", "source": source, "said": str(said)}
        return self.metrics.registry.get_sample_value("warmnode_idle_source_workers", labels) or 0.0

    def writes(self, outcome: str) -> float:
        labels = {"pool": "pool", "outcome": outcome}
        return self.metrics.registry.get_sample_value("warmnode_idle_mark_writes_total", labels) or 0.0

    async def _ask_worker(self, probe: HttpProbe, address: str | None) -> Answer:
        asked = steady(self.now)
        self.asked.append(address or "")
        await self.gate.wait()
        return replace(self.says.get(address or "", Answer(asked=asked, said=Said.BUSY)), asked=asked)

    async def _ask_prometheus(self, query: PrometheusQuery) -> PrometheusAnswer:
        self.asked.append("prometheus")
        await self.gate.wait()
        by_pod = {key: replace(answer, asked=steady(self.now)) for key, answer in self.series.items()}
        series = Series(asked=steady(self.now), by_pod=by_pod, failed=self.failed)
        return PrometheusAnswer(series=series, problem=self.problem, unnamed=self.unnamed)

    async def _write(self, write: MarkWrite) -> Pod:
        if self.refusal is not None:
            raise self.refusal
        self.written.append(write)
        marks = mark_annotations(write.since, whole=write.whole)
        pod = write.pod
        note = marks[IDLE_SOURCE]
        if write.whole:
            read = read_marks(marks[IDLE_SINCE], note, self.rules.basis)
            return structs.replace(pod, idle_since=read.idle_since, own_mark=read.own, source_mark=note)
        confirmed = pod.own_mark if note and pod.own_mark else None
        return structs.replace(pod, idle_since=confirmed, source_mark=note)


async def started(scene: Scene) -> AsyncIterator[Scene]:
    asking = [asyncio.create_task(scene.answers.work()) for _ in range(4)]
    yield scene
    for task in asking:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """Workers that are asked over HTTP."""
    async for each in started(Scene()):
        yield each


@pytest.fixture
async def both() -> AsyncIterator[Scene]:
    """Workers that mark themselves and are asked over HTTP too."""
    async for each in started(Scene(annotation=True)):
        yield each


@pytest.fixture
async def measured() -> AsyncIterator[Scene]:
    """Workers that Prometheus is asked about."""
    async for each in started(Scene(QUERY)):
        yield each


@pytest.fixture
async def dry() -> AsyncIterator[Scene]:
    """As `scene`, in dry-run."""
    async for each in started(Scene(dry_run=True)):
        yield each


async def test_idle_worker_is_marked_and_a_busy_one_is_unmarked(scene: Scene) -> None:
    """The mark is written on the worker's behalf, and goes when the worker says busy."""
    scene.idle(1)
    await scene.look()
    assert scene.pod(1).idle_since == minutes_ago(10)
    assert [write.pod.name for write in scene.written] == ["w-1"]
    scene.busy(1)
    await scene.look(seconds=10)
    assert scene.pod(1).idle_since is None
    assert scene.pod(1).source_mark is None
    assert (scene.writes("written"), scene.writes("removed")) == (1, 1)


@pytest.mark.parametrize("said", FAILURES)
async def test_source_that_fails_turns_nobody_idle_and_unmarks(scene: Scene, said: Said) -> None:
    """However it fails."""
    scene.idle(1)
    await scene.look()
    scene.busy(1, said)
    scene.busy(2, said)
    await scene.look(seconds=10)
    assert [scene.pod(number).idle_since for number in (1, 2)] == [None, None]


async def test_each_worker_is_asked_once_an_interval(scene: Scene) -> None:
    """And not again while the question is under way."""
    scene.gate.clear()
    await scene.look()
    await scene.look(seconds=60)
    assert sorted(scene.asked) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    scene.gate.set()
    await scene.look()
    await scene.look()
    await scene.look(seconds=9)
    assert len(scene.asked) == 6
    await scene.look(seconds=1)
    assert len(scene.asked) == 9


async def test_no_more_questions_at_once_than_askers(scene: Scene) -> None:
    """Workers that are slow hold up others, never the process."""
    scene.state.replace_pods([worker(f"w-{n}", ip=f"10.0.0.{n}") for n in range(1, 10)])
    scene.gate.clear()
    await scene.look()
    assert len(scene.asked) == 4


async def test_silence_makes_stale_and_stale_unmarks(scene: Scene) -> None:
    """An answer that is older than staleAfter is none, whatever the mark says."""
    scene.idle(1)
    await scene.look()
    scene.gate.clear()
    await scene.look(seconds=30)
    assert scene.pod(1).idle_since is not None
    await scene.look(seconds=1)
    assert scene.pod(1).idle_since is None
    assert scene.counted("all", Said.STALE) == 3


async def test_who_does_not_lead_asks_and_writes_nothing_and_begins_anew(scene: Scene) -> None:
    """Answers from an earlier time as leader are forgotten, and so are questions that wait."""
    scene.leads = False
    await scene.look()
    assert scene.asked == []
    scene.leads = True
    scene.idle(1)
    await scene.look()
    scene.leads = False
    await scene.look()
    scene.leads = True
    await scene.sources.look()
    assert scene.counted("all", Said.NOT_ASKED) == 3


async def test_a_watch_that_is_opened_anew_forgets_no_answer(scene: Scene) -> None:
    """Every few minutes one ends as usual. For that second nothing is written, and nobody is asked out of turn."""
    scene.idle(1)
    await scene.look()
    scene.idle(2)
    await scene.look(seconds=8)
    asked, written = len(scene.asked), len(scene.written)
    scene.fresh = False
    await scene.look(seconds=1)
    assert [pod.idle_since is not None for pod in scene.sources.view("pool", [scene.pod(1)])] == [True]
    assert scene.counted("all", Said.IDLE) == 1
    await scene.look(seconds=2)
    assert len(scene.asked) == asked + 3
    assert len(scene.written) == written
    scene.fresh = True
    await scene.look()
    assert len(scene.asked) == asked + 3
    assert [write.pod.name for write in scene.written[written:]] == ["w-2"]


async def test_new_leader_keeps_marks_until_it_was_told_or_waited_too_long(scene: Scene) -> None:
    """Its reaper sees busy workers meanwhile, and nothing is written twice because the leader changed."""
    for number in (1, 2):
        scene.change(number, idle_since=minutes_ago(10), source_mark="marked 2026-11-01T11:50:00.000Z")
    scene.idle(1)
    scene.gate.clear()
    await scene.look()
    await scene.look(seconds=30)
    assert scene.written == []
    assert scene.sources.view("pool", [scene.pod(1)])[0].idle_since is None
    scene.gate.set()
    await scene.look()
    assert [write.pod.name for write in scene.written] == ["w-2"]  # it answered that it is busy


async def test_new_leader_that_is_told_nothing_removes_the_marks(scene: Scene) -> None:
    """No answer for as long as an answer would count."""
    scene.change(1, idle_since=minutes_ago(10), source_mark="marked 2026-11-01T11:50:00.000Z")
    scene.gate.clear()
    await scene.look()
    await scene.look(seconds=31)
    assert scene.pod(1).idle_since is None


async def test_mark_that_somebody_removed_needs_a_question_that_is_younger(scene: Scene) -> None:
    """The worker took its mark away: no answer from before that sets it again."""
    scene.idle(1)
    await scene.look()
    scene.now += SECOND
    scene.change(1, idle_since=None, source_mark=None)
    before = len(scene.written)
    await scene.sources.look()
    assert scene.pod(1).idle_since is None
    assert len(scene.written) == before
    await scene.look(seconds=10)
    assert scene.pod(1).idle_since is not None


async def test_worker_that_marks_itself_is_asked_then_and_only_confirmed(both: Scene) -> None:
    """Both must say idle. What is written is the note; the mark is never touched, nor made."""
    both.idle(1)
    both.idle(2)
    both.change(2, own_mark=minutes_ago(3))
    await both.look()
    assert both.asked == ["10.0.0.2"]
    assert both.counted("all", Said.NOT_MARKED) == 2
    assert [(write.pod.name, write.since, write.whole) for write in both.written] == [("w-2", minutes_ago(3), False)]
    both.change(2, own_mark=None, idle_since=None)
    await both.look()
    assert [(write.since, write.whole) for write in both.written[1:]] == [(None, False)]
    await both.look(seconds=60)
    assert both.pod(2).own_mark is None
    assert len(both.written) == 2


async def test_one_query_answers_for_all_workers(measured: Scene) -> None:
    """No series is busy, and each worker is counted by what is known of it."""
    measured.idle(1)
    measured.series[("default", "w-2")] = Answer(asked=steady(NOW), said=Said.SEVERAL_SERIES)
    await measured.look()
    assert measured.asked == ["prometheus"]
    assert [write.pod.name for write in measured.written] == ["w-1"]
    found = {said: measured.counted("prometheus", said) for said in Said if measured.counted("prometheus", said)}
    assert found == {Said.IDLE: 1, Said.SEVERAL_SERIES: 1, Said.NO_SERIES: 1}


async def test_query_that_fails_unmarks_and_is_told_once(measured: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A log line when it begins and one when it ends."""
    caplog.set_level(logging.INFO, "warmnode.sources")
    measured.idle(1)
    await measured.look()
    measured.failed, measured.problem = Said.TIMEOUT, "no answer within 5 s"
    await measured.look(seconds=15)
    await measured.look(seconds=15)
    assert measured.pod(1).idle_since is None
    measured.failed, measured.problem = None, ""
    await measured.look(seconds=15)
    assert measured.pod(1).idle_since is not None
    told = [record.getMessage() for record in caplog.records]
    assert told == ["prometheus does not say who is idle", "prometheus says again who is idle"]


async def test_series_that_name_no_pod_are_told(measured: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """The query sums the labels away: nobody would ever be idle, and nobody would know why."""
    measured.unnamed = 1
    await measured.look()
    assert [record.levelname for record in caplog.records if "who is idle" in record.getMessage()] == ["WARNING"]


async def test_two_sources_must_agree(scene: Scene) -> None:
    """Idle since the latest; one that turns busy is enough to unmark."""
    scene.rules = replace(scene.rules, outside=(PROBE, QUERY))
    scene.idle(1)
    scene.says["10.0.0.1"] = Answer(asked=steady(NOW), said=Said.IDLE, idle_since=minutes_ago(2))
    await scene.look()
    assert scene.pod(1).idle_since == minutes_ago(2)
    scene.series.clear()
    await scene.look(seconds=15)
    assert scene.pod(1).idle_since is None


async def test_dry_run_asks_and_shows_and_writes_nothing(dry: Scene) -> None:
    """What the real run would mark is what the reaper's preview is given."""
    dry.idle(1)
    await dry.look()
    assert dry.written == []
    assert dry.counted("all", Said.IDLE) == 1
    found = dry.sources.view("pool", [dry.pod(1), dry.pod(2)])
    assert [pod.idle_since for pod in found] == [minutes_ago(10), None]


async def test_view_is_busy_where_the_mark_outlives_the_answer(scene: Scene) -> None:
    """The mark cannot be removed, or a new leader was not told anything yet: the reaper sees a busy worker."""
    scene.change(1, idle_since=minutes_ago(10), source_mark="marked 2026-11-01T11:50:00.000Z")
    assert scene.sources.view("pool", [scene.pod(1)])[0].idle_since is None
    scene.idle(1, 4)
    await scene.answers.ask_now(scene.answers.of(scene.rules), scene.pod(1))
    assert scene.sources.view("pool", [scene.pod(1)])[0].idle_since == minutes_ago(4)


async def test_view_of_a_pool_without_sources_outside_is_the_pool(scene: Scene) -> None:
    """No copy, no question."""
    scene.rules = SourceRules(stale_after=30 * SECOND)
    workers = [worker(idle_since=NOW)]
    assert scene.sources.view("pool", workers) is workers


async def test_write_that_lost_a_race_is_decided_anew(scene: Scene) -> None:
    """409: the pod changed. The next look decides on what it is then."""
    scene.idle(1)
    scene.refusal = Conflict(409, "Conflict", "changed")
    await scene.look()
    assert scene.writes("conflict") >= 1
    assert scene.pod(1).idle_since is None
    scene.refusal = None
    await scene.sources.look()
    assert scene.pod(1).idle_since is not None


async def test_api_server_in_trouble_is_left_alone_for_a_while(scene: Scene) -> None:
    """After a failed write nothing is written for ten seconds; questions go on."""
    scene.idle(1)
    scene.idle(2)
    scene.refusal = Unavailable(0, "Timeout", "no answer")
    await scene.look()
    failed = scene.writes("failed")
    await scene.look(seconds=5)
    assert scene.writes("failed") == failed
    scene.refusal = None
    await scene.look(seconds=5)
    assert scene.writes("written") == 2


async def test_refusal_of_one_pod_waits_by_itself(scene: Scene) -> None:
    """An admission policy forbids the mark: it is not tried at each look, and the API server counts as well."""
    scene.idle(1)
    scene.refusal = Forbidden(403, "Forbidden", "denied by a policy")
    await scene.look()
    await scene.look(seconds=11)
    assert scene.writes("refused") == 1
    scene.refusal = None
    scene.idle(2)
    await scene.look(seconds=20)
    assert {write.pod.name for write in scene.written} == {"w-2"}
    await scene.look(seconds=300)
    assert "w-1" in {write.pod.name for write in scene.written}


async def test_what_is_left_of_other_settings_goes(scene: Scene) -> None:
    """The sources were taken out of the file: the marks that warmnode made go, without any question."""
    scene.idle(1)
    await scene.look()
    scene.rules = SourceRules(stale_after=30 * SECOND)
    scene.change(1, idle_since=None)
    await scene.look(seconds=30)
    assert scene.pod(1).source_mark is None
    assert scene.counted("all", Said.IDLE) == 0


# -- evictions --------------------------------------------------------------------------------------------------------


class Server:
    """Pods as the API server has them, and the evictions that it was asked for."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.evicted: list[str] = []

    async def read(self, pod: Pod) -> FreshPod | None:
        return FreshPod(pod=self.scene.state.pods[pod.uid], labels={})

    async def evict(self, pod: Pod) -> EvictionResult:
        self.evicted.append(pod.name)
        return EvictionResult(outcome=EvictionOutcome.EVICTED)

    async def budget_selector(self, namespace: str, name: str) -> Selector | None:
        return None


def reaper(scene: Scene, server: Server) -> Reaper:
    settings = PoolSettings(name="pool", reap=ReapRules(floor=0), dry_run=scene.rules.dry_run)
    return Reaper(
        state=scene.state,
        hands=Hands(
            pods=server,
            announcer=Told(),
            metrics=scene.metrics,
            may_evict=lambda: True,
            confirm=scene.sources.confirm,
        ),
        clock=clock_of(scene.clock),
        rules=lambda pool: settings,
        workers=scene.sources.view,
    )


async def test_eviction_is_preceded_by_one_more_question(scene: Scene) -> None:
    """Idle a second ago and idle now: it goes."""
    scene.idle(1)
    await scene.look()
    server = Server(scene)
    asked = len(scene.asked)
    await reaper(scene, server).one_pass("pool")
    assert server.evicted == ["w-1"]
    assert scene.asked[asked:] == ["10.0.0.1"]


@pytest.mark.parametrize("said", FAILURES)
async def test_worker_that_is_not_idle_any_more_when_asked_again_stays(scene: Scene, said: Said) -> None:
    """Whatever its mark and the answers before say."""
    scene.idle(1)
    await scene.look()
    scene.busy(1, said)
    server = Server(scene)
    report = (await reaper(scene, server).one_pass("pool"))["pool"]
    assert server.evicted == []
    assert report.skipped == {"uid-of-w-1": SkipReason.BUSY}


async def test_worker_that_worked_in_between_is_idle_too_short(scene: Scene) -> None:
    """The mark says ten minutes; asked again it says a second: the later counts."""
    scene.idle(1)
    await scene.look()
    scene.idle(1, minutes=0.01)
    server = Server(scene)
    report = (await reaper(scene, server).one_pass("pool"))["pool"]
    assert server.evicted == []
    assert report.skipped == {"uid-of-w-1": SkipReason.IDLE_TOO_SHORT}


async def test_confirmations_within_a_second_share_a_query(measured: Scene) -> None:
    """A pass evicts many: Prometheus is asked about all of them at once."""
    for number in (1, 2, 3):
        measured.idle(number)
    await measured.look()
    measured.now += 2 * SECOND
    server = Server(measured)
    asked = len(measured.asked)
    await reaper(measured, server).one_pass("pool")
    assert len(server.evicted) == 3
    assert len(measured.asked) - asked == 1


async def test_worker_that_took_its_own_mark_away_is_not_even_asked(both: Scene) -> None:
    """The rule for workers holds whatever other sources there are."""
    both.change(1, own_mark=minutes_ago(10))
    both.idle(1)
    await both.look()
    assert both.pod(1).idle_since is not None
    server = Server(both)
    unmarked = structs.replace(both.pod(1), own_mark=None, idle_since=None)
    asked = len(both.asked)
    assert (await both.sources.confirm(unmarked)).idle_since is None
    assert len(both.asked) == asked
    assert server.evicted == []


async def test_dry_run_previews_the_eviction(dry: Scene) -> None:
    """The plan of a dry run is the one of the real run, and nobody is evicted."""
    dry.idle(1)
    await dry.look()
    server = Server(dry)
    report = (await reaper(dry, server).one_pass("pool"))["pool"]
    assert [victim.name for victim in report.judged.victims] == ["w-1"]
    assert server.evicted == []
    assert dry.rules.basis is IdleBasis.SOURCES
