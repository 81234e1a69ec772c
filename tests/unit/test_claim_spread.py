"""How replicas keep out of each other's way: how many nodes count as equally warm, and each replica's own order."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extender.cluster.state import ClusterState
from extender.policy.claim_spread import MOST_LEFT, MOST_NODES, Spread
from extender.web.candidates import Candidates
from tests.builders import NOW, claim, clock_of, ledger, minutes_ago, node, worker

names = st.sets(st.text(max_size=10))


@given(names, st.text(max_size=100), st.lists(st.text(max_size=10), max_size=5))
def test_an_own_order_has_all_names_and_does_not_depend_on_the_input(
    names: set[str], replica: str, left: list[str]
) -> None:
    spread = Spread().lost(1, *left)
    once = spread.own_order(names, replica)
    assert set(once) == names
    assert len(once) == len(names)
    assert spread.own_order(reversed(once), replica) == once


@given(names, st.text(max_size=100), st.lists(st.text(max_size=10)))
def test_where_races_were_lost_comes_last_and_the_latest_at_the_very_end(
    names: set[str], replica: str, races: list[str]
) -> None:
    """Two replicas with the same favourite meet there once, and not for as long as they run. The others stay in order:
    whoever lost uses no more nodes than it needs.
    """
    spread = Spread()
    for place in races:
        spread = spread.lost(spread.nodes, place)
    order = spread.own_order(names, replica)
    left = [place for place in dict.fromkeys(reversed(races)) if place in names][::-1]
    assert order == [each for each in Spread().own_order(names, replica) if each not in left] + left


def test_replicas_begin_at_different_places() -> None:
    """Three with ten calls each among a hundred: of their first ten, two have hardly one in common."""
    names = [f"node-{number}" for number in range(100)]
    order = Spread().own_order
    first = [set(order(names, f"replica-{number}")[:10]) for number in range(3)]
    assert max(len(first[a] & first[b]) for a, b in ((0, 1), (0, 2), (1, 2))) <= 3
    begins = Counter(order(names, str(number))[0] for number in range(1000))
    assert max(begins.values()) < 30, "no name is the favourite of many"


@given(st.lists(st.booleans()))
def test_the_spread_stays_within_its_bounds(races: list[bool]) -> None:
    spread = Spread()
    for number, is_lost in enumerate(races * 10):
        spread = spread.lost(spread.nodes, f"node-{number}", f"worker-{number}") if is_lost else spread.won()
        assert 1 <= spread.nodes <= MOST_NODES
        assert len(spread.left) <= MOST_LEFT


def test_of_claims_that_were_begun_together_one_that_lost_counts() -> None:
    """A burst meets at the oldest node and is four nodes apart then, not all of them."""
    begun = Spread()
    spread = begun
    for number in range(10):
        spread = spread.lost(begun.nodes, f"node-{number}")
    assert spread.nodes == 4
    assert spread.lost(spread.nodes, "node").nodes == 16


def test_without_lost_races_age_alone_decides_again_and_nothing_is_remembered() -> None:
    """From the most to one node after some hundred claims."""
    spread = Spread(nodes=MOST_NODES, left=("node-1",))
    for _ in range(600):
        spread = spread.won()
    assert spread == Spread()


def test_who_lost_races_begins_at_a_place_of_its_own_among_the_oldest_nodes() -> None:
    """Before, and where the pod changed for another reason, the oldest node comes first. Younger nodes than those that
    count as equally warm come after them, by age.
    """
    state = ClusterState(clock=lambda: NOW)
    state.replace_nodes([node(f"n{number:02}") for number in range(20)])
    state.take_ledger(ledger({f"uid-of-n{number:02}": minutes_ago(500 - number) for number in range(20)}))
    state.replace_pods(
        [worker(f"w{number:02}", node=f"n{number:02}", idle_since=minutes_ago(9)) for number in range(20)]
    )
    state.begin()
    replicas = [Candidates(state, clock_of(lambda: NOW), f"replica-{number}") for number in range(2)]
    ages = [f"n{number:02}" for number in range(20)]
    lost = next(iter(state.pods.values()))
    for each in replicas:
        for found in (replace(lost, resource_version="2"), replace(lost, claim=claim()), replace(lost, claim=claim())):
            with each.at(lost.uid) as begun:
                each.was_lost(begun, lost, found)
            assert (_order(each) == ages) == (found.claim is None)
    one, other = [_order(each) for each in replicas]
    assert one != other
    assert one[16:] == other[16:] == ages[16:]
    assert sorted(one[:16]) == sorted(other[:16]) == ages[:16]
    assert one[15] == other[15] == lost.node, "whoever won the race is there"


def _order(candidates: Candidates) -> list[str]:
    return [worker.node or "" for worker in candidates.in_order("pool") if worker is not None]
