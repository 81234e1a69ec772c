"""Which fault of a soak comes when."""

from __future__ import annotations

from collections import Counter

from scripts.tools.soak.faults import FAULTS
from scripts.tools.soak.schedule import FIRST_AT, plan_faults


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
