"""Idle sources outside: asks them, and writes what they say as marks on the workers.

Only the leader asks. A look goes over the workers once a second: who is to be asked, what the answers add up to, and
which marks follow. Each write names the version of the pod that it was decided on, so a worker that says something
itself at the same time is never overruled.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from msgspec import structs

from extender.clock import Clock, Moment, Steady
from extender.cluster.state import ClusterState
from extender.logs import fields
from extender.loops.bulk_writes import BATCH, Refusals, WriteOutcome, batch_of, carry_out, write_all
from extender.loops.idle_answers import AT_ONCE, Answers, SourceMemory
from extender.model import IdleBasis, Pod
from extender.policy.sources import MarkWrite, Said, SourceRules, SourceVerdict, combine, mark_write, standing
from extender.telemetry import Figure, Metrics

log = logging.getLogger("warmnode.sources")

TICK = timedelta(seconds=1)
LEFTOVERS = timedelta(seconds=30)
"""How often workers of pools without sources outside are looked at: a mark may be left of other settings."""
PROBLEM_PAUSE = timedelta(seconds=10)
WORKERS_BETWEEN_YIELDS = 500
"""A few milliseconds."""
NOBODY = SourceVerdict(said=Said.NOT_ASKED)


@dataclass(slots=True, kw_only=True, eq=False)
class IdleSources:
    """Looks, judges and writes. ``rules`` gives a pool's sources as they are in force; ``write`` sends one write."""

    state: ClusterState
    answers: Answers
    write: Callable[[MarkWrite], Awaitable[Pod]]
    metrics: Metrics
    rules: Callable[[str], SourceRules]
    asks_anybody: Callable[[], bool]
    is_leader: Callable[[], bool]
    may_write: Callable[[], bool]
    clock: Clock
    _marked: set[str] = field(default_factory=set, init=False)
    _refusals: Refusals = field(init=False)
    _not_before: dict[str, Steady] = field(default_factory=dict, init=False)
    _verdicts: dict[str, Said] = field(default_factory=dict, init=False)
    _shown: dict[tuple[str, str], Counter[Said]] = field(default_factory=dict, init=False)
    _leftovers_at: Steady | None = field(default=None, init=False)
    _no_writes_until: Steady | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._refusals = Refusals(self.clock)

    def figures(self) -> Iterator[Figure]:
        """Give what each source, and all together, say of the workers of each pool now."""
        for (pool, source), counts in self._shown.items():
            for said in Said:
                yield Figure(self.metrics.source_workers, (pool, source, said), counts[said])

    async def run(self) -> None:
        """Ask and write for ever. Ends only by cancellation."""
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(self.answers.work(), name=f"ask sources {number}")
            while True:
                await asyncio.sleep(TICK.total_seconds())
                try:
                    await self.look()
                except Exception:
                    self.metrics.loop_crashes.labels("sources").inc()
                    log.exception("a look at idle sources failed")

    async def look(self) -> None:
        """Queue what is to be asked, and write what follows from the answers there are.

        Answers are forgotten where somebody else leads, and no sooner: while a watch is opened anew, or with a clock
        that is off, nothing is written, and what was said stays.
        """
        if not (self.is_leader() and self.state.synced):
            self.answers.forget()
            self._marked.clear()
            self._shown = {}
            return
        now = self.clock.moment()
        with_leftovers = self._leftovers_at is None or now.steady - self._leftovers_at >= LEFTOVERS
        if not with_leftovers and not self.asks_anybody():
            self._shown = {}
            return
        if with_leftovers:
            self._leftovers_at = now.steady
        writes = await self._judge_all(now)
        if not self._may_write_now():
            return
        if self._no_writes_until is None or now.steady >= self._no_writes_until:
            batch = batch_of(writes, lambda write: write.since is None)
            healthy = await write_all(batch, self._write_one, self._may_write_now)
            self._no_writes_until = None if healthy else self.clock.steady() + PROBLEM_PAUSE
            if len(writes) > BATCH:
                self._leftovers_at = None

    def _may_write_now(self) -> bool:
        return self.may_write() and not self.clock.is_off

    def view(self, pool: str, workers: list[Pod]) -> list[Pod]:
        """Give a pool's workers as their sources have them: without a mark where those do not say idle now.

        In dry-run, where no mark is written, with the mark that would be.
        """
        rules = self.rules(pool)
        if not rules.outside:
            return workers
        now, sources = self.clock.moment(), self.answers.of(rules)
        return [_as_judged(worker, self._judge(worker, rules, sources, now), rules) for worker in workers]

    async def confirm(self, worker: Pod) -> Pod:
        """Ask all sources of a worker anew, and give it as they have it: right before it is evicted."""
        rules = self.rules(worker.pool or "")
        if not rules.outside or worker.idle_since is None:
            return worker
        sources = self.answers.of(rules)
        await self.answers.ask_now(sources, worker)
        verdict = self._judge(worker, rules, sources, self.clock.moment())
        if verdict.idle_since is None:
            log.info("idle no more", extra=fields(pool=worker.pool, pod=worker.name, said=verdict.said))
        return _as_judged(worker, verdict, rules)

    # -- a look -------------------------------------------------------------------------------------------------------

    async def _judge_all(self, now: Moment) -> list[MarkWrite]:
        writes: list[MarkWrite] = []
        known: dict[str, tuple[SourceRules, list[SourceMemory]]] = {}
        counts: dict[tuple[str, str], Counter[Said]] = {}
        looked_at: set[str] = set()
        since_yield = 0
        for name in list(self.state.nodes):
            if since_yield >= WORKERS_BETWEEN_YIELDS:
                since_yield = 0
                await asyncio.sleep(0)
            for worker in list(self.state.where.workers_on(name).values()):
                since_yield += 1
                pool = worker.pool or ""
                if pool not in known:
                    rules = self.rules(pool)
                    known[pool] = rules, self.answers.of(rules)
                rules, sources = known[pool]
                verdict, asking_for = NOBODY, timedelta.max
                if sources:
                    looked_at.add(worker.uid)
                    verdict = self._look_at(worker, rules, sources, now, counts)
                    asking_for = now.steady - max(asked.began for asked in sources)
                elif worker.source_mark is None:
                    continue
                write = mark_write(worker, rules, verdict, asking_for)
                if write is not None and not self._refusals.holds(worker.uid):
                    writes.append(write)
        self.answers.keep_only(looked_at, {source for rules, _ in known.values() for source in rules.outside})
        self._marked &= looked_at
        self._not_before = {uid: time for uid, time in self._not_before.items() if uid in looked_at}
        self._verdicts = {uid: said for uid, said in self._verdicts.items() if uid in looked_at}
        self._shown = counts
        return writes

    def _look_at(
        self,
        worker: Pod,
        rules: SourceRules,
        sources: Sequence[SourceMemory],
        now: Moment,
        counts: dict[tuple[str, str], Counter[Said]],
    ) -> SourceVerdict:
        """Judge one worker, and queue what is to be asked about it: nothing while its own mark says busy already."""
        self._notice_removed(worker, rules, now)
        verdict = self._judge(worker, rules, sources, now)
        if not worker.terminating and not (rules.annotation and worker.own_mark is None):
            self.answers.ask_due(sources, worker, now.steady)
        pool = worker.pool or ""
        counts.setdefault((pool, "all"), Counter())[verdict.said] += 1
        for asked in sources:
            said = standing(asked.about(worker), rules.stale_after, now)
            counts.setdefault((pool, asked.source.kind), Counter())[said] += 1
        if self._verdicts.get(worker.uid) is not verdict.said:
            self._verdicts[worker.uid] = verdict.said
            log.debug("verdict", extra=fields(pool=pool, pod=worker.name, said=verdict.said, dry_run=rules.dry_run))
        return verdict

    def _judge(self, worker: Pod, rules: SourceRules, sources: Sequence[SourceMemory], now: Moment) -> SourceVerdict:
        answers = [asked.about(worker) for asked in sources]
        return combine(rules, worker, answers, now, not_before=self._not_before.get(worker.uid))

    def _notice_removed(self, worker: Pod, rules: SourceRules, now: Moment) -> None:
        """Remember when a mark of ours was gone: what was asked before that does not set it again."""
        if rules.basis is not IdleBasis.SOURCES:
            return
        if worker.idle_since is not None:
            self._marked.add(worker.uid)
        elif worker.uid in self._marked:
            self._marked.discard(worker.uid)
            self._not_before[worker.uid] = now.steady

    async def _write_one(self, write: MarkWrite) -> bool:
        pod, removes = write.pod, write.since is None
        outcome = await carry_out(self.write(write), pod, self.state, removes=removes, what="an idle mark", log=log)
        if outcome is WriteOutcome.WRITTEN and write.whole:
            self._marked.add(pod.uid)
        elif outcome is WriteOutcome.REMOVED:
            self._marked.discard(pod.uid)
        log.debug("idle mark", extra=fields(pod=pod.name, pool=pod.pool, since=write.since, outcome=outcome))
        self.metrics.mark_writes.labels(self.metrics.pool_label(pod.pool or ""), outcome).inc()
        return self._refusals.goes_on(pod.uid, outcome)


def _as_judged(worker: Pod, verdict: SourceVerdict, rules: SourceRules) -> Pod:
    mark = verdict.idle_since if rules.dry_run else worker.idle_since
    since = None if mark is None or verdict.idle_since is None else max(mark, verdict.idle_since)
    return worker if since == worker.idle_since else structs.replace(worker, idle_since=since)
