"""The work that arrives, and which runs there are: seeded, repeatable, the same for every arm."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.tools.experiment.arms import ARMS
from scripts.tools.experiment.batches import SIDE_BY_SIDE, STAGGER_SECONDS, START_SECONDS, batches
from scripts.tools.experiment.matrix import (
    CONSOLIDATE_AFTER,
    FIRST_REPORTED_SEED,
    OLDER,
    SECONDS,
    SEEDS,
    WARM_UP,
    Run,
    arms_of,
    plan,
)
from scripts.tools.experiment.traffic import (
    LONGEST,
    MODELS,
    SHORTEST,
    Traffic,
    arrivals,
)
from scripts.tools.experiment.workloads import PERIOD, WORKLOADS


@given(st.sampled_from(sorted(WORKLOADS)), st.integers(1, 10_000))
def test_same_seed_makes_the_same_tasks(workload: str, seed: int) -> None:
    """In order, within the run, numbered from 0, of a duration within the limits."""
    traffic = WORKLOADS[workload].traffic
    tasks = arrivals(traffic, seed, SECONDS)
    assert tasks == arrivals(traffic, seed, SECONDS)
    assert [each.number for each in tasks] == list(range(len(tasks)))
    assert [each.at for each in tasks] == sorted(each.at for each in tasks)
    assert all(0 <= each.at < SECONDS for each in tasks)
    assert all(SHORTEST <= each.work / traffic.work <= LONGEST for each in tasks)
    assert all(0 <= each.model < MODELS for each in tasks)


def test_other_seed_makes_other_tasks() -> None:
    """Seeds are repeats, not copies."""
    assert arrivals(WORKLOADS["jobs2"].traffic, 1, SECONDS) != arrivals(WORKLOADS["jobs2"].traffic, 2, SECONDS)


def test_arrivals_have_the_rate_that_was_asked_for() -> None:
    """10 a second, give or take what chance does."""
    assert 9_700 < len(arrivals(Traffic(rate=10, work=10, period=100), 1, 1000)) < 10_300


def test_swing_moves_work_from_the_trough_to_the_crest() -> None:
    """The first half of a period is the crest: with a swing of 0.8 it has about three quarters of the work."""
    tasks = arrivals(Traffic(rate=10, work=10, period=100, swing=0.8), 1, 1000)
    crest = sum(each.at % 100 < 50 for each in tasks)
    assert 0.72 < crest / len(tasks) < 0.79
    later = arrivals(Traffic(rate=10, work=10, period=100, swing=0.8, rises=50), 1, 1000)
    assert 0.21 < sum(each.at % 100 < 50 for each in later) / len(later) < 0.28


def test_little_work_comes_while_runs_start() -> None:
    """No workload is above its average in the first hundred seconds, and those of one batch differ in their crests."""
    for workload in WORKLOADS.values():
        early = [task for task in arrivals(replace(workload.traffic, rate=50), 1, 100) if task.at < 100]
        assert len(early) < 0.8 * 50 * 100
    assert WORKLOADS["jobs1"].traffic.rises != WORKLOADS["jobs2"].traffic.rises


def test_models_are_as_popular_as_those_of_the_service() -> None:
    """The first three have 31, 15 and 9 of 100 requests there."""
    tasks = arrivals(Traffic(rate=100, work=10, period=100), 1, 1000)
    shares = [sum(each.model == model for each in tasks) / len(tasks) for model in range(3)]
    assert [round(share, 1) for share in shares] == [0.3, 0.1, 0.1]
    assert shares == sorted(shares, reverse=True)


def test_plan_has_each_run_once_and_arms_of_a_point_together() -> None:
    """Arms that are compared run at the same time, and not always in the same order."""
    runs = list(plan())
    assert len({run.id for run in runs}) == len(runs)
    points = [
        (point, [run.arm for run in group])
        for point, group in groupby(runs, key=lambda run: (run.seed, run.consolidate_after, run.workload))
    ]
    assert len(points) == len({point for point, _ in points})
    assert all(sorted(arms) == sorted(arms_of(point[2], point[1])) for point, arms in points)
    assert len({tuple(arms) for point, arms in points if point[2] == "sessions"}) > 1


@given(st.integers(1, 12))
def test_batches_have_every_run_once_and_points_whole_where_they_fit(parallel: int) -> None:
    """None is larger than asked for; a point is divided only if it does not fit into a batch of its own."""
    planned = batches(plan(), parallel)
    assert sorted(run.id for batch in planned for run in batch) == sorted(run.id for run in plan())
    assert all(0 < len(batch) <= parallel for batch in planned)
    for run in plan():
        parts = [batch for batch in planned if any(point_of(run) == point_of(each) for each in batch)]
        assert len(parts) == 1 or len(arms_of(run.workload, run.consolidate_after)) > parallel


def point_of(run: Run) -> tuple[str, int, int]:
    return run.workload, run.consolidate_after, run.seed


def test_plan_keeps_to_what_is_asked_for() -> None:
    """One arm of one workload."""
    assert [run.id for run in plan(["jobs2"], [20], [7], ["packing"])] == ["jobs2-20s-packing-7"]


def test_reported_seeds_are_none_of_those_for_trials() -> None:
    """Nothing was tuned on what is reported."""
    assert all(seed >= FIRST_REPORTED_SEED for seed in SEEDS)


@given(st.sampled_from(list(plan())))
def test_id_names_its_run(run: Run) -> None:
    """An id can be read back."""
    assert Run.parse(run.id) == run


@pytest.mark.parametrize("text", ["", "jobs", "jobs2-15s-default", "jobs2-15s-nothing-1", "tea-15s-default-1"])
def test_id_that_is_none_is_refused(text: str) -> None:
    """With what is possible."""
    with pytest.raises(ValueError, match="with a workload of jobs1, jobs2"):
        Run.parse(text)


def test_workloads_name_arms_that_there_are() -> None:
    """Each has MostAllocated, which the others are compared with."""
    points = [(workload, after) for workload in WORKLOADS for after in CONSOLIDATE_AFTER]
    assert all("packing" in arms_of(*point) and set(arms_of(*point)) <= set(ARMS) for point in points)
    assert set(OLDER) <= set(points)


def test_warm_up_is_longer_than_the_start_of_a_batch() -> None:
    """The last of the runs side by side has started when the first begins to count."""
    assert (SIDE_BY_SIDE - 1) * STAGGER_SECONDS + START_SECONDS < WARM_UP


def test_whole_waves_are_counted() -> None:
    """As much of the crest as of the trough."""
    assert (SECONDS - WARM_UP) % PERIOD == 0
