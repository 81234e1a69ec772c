"""What a record says: cost, warmth, and what the work had to suffer. Pure.

Owns every definition that docs/experiment.md uses. All of them look at the time after the warm-up only; the caches
are followed from the start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from extender.simulate.cache import BlockCache
from scripts.tools.experiment.record import Attempt, Record
from scripts.tools.experiment.traffic import READS_PER_TASK, blocks_of
from scripts.tools.experiment.workloads import BOOT_SECONDS, PERIOD, SLOTS

CACHES = {"small": 250, "large": 1000}
"""Blocks that a node's cache holds, of the 4,000 that there are."""
QUICK_SECONDS = 1.0
"""A pod bound sooner than this found room at once: how long that took tells how the machine was."""
DISTURBED_BIND_SECONDS = 0.1
DISTURBED_LATE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run comes to. Times in seconds; None where there was nothing to measure."""

    node_seconds: float
    """A node counts from its launch (the boot before the Node object included) to the end of the Node object."""
    used: float
    """Of the slots on these nodes, the share of time in which they worked on a task."""
    nodes_created: int
    node_lifetime: float | None
    """Median of the nodes that went."""
    hits: dict[str, float]
    """Share of block reads that were hits, by cache size."""
    fetched: dict[str, float | None]
    """Blocks that were not in the cache, for each task that was finished, by cache size. Not the same as the hits: a
    task that is interrupted reads its blocks again, and then some of them are hits that nobody had any use for."""
    age: float | None
    """Age of the node when a task started on it: median."""
    old_enough: float | None
    """Share of tasks that started on a node older than a wave."""
    pods_created: int
    disturbed: int
    """Tasks whose pod was taken away while they ran."""
    evicted: int
    """Pods that were evicted, whether they worked or not."""
    time_to_place: float | None
    """From a pod's creation to its binding: median."""
    time_to_place_p95: float | None
    wait: float | None
    """From a task's arrival to its (first) start: mean."""
    wait_p95: float | None
    tasks_done: int


def figures(record: Record) -> Figures:
    """Compute all of them."""
    begin, end = record.run.warm_up, record.run.seconds
    node_seconds = sum(_overlap(node.added - BOOT_SECONDS, node.deleted, begin, end) for node in record.nodes)
    busy = sum(_overlap(each.started, each.ended, begin, end) for each in record.attempts)
    firsts = first_starts(record.attempts)
    ages = start_ages(record)
    placing = [pod.bound - pod.added for pod in record.pods if pod.bound is not None and begin <= pod.added]
    done = sum(each.done and (each.ended or 0.0) >= begin for each in record.attempts)
    reads = {name: count_reads(record, capacity) for name, capacity in CACHES.items()}
    waits = [each.started - each.arrived for each in firsts if each.arrived >= begin]
    return Figures(
        node_seconds=node_seconds,
        used=busy / (SLOTS * node_seconds) if node_seconds else 0.0,
        nodes_created=sum(node.added >= begin for node in record.nodes),
        node_lifetime=_median(
            [
                node.deleted - node.added
                for node in record.nodes
                if (node.deleted or 0.0) >= begin and node.deleted is not None
            ]
        ),
        hits={name: hit / read if read else 0.0 for name, (read, hit) in reads.items()},
        fetched={name: (read - hit) / done if done else None for name, (read, hit) in reads.items()},
        age=_median(ages),
        old_enough=sum(age > PERIOD for age in ages) / len(ages) if ages else None,
        pods_created=sum(pod.added >= begin for pod in record.pods),
        disturbed=sum(is_disturbed(each) and (each.ended or 0.0) >= begin for each in record.attempts),
        evicted=sum(pod.evicted is not None and (pod.deleting or pod.deleted or 0.0) >= begin for pod in record.pods),
        time_to_place=_median(placing),
        time_to_place_p95=_quantile(placing, 0.95),
        wait=sum(waits) / len(waits) if waits else None,
        wait_p95=_quantile(waits, 0.95),
        tasks_done=done,
    )


def start_ages(record: Record) -> list[float]:
    """Return the age of the node at each start of a task after the warm-up."""
    born = {node.name: node.added for node in record.nodes}
    return [each.started - born[each.node] for each in record.attempts if each.started >= record.run.warm_up]


def lifetimes(record: Record) -> list[tuple[float, bool]]:
    """Return how long each node lived within the run, and whether it had gone by the end: by length."""
    end = record.run.seconds
    return sorted(((node.deleted or end) - node.added, node.deleted is not None) for node in record.nodes)


def count_reads(record: Record, capacity: int) -> tuple[int, int]:
    """Count block reads after the warm-up, and those that were hits, each node with a cache of ``capacity`` blocks.

    A task reads its blocks evenly over its duration; one that is interrupted has read what it came to, and reads all
    of them again when it starts again.
    """
    caches: defaultdict[str, BlockCache] = defaultdict(lambda: BlockCache(capacity))
    read = hit = 0
    for at, node, block in sorted(_reads(record)):
        found = caches[node].read(block)
        if at >= record.run.warm_up:
            read += 1
            hit += found
    return read, hit


def _reads(record: Record) -> Iterator[tuple[float, str, tuple[int, int]]]:
    for each in record.attempts:
        ended = record.run.seconds if each.ended is None else each.ended
        for number, block in enumerate(blocks_of(record.run.seed, each.task, each.tenant)):
            at = each.started + (number + 0.5) / READS_PER_TASK * each.duration
            if at <= ended:
                yield at, each.node, block


def first_starts(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the first attempt at each task."""
    found: dict[int, Attempt] = {}
    for each in sorted(attempts, key=lambda attempt: attempt.started):
        found.setdefault(each.task, each)
    return list(found.values())


def is_disturbed(attempt: Attempt) -> bool:
    """Say whether an attempt ended because its pod was taken away."""
    return attempt.ended is not None and not attempt.done


def why_disturbed(record: Record) -> str | None:
    """Say what was wrong with the machine during a run, None where nothing was.

    1. The harness acted half a second too late or more, one time in twenty; 2. pods that found room at once took more
    than 100 ms (median) from their creation to their binding.
    """
    if record.conditions.late_p95 > DISTURBED_LATE_SECONDS:
        return f"the harness was {record.conditions.late_p95:.1f} s late"
    quick = quick_binds(record)
    if quick and median(quick) > DISTURBED_BIND_SECONDS:
        return f"a binding took {median(quick) * 1000:.0f} ms"
    return None


def quick_binds(record: Record) -> list[float]:
    """Return the times to place of pods that found room at once, in the whole run."""
    times = [pod.bound - pod.added for pod in record.pods if pod.bound is not None]
    return [each for each in times if each < QUICK_SECONDS]


def _overlap(began: float, ended: float | None, begin: float, end: float) -> float:
    return max(0.0, min(end if ended is None else ended, end) - max(began, begin))


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _quantile(values: Sequence[float], part: float) -> float | None:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else None
