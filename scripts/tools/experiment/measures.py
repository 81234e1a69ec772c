"""What a record says: cost, latency, warmth, and what the work had to suffer. Pure.

Owns every definition that docs/experiment.md uses. All of them look at the time after the warm-up only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from scripts.tools.experiment.record import Attempt, Record
from scripts.tools.experiment.workloads import BOOT_SECONDS

TAIL_SECONDS = 60.0
"""Tasks that arrive later than this before a run ends are not asked for their latency: some would not have one."""
QUICK_SECONDS = 1.0
"""A pod bound sooner than this found room at once: how long that took tells how the machine was."""
DISTURBED_BIND_SECONDS = 0.1
DISTURBED_LATE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run comes to. Times in seconds; 0 where there was nothing to measure."""

    node_seconds: float
    """A node counts from its launch (the boot before the Node object included) to the end of the Node object."""
    latency: float
    """From a task's arrival to its end, interruptions included: mean."""
    latency_p95: float
    in_misses: float
    """Of the latency, what was spent on loading models that the node had not."""
    hits: float
    """Share of tasks that found their model on the node."""
    nodes_created: int
    pods_created: int
    interrupted: int
    """Tasks whose pod was taken away while they ran."""
    tasks: int
    """Those whose latency counts."""


def figures(record: Record) -> Figures:
    """Compute all of them."""
    begin, end = record.run.warm_up, record.run.seconds
    node_seconds = sum(_overlap(node.added - BOOT_SECONDS, node.deleted, begin, end) for node in record.nodes)
    starts = [each for each in record.attempts if each.started >= begin]
    tasks = _tasks(record, begin, end - TAIL_SECONDS)
    latencies = [_latency(attempts, end) for attempts in tasks]
    latencies += [end - arrived for arrived in _never_started(record, begin, end - TAIL_SECONDS)]
    missed = [sum(each.loading for each in attempts if not each.hit) for attempts in tasks]
    return Figures(
        node_seconds=node_seconds,
        latency=_mean(latencies),
        latency_p95=_quantile(latencies, 0.95),
        in_misses=_mean(missed),
        hits=_mean([float(each.hit) for each in starts]),
        nodes_created=sum(node.added >= begin for node in record.nodes),
        pods_created=sum(pod.added >= begin for pod in record.pods),
        interrupted=sum(is_interrupted(each) and (each.ended or 0.0) >= begin for each in record.attempts),
        tasks=len(latencies),
    )


def is_interrupted(attempt: Attempt) -> bool:
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


def _tasks(record: Record, begin: float, end: float) -> list[list[Attempt]]:
    """Return the attempts at each task that arrived within a time and was started."""
    found: dict[int, list[Attempt]] = {}
    for each in record.attempts:
        if begin <= each.arrived < end:
            found.setdefault(each.task, []).append(each)
    return list(found.values())


def _never_started(record: Record, begin: float, end: float) -> list[float]:
    """When tasks arrived that had no attempt: whoever makes work wait to the end is not to look quick."""
    started = {each.task for each in record.attempts}
    return [arrived for number, arrived in record.waiting if number not in started and begin <= arrived < end]


def _latency(attempts: Sequence[Attempt], end: float) -> float:
    """From arrival to the end of the attempt that was done; one that was not is taken to be done when the run ends."""
    return next((each.ended for each in attempts if each.done and each.ended is not None), end) - attempts[0].arrived


def _overlap(began: float, ended: float | None, begin: float, end: float) -> float:
    return max(0.0, min(end if ended is None else ended, end) - max(began, begin))


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0


def _quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0
