"""Looking for workers in a state that goes on changing meanwhile, and without keeping others from their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from extender.cluster.state import ClusterState
from extender.policy.claims import PoolClaims
from extender.policy.defaults import ClaimRules, PoolCosts
from extender.web.candidates import NODES_BETWEEN_YIELDS, Candidates
from extender.web.waiting_claims import Lines
from extender.web.wanted_workers import WantedWorkers
from tests.builders import NOW, clock_of, minutes_ago, node, worker
from tests.listening import synced_state

SETTINGS = PoolClaims(rules=ClaimRules(), costs=PoolCosts(), dry_run=False, is_by_label=True)


def idle(number: int) -> ClusterState:
    """So many nodes with an idle worker each."""
    names = [f"{each:03}" for each in range(number)]
    workers = [worker(f"w{name}", uid=f"w{name}", node=f"n{name}", idle_since=minutes_ago(9)) for name in names]
    return synced_state([node(f"n{name}") for name in names], workers)


def candidates(state: ClusterState) -> Candidates:
    return Candidates(state, clock_of(lambda: NOW))


def test_a_worker_that_is_gone_by_the_time_of_its_turn_is_left_out() -> None:
    """The list of a node's workers is of the moment when its turn came."""
    state = synced_state([node("n")], [worker(name, uid=name, node="n", idle_since=minutes_ago(9)) for name in "abc"])
    found = []
    for each in candidates(state).in_order("pool"):
        assert each is not None, "so few nodes need no pause"
        found.append(each.uid)
        if each.uid == "a":
            state.delete_pod(state.pods["b"])
    assert found == ["a", "c"]


def test_those_that_are_passed_by_come_last_if_they_are_still_there() -> None:
    """Refused once they may be taken the next time, and others have their turn first."""
    state = idle(4)
    looking = candidates(state)
    for uid in ("w000", "w001", "w002"):
        looking.pass_by(uid)
    found = []
    for each in looking.in_order("pool"):
        assert each is not None, "so few nodes need no pause"
        found.append(each.uid)
        if len(found) == 2:
            for other in {"w000", "w001", "w002"} - {each.uid}:
                state.delete_pod(state.pods[other])
    assert found[0] == "w003"
    assert found[1:] in (["w000"], ["w001"], ["w002"])


def test_a_pool_without_workers_to_come_is_known_to_have_none_without_a_look_at_the_nodes() -> None:
    """Callers come again and again for a pool that has none yet, or whose last one goes: no pause is needed."""
    state = idle(2 * NODES_BETWEEN_YIELDS)
    state.upsert_pod(worker("last", uid="last", pool="another", node="n000", terminating=True))
    assert not list(candidates(state).in_order("another"))


async def first(state: ClusterState) -> None:
    assert await candidates(state).first(state.pods, "pool") is None, "all were tried"


async def tally(state: ClusterState) -> None:
    await candidates(state).tally("pool")


async def count_on(state: ClusterState) -> None:
    assert await candidates(state).count_on(list(state.nodes), "pool") == len(state.nodes)


def wanted_of(state: ClusterState) -> WantedWorkers:
    return WantedWorkers(
        state=state, lines=Lines(), settings=lambda pool: SETTINGS, listed=list, clock=clock_of(lambda: NOW)
    )


async def wanted(state: ClusterState) -> None:
    await wanted_of(state).count()


@pytest.mark.parametrize("look", [first, tally, count_on, wanted])
async def test_a_look_at_many_nodes_lets_others_have_their_turn(
    look: Callable[[ClusterState], Awaitable[None]],
) -> None:
    """On the largest cluster it takes a tenth of a second, and schedulers wait for milliseconds."""
    state, turns = idle(4 * NODES_BETWEEN_YIELDS), 0
    looking = asyncio.ensure_future(look(state))
    while not looking.done():
        await asyncio.sleep(0)
        turns += 1
    await looking
    assert turns >= 4


@pytest.mark.looptime
async def test_the_gauge_is_counted_once_everything_is_loaded() -> None:
    """Before that, too few would be wanted, and whatever makes workers would take some away."""
    state = ClusterState(clock=lambda: NOW)
    state.replace_pods([worker(node="n")])
    state.replace_nodes([node("n")])
    counting = wanted_of(state)
    running = asyncio.create_task(counting.run())
    await asyncio.sleep(5)
    assert counting._counts.total() == 0
    state.begin()
    await asyncio.sleep(60)
    running.cancel()
    assert counting._counts.total() == 1
