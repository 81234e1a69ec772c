"""Shows a study: a table for people, JSON for programs. Owns the words and the JSON form; decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from extender.inspect.json_form import encode_form, keys
from extender.inspect.text import count, table
from extender.policy.durations import format_duration
from extender.simulate.pool import PoolShape
from extender.simulate.recorded import NEVER, Calibration, ObservedPool
from extender.simulate.rules import Rule
from extender.simulate.session_rules import SessionRule, WorkerShape
from extender.simulate.study import Trial

SCHEMA = "warmnode.dev/simulation/v1alpha1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What was simulated. ``workload`` are the words, ``parameters`` what the JSON form tells of it; ``price``
    is that of an hour of a node. With ``workers`` the jobs were sessions on such ones."""

    workload: str
    parameters: dict[str, object]
    jobs: int
    keys: int
    seed: int
    price: float | None = None
    workers: WorkerShape | None = None
    calibration: Calibration | None = None
    observed: ObservedPool | None = None


def jobs_words(heading: Heading) -> str:
    """Say what came, in words."""
    noun = "job" if heading.workers is None else "session"
    return f"{count(heading.jobs, noun)} of {count(heading.keys, 'key')}: {heading.workload}"


def pool_words(shape: PoolShape, workers: WorkerShape | None = None) -> str:
    """Describe the nodes in words, and the workers of sessions."""
    misses = f", {shape.miss_seconds:g}s for a block that is not there" if shape.miss_seconds else ""
    restarts = f", warmnode restarted every {format_duration(shape.restart_every)}" if shape.restart_every else ""
    return (
        f"nodes of {count(shape.slots, 'slot')}, {format_duration(shape.boot)} to boot, caches of "
        f"{count(shape.cache_blocks, 'block')}{misses}{restarts}{'' if workers is None else _worker_words(workers)}"
    )


def _worker_words(workers: WorkerShape) -> str:
    return (
        f"; workers start in {format_duration(workers.start)}, and go after {format_duration(workers.idle_timeout)} of "
        f"idleness but for {workers.floor:,}"
    )


def render_json(heading: Heading, shape: PoolShape, trials: Sequence[Trial]) -> str:
    """Write the stable JSON form that docs/simulate.md describes."""
    form = {
        "workload": {**heading.parameters, **keys(heading, "jobs", "keys", "seed", "price")},
        "calibration": None if heading.calibration is None else _calibration_form(heading.calibration),
        "pool": {
            "slots": shape.slots,
            "bootSeconds": shape.boot.total_seconds(),
            **keys(shape, "cache_blocks", "miss_seconds"),
            "restartEverySeconds": shape.restart_every.total_seconds() if shape.restart_every is not None else None,
        },
        "workers": None if heading.workers is None else _workers_form(heading.workers),
        "trials": [
            {
                "rule": str(trial.rule),
                **_rule_form(trial.rule),
                "consolidateAfterSeconds": trial.consolidate_after.total_seconds(),
                "nodeHours": round(trial.outcome.node_hours, 3),
                "hitRatio": round(trial.outcome.hit_ratio, 5),
                **keys(trial.outcome, "reads", "hits", "peak_nodes", "launched_nodes", "waited_jobs", "workers"),
                "meanWaitSeconds": round(trial.outcome.mean_wait_seconds, 3),
                "meanLatencySeconds": round(trial.outcome.mean_latency_seconds, 3),
                "p95LatencySeconds": round(trial.outcome.p95_latency_seconds, 3),
            }
            for trial in trials
        ],
    }
    return encode_form(SCHEMA, form)


def _rule_form(rule: Rule | SessionRule) -> dict[str, object]:
    if isinstance(rule, SessionRule):
        return keys(rule, "placement", "claims", "reaping", "slack")
    return keys(rule, "window", "slack")


def _workers_form(workers: WorkerShape) -> dict[str, object]:
    return {
        "startSeconds": workers.start.total_seconds(),
        "idleTimeoutSeconds": workers.idle_timeout.total_seconds(),
        "floor": workers.floor,
    }


def _calibration_form(calibration: Calibration) -> dict[str, object]:
    return {
        "rule": str(calibration.rule),
        "consolidateAfterSeconds": calibration.consolidate_after.total_seconds(),
        "observedNodeHours": round(calibration.observed, 3),
        "simulatedNodeHours": round(calibration.simulated, 3),
        "off": round(calibration.off, 4),
        "misses": calibration.misses,
    }


def _calibration(calibration: Calibration) -> Iterator[str]:
    """Say how far the model is off, and what it may miss where that is much."""
    verdict = "the model matches" if calibration.is_close else "the model does not match, so trust no figure below"
    yield (
        f"calibration: {calibration.observed:,.2f} node-hours observed, {calibration.simulated:,.2f} as simulated by "
        f"{calibration.rule.words} ({calibration.off:+.1%}): {verdict}"
    )
    yield from (f"  it may miss: {each}" for each in calibration.misses)


def render_table(heading: Heading, shape: PoolShape, trials: Sequence[Trial]) -> str:
    """Write the page."""
    return "\n".join(_page(heading, shape, trials))


def _page(heading: Heading, shape: PoolShape, trials: Sequence[Trial]) -> Iterator[str]:
    if heading.calibration is not None:
        yield from _calibration(heading.calibration)
        yield ""
    yield jobs_words(heading)
    yield pool_words(shape, heading.workers)
    yield ""
    head = ["RULE", "AFTER", "NODE-HOURS", "HIT RATIO", "MEAN LATENCY", "P95", "PEAK NODES", "LAUNCHED", "MEAN WAIT"]
    rows = [
        [
            trial.rule.words,
            "never" if trial.consolidate_after >= NEVER else format_duration(trial.consolidate_after),
            f"{trial.outcome.node_hours:,.1f}",
            f"{trial.outcome.hit_ratio:.3f}",
            f"{trial.outcome.mean_latency_seconds:,.1f}s",
            f"{trial.outcome.p95_latency_seconds:,.1f}s",
            f"{trial.outcome.peak_nodes:,}",
            f"{trial.outcome.launched_nodes:,}",
            f"{trial.outcome.mean_wait_seconds:.1f}s",
        ]
        for trial in trials
    ]
    if (seen := heading.observed) is not None:
        figures = f"{seen.node_hours:,.1f}", f"{seen.hit_ratio:.3f}", "-", "-", f"{seen.peak_nodes:,}", "-", "-"
        rows.insert(0, ["as observed", "-", *figures])
    if heading.workers is not None:
        head.append("WORKERS")
        for row, trial in zip(rows, trials, strict=True):
            row.append(f"{trial.outcome.workers:,}")
    if heading.price is not None:
        head.insert(3, "COST")
        hours = [trial.outcome.node_hours for trial in trials]
        hours = hours if seen is None else [seen.node_hours, *hours]
        for row, each in zip(rows, hours, strict=True):
            row.insert(3, f"{heading.price * each:,.2f}")
    yield from table(head, rows, numbers_from=1)
    yield ""
    yield "AFTER is consolidateAfter. Node-hours are what the pool costs; the hit ratio is the share of block reads"
    yield "that a node's cache served; latency is from a job's arrival to its end."
    if heading.workers is not None:
        yield "A rule is where workers are placed, which idle one a session gets, and which idle ones go first; WORKERS"
        yield "are those that were started."
