"""What the soak's rules say of a record: each is seen to hold, and to be broken."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.tools.soak import invariants
from scripts.tools.soak.facts import (
    AgeMoved,
    Bound,
    Fact,
    ForeignChanged,
    LeaderChanged,
    Mishap,
    Record,
    Rule,
    Sample,
    Span,
    Starved,
    Taken,
    Told,
    Unsettled,
)

KEEP, PASS = 10, 4


def broken(*facts: Fact) -> set[Rule]:
    """Which rules do not hold for these facts."""
    record = Record()
    record.add(*facts)
    rules = invariants.invariants(keep=KEEP, most_per_pass=PASS)
    return {each.rule for rule in rules.values() for each in rule(record)}


def taken(at: float = 100.0, **given: Any) -> Taken:
    """The eviction of an idle worker that nobody needs."""
    usual: dict[str, Any] = {
        "pod": "w",
        "idle": True,
        "claimed": False,
        "left": KEEP,
        "lately": KEEP,
        "is_leaving": False,
        "is_owned": False,
    }
    return Taken(at=at, **(usual | given))


def told(claimant: str, at: float, until: float, uid: str = "u") -> Told:
    return Told(at=at, until=until, claimant=claimant, pod="w", uid=uid)


def bound(scheduler: str, waited: float, at: float = 100.0) -> Bound:
    return Bound(at=at, pod="p", scheduler=scheduler, waited=waited)


def samples(*resident_mib: float, files: int = 20, pid: int = 7) -> list[Sample]:
    """One process, looked at each ten seconds."""
    return [
        Sample(at=10.0 * number, program="serve-0", pid=pid, resident_mib=each, files=files)
        for number, each in enumerate(resident_mib)
    ]


def test_an_idle_worker_that_nobody_claims_may_be_evicted() -> None:
    """That is what reaping is."""
    assert broken(taken()) == set()


def test_a_worker_of_the_deployment_is_not_evicted() -> None:
    """Idle or not; and the floor has nothing to do with it."""
    assert broken(taken(is_owned=True, lately=0)) == {Rule.OWNED}


@pytest.mark.parametrize("state", [{"idle": False}, {"claimed": True}])
def test_work_that_was_accepted_is_not_evicted(state: dict[str, bool]) -> None:
    """At its eviction a worker has its mark, and no claim that runs."""
    assert broken(taken(**state)) == {Rule.ACCEPTED_WORK}


def test_two_claimants_have_one_worker_one_after_the_other_only() -> None:
    """Whose claim is over, by release or by time, does not count any more; other workers do not either."""
    assert broken(told("a", 1, 5), told("b", 5, 9), told("c", 2, 9, uid="v")) == set()
    assert broken(told("a", 1, 5), told("b", 4.9, 9)) == {Rule.ONE_CLAIMANT}


def test_one_claimant_may_be_told_of_its_worker_twice() -> None:
    """A request that is repeated gets the same worker."""
    assert broken(told("a", 1, 5), told("a", 2, 5)) == set()


def test_the_floor_is_kept() -> None:
    """An eviction leaves as many claimable workers as the floor; on a leaving node it does not count."""
    assert broken(taken(left=0, lately=KEEP - 1)) == {Rule.FLOOR}
    assert broken(taken(left=0, lately=KEEP)) == set(), "they took work in this moment"
    assert broken(taken(left=0, lately=0, is_leaving=True)) == set()


def test_the_floor_is_undershot_by_one_pass_around_a_change_of_leader() -> None:
    """Two leaders after each other may each carry out a pass; not more, and not later."""
    change = LeaderChanged(at=95.0, holder="b")
    assert broken(change, taken(lately=KEEP - PASS)) == set()
    assert broken(change, taken(lately=KEEP - PASS - 1)) == {Rule.FLOOR}
    late = taken(at=95.0 + invariants.LEADER_AFTERMATH + 1, lately=KEEP - 1)
    assert broken(change, late) == {Rule.FLOOR}


def test_a_pod_waits_as_long_as_the_stock_schedulers_and_a_quarter_of_a_second() -> None:
    """Compared is what both did at the same time."""
    most = invariants.EXTENDER_SECONDS + invariants.NOISE_SECONDS + (invariants.MORE - 1) * 0.1
    assert broken(bound("default-scheduler", 0.1), bound("warmnode", 0.1 + most - 0.01)) == set()
    assert broken(bound("default-scheduler", 0.1), bound("warmnode", 0.1 + most + 0.01)) == {Rule.BOUND_IN_TIME}
    starved = Starved(at=95.0, seconds=0.1)
    late = 0.1 + most + 0.1 * invariants.STEPS
    assert broken(bound("default-scheduler", 0.1), bound("warmnode", late - 0.01), starved) == set()
    assert broken(bound("default-scheduler", 0.1), bound("warmnode", late + 0.01), starved) == {Rule.BOUND_IN_TIME}
    earlier = bound("default-scheduler", 9.0, at=100.0 - invariants.COMPARED_WITHIN - 1)
    assert broken(earlier, bound("default-scheduler", 0.1), bound("warmnode", 2.0)) == {Rule.BOUND_IN_TIME}


def test_a_fault_excuses_what_it_says_until_a_while_after_its_end() -> None:
    """And nothing else, and no longer."""
    late = [bound("default-scheduler", 0.1), bound("warmnode", 5.0)]
    excuses = frozenset({Rule.BOUND_IN_TIME})
    assert broken(*late, Span(at=90.0, end=None, fault="f", excuses=excuses)) == set()
    assert broken(*late, Span(at=80.0, end=100.0 - invariants.AFTERMATH, fault="f", excuses=excuses)) == set()
    assert broken(*late, Span(at=80.0, end=99.0 - invariants.AFTERMATH, fault="f", excuses=excuses)) != set()
    assert broken(*late, Span(at=90.0, end=None, fault="f", excuses=frozenset({Rule.FLOOR}))) != set()


def test_the_end_of_a_fault_is_known_afterwards() -> None:
    """A span is kept from its beginning, and gets its end."""
    record, span = Record(), Span(at=1.0, end=None, fault="f")
    record.add(span, Span(at=2.0, end=None, fault="g"))
    record.end(span, 5.0)
    assert [(each.fault, each.end) for each in record.of(Span)] == [("f", 5.0), ("g", None)]


def test_ages_only_grow() -> None:
    """An earlier time is an older node, which merging ledgers makes; a later one is a node that got younger."""
    assert broken(AgeMoved(at=1, uid="u", earliest=50, now=40)) == set()
    assert broken(AgeMoved(at=1, uid="u", earliest=50, now=51)) == {Rule.AGES}


def test_a_process_may_warm_up_and_not_grow() -> None:
    """What counts is what it holds at least, in the middle of its life and late: its first third is not looked at."""
    steady = [60.0, 70.0, 80.0, 90.0, *[100.0] * 18]
    assert broken(*samples(*steady)) == set()
    bursts = [60.0] * 12 + [110.0] * 6
    assert broken(*samples(*bursts)) == set()
    growing = [100.0 + 7.0 * number for number in range(26)]
    assert broken(*samples(*growing)) == {Rule.FLAT}
    peak = [*[100.0] * 18, 300.0, *[100.0] * 6]
    assert broken(*samples(*peak)) == set()
    files = [Sample(at=10.0 * n, program="serve-0", pid=7, resident_mib=60, files=20 + 40 * n) for n in range(26)]
    assert broken(*files) == {Rule.FLAT}


def test_a_process_that_grows_on_is_the_same_violation() -> None:
    """Looked at later it grew more; that is no second one."""
    keys = []
    for count in (26, 36):
        record = Record()
        record.add(*samples(*[100.0 + 9.0 * number for number in range(count)]))
        keys.append([(each.rule, each.at) for each in invariants.flat(record)])
    assert keys[0] == keys[1]
    assert len(keys[0]) == 1


def test_a_restart_begins_a_new_life() -> None:
    """Two processes of one program are not compared."""
    assert broken(*samples(*[50.0] * 26), *samples(*[150.0] * 26, pid=8)) == set()


def test_what_is_told_as_it_is_found() -> None:
    """Foreign values, ends of programs, and what has not settled are facts that are wrong by themselves."""
    assert broken(ForeignChanged(at=1, what="w")) == {Rule.FOREIGN}
    assert broken(Mishap(at=1, program="p", what="w")) == {Rule.ALIVE}
    assert broken(Unsettled(at=1, what="w")) == {Rule.CONVERGED}


def test_each_rule_has_its_name() -> None:
    """A rule without a check would be said to hold."""
    assert set(invariants.invariants(keep=KEEP, most_per_pass=PASS)) == set(Rule)
