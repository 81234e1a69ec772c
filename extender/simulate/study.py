"""A study: the same jobs under several rules and several values of consolidateAfter. Owns which runs there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from random import Random

from extender.simulate.pool import PoolShape
from extender.simulate.rules import Rule, placement
from extender.simulate.run import simulate
from extender.simulate.session_rules import SessionRule, WorkerShape
from extender.simulate.sessions import simulate_sessions
from extender.simulate.tally import RunOutcome
from extender.simulate.workload import Job

Report = Callable[[int, int, Rule | SessionRule, timedelta, float], None]
"""Told of progress: number of the run from 1, runs in all, its rule and consolidateAfter, the share that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of a study, and what came of it."""

    rule: Rule | SessionRule
    consolidate_after: timedelta
    outcome: RunOutcome


def run_study(
    jobs: Sequence[Job],
    shape: PoolShape,
    rules: Sequence[Rule | SessionRule],
    consolidate_after: Sequence[timedelta],
    *,
    seed: int,
    workers: WorkerShape | None = None,
    report: Report,
) -> list[Trial]:
    """Run every rule with every consolidateAfter, in this order. Each run draws from a generator of its own.

    By a rule for sessions the jobs are sessions on such ``workers``.
    """
    trials = []
    plan = [(rule, after) for rule in rules for after in consolidate_after]
    for number, (rule, after) in enumerate(plan, 1):
        tell = partial(_tell, report, number, len(plan), rule, after, len(jobs))
        random, pool = Random(seed), replace(shape, consolidate_after=after)  # noqa: S311 - ties, no secret
        if isinstance(rule, SessionRule):
            outcome = simulate_sessions(jobs, pool, workers or WorkerShape(), rule, random, tell)
        else:
            outcome = simulate(jobs, pool, placement(rule, random), tell)
        trials.append(Trial(rule=rule, consolidate_after=after, outcome=outcome))
    return trials


def _tell(
    report: Report, number: int, runs: int, rule: Rule | SessionRule, after: timedelta, jobs: int, arrived: int
) -> None:
    report(number, runs, rule, after, arrived / jobs)
