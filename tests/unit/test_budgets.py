"""Budgets: Karpenter's arithmetic, and which nodes would stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extender.model import (
    FOREVER,
    Departure,
    DisruptionBudget,
    Node,
    NodeClaim,
    NodeClaimCondition,
    NodePool,
    Pod,
    PodBudget,
    SkipReason,
)
from extender.policy.node_pool_budgets import (
    SOON,
    Kept,
    PodBudgets,
    Share,
    allowed_disruptions,
    budgets_that_forbid,
    is_next,
    opens_at,
    room_to_disrupt,
    share_of,
    takeable_from,
    what_keeps,
)
from tests.builders import NOW, daemon, minutes_ago, node, node_claim, node_pool, pod_budget, stranger
from tests.listening import synced_state

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


@given(budgets=budgets, nodes=st.integers(0, 200), seconds=st.integers(0, 86_400))
def test_budgets_open_at_the_first_minute_that_allows_one(
    budgets: list[DisruptionBudget], nodes: int, seconds: int
) -> None:
    """As found by asking for every minute of a day: what these budgets do repeats daily."""
    now, within = NOW + timedelta(seconds=seconds), timedelta(days=1)
    minutes = (now, *((now + timedelta(minutes=n)).replace(second=0) for n in range(1, 24 * 60 + 1)))
    first = next((at for at in minutes if allowed_disruptions(budgets, "Empty", nodes, at) != 0), None)
    assert opens_at(budgets, "Empty", nodes, now, within) == first


@pytest.mark.parametrize(
    ("closed", "opens"),
    [
        ((budget("0"),), None),
        ((budget("0", schedule="* * * * *", duration=HOUR),), None),
        ((budget("0", schedule="0 0 31 2 *", duration=HOUR),), None),
        ((budget("5", schedule="0 25 * * *", duration=HOUR),), None),
        ((budget("0", schedule="0 12 * * *", duration=HOUR), budget("0", schedule="30 12 * * *", duration=HOUR)), 90),
        ((budget("0", schedule="@daily", duration=13 * HOUR),), 60),
        ((budget("0", "Drifted"), budget("1")), 0),
        ((budget("0", "Drifted"), budget("0", "Empty", schedule="@daily", duration=13 * HOUR)), 60),
        ((), 0),
    ],
)
def test_budgets_open_when_the_last_closed_one_ends(closed: Any, opens: int | None) -> None:
    """Minutes from noon; one that is on again before it ends, or that cannot be read, never ends."""
    expected = None if opens is None else NOW + timedelta(minutes=opens)
    assert opens_at(closed, "Empty", 10, NOW, timedelta(days=31)) == expected


@given(budgets=budgets, nodes=st.integers(0, 200))
def test_further_budget_never_allows_more(budgets: list[DisruptionBudget], nodes: int) -> None:
    """A budget only restricts, in whatever order they stand."""
    every = allowed(*budgets, nodes=nodes)
    assert every == allowed(*reversed(budgets), nodes=nodes)
    for fewer in range(len(budgets)):
        some = allowed(*budgets[:fewer], nodes=nodes)
        assert some is None or (every is not None and every <= some)


# -- what a node counts -----------------------------------------------------------------------------------------------


CLAIM = node_claim()
TERMINATING = node_claim("claim-a", NodeClaimCondition.INSTANCE_TERMINATING, deleting=True)
REBOOTING = node_claim("claim-a", NodeClaimCondition.REBOOTING, NodeClaimCondition.DISRUPTION_REASON)


@pytest.mark.parametrize(
    ("of", "departure", "claim", "expected"),
    [
        (member(), None, CLAIM, (1, 0)),
        (member(initialized=False), None, CLAIM, (0, 0)),
        (member(ready=False), None, CLAIM, (1, 1)),
        (member(), Departure.DISRUPTED, CLAIM, (1, 1)),
        (member(), Departure.NODE_CLAIM_DELETING, CLAIM, (1, 1)),
        (member(), Departure.NODE_CLAIM_DELETING, TERMINATING, (0, 0)),  # whatever departure comes first
        (member(deleting=True), Departure.NODE_DELETING, TERMINATING, (0, 0)),
        (member(unschedulable=True), Departure.CORDONED, CLAIM, (1, 0)),
        (member(do_not_disrupt=True), None, CLAIM, (1, 0)),
        (member(initialized=False), Departure.DISRUPTION_REASON, REBOOTING, (1, 1)),
        (member(), None, None, (0, 0)),
        (member(ready=False), None, None, (0, 0)),
    ],
)
def test_what_a_node_counts(
    of: Node, departure: Departure | None, claim: NodeClaim | None, expected: tuple[int, int]
) -> None:
    """As Karpenter counts: an empty node uses nothing, nor does one without a NodeClaim or with a dying machine."""
    share = share_of(of, departure, claim, knows_claims=True)
    assert (share.nodes, share.used) == expected


def test_node_counts_where_no_node_claim_can_be_read() -> None:
    """Without permission nobody has one."""
    assert share_of(member(ready=False), None, None, knows_claims=False) == Share(nodes=1, used=1)


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("claim", "emptied", "expected"),
    [
        (None, None, None),
        (node_claim(), None, None),
        (node_claim(quiet_since=minutes_ago(9)), None, minutes_ago(4)),
        (node_claim(quiet_since=minutes_ago(9)), minutes_ago(7), minutes_ago(2)),  # Karpenter's note is late
        (node_claim(quiet_since=minutes_ago(7)), minutes_ago(9), minutes_ago(2)),
        (node_claim(quiet_since=minutes_ago(9), consolidatable_since=minutes_ago(3)), None, minutes_ago(3)),
        (node_claim(quiet_since=minutes_ago(9), consolidatable_since=minutes_ago(99)), None, minutes_ago(4)),
        (node_claim(consolidatable_since=minutes_ago(3)), None, minutes_ago(3)),
        (None, minutes_ago(9), minutes_ago(4)),
        (node_claim(quiet_since=FOREVER), None, FOREVER),
    ],
)
def test_from_when_an_empty_node_may_be_taken(
    claim: NodeClaim | None, emptied: datetime | None, expected: datetime | None
) -> None:
    """With consolidateAfter of five minutes: the latest of what is known; None where nothing is."""
    assert takeable_from(claim, 5 * MINUTE, emptied) == expected


@pytest.mark.parametrize(
    ("takeable", "free", "expected"),
    [
        (NOW + MINUTE, None, True),
        (NOW - SOON + timedelta(seconds=1), None, True),
        (NOW - SOON, None, False),
        (minutes_ago(60), NOW - MINUTE, True),  # it only waited for the budget
        (minutes_ago(60), NOW - SOON, False),
        (None, minutes_ago(60), True),
        (FOREVER, None, True),
    ],
)
def test_empty_node_is_next_for_two_minutes(takeable: datetime | None, free: datetime | None, expected: bool) -> None:
    """From when Karpenter may take it, and the budget lets it. Always, where nobody knows when that is."""
    assert is_next(takeable, free, NOW) is expected


def test_room_is_what_is_allowed_less_what_is_used() -> None:
    """Never below zero; unlimited where nothing limits."""
    workers = node_pool(budgets=(budget("10%"),))
    assert [room_to_disrupt(workers, Share(nodes=30, used=used), NOW) for used in (0, 2, 3, 9)] == [3, 1, 0, 0]
    assert room_to_disrupt(node_pool(budgets=()), Share(nodes=30, used=9), NOW) is None


# -- which nodes would stay -------------------------------------------------------------------------------------------

GUARD = structs.replace(stranger(), do_not_disrupt_until=FOREVER)
GONE = structs.replace(GUARD, terminating=True)
DAEMON = daemon()
DAEMON_GUARD = structs.replace(DAEMON, do_not_disrupt_until=FOREVER)
PASSED = structs.replace(DAEMON, do_not_disrupt_until=minutes_ago(1))
ANOTHER = replace(node_pool(), name="another", uid="uid-of-another")
WHEN_EMPTY = node_pool(consolidation_policy="WhenEmpty")


def kept_by(
    of: Node,
    pool: NodePool | None,
    others: list[Pod],
    *,
    claims: Sequence[NodeClaim] = (),
    budgets: Sequence[PodBudget] = (),
    knows_node_pools: bool = True,
) -> Kept | None:
    """What keeps a node with these pods; ``pool`` is its NodePool, None: that is gone, and another one is there."""
    state = synced_state([of], others)
    if knows_node_pools:
        state.objects.put_node_pool(pool or ANOTHER)
    state.replace_node_claims(claims)
    return what_keeps(state, of.name, NOW, PodBudgets(budgets))


def why_stays(of: Node, pool: NodePool | None, others: list[Pod], **known: Any) -> SkipReason | None:
    kept = kept_by(of, pool, others, **known)
    return kept.reason if kept is not None else None


@pytest.mark.parametrize(
    ("of", "pool", "others", "expected"),
    [
        (node(), None, [GUARD], None),  # not Karpenter's
        (member(), None, [], SkipReason.NODE_POOL_UNKNOWN),
        (member(), node_pool(), [], None),
        (member(), node_pool(replicas=0), [], SkipReason.STATIC_NODE_POOL),
        (member(), node_pool(consolidate_after=None), [], SkipReason.NEVER_CONSOLIDATED),
        (member(initialized=False), node_pool(), [], SkipReason.NODE_NOT_INITIALIZED),
        (member(do_not_disrupt=True), node_pool(), [], SkipReason.NODE_DO_NOT_DISRUPT),
        (member(), node_pool(), [stranger()], None),
        (member(), node_pool(consolidation_policy="Balanced"), [stranger()], None),
        (member(), node_pool(), [GUARD], SkipReason.OTHER_POD_DO_NOT_DISRUPT),
        (member(), node_pool(), [DAEMON_GUARD], SkipReason.OTHER_POD_DO_NOT_DISRUPT),
        (member(), node_pool(), [structs.replace(DAEMON_GUARD, static=True)], SkipReason.OTHER_POD_DO_NOT_DISRUPT),
        (member(), node_pool(), [PASSED], None),
        (member(), node_pool(), [structs.replace(DAEMON_GUARD, finished=True)], None),
        (member(), node_pool(), [GONE], None),
        (member(), WHEN_EMPTY, [DAEMON], None),
        (member(), WHEN_EMPTY, [stranger()], SkipReason.NODE_KEEPS_OTHERS),
        (member(), WHEN_EMPTY, [GONE], None),
    ],
)
def test_why_a_node_would_stay(of: Node, pool: NodePool | None, others: list[Pod], expected: SkipReason | None) -> None:
    assert why_stays(of, pool, others) is expected


def test_nobody_knows_without_node_pools() -> None:
    """They are absent or may not be read: that a node's is not there means nothing."""
    assert why_stays(member(), None, [GUARD], knows_node_pools=False) is None


def test_node_without_a_node_claim_stays_where_they_are_known() -> None:
    """To Karpenter it does not exist."""
    assert why_stays(member(), node_pool(), [], claims=[CLAIM]) is SkipReason.NO_NODE_CLAIM
    assert why_stays(member(node_claim=CLAIM.uid), node_pool(), [], claims=[CLAIM]) is None


ONE = pod_budget("one", allowed=1)
NONE = pod_budget("none")
SICK = pod_budget("sick", unhealthy_may_go=True)


@pytest.mark.parametrize(
    ("pod", "budgets", "expected"),
    [
        (DAEMON, [], ()),
        (DAEMON, [ONE], ()),
        (DAEMON, [NONE], ("default/none",)),
        (structs.replace(DAEMON, owner=None), [NONE], ("default/none",)),
        (DAEMON, [ONE, pod_budget("two", allowed=2)], ("default/one", "default/two")),
        (structs.replace(DAEMON, tolerates_disruption=True), [NONE], ()),
        (structs.replace(DAEMON, static=True), [NONE], ()),
        (structs.replace(DAEMON, labels="app=other"), [NONE], ()),
        (structs.replace(DAEMON, namespace="elsewhere"), [NONE], ()),
        (DAEMON, [replace(NONE, selector=None)], ()),
        (DAEMON, [SICK], ("default/sick",)),
        (structs.replace(DAEMON, ready_since=None), [SICK], ()),
        (structs.replace(DAEMON, ready_since=None), [NONE], ("default/none",)),
    ],
)
def test_budgets_that_forbid_a_node_to_go(pod: Pod, budgets: list[PodBudget], expected: tuple[str, ...]) -> None:
    """Over a pod that Karpenter would evict: one that allows none, or two, which the API server never grants."""
    assert budgets_that_forbid(pod, PodBudgets(budgets)) == expected
    kept = kept_by(member(), node_pool(), [pod], budgets=budgets)
    assert (kept is None) == (not expected)
    if kept is not None:
        assert (kept.reason, kept.pod, kept.budgets) == (SkipReason.OTHER_POD_BUDGET, pod, expected)


def test_pod_that_terminates_holds_no_node() -> None:
    """Its eviction is over, whatever a budget allows."""
    going = structs.replace(DAEMON, terminating=True)
    assert why_stays(member(), node_pool(), [going], budgets=[NONE]) is None
