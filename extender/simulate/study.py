"""A study: the same jobs under several rules and several values of consolidateAfter. Owns which runs there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

from extender.simulate.rules import Rule, placement
from extender.simulate.run import PoolShape, RunOutcome, simulate
from extender.simulate.workload import Job

Report = Callable[[int, int, Rule, timedelta, float], None]
"""Told of progress: number of the run from 1, runs in all, its rule and consolidateAfter, the share that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of a study, and what came of it."""

    rule: Rule
    consolidate_after: timedelta
    outcome: RunOutcome


def run_study(
    jobs: Sequence[Job],
    shape: PoolShape,
    rules: Sequence[Rule],
    consolidate_after: Sequence[timedelta],
    *,
    seed: int,
    report: Report,
) -> list[Trial]:
    """Run every rule with every consolidateAfter, in this order. Each run draws from a generator of its own."""
    trials = []
    plan = [(rule, after) for rule in rules for after in consolidate_after]
    for number, (rule, after) in enumerate(plan, 1):

        def tell(arrived: int, number: int = number, rule: Rule = rule, after: timedelta = after) -> None:
            report(number, len(plan), rule, after, arrived / len(jobs))

        placed = placement(rule, Random(seed))  # noqa: S311 - ties between equal nodes, no secret
        outcome = simulate(jobs, replace(shape, consolidate_after=after), placed, tell)
        trials.append(Trial(rule=rule, consolidate_after=after, outcome=outcome))
    return trials
