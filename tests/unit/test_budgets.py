"""Budgets: Karpenter's arithmetic, and which nodes would stay."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.model import FOREVER, Departure, DisruptionBudget, Node, NodePool, Pod, SkipReason
from extender.policy.budgets import Share, allowed_disruptions, room_to_empty, share_of, why_node_stays
from tests.builders import NOW, node, node_pool, stranger

HOUR = timedelta(hours=1)


def budget(
    nodes: str, *reasons: str, schedule: str | None = None, duration: timedelta | None = None
) -> DisruptionBudget:
    return DisruptionBudget(nodes=nodes, reasons=frozenset(reasons) or None, schedule=schedule, duration=duration)


def allowed(*budgets: DisruptionBudget, nodes: int = 20, now: datetime = NOW) -> int | None:
    return allowed_disruptions(budgets, "Empty", nodes, now)


def member(*, initialized: bool = True, **given: Any) -> Node:
    return node(node_pool="workers", initialized=initialized, **given)


# -- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        ((), None),
        ((budget("3"),), 3),
        ((budget("10%"),), 2),
        ((budget("11%"),), 3),  # rounded up
        ((budget("0%"),), 0),
        ((budget("100%"),), 20),
        ((budget("30"),), 30),
        ((budget("5"), budget("20%"), budget("7")), 4),  # the least
        ((budget("5", "Empty"), budget("1", "Drifted")), 5),
        ((budget("1", "Drifted", "Underutilized"),), None),
        ((DisruptionBudget(nodes="0", reasons=frozenset()),), None),  # an empty list is for no reason
    ],
)
def test_least_of_the_budgets_for_a_reason(budgets: tuple[DisruptionBudget, ...], expected: int | None) -> None:
    """Of 20 nodes."""
    assert allowed(*budgets) == expected


def test_small_percentages_allow_one_of_a_few() -> None:
    """Karpenter rounds up, so that small pools are not stuck; of no node none."""
    assert [allowed(budget("10%"), nodes=count) for count in (0, 1, 9, 10, 11)] == [0, 1, 1, 1, 2]


def test_scheduled_budget_limits_while_it_is_active() -> None:
    """NOW is a noon: from noon for an hour nothing may go, before and after two may."""
    midday = budget("0", schedule="0 12 * * *", duration=HOUR)
    always = budget("2")
    for moment, expected in ((NOW - timedelta(seconds=1), 2), (NOW, 0), (NOW + HOUR / 2, 0), (NOW + HOUR, 2)):
        assert allowed(midday, always, now=moment) == expected
    assert allowed(midday, now=NOW - HOUR) is None


@pytest.mark.parametrize(
    "bad",
    [
        budget("5", schedule="never", duration=HOUR),
        budget("5", "Drifted", schedule="never", duration=HOUR),
        budget("5", schedule="@daily"),
        budget("5", duration=HOUR),
        budget("some"),
        budget("%"),
        budget("-1"),
        budget(""),
    ],
)
def test_budget_that_cannot_be_read_allows_nothing(bad: DisruptionBudget) -> None:
    """Even one for another reason: so does Karpenter."""
    assert allowed(budget("10"), bad) == 0


def test_schedule_without_any_hit_is_always_active() -> None:
    """As in Karpenter, whose cron library answers year 1 for it."""
    assert allowed(budget("1", schedule="0 0 31 2 *", duration=HOUR)) == 1


budgets = st.lists(
    st.builds(
        DisruptionBudget,
        nodes=st.integers(0, 30).map(str) | st.integers(0, 100).map("{}%".format),
        reasons=st.none() | st.frozensets(st.sampled_from(["Empty", "Drifted", "Underutilized"])),
        schedule=st.none() | st.sampled_from(["@daily", "@hourly", "30 12 * * *"]),
        duration=st.none() | st.just(HOUR),
    ),
    max_size=4,
)


@given(budgets=budgets, nodes=st.integers(0, 200))
def test_further_budget_never_allows_more(budgets: list[DisruptionBudget], nodes: int) -> None:
    """A budget only restricts, in whatever order they stand."""
    every = allowed(*budgets, nodes=nodes)
    assert every == allowed(*reversed(budgets), nodes=nodes)
    for fewer in range(len(budgets)):
        some = allowed(*budgets[:fewer], nodes=nodes)
        assert some is None or (every is not None and every <= some)


# -- what a node counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "departure", "is_empty", "expected"),
    [
        (member(), None, False, (1, 0)),
        (member(), None, True, (1, 1)),
        (member(initialized=False), None, True, (0, 0)),
        (member(ready=False), None, False, (1, 1)),
        (member(), Departure.DISRUPTED, False, (1, 1)),
        (member(), Departure.NODE_CLAIM_DELETING, True, (1, 1)),
        (member(), Departure.INSTANCE_TERMINATING, False, (0, 0)),
        (member(unschedulable=True), Departure.CORDONED, False, (1, 0)),
        (member(do_not_disrupt=True), None, True, (1, 0)),
    ],
)
def test_what_a_node_counts(of: Node, departure: Departure | None, is_empty: bool, expected: tuple[int, int]) -> None:
    share = share_of(of, departure, is_empty=is_empty)
    assert (share.nodes, share.used) == expected


def test_room_is_what_is_allowed_less_what_is_used() -> None:
    """Never below zero; unlimited where nothing limits."""
    workers = node_pool(budgets=(budget("10%"),))
    assert [room_to_empty(workers, Share(nodes=30, used=used), NOW) for used in (0, 2, 3, 9)] == [3, 1, 0, 0]
    assert room_to_empty(node_pool(budgets=()), Share(nodes=30, used=9), NOW) is None


# -- which nodes would stay -------------------------------------------------------------------------------------------

GUARD = replace(stranger(), do_not_disrupt_until=FOREVER)
GONE = replace(GUARD, terminating=True)


@pytest.mark.parametrize(
    ("of", "pool", "foreign", "expected"),
    [
        (node(), None, [GUARD], None),
        (member(), node_pool(), [], None),
        (member(), node_pool(replicas=0), [], SkipReason.STATIC_NODE_POOL),
        (member(), node_pool(consolidate_after=None), [], SkipReason.NEVER_CONSOLIDATED),
        (member(do_not_disrupt=True), node_pool(), [], SkipReason.NODE_DO_NOT_DISRUPT),
        (member(), node_pool(), [stranger()], None),
        (member(), node_pool(consolidation_policy="Balanced"), [stranger()], None),
        (member(), node_pool(), [GUARD], SkipReason.NODE_KEEPS_OTHERS),
        (member(), node_pool(), [GONE], None),
        (member(), node_pool(consolidation_policy="WhenEmpty"), [], None),
        (member(), node_pool(consolidation_policy="WhenEmpty"), [stranger()], SkipReason.NODE_KEEPS_OTHERS),
        (member(), node_pool(consolidation_policy="WhenEmpty"), [GONE], None),
    ],
)
def test_why_a_node_would_stay(
    of: Node, pool: NodePool | None, foreign: list[Pod], expected: SkipReason | None
) -> None:
    assert why_node_stays(of, pool, foreign, NOW) is expected
