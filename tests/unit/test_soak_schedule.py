"""Which fault of a soak comes when."""

from __future__ import annotations

from collections import Counter

from scripts.tools.soak.faults import FAULTS
from scripts.tools.soak.schedule import FIRST_AT, LONGEST_SESSION, WAVE_SECONDS, plan_faults, plan_jobs, plan_sessions


def test_the_same_seed_plans_the_same_faults() -> None:
    """And another seed others."""
    names = list(FAULTS)
    assert plan_faults(FAULTS, names, seed=1, until=600) == plan_faults(FAULTS, names, seed=1, until=600)
    assert plan_faults(FAULTS, names, seed=1, until=600) != plan_faults(FAULTS, names, seed=2, until=600)


def test_every_fault_comes_as_often_as_any_other() -> None:
    """In an hour each comes at least five times, between the first moment and the last."""
    planned = plan_faults(FAULTS, list(FAULTS), seed=1, until=3540)
    counts = Counter(each.name for each in planned)
    assert set(counts) == set(FAULTS)
    assert min(counts.values()) >= 5
    assert max(counts.values()) - min(counts.values()) <= 1
    assert all(each.at >= FIRST_AT and each.at + each.seconds <= 3540 for each in planned)


def test_without_faults_none_is_planned() -> None:
    """Nothing but work: that has to hold first."""
    assert plan_faults(FAULTS, [], seed=1, until=600) == ()


def test_jobs_come_in_waves_with_a_burst_in_each() -> None:
    """By time, each with a number of its own, the same for the same seed."""
    jobs = plan_jobs(at_once=3, burst=20, seed=1, until=3 * WAVE_SECONDS)
    assert jobs == plan_jobs(at_once=3, burst=20, seed=1, until=3 * WAVE_SECONDS)
    assert [each.at for each in jobs] == sorted(each.at for each in jobs)
    assert len({each.number for each in jobs}) == len(jobs)
    assert len(jobs) - len(plan_jobs(at_once=3, burst=0, seed=1, until=3 * WAVE_SECONDS)) == 60


def test_sessions_are_as_many_at_once_as_asked_for() -> None:
    """On average, over an hour."""
    sessions = plan_sessions(at_once=10, seed=1, until=3600)
    assert 9 < sum(each.work for each in sessions) / 3600 < 11
    assert max(each.work for each in sessions) <= LONGEST_SESSION
    assert plan_sessions(at_once=0, seed=1, until=3600) == ()
