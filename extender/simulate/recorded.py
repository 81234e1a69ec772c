"""Jobs from a recording of a cluster, what the pool looked like, and how far the model is off what was observed.

Owns what is inferred from a recording. A worker that was there at the beginning arrives then, with what was left of its
life; one that is still there at the end ends then. Workers that never got a node are left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from statistics import median

from extender.inspect.record.recording import RecordedWorker, Recording, RecordingError
from extender.policy.resources import fitting, quantity
from extender.simulate.cache import BlockCache
from extender.simulate.pool import PoolShape
from extender.simulate.rules import Rule, placement
from extender.simulate.run import simulate
from extender.simulate.workload import HOUR_SECONDS, BlockDrawer, Job

CLOSE = 0.1
"""So far off, the model is said to match."""
MOST_PODS = Decimal(1000)
"""More than a kubelet takes: of pods the recording says nothing."""
NEVER = timedelta(days=3650)
"""For consolidateAfter, where no node went while it was empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPool:
    """What a recording shows of a pool. ``node_hours`` are of nodes that had a worker of it, as far as it was watched.

    ``boot`` and ``consolidate_after`` None: no node came, or went, so that it could be seen. ``hits`` of ``reads`` are
    of the workers where they really ran. ``sizes`` counts the different requests of workers and types of nodes.
    """

    jobs: Sequence[Job]
    period: timedelta
    node_hours: float
    peak_nodes: int
    first_nodes: int
    slots: int
    boot: timedelta | None
    consolidate_after: timedelta | None
    reads: int
    hits: int
    sizes: tuple[int, int]

    @property
    def hit_ratio(self) -> float:
        """Hits of all block reads; 0 where nothing was read."""
        return self.hits / self.reads if self.reads else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Node-hours of the rule that really ran: as it was observed and as the model has it."""

    rule: Rule
    consolidate_after: timedelta
    observed: float
    simulated: float
    misses: tuple[str, ...]

    @property
    def off(self) -> float:
        """How far the model is off, as a share of what was observed."""
        return self.simulated / self.observed - 1 if self.observed else 0.0

    @property
    def is_close(self) -> bool:
        """Whether the model matches."""
        return abs(self.off) <= CLOSE


def observed_pool(recording: Recording, drawer: BlockDrawer, *, cache_blocks: int) -> ObservedPool:
    """Read what happened out of a recording.

    Raises:
        RecordingError: no worker ran in it.
    """
    began, until = recording.began, recording.until
    if began is None or until is None or until <= began:
        raise RecordingError("nothing was recorded for any length of time yet")
    lives = sorted(_lives(recording.workers.values(), began, until))
    if not lives:
        raise RecordingError("no worker that had a node was recorded")
    jobs, caches, hits, read = [], defaultdict[str, BlockCache](lambda: BlockCache(cache_blocks)), 0, 0
    for life in lives:
        blocks = drawer.draw(life.key)
        read += len(blocks)
        hits += caches[life.node].read_all(blocks)
        arrives = (life.start - began).total_seconds()
        jobs.append(Job(arrives=arrives, lasts=(life.end - life.start).total_seconds(), key=life.key, blocks=blocks))
    used = {life.node for life in lives}
    spans = {
        node.name: (max(node.created, began), min(node.gone or until, until))
        for node in recording.nodes.values()
        if node.name in used
    }
    requests = {tuple(sorted(worker.requests.items())) for worker in recording.workers.values()}
    return ObservedPool(
        jobs=jobs,
        period=until - began,
        node_hours=sum((gone - came).total_seconds() for came, gone in spans.values()) / HOUR_SECONDS,
        peak_nodes=_most_at_once(spans.values()),
        first_nodes=sum(came == began for came, _ in spans.values()),
        slots=max(*_most_on_a_node(lives), _fitting(recording, used)),
        boot=_boot(recording, lives),
        consolidate_after=_consolidate_after(recording, lives),
        reads=read,
        hits=hits,
        sizes=(len(requests), len({node.instance_type for node in recording.nodes.values() if node.name in used})),
    )


def calibrate(observed: ObservedPool, shape: PoolShape, rule: Rule, *, seed: int) -> Calibration:
    """Run what really ran through the model, over the time that was watched."""
    outcome = simulate(observed.jobs, shape, placement(rule, Random(seed)))  # noqa: S311 - ties between equal nodes
    calibration = Calibration(
        rule=rule,
        consolidate_after=shape.consolidate_after,
        observed=observed.node_hours,
        simulated=outcome.node_hours,
        misses=(),
    )
    return calibration if calibration.is_close else replace(calibration, misses=tuple(_misses(observed)))


def _misses(observed: ObservedPool) -> Iterator[str]:
    """Say what the model leaves out, the most likely first."""
    requests, types = observed.sizes
    if requests > 1:
        yield f"workers have {requests} different sizes: here each takes one slot"
    if types > 1:
        yield f"nodes are of {types} types: here all have as many slots"
    if observed.consolidate_after is None:
        yield "no empty node went: consolidateAfter is not known, give --consolidate-after"
    yield "other pods on the nodes keep them, and take room"
    yield "zones, affinities and taints, by which not every worker fits every node"
    yield "another rule: say with --ran which one placed the workers"


@dataclass(frozen=True, slots=True, order=True)
class _Life:
    start: datetime
    end: datetime
    node: str
    key: str


def _lives(workers: Iterable[RecordedWorker], began: datetime, until: datetime) -> Iterator[_Life]:
    for worker in workers:
        if worker.node is None or worker.bound is None:
            continue
        start, end = max(worker.bound, began), min(worker.ended or until, until)
        if end >= start and worker.bound < until:
            yield _Life(start, end, worker.node, worker.key or "")


def _most_at_once(spans: Iterable[tuple[datetime, datetime]]) -> int:
    changes = sorted(change for came, gone in spans for change in ((came, 1), (gone, -1)))
    most = now = 0
    for _, step in changes:
        now += step
        most = max(most, now)
    return most


def _most_on_a_node(lives: Sequence[_Life]) -> Iterator[int]:
    on: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
    for life in lives:
        on[life.node].append((life.start, life.end))
    return map(_most_at_once, on.values())


def _fitting(recording: Recording, used: Collection[str]) -> int:
    """Say how many workers of the most frequent size fit on the most frequent node; 0 where nobody said."""
    requests = Counter(tuple(sorted(each.requests.items())) for each in recording.workers.values())
    nodes = Counter(tuple(sorted(each.allocatable.items())) for each in recording.nodes.values() if each.name in used)
    (worker, _), *_ = requests.most_common(1)
    (node, _), *_ = nodes.most_common(1) or [((), 0)]
    asked = {name: quantity(amount) for name, amount in worker if quantity(amount)}
    return fitting({**{name: quantity(amount) for name, amount in node}, "pods": MOST_PODS}, asked) if asked else 0


def _boot(recording: Recording, lives: Sequence[_Life]) -> timedelta | None:
    """From a node's creation to its first worker, where a worker waited for it: the median."""
    first: dict[str, datetime] = {}
    for life in lives:
        first.setdefault(life.node, life.start)
    found = [
        (first[node.name] - node.created).total_seconds()
        for node in recording.nodes.values()
        if node.name in first and recording.began is not None and node.created > recording.began
    ]
    return timedelta(seconds=round(median(found), 3)) if found else None


def _consolidate_after(recording: Recording, lives: Sequence[_Life]) -> timedelta | None:
    """From the end of a node's last worker to its own: the median of those that went."""
    last: dict[str, datetime] = {}
    for life in lives:
        last[life.node] = max(last.get(life.node, life.end), life.end)
    found = [
        (node.gone - last[node.name]).total_seconds()
        for node in recording.nodes.values()
        if node.gone is not None and not node.gone_about and node.name in last
    ]
    return timedelta(seconds=max(0, round(median(found), 3))) if found else None
