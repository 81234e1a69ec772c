"""Doctor's checks of the workers: pools, idle marks, deletion costs, disruption budgets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from extender.inspect.doctor.evidence import Evidence, Kind, WorkerFacts
from extender.inspect.doctor.findings import Verdict
from extender.inspect.doctor.workers import (
    check_deletion_costs,
    check_disruption_budgets,
    check_idle_marks,
    check_pools,
)
from extender.model import PodBudget, Selector
from tests.builders import NOW, minutes_ago, worker
from tests.evidence import NAMESPACE, configured, evidence, facts

OK, UNKNOWN, WARNING, PROBLEM = Verdict.OK, Verdict.UNKNOWN, Verdict.WARNING, Verdict.PROBLEM
DAY = 24 * 60


def of(*workers: WorkerFacts, **given: Any) -> Evidence:
    return evidence(workers=workers, **given)


@pytest.mark.parametrize("check", [check_pools, check_idle_marks, check_deletion_costs, check_disruption_budgets])
def test_pods_that_may_not_be_read_are_not_known(check: Any) -> None:
    """With the reason."""
    finding = check(evidence(workers=(), unread={Kind.PODS: "forbidden"}))
    assert (finding.verdict, finding.summary) == (UNKNOWN, "pods were not read (forbidden)")


# -- pools ------------------------------------------------------------------------------------------------------------


def test_a_cluster_without_workers_deserves_a_look() -> None:
    """The label is the first step of a new user."""
    finding = check_pools(of())
    assert finding.verdict is WARNING
    assert "warmnode.dev/pool" in (finding.remedy or "")


def test_pools_are_counted_and_dry_run_is_said() -> None:
    """It is meant like that, so it is well; but nobody shall wonder."""
    finding = check_pools(of(facts(), facts(worker("other", pool="ducks")), configuration=configured(dryRun=True)))
    assert (finding.verdict, finding.summary) == (OK, "2 workers in 2 pools")
    assert "dry-run is on in ducks, pool" in finding.details[-1]


# -- idle marks -------------------------------------------------------------------------------------------------------


def marked(name: str, minutes: float | None, *, text: str | None = None, created: float = 40) -> WorkerFacts:
    since = None if minutes is None else minutes_ago(minutes)
    made = worker(name, scheduler="warmnode", idle_since=since, created=minutes_ago(created))
    return facts(made, idle_mark=text if since is None else str(since))


def test_workers_that_say_when_they_are_idle_are_well() -> None:
    """One idle, one busy."""
    finding = check_idle_marks(of(marked("a", 5), marked("b", None)))
    assert (finding.verdict, finding.summary) == (OK, "1 of 2 workers say that they are idle")


def test_a_mark_older_than_its_pod_stands_in_the_template() -> None:
    """Nobody removes it: such a worker is evicted while it works."""
    finding = check_idle_marks(of(marked("a", 41, created=40)))
    assert finding.verdict is PROBLEM
    assert "default/a" in finding.summary
    assert check_idle_marks(of(marked("a", 40, created=40))).verdict is OK


def test_a_mark_of_the_future_counts_as_busy() -> None:
    """Half a minute is tolerated."""
    assert check_idle_marks(of(marked("a", -0.4))).verdict is OK
    finding = check_idle_marks(of(marked("a", -5)))
    assert finding.verdict is WARNING
    assert "in the future" in finding.summary


def test_a_mark_that_sources_do_not_confirm_is_no_fault() -> None:
    """It is a time and counts as busy all the same; and a mark that warmnode made stands in no template."""
    pod = worker(scheduler="warmnode", own_mark=minutes_ago(5), source_mark="confirmed 2026-11-01T11:00:00.000Z")
    assert check_idle_marks(of(facts(pod, idle_mark=str(minutes_ago(5))))).verdict is OK
    pod = worker(scheduler="warmnode", idle_since=minutes_ago(99), source_mark="marked 2026-11-01T10:21:00.000Z")
    assert check_idle_marks(of(facts(pod, idle_mark=str(minutes_ago(99))))).verdict is OK


def test_a_mark_that_is_no_time_counts_as_busy() -> None:
    """What warmnode itself writes for busy is none of these."""
    finding = check_idle_marks(of(marked("a", None, text="yesterday")))
    assert finding.verdict is WARNING
    assert "'yesterday'" in finding.summary
    assert check_idle_marks(of(marked("a", None, text="busy at version 7"))).verdict is OK


def silent(count: int, *, created: float = 90, **given: Any) -> list[WorkerFacts]:
    return [
        facts(worker(f"w{number}", scheduler="warmnode", created=minutes_ago(created), **given), idle_mark=None)
        for number in range(count)
    ]


def test_a_pool_in_which_nobody_was_ever_idle_deserves_a_look() -> None:
    """Three workers of an hour and more; a deletion cost of ours would show that one was idle once."""
    finding = check_idle_marks(of(*silent(3)))
    assert finding.verdict is WARNING
    assert "has ever said that it is idle" in finding.summary
    assert check_idle_marks(of(*silent(2))).verdict is OK
    assert check_idle_marks(of(*silent(3, created=50))).verdict is OK
    assert check_idle_marks(of(*silent(3, deletion_cost="100", cost_mark="100"))).verdict is OK


def test_a_pool_that_uses_no_idleness_needs_no_marks() -> None:
    """Neither reaped nor given costs: placement only."""
    placement_only = {"reap": {"enabled": False}, "deletionCost": {"enabled": False}}
    assert check_idle_marks(of(*silent(3), configuration=configured(poolDefaults=placement_only))).verdict is OK


def test_marks_that_have_not_changed_for_a_day_deserve_a_look() -> None:
    """All idle and more than the floor: why were they not reaped, and why does nobody use them?"""
    workers = [marked(f"w{number}", 2 * DAY, created=3 * DAY) for number in range(4)]
    finding = check_idle_marks(of(*workers))
    assert finding.verdict is WARNING
    assert "no mark has changed for a day" in finding.summary
    assert check_idle_marks(of(*workers, configuration=configured(poolDefaults={"reap": {"floor": 4}}))).verdict is OK
    assert check_idle_marks(of(*workers[1:], marked("w9", 5, created=3 * DAY))).verdict is OK


# -- deletion costs ---------------------------------------------------------------------------------------------------


def costed(name: str, cost: str | None, mark: str | None, **given: Any) -> WorkerFacts:
    return facts(worker(name, scheduler="warmnode", deletion_cost=cost, cost_mark=mark), **given)


def test_values_of_ours_are_well() -> None:
    """And counted."""
    finding = check_deletion_costs(of(costed("a", "-5", "-5"), costed("b", None, None)))
    assert (finding.verdict, finding.summary) == (OK, "1 value of ours, none of others")


def test_a_foreign_value_is_left_alone_and_its_writer_named() -> None:
    """The API server knows who wrote it."""
    finding = check_deletion_costs(of(costed("a", "7", None, cost_writer="keda")))
    assert finding.verdict is WARNING
    assert finding.details[0] == "written by keda (from the pods' managedFields)"


def test_one_value_of_karpenters_own_writer_is_a_problem() -> None:
    """It prices all ReplicaSets' pods of the cluster, and forgets nobody."""
    finding = check_deletion_costs(of(costed("a", "7", None, cost_writer="karpenter")))
    assert finding.verdict is PROBLEM
    assert "may take a busy worker" in finding.summary
    assert "claims.doNotDisrupt" in (finding.remedy or "")


def test_a_writer_that_overwrites_ours_is_a_problem() -> None:
    """Three in a pool: there we have stopped."""
    workers = [costed(f"w{number}", "7", "-5") for number in range(3)]
    finding = check_deletion_costs(of(*workers))
    assert finding.verdict is PROBLEM
    assert "in pool" in finding.summary
    assert check_deletion_costs(of(*workers[:2])).verdict is WARNING


def test_a_busy_worker_that_karpenter_takes_for_nothing_is_named() -> None:
    """At -2^27 and below, as its alpha feature writes; nonsense is no number."""
    finding = check_deletion_costs(of(costed("a", "-2147483648", None), costed("b", "many", None)))
    assert any("takes busy workers for nothing: a" in line for line in finding.details)


# -- budgets ----------------------------------------------------------------------------------------------------------

LABELS = {"app": "duck"}


def budget(name: str = "ducks", **given: Any) -> PodBudget:
    wanted: dict[str, Any] = {
        "namespace": "default",
        "selector": Selector(match_labels=tuple(LABELS.items())),
        "allowed": 1,
        "healthy": 3,
        "desired": 2,
        "expected": 3,
    }
    return PodBudget(name=name, **(wanted | given))


def covered(owner: str | None = None) -> WorkerFacts:
    return facts(worker(scheduler="warmnode", owner=owner), labels=LABELS)


@pytest.mark.parametrize("given", [{"max_unavailable": "1"}, {"min_available": "50%"}, {"max_unavailable": "50%"}])
def test_a_budget_that_cannot_count_bare_pods_allows_nothing_ever(given: Any) -> None:
    """Only minAvailable as a number can; with an owner the API server asks that one."""
    finding = check_disruption_budgets(of(covered(), budgets=(budget(**given),)))
    assert finding.verdict is PROBLEM
    assert "default/ducks" in finding.summary
    assert check_disruption_budgets(of(covered("ReplicaSet.apps"), budgets=(budget(**given),))).verdict is OK
    assert check_disruption_budgets(of(covered(), budgets=(budget(min_available="1"),))).verdict is OK


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_unavailable": "0", "desired": 3, "allowed": 0}, "maxUnavailable 0"),
        ({"max_unavailable": "0%", "desired": 3, "allowed": 0}, "maxUnavailable 0%"),
        ({"min_available": "100%", "desired": 3, "allowed": 0}, "minAvailable 100%"),
        ({"min_available": "3", "desired": 3, "allowed": 0}, "minAvailable 3"),
        ({"min_available": "4", "desired": 4, "allowed": 0}, "minAvailable 4"),
        ({"max_unavailable": "0", "desired": None, "expected": None}, "maxUnavailable 0"),
    ],
)
@pytest.mark.parametrize("owner", ["ReplicaSet.apps", None])
def test_a_budget_that_keeps_all_of_them_allows_nothing_ever(given: Any, said: str, owner: str | None) -> None:
    """By what it says, or because as many have to be healthy as there are."""
    finding = check_disruption_budgets(of(covered(owner), budgets=(budget(**given),)))
    assert finding.verdict is PROBLEM
    assert said in finding.summary
    assert "ever" in finding.summary


def test_a_budget_that_allows_nothing_now_deserves_a_look() -> None:
    """Too few are healthy; it may pass."""
    now = budget(min_available="2", allowed=0, healthy=2, desired=2, expected=3)
    finding = check_disruption_budgets(of(covered(), budgets=(now,)))
    assert finding.verdict is WARNING
    assert "2 of 3 pods are healthy, and 2 have to be" in finding.summary
    both = (now, budget("other", max_unavailable="0"))
    assert check_disruption_budgets(of(covered("ReplicaSet.apps"), budgets=both)).summary.startswith(
        "a budget allows no eviction, ever: default/other"
    )


def test_a_budget_that_nobody_has_counted_yet_is_not_known() -> None:
    """The API server refuses evictions until the disruption controller has looked at it."""
    new = budget(min_available="1", healthy=None, desired=None, expected=None)
    assert check_disruption_budgets(of(covered(), budgets=(new,))).verdict is UNKNOWN
    assert check_disruption_budgets(of(facts(), budgets=(new,))).verdict is OK


def test_a_budget_elsewhere_or_over_others_does_not_matter() -> None:
    """Another namespace, other labels, no selector at all."""
    others = (
        budget(namespace="other", max_unavailable="1"),
        budget(selector=Selector(match_labels=(("app", "goose"),)), max_unavailable="1"),
        budget(selector=None, max_unavailable="1"),
    )
    assert check_disruption_budgets(of(covered(), budgets=others)).verdict is OK


def test_two_budgets_over_one_worker_are_a_problem() -> None:
    """The API server evicts no such pod, whatever they allow."""
    both = (budget("one", min_available="1"), budget("two", min_available="1"))
    finding = check_disruption_budgets(of(covered(), budgets=both))
    assert finding.verdict is PROBLEM
    assert "two budgets cover 1 worker" in finding.summary


def test_budgets_that_may_not_be_read_are_not_known() -> None:
    """They are optional to read."""
    finding = check_disruption_budgets(evidence(budgets=(), unread={Kind.DISRUPTION_BUDGETS: "forbidden"}))
    assert finding.verdict is UNKNOWN


def test_the_evidence_of_these_tests_is_well() -> None:
    """Else they would show nothing."""
    well = evidence()
    assert well.namespace == NAMESPACE
    assert well.now - NOW == timedelta(0)
    checks = (check_pools, check_idle_marks, check_deletion_costs, check_disruption_budgets)
    assert {check(well).verdict for check in checks} == {OK}
