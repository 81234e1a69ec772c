"""Which nodes may be emptied, counted over a state: the count that follows events is the one from scratch."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.emptying import Rooms, why_stays
from extender.model import DisruptionBudget, Node, Pod, SkipReason
from extender.state import ClusterState
from tests.builders import NOW, minutes_ago, node, node_claim, node_pool, stranger, worker

ONE_AT_A_TIME = node_pool(budgets=(DisruptionBudget(nodes="1"),))


def member(name: str, *, ready: bool = True, do_not_disrupt: bool = False) -> Node:
    claim = f"uid-of-claim-{name}"
    given = node(name, node_pool="workers", initialized=True, node_claim=claim)
    return replace(given, ready=ready, do_not_disrupt=do_not_disrupt)


def idle(name: str, on: str) -> Pod:
    return worker(name, node=on, idle_since=minutes_ago(10))


def state_of(*pods: Pod, nodes: str = "abc") -> ClusterState:
    state = ClusterState(clock=lambda: NOW)
    state.upsert_node_pool(ONE_AT_A_TIME)
    state.replace_nodes([member(name) for name in nodes])
    state.replace_pods(pods)
    return state


def counted(state: ClusterState, changed: set[str] | None = None) -> Rooms:
    rooms = Rooms(state, set() if changed is None else changed)
    deque(rooms.counting(), maxlen=0)
    return rooms


def test_empty_node_uses_the_budget_until_it_is_gone() -> None:
    """What is empty, or has only terminating pods left, is next for Karpenter."""
    state = state_of(idle("1", "a"), idle("2", "b"), stranger(node="c"))
    with state.changes() as changed:
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


def test_without_karpenter_nothing_limits() -> None:
    """No NodePool is known: absent CRDs, no permission, or another autoscaler."""
    state = state_of(idle("1", "a"), stranger(node="a"))
    state.replace_node_pools([])
    rooms = counted(state)
    assert rooms.left(NOW) == {}
    assert rooms.why_not(idle("1", "a"), NOW) is None
    assert why_stays(state, "a", NOW) is None


@pytest.mark.parametrize(("policy", "expected"), [("WhenEmpty", SkipReason.NODE_KEEPS_OTHERS), ("Balanced", None)])
def test_foreign_pod_keeps_a_node_that_karpenter_would_not_clear(policy: str, expected: SkipReason | None) -> None:
    """Workers of other pools are no foreign pods: two pools must not keep each other."""
    state = state_of(idle("1", "a"), replace(idle("2", "a"), pool="other"), idle("3", "b"), stranger(node="b"))
    state.upsert_node_pool(replace(ONE_AT_A_TIME, consolidation_policy=policy))
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
    state.upsert_node_pool(node_pool(budgets=(DisruptionBudget(nodes="60%"),)))
    with state.changes() as changed:
        rooms = counted(state, changed)
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
            assert rooms.left(NOW) == counted(state).left(NOW)
