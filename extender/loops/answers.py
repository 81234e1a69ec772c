"""What the sources outside said, who is to be asked when, and the asking itself, so many at once.

Owns questions and answers of the leader; both are in memory only, because whoever leads next asks anew. What follows
from the answers is `policy.sources`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from extender.model import Pod
from extender.policy.sources import Answer, HttpProbe, PrometheusQuery, Series, Source, SourceRules, series_of
from extender.sources.prometheus import PrometheusAnswer
from extender.telemetry import Metrics, fields

log = logging.getLogger("warmnode.sources")

AT_ONCE = 64
"""Questions on their way at a time: as many sockets. With the default timeout of 2 s, 32 silent workers a second."""
SAME_QUERY = timedelta(seconds=1)
"""A confirmation may use an answer of Prometheus about all workers that is no older: a pass evicts up to 50."""

SLACK = timedelta(milliseconds=500)
"""Looks come every second: a question that is due this soon after one is asked by it, else intervals would grow."""

AskWorker = Callable[[HttpProbe, str | None], Awaitable[Answer]]
AskPrometheus = Callable[[PrometheusQuery], Awaitable[PrometheusAnswer]]


@dataclass(frozen=True, slots=True)
class _Question:
    """To whom, and about which worker; None: all of them."""

    source: Source
    worker: Pod | None

    @property
    def key(self) -> tuple[Source, str]:
        return self.source, "" if self.worker is None else self.worker.uid


class Answers:
    """Asks, and remembers the last answer of each source about each worker. ``ask_worker`` never raises; both."""

    def __init__(
        self,
        *,
        ask_worker: AskWorker,
        ask_prometheus: AskPrometheus,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._ask_worker = ask_worker
        self._ask_prometheus = ask_prometheus
        self._metrics = metrics
        self._clock = clock
        self._said: dict[HttpProbe, dict[str, Answer]] = {}
        self._series: dict[PrometheusQuery, Series] = {}
        self._told: dict[PrometheusQuery, str] = {}
        self._queue: asyncio.Queue[_Question] = asyncio.Queue()
        self._waiting: set[tuple[Source, str]] = set()

    async def work(self) -> None:
        """Ask one after the other, for ever. Run so many of these as questions may be on their way at once."""
        while True:
            question = await self._queue.get()
            try:
                await self._ask(question)
            except Exception:
                log.exception("asking a source failed", extra=fields(source=question.source.kind))
            finally:
                self._waiting.discard(question.key)

    def ask_due(self, worker: Pod, rules: SourceRules, now: datetime) -> None:
        """Queue the questions about a worker whose interval is over, unless they are under way."""
        for source in rules.outside:
            about = worker if isinstance(source, HttpProbe) else None
            last = self._last_asked(source, worker)
            question = _Question(source, about)
            if (last is None or now - last + SLACK >= source.interval) and question.key not in self._waiting:
                self._waiting.add(question.key)
                self._queue.put_nowait(question)

    async def ask_now(self, worker: Pod, rules: SourceRules) -> None:
        """Ask all sources about one worker, at once; what they say is what `about` gives then."""
        now = self._clock()
        async with asyncio.TaskGroup() as group:
            for source in rules.outside:
                last = self._last_asked(source, worker)
                if isinstance(source, PrometheusQuery) and last is not None and now - last <= SAME_QUERY:
                    continue
                about = worker if isinstance(source, HttpProbe) else None
                group.create_task(self._ask(_Question(source, about)), name="confirm")

    def about(self, worker: Pod, rules: SourceRules) -> list[Answer | None]:
        """Give the last answer of each source about a worker, None where there is none yet."""
        return [self._answer(source, worker) for source in rules.outside]

    def keep_only(self, uids: set[str], sources: set[Source]) -> None:
        """Forget workers that are gone, and sources that nobody asks any more."""
        self._said = {
            probe: {uid: answer for uid, answer in answers.items() if uid in uids}
            for probe, answers in self._said.items()
            if probe in sources
        }
        self._series = {query: series for query, series in self._series.items() if query in sources}
        self._told = {query: problem for query, problem in self._told.items() if query in sources}

    def forget(self) -> None:
        """Forget all answers and drop the questions that wait: somebody else leads."""
        self._said.clear()
        self._series.clear()
        while not self._queue.empty():
            self._waiting.discard(self._queue.get_nowait().key)

    def _answer(self, source: Source, worker: Pod) -> Answer | None:
        if isinstance(source, HttpProbe):
            return self._said.get(source, {}).get(worker.uid)
        series = self._series.get(source)
        return None if series is None else series_of(series, worker)

    def _last_asked(self, source: Source, worker: Pod) -> datetime | None:
        if isinstance(source, HttpProbe):
            answer = self._said.get(source, {}).get(worker.uid)
            return None if answer is None else answer.asked
        series = self._series.get(source)
        return None if series is None else series.asked

    async def _ask(self, question: _Question) -> None:
        source = question.source
        if isinstance(source, PrometheusQuery):
            found = await self._ask_prometheus(source)
            self._series[source] = found.series
            said = str(found.series.failed or "answered")
            self._tell(source, found)
        else:
            if question.worker is None:
                return
            answer = await self._ask_worker(source, question.worker.ip)
            self._said.setdefault(source, {})[question.worker.uid] = answer
            said = str(answer.said)
        self._metrics.source_answers.labels(source.kind, said).inc()

    def _tell(self, query: PrometheusQuery, found: PrometheusAnswer) -> None:
        """Log a problem of a query when it begins, changes or ends."""
        problem = found.problem
        if not problem and found.unnamed:
            problem = "it gives series without the labels namespace and pod, which say nothing about any pod"
        before = self._told.get(query, "")
        if problem == before:
            return
        self._told[query] = problem
        about = fields(url=query.url, query=query.query[:200], problem=problem, unnamed=found.unnamed)
        if problem:
            log.warning("prometheus does not say who is idle", extra=about)
        else:
            log.info("prometheus says again who is idle", extra=about)
