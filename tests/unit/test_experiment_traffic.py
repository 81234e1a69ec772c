"""The work that arrives, and which runs there are: seeded, repeatable, the same for every arm."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.tools.experiment.arms import ARMS
from scripts.tools.experiment.batches import batches
from scripts.tools.experiment.matrix import FIRST_REPORTED_SEED, SEEDS, Run, plan
from scripts.tools.experiment.traffic import (
    BLOCKS_PER_TENANT,
    LONGEST,
    READS_PER_TASK,
    SHORTEST,
    TENANTS,
    Traffic,
    arrivals,
    blocks_of,
)
from scripts.tools.experiment.workloads import WORKLOADS

SECONDS = 600.0


@given(st.sampled_from(sorted(WORKLOADS)), st.integers(1, 10_000))
def test_same_seed_makes_the_same_tasks(workload: str, seed: int) -> None:
    """In order, within the run, numbered from 0, of a duration within the limits."""
    traffic = WORKLOADS[workload].traffic
    tasks = arrivals(traffic, seed, SECONDS)
    assert tasks == arrivals(traffic, seed, SECONDS)
    assert [each.number for each in tasks] == list(range(len(tasks)))
    assert [each.at for each in tasks] == sorted(each.at for each in tasks)
    assert all(0 <= each.at < SECONDS for each in tasks)
    assert all(SHORTEST <= each.duration / traffic.mean <= LONGEST for each in tasks)
    assert all(0 <= each.tenant < TENANTS for each in tasks)


def test_other_seed_makes_other_tasks() -> None:
    """Seeds are repeats, not copies."""
    assert arrivals(WORKLOADS["jobs"].traffic, 1, SECONDS) != arrivals(WORKLOADS["jobs"].traffic, 2, SECONDS)


def test_arrivals_have_the_rate_and_the_bursts_that_were_asked_for() -> None:
    """100 at once of 10 s are 10 a second; a burst of 50 in each of 10 periods comes on top."""
    steady = Traffic(at_once=100, mean=10, period=100)
    count = len(arrivals(steady, 1, 1000))
    assert 9_700 < count < 10_300
    burst = Traffic(at_once=100, mean=10, period=100, burst=50)
    assert len(arrivals(burst, 1, 1000)) == count + 500


def test_swing_moves_work_from_the_trough_to_the_crest() -> None:
    """The first half of a period is the crest: with a swing of 0.8 it has about three quarters of the work."""
    tasks = arrivals(Traffic(at_once=100, mean=10, period=100, swing=0.8), 1, 1000)
    crest = sum(each.at % 100 < 50 for each in tasks)
    assert 0.72 < crest / len(tasks) < 0.79


@given(st.integers(1, 999), st.integers(0, 999), st.integers(0, TENANTS - 1))
def test_blocks_belong_to_the_task_alone(seed: int, number: int, tenant: int) -> None:
    """Where a task runs, and how often, does not change what it reads; tenants share nothing."""
    blocks = blocks_of(seed, number, tenant)
    assert len(blocks) == READS_PER_TASK
    assert blocks == blocks_of.__wrapped__(seed, number, tenant)
    assert all(whose == tenant and 0 <= block < BLOCKS_PER_TENANT for whose, block in blocks)


def test_plan_has_each_run_once_and_arms_of_a_point_together() -> None:
    """Arms that are compared run at the same time, and not always in the same order."""
    runs = list(plan())
    assert len({run.id for run in runs}) == len(runs)
    points = [
        (point, [run.arm for run in group])
        for point, group in groupby(runs, key=lambda run: (run.seed, run.consolidate_after, run.workload))
    ]
    assert len(points) == len({point for point, _ in points})
    assert all(sorted(arms) == sorted(WORKLOADS[point[2]].arms) for point, arms in points)
    assert len({tuple(arms) for point, arms in points if point[2] == "sessions"}) > 1


@given(st.integers(1, 12))
def test_batches_have_every_run_once_and_points_whole_where_they_fit(parallel: int) -> None:
    """None is larger than asked for; a point is divided only if it does not fit into a batch of its own."""
    planned = batches(plan(), parallel)
    assert sorted(run.id for batch in planned for run in batch) == sorted(run.id for run in plan())
    assert all(0 < len(batch) <= parallel for batch in planned)
    for run in plan():
        parts = [batch for batch in planned if any(point_of(run) == point_of(each) for each in batch)]
        assert len(parts) == 1 or len(WORKLOADS[run.workload].arms) > parallel


def point_of(run: Run) -> tuple[str, int, int]:
    return run.workload, run.consolidate_after, run.seed


def test_plan_keeps_to_what_is_asked_for() -> None:
    """One arm of one workload."""
    assert [run.id for run in plan(["jobs"], [20], [7], ["packing"])] == ["jobs-20s-packing-7"]


def test_reported_seeds_are_none_of_those_for_trials() -> None:
    """Nothing was tuned on what is reported."""
    assert all(seed >= FIRST_REPORTED_SEED for seed in SEEDS)


@given(st.sampled_from(list(plan())))
def test_id_names_its_run(run: Run) -> None:
    """An id can be read back."""
    assert Run.parse(run.id) == run


@pytest.mark.parametrize("text", ["", "jobs", "jobs-15s-default", "jobs-15s-nothing-1", "tea-15s-default-1"])
def test_id_that_is_none_is_refused(text: str) -> None:
    """With what is possible."""
    with pytest.raises(ValueError, match="with a workload of jobs, deployment, sessions"):
        Run.parse(text)


def test_workloads_name_arms_that_there_are() -> None:
    """Each begins with the default scheduler, which the others are compared with."""
    assert all(workload.arms[0] == "default" and set(workload.arms) <= set(ARMS) for workload in WORKLOADS.values())
