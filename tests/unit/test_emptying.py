"""Which nodes may be emptied, counted over a state: the count that follows events is the one from scratch."""

from __future__ import annotations

from collections import deque
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extender.cluster.state import ClusterState
from extender.model import FOREVER, DisruptionBudget, Node, NodeClaim, NodeClaimCondition, Pod, SkipReason
from extender.policy.node_pool_budgets import NO_BUDGETS, SOON, PodBudgets, what_keeps
from extender.policy.node_pool_room import DisruptionRoom, Seen, why_stays
from tests.builders import NOW, daemon, minutes_ago, node, node_claim, node_pool, pod_budget, stranger, worker

ONE_AT_A_TIME = node_pool(budgets=(DisruptionBudget(nodes="1"),))


def member(name: str, *, ready: bool = True, do_not_disrupt: bool = False) -> Node:
    claim = f"uid-of-claim-{name}"
    given = node(name, node_pool="workers", initialized=True, node_claim=claim)
    return structs.replace(given, ready=ready, do_not_disrupt=do_not_disrupt)


def idle(name: str, on: str) -> Pod:
    return worker(name, node=on, idle_since=minutes_ago(10))


def state_of(*pods: Pod, nodes: str = "abc") -> ClusterState:
    state = ClusterState(clock=lambda: NOW)
    state.objects.put_node_pool(ONE_AT_A_TIME)
    state.replace_nodes([member(name) for name in nodes])
    state.replace_pods(pods)
    return state


def counted(
    state: ClusterState,
    changed: set[str] | None = None,
    *,
    budgets: PodBudgets = NO_BUDGETS,
    seen: Seen | None = None,
    now: datetime = NOW,
) -> DisruptionRoom:
    rooms = DisruptionRoom(state, set() if changed is None else changed, budgets=budgets, seen=seen)
    deque(rooms.counting(now), maxlen=0)
    return rooms


def stuck(rooms: DisruptionRoom, now: datetime = NOW) -> dict[str, str | None]:
    return {name: kept.reason if kept is not None else None for name, kept in rooms.stuck(now).items()}


def test_empty_node_uses_the_budget_until_it_is_gone() -> None:
    """What is empty, or has only terminating pods left, is next for Karpenter."""
    state = state_of(idle("1", "a"), idle("2", "b"), stranger(node="c"))
    with state.ranking.changes() as changed:
        rooms = counted(state, changed)
        assert rooms.left(NOW) == {"workers": 1}
        assert rooms.why_not(idle("1", "a"), NOW) is None
        state.overlay_eviction("uid-of-1")
        assert rooms.left(NOW) == {"workers": 0}
        assert rooms.why_not(idle("2", "b"), NOW) is SkipReason.EMPTY_BUDGET
        state.delete_node(member("a"))
        assert rooms.why_not(idle("2", "b"), NOW) is None


def test_only_the_last_pod_that_holds_a_node_needs_room() -> None:
    state = state_of(idle("1", "a"), idle("2", "a"), nodes="abc")
    rooms = counted(state)  # b and c are empty
    assert rooms.left(NOW) == {"workers": 0}
    assert rooms.why_not(idle("1", "a"), NOW) is None
    state.overlay_eviction("uid-of-2")
    assert rooms.why_not(idle("1", "a"), NOW) is SkipReason.EMPTY_BUDGET


def test_leaving_node_needs_no_room_and_no_reason() -> None:
    """It goes anyway: its NodeClaim is being deleted, whatever the budget and its annotation say."""
    state = state_of(idle("1", "a"), nodes="ab")
    state.upsert_node(member("a", do_not_disrupt=True))
    assert counted(state).why_not(idle("1", "a"), NOW) is SkipReason.NODE_DO_NOT_DISRUPT
    state.upsert_node_claim(node_claim("claim-a", deleting=True))
    assert counted(state).why_not(idle("1", "a"), NOW) is None


LONG_EMPTY = minutes_ago(60)


def claims_of(nodes: str, *, since: datetime = LONG_EMPTY) -> list[NodeClaim]:
    """All have been Consolidatable for long: Karpenter could have taken them, were they empty."""
    return [node_claim(f"claim-{name}", quiet_since=since, consolidatable_since=since) for name in nodes]


def test_empty_node_that_is_not_taken_is_stuck_and_uses_no_budget() -> None:
    """What keeps c is not known: a CapacityBuffer, for instance. While it is new it is next, then nothing waits."""
    state = state_of(idle("1", "a"), idle("2", "b"))
    state.replace_node_claims([*claims_of("ab"), *claims_of("c", since=NOW - SOON + timedelta(seconds=1))])
    rooms = counted(state)
    assert (rooms.left(NOW), stuck(rooms)) == ({"workers": 0}, {})
    assert rooms.why_not(idle("1", "a"), NOW) is SkipReason.EMPTY_BUDGET
    later = NOW + timedelta(seconds=1)
    assert (rooms.left(later), stuck(rooms, later)) == ({"workers": 1}, {"c": None})
    assert rooms.why_not(idle("1", "a"), later) is None


def test_node_that_was_seen_to_fall_empty_is_next_whatever_karpenter_has_noted() -> None:
    """consolidateAfter of zero leaves Consolidatable as it was, and Karpenter's note of the pod may be late."""
    state, seen = state_of(idle("1", "a"), idle("2", "b"), stranger(node="c")), Seen()
    state.replace_node_claims(claims_of("abc"))
    counted(state, seen=seen)
    state.delete_pod(idle("1", "a"))
    for minutes, left in ((0, 0), (1, 0), (3, 1)):
        now = NOW + timedelta(minutes=minutes)
        rooms = counted(state, seen=seen, now=now)
        assert rooms.left(now) == {"workers": left}
        assert stuck(rooms, now) == ({"a": None} if left else {})
    state.upsert_pod(idle("3", "a"))
    counted(state, seen=seen)
    assert seen.emptied == {}
    state.delete_node(member("a"))
    counted(state, seen=seen)
    assert seen.held == {"uid-of-b", "uid-of-c"}


def test_node_that_waits_for_the_budget_is_not_stuck() -> None:
    """While another one goes, and for as long afterwards as Karpenter takes: it may be the next."""
    state, seen = state_of(idle("1", "a"), idle("2", "c"), nodes="abc"), Seen()
    state.replace_node_claims(claims_of("abc"))
    going = structs.replace(member("d"), disrupted=True)
    state.upsert_node(going)
    state.upsert_node_claim(claims_of("d")[0])
    rooms = counted(state, seen=seen)
    assert (rooms.left(NOW), stuck(rooms)) == ({"workers": 0}, {})
    state.delete_node(going)
    for minutes, left in ((1, 0), (2, 0), (4, 1)):  # first seen free at the first of these
        now = NOW + timedelta(minutes=minutes)
        rooms = counted(state, seen=seen, now=now)
        assert (rooms.left(now), stuck(rooms, now)) == ({"workers": left}, {"b": None} if left else {})


def test_empty_node_that_is_known_to_stay_uses_no_budget() -> None:
    """Although it is new; and its reason is told once it could have gone."""
    state = state_of(idle("1", "a"), idle("2", "b"), structs.replace(daemon(node="c"), do_not_disrupt_until=FOREVER))
    state.replace_node_claims([*claims_of("ab"), *claims_of("c", since=NOW)])
    rooms = counted(state)
    assert (rooms.left(NOW), stuck(rooms)) == ({"workers": 1}, {})
    assert rooms.why_not(idle("1", "a"), NOW) is None
    later = NOW + SOON
    assert stuck(rooms, later) == {"c": SkipReason.OTHER_POD_DO_NOT_DISRUPT}


def test_budget_over_a_daemon_sets_pods_keeps_their_nodes() -> None:
    """Karpenter would have to evict them. One that tolerates its taint is not evicted, and keeps nothing."""
    state = state_of(idle("1", "a"), idle("2", "b"), daemon("d-a", node="a"))
    state.upsert_pod(structs.replace(daemon("d-b", node="b"), tolerates_disruption=True))
    state.replace_node_claims(claims_of("abc"))
    closed = PodBudgets([pod_budget()])
    rooms = counted(state, budgets=closed)
    assert rooms.why_not(idle("1", "a"), NOW) is SkipReason.OTHER_POD_BUDGET
    assert rooms.why_not(idle("2", "b"), NOW) is None
    kept = what_keeps(state, "a", NOW, closed)
    assert kept is not None
    assert (kept.pod, kept.budgets) == (daemon("d-a", node="a"), ("default/guard",))
    assert counted(state, budgets=PodBudgets([pod_budget(allowed=1)])).why_not(idle("1", "a"), NOW) is None


def test_node_pool_that_is_gone_keeps_its_nodes() -> None:
    """Karpenter takes no node of a NodePool that it does not find. Known only while there is another one."""
    state = state_of(idle("1", "a"))
    state.objects.take_node_pool(ONE_AT_A_TIME)
    assert why_stays(state, "a", NOW) is None
    state.objects.put_node_pool(node_pool("other"))
    state.replace_node_claims(claims_of("abc"))
    rooms = counted(state)
    assert rooms.why_not(idle("1", "a"), NOW) is SkipReason.NODE_POOL_UNKNOWN
    assert stuck(rooms) == {"b": SkipReason.NODE_POOL_UNKNOWN, "c": SkipReason.NODE_POOL_UNKNOWN}


def test_node_without_a_node_claim_counts_nowhere() -> None:
    """c is empty and NotReady, and nothing to Karpenter: neither total nor used, never taken and not stuck."""
    state = state_of(idle("1", "a"), idle("2", "b"))
    state.upsert_node(member("c", ready=False))
    state.replace_node_claims(claims_of("ab"))
    rooms = counted(state)
    assert (rooms.left(NOW), stuck(rooms)) == ({"workers": 1}, {})
    state.upsert_pod(idle("3", "c"))
    assert counted(state).why_not(idle("3", "c"), NOW) is SkipReason.NO_NODE_CLAIM


def test_machine_that_is_being_terminated_drops_out() -> None:
    """Karpenter counts it no longer, although its Node is there yet and its NodeClaim is being deleted."""
    state = state_of(idle("1", "a"), idle("2", "b"))
    dying = node_claim("claim-c", NodeClaimCondition.INSTANCE_TERMINATING, deleting=True)
    state.replace_node_claims([*claims_of("ab"), dying])
    assert counted(state).left(NOW) == {"workers": 1}


@pytest.mark.parametrize("given", [{"replicas": 3}, {"consolidate_after": None}])
def test_nodes_of_a_node_pool_that_gives_none_back_are_not_stuck(given: dict[str, Any]) -> None:
    """Its owner wants them."""
    state = state_of()
    state.objects.put_node_pool(node_pool(**given))
    state.replace_node_claims(claims_of("abc"))
    assert stuck(counted(state)) == {}


def test_without_karpenter_nothing_limits() -> None:
    """No NodePool is known: absent CRDs, no permission, or another autoscaler."""
    state = state_of(idle("1", "a"), stranger(node="a"))
    state.objects.replace_node_pools([])
    rooms = counted(state)
    assert rooms.left(NOW) == {}
    assert rooms.why_not(idle("1", "a"), NOW) is None
    assert why_stays(state, "a", NOW) is None


@pytest.mark.parametrize(("policy", "expected"), [("WhenEmpty", SkipReason.NODE_KEEPS_OTHERS), ("Balanced", None)])
def test_foreign_pod_keeps_a_node_that_karpenter_would_not_clear(policy: str, expected: SkipReason | None) -> None:
    """Workers of other pools are no foreign pods: two pools must not keep each other."""
    state = state_of(idle("1", "a"), structs.replace(idle("2", "a"), pool="other"), idle("3", "b"), stranger(node="b"))
    state.objects.put_node_pool(replace(ONE_AT_A_TIME, consolidation_policy=policy))
    assert why_stays(state, "a", NOW) is None
    assert why_stays(state, "b", NOW) is expected
    assert counted(state).why_not(idle("3", "b"), NOW) is expected


events = st.lists(
    st.tuples(
        st.sampled_from(["evict", "deletePod", "newPod", "unready", "claim", "deleteNode", "newNode"]),
        st.sampled_from("abcd"),
    ),
    max_size=12,
)


@given(events)
def test_count_that_follows_events_is_the_one_from_scratch(events: list[tuple[str, str]]) -> None:
    state = state_of(*(idle(name, name) for name in "abc"), nodes="abcd")
    state.objects.put_node_pool(node_pool(budgets=(DisruptionBudget(nodes="60%"),)))
    state.replace_node_claims([*claims_of("ab"), *claims_of("cd", since=NOW)])
    seen = Seen()
    with state.ranking.changes() as changed:
        rooms = counted(state, changed, seen=seen)
        for event, name in events:
            match event:
                case "evict":
                    state.overlay_eviction(f"uid-of-{name}")
                case "deletePod":
                    state.delete_pod(idle(name, name))
                case "newPod":
                    state.upsert_pod(stranger(f"new-{name}", node=name))
                case "unready":
                    state.upsert_node(member(name, ready=False))
                case "claim":
                    state.upsert_node_claim(node_claim(f"claim-{name}", deleting=True))
                case "deleteNode":
                    state.delete_node(member(name))
                case _:
                    state.upsert_node(member(name))
            followed = (rooms.left(NOW), rooms.stuck(NOW))
            scratch = counted(state, seen=deepcopy(seen))
            assert followed == (scratch.left(NOW), scratch.stuck(NOW))
