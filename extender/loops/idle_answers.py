"""What the sources outside said, who is to be asked when, and the asking itself, so many at once.

Owns questions and answers of the leader; both are in memory only, because whoever leads next asks anew. What follows
from the answers is `policy.sources`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from extender.clock import Clock, Steady
from extender.logs import fields
from extender.model import Pod
from extender.policy.defaults import HttpProbe
from extender.policy.sources import Answer, PrometheusQuery, Series, Source, SourceRules, series_of
from extender.sources.prometheus import PrometheusAnswer
from extender.telemetry import Metrics

log = logging.getLogger("warmnode.sources")

AT_ONCE = 64
"""Questions on their way at a time: as many sockets. With the default timeout of 2 s, 32 silent workers a second."""
SAME_QUERY = timedelta(seconds=1)
"""A confirmation may use an answer of Prometheus about all workers that is no older: a pass evicts up to 50."""
SLACK = timedelta(milliseconds=500)
"""Looks come every second: a question that is due this soon after one is asked by it, else intervals would grow."""
ALL = ""
"""Stands for all workers where a UID is asked for."""

AskWorker = Callable[[HttpProbe, str | None], Awaitable[Answer]]
AskPrometheus = Callable[[PrometheusQuery], Awaitable[PrometheusAnswer]]


@dataclass(slots=True, eq=False)
class SourceMemory:
    """One source: its last answer about each worker by UID, or one series for all; and what it is being asked.

    ``began`` is since when it is asked, by this process as leader.
    """

    source: Source
    began: Steady
    said: dict[str, Answer] = field(default_factory=dict)
    series: Series | None = None
    waiting: set[str] = field(default_factory=set)
    told: str = ""

    def about(self, worker: Pod) -> Answer | None:
        """Give the last answer about a worker, None where there is none yet."""
        if isinstance(self.source, HttpProbe):
            return self.said.get(worker.uid)
        return None if self.series is None else series_of(self.series, worker)

    def last_asked(self, worker: Pod) -> Steady | None:
        """Say when the question behind that answer went out."""
        last = self.said.get(worker.uid) if isinstance(self.source, HttpProbe) else self.series
        return None if last is None else last.asked

    def subject(self, worker: Pod) -> str:
        """Say whom a question for this worker is about."""
        return worker.uid if isinstance(self.source, HttpProbe) else ALL


@dataclass(slots=True, kw_only=True, eq=False)
class Answers:
    """Asks, and remembers the last answer of each source about each worker. Neither of the two calls raises."""

    ask_worker: AskWorker
    ask_prometheus: AskPrometheus
    metrics: Metrics
    clock: Clock
    _asked: dict[Source, SourceMemory] = field(default_factory=dict, init=False)
    _queue: asyncio.Queue[tuple[SourceMemory, Pod]] = field(default_factory=asyncio.Queue, init=False)

    async def work(self) -> None:
        """Ask one after the other, for ever. Run so many of these as questions may be on their way at once."""
        while True:
            asked, worker = await self._queue.get()
            try:
                await self._ask(asked, worker)
            except Exception:
                log.exception("asking a source failed", extra=fields(source=asked.source.kind))
            finally:
                asked.waiting.discard(asked.subject(worker))

    def of(self, rules: SourceRules) -> list[SourceMemory]:
        """Give what the sources of a pool were asked and said. Pools with the same source share it."""
        now = self.clock.steady()
        return [self._asked.setdefault(source, SourceMemory(source, now)) for source in rules.outside]

    def ask_due(self, sources: Sequence[SourceMemory], worker: Pod, now: Steady) -> None:
        """Queue the questions about a worker whose interval is over, unless they are under way."""
        for asked in sources:
            last, subject = asked.last_asked(worker), asked.subject(worker)
            if subject not in asked.waiting and (last is None or now - last + SLACK >= asked.source.interval):
                asked.waiting.add(subject)
                self._queue.put_nowait((asked, worker))

    async def ask_now(self, sources: Sequence[SourceMemory], worker: Pod) -> None:
        """Ask all these about one worker, at once; what they say is their last answer then."""
        now = self.clock.steady()
        async with asyncio.TaskGroup() as group:
            for asked in sources:
                last = asked.last_asked(worker)
                if asked.subject(worker) != ALL or last is None or now - last > SAME_QUERY:
                    group.create_task(self._ask(asked, worker), name="confirm")

    def keep_only(self, uids: set[str], sources: set[Source]) -> None:
        """Forget workers that are gone, and sources that nobody asks any more."""
        self._asked = {source: asked for source, asked in self._asked.items() if source in sources}
        for asked in self._asked.values():
            if len(asked.said) > len(uids):
                asked.said = {uid: answer for uid, answer in asked.said.items() if uid in uids}

    def forget(self) -> None:
        """Forget all answers and drop the questions that wait: somebody else leads."""
        self._asked.clear()
        while not self._queue.empty():
            self._queue.get_nowait()

    async def _ask(self, asked: SourceMemory, worker: Pod) -> None:
        source = asked.source
        if isinstance(source, HttpProbe):
            answer = await self.ask_worker(source, worker.ip)
            asked.said[worker.uid] = answer
            said = str(answer.said)
        else:
            found = await self.ask_prometheus(source)
            asked.series = found.series
            said = str(found.series.failed or "answered")
            self._tell(asked, source, found)
        self.metrics.source_answers.labels(source.kind, said).inc()

    def _tell(self, asked: SourceMemory, query: PrometheusQuery, found: PrometheusAnswer) -> None:
        """Log a problem of a query when it begins, changes or ends."""
        problem = found.problem
        if not problem and found.unnamed:
            problem = "it gives series without the labels namespace and pod, which say nothing about any pod"
        if problem == asked.told:
            return
        asked.told = problem
        about = fields(url=query.url, query=query.query[:200], problem=problem, unnamed=found.unnamed)
        if problem:
            log.warning("prometheus does not say who is idle", extra=about)
        else:
            log.info("prometheus says again who is idle", extra=about)
