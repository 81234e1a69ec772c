"""Leaving and ending: each reason, its precedence, and what never depends on time."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extender.model import FOREVER, Departure, Ending, Node, NodeClaim, NodeClaimCondition, Pod
from extender.policy.defaults import EndingRules
from extender.policy.departure import STUCK_AFTER, departure_of, ending_of, expiry_nears_at, is_not_heard_of, turns_at
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
    (Departure.TERMINATION_NOTICE, node(announced=Departure.TERMINATION_NOTICE), node_claim()),
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
            announced=shown.announced or other.announced,
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
    assert ending_of(node(), [worker(terminating=True)], claim, wide, NOW) is Ending.WORKERS_TERMINATING
    assert ending_of(node(), [worker(terminating=True), worker()], claim, wide, NOW) is Ending.EXPIRES_SOON
    assert ending_of(node(), [], replace(claim, expire_after=None), wide, NOW) is Ending.DRIFTED
    assert ending_of(node(), [], replace(claim, expire_after=None), EndingRules(), NOW) is None


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
    if ending_of(node(), [], claim, rules, now) is not None:
        assert ending_of(node(), [], claim, rules, now + later) is not None


# -- what others announce, and nodes that say nothing ----------------------------------------------------------------


def test_a_node_that_others_may_take_is_ending() -> None:
    """Not before workers that are all terminating, and before an expiry, which is further off."""
    candidate = node(announced_ending=Ending.DELETION_CANDIDATE)
    claim = node_claim(created=minutes_ago(60), expire_after=timedelta(minutes=60))
    assert ending_of(candidate, [], None, EndingRules(), NOW) is Ending.DELETION_CANDIDATE
    assert ending_of(candidate, [], claim, EndingRules(), NOW) is Ending.DELETION_CANDIDATE
    assert ending_of(candidate, [worker(terminating=True)], None, EndingRules(), NOW) is Ending.WORKERS_TERMINATING
    assert departure_of(candidate) is None


@pytest.mark.parametrize(
    ("seconds", "unreachable", "expected"), [(49, False, False), (50, False, True), (0, True, True), (500, True, True)]
)
def test_a_node_is_not_heard_of_when_its_lease_could_not_be_older(
    seconds: int, unreachable: bool, expected: bool
) -> None:
    """The node controller waits for as long before it says Unknown; a node that says itself that it is not Ready may be
    back in a moment."""
    quiet = node(ready=False, not_ready_since=NOW - timedelta(seconds=seconds), unreachable=unreachable)
    assert is_not_heard_of(quiet, NOW) is expected
    assert (ending_of(quiet, [], None, EndingRules(), NOW) is Ending.NOT_HEARD_OF) is expected
    assert departure_of(quiet) is None


def test_a_node_that_says_nothing_of_readiness_is_as_others() -> None:
    """One that was just made has no condition yet."""
    assert not is_not_heard_of(node(ready=False), NOW)


def test_a_worker_that_hangs_in_terminating_says_nothing_of_its_node() -> None:
    """A finalizer or a volume keeps it long after its grace; one that is still in its grace does say it."""
    stuck = worker("stuck", terminating=True, going_until=NOW - STUCK_AFTER)
    going = worker("going", terminating=True, going_until=NOW - STUCK_AFTER + timedelta(seconds=1))
    unknown = worker("evicted-by-us", terminating=True)
    assert ending_of(node(), [stuck], None, EndingRules(), NOW) is None
    for other in (going, unknown):
        assert ending_of(node(), [stuck, other], None, EndingRules(), NOW) is Ending.WORKERS_TERMINATING
    assert ending_of(node(), [stuck, worker()], None, EndingRules(), NOW) is None


quiet_nodes = st.builds(
    node,
    ready=st.just(False),
    not_ready_since=st.none() | times,
    unreachable=st.booleans(),
)
going_workers = st.lists(st.builds(worker, terminating=st.booleans(), going_until=st.none() | times), max_size=3).map(
    lambda drawn: [each if each.terminating else replace(each, going_until=None) for each in drawn]
)


@given(
    quiet_nodes,
    going_workers,
    st.none() | claims,
    rules,
    times,
    st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)),
)
def test_nothing_turns_before_it_is_said_to(
    shown: Node,
    workers: list[Pod],
    claim: NodeClaim | None,
    rules: EndingRules,
    now: datetime,
    later: timedelta,
) -> None:
    """Time changes why a node is ending at `turns_at` and not before: between two turns nobody has to look."""
    turn = turns_at(shown, workers, claim, rules, now)
    assert turn > now
    if now + later < turn:
        then = ending_of(shown, workers, claim, rules, now + later)
        assert then is ending_of(shown, workers, claim, rules, now)
