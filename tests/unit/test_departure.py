"""Leaving and ending: each reason, its precedence, and what never depends on time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.model import FOREVER, Departure, Ending, Node, NodeClaim, NodeClaimCondition
from extender.policy.departure import EndingRules, departure_of, ending_of, expiry_nears_at
from tests.builders import NOW, minutes_ago, node, node_claim, times, worker

TERMINATING = frozenset({NodeClaimCondition.INSTANCE_TERMINATING})
REASONED = frozenset({NodeClaimCondition.DISRUPTION_REASON})
SIGNALS: tuple[tuple[Departure, Node, NodeClaim], ...] = (
    (Departure.NODE_DELETING, node(deleting=True), node_claim()),
    (Departure.NODE_CLAIM_DELETING, node(), node_claim(deleting=True)),
    (Departure.INSTANCE_TERMINATING, node(), node_claim("claim-a", *TERMINATING)),
    (Departure.TERMINATION_TIMESTAMP, node(), node_claim(has_deadline=True)),
    (Departure.DISRUPTED, node(disrupted=True), node_claim()),
    (Departure.DISRUPTION_REASON, node(), node_claim("claim-a", *REASONED)),
    (Departure.CORDONED, node(unschedulable=True), node_claim()),
)
"""Most certain first: the reason, and a node and its claim that show it and nothing else."""

claims = st.builds(
    NodeClaim,
    name=st.just("c"),
    uid=st.just("u"),
    created=times,
    conditions=st.frozensets(st.sampled_from(NodeClaimCondition)),
    expire_after=st.none() | st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=3650)),
)
rules = st.builds(
    EndingRules,
    expiry_horizon=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30)),
    drifted=st.booleans(),
)


@pytest.mark.parametrize("position", range(len(SIGNALS)))
def test_most_certain_reason_is_given(position: int) -> None:
    """Each signal alone is a reason, and is not hidden by all the less certain ones together."""
    reason, shown, claim = SIGNALS[position]
    assert departure_of(shown, claim) is reason
    for _, other, other_claim in SIGNALS[position + 1 :]:
        shown = replace(
            shown,
            disrupted=shown.disrupted or other.disrupted,
            unschedulable=shown.unschedulable or other.unschedulable,
        )
        claim = replace(
            claim,
            deleting=claim.deleting or other_claim.deleting,
            has_deadline=claim.has_deadline or other_claim.has_deadline,
            conditions=claim.conditions | other_claim.conditions,
        )
    assert departure_of(shown, claim) is reason


def test_drained_or_drifted_or_quiet_claims_do_not_leave() -> None:
    """Consolidatable and Drifted are necessary, not sufficient: for weeks nothing may come of them."""
    quiet = node_claim(
        "c", NodeClaimCondition.CONSOLIDATABLE, NodeClaimCondition.DRIFTED, NodeClaimCondition.INITIALIZED
    )
    assert departure_of(node(), quiet) is None


def test_terminating_workers_go_before_other_reasons() -> None:
    """The explanation that is gone soonest comes first; a node without workers is not ending for it."""
    claim = node_claim("c", NodeClaimCondition.DRIFTED, created=minutes_ago(60), expire_after=timedelta(minutes=60))
    wide = EndingRules(drifted=True)
    assert ending_of([worker(terminating=True)], claim, wide, NOW) is Ending.WORKERS_TERMINATING
    assert ending_of([worker(terminating=True), worker()], claim, wide, NOW) is Ending.EXPIRES_SOON
    assert ending_of([], replace(claim, expire_after=None), wide, NOW) is Ending.DRIFTED
    assert ending_of([], replace(claim, expire_after=None), EndingRules(), NOW) is None


@given(claim=claims, rules=rules)
def test_horizon_is_within_the_last_tenth_of_a_life(claim: NodeClaim, rules: EndingRules) -> None:
    """Never earlier than nine tenths of expireAfter, never later than its end; never at all without either."""
    nears = expiry_nears_at(claim, rules)
    if claim.expire_after is None or not rules.expiry_horizon:
        assert nears == FOREVER
        return
    end = claim.created + claim.expire_after
    assert end - claim.expire_after / 10 - timedelta(microseconds=1) <= nears <= end
    assert end - nears <= rules.expiry_horizon


@given(
    claim=claims, rules=rules, now=times, later=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650))
)
def test_node_that_is_ending_stays_so(claim: NodeClaim, rules: EndingRules, now: datetime, later: timedelta) -> None:
    """Time alone makes a node ending and never takes it back."""
    if ending_of([], claim, rules, now) is not None:
        assert ending_of([], claim, rules, now + later) is not None
