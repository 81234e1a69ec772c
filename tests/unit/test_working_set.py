"""The working set: how far it reaches, and what that does to a pool."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.cluster import working_sets
from extender.cluster.state import ClusterState
from extender.cluster.working_sets import MOST_POOLS, TRUSTED, WorkingSet, WorkingSets, reach_for_claims
from extender.model import BusyVictims, CacheKeyRule, Node, Pod, Pool
from extender.policy.pools import POOL_LABEL, PoolsInForce
from extender.policy.resources import Resources
from extender.policy.working_set import Reach, free_room, wanted_room
from extender.telemetry import Metrics
from tests.builders import NOW, ledger, minutes_ago, node, worker
from tests.listening import synced_state, webhook_over

rooms_by_age = st.lists(st.integers(0, 9), max_size=30)
slacks = st.sampled_from((0.0, 0.1, 0.25, 1.0))
FOUR_CPU = {"cpu": Decimal(4), "pods": Decimal(110)}


@dataclass(frozen=True)
class Cpus:
    """What a worker asks for."""

    number: int = 1

    def requests(self) -> Resources:
        """Sum it up."""
        return {"cpu": Decimal(self.number)}


ONE_CPU = Cpus()


def sized(name: str) -> Node:
    """A node with room for four workers of one CPU."""
    return node(name, allocatable=FOUR_CPU)


def duck(name: str, on: str, **given: Any) -> Pod:
    """A worker of the pool, not Ready yet: it shows nothing about the age of its node."""
    return worker(name, **{"pool": "ducks", "node": on, "ready_since": None, **given})


def aged(names: Sequence[str], placed: Sequence[tuple[str, str]] = ()) -> ClusterState:
    """Nodes, the oldest first, with a worker of pool ducks for each (node, key)."""
    seen = {f"uid-of-{name}": minutes_ago(10 * (len(names) - place)) for place, name in enumerate(names)}
    pods = [duck(f"w{number}", on, cache_key=key or None) for number, (on, key) in enumerate(placed)]
    return synced_state([sized(name) for name in names], pods, ledger(seen))


def nodes_in(state: ClusterState, feasible: Sequence[str], slack: float = 0.0) -> list[str]:
    """The working set for a worker of one CPU."""
    ranking = state.ranking.as_of(NOW)
    found = WorkingSets(state).reach("ducks", ranking, feasible, ONE_CPU, slack)
    return list(ranking)[: found.nodes]


# -- the rule ---------------------------------------------------------------------------------------------------------


@given(rooms_by_age, st.integers(0, 200), slacks)
def test_the_set_is_the_shortest_prefix_with_enough_room(rooms: list[int], workers: int, slack: float) -> None:
    """It has free room for one worker and the slack; one node less would not, unless there are no more nodes."""
    size, wanted = Reach(rooms).nodes(wanted_room(workers, slack)), 1 + slack * (workers + 20) - 1e-6
    assert sum(rooms[:size]) >= wanted or size == len(rooms)
    assert size == 0 or sum(rooms[: size - 1]) < wanted


@given(rooms_by_age, st.lists(st.tuples(st.integers(0, 29), st.integers(0, 9), st.floats(0.5, 50)), max_size=30))
def test_an_end_that_is_kept_is_the_one_that_is_found_anew(
    rooms: list[int], changes: list[tuple[int, int, float]]
) -> None:
    """After any rooms have changed, and with any room wanted."""
    kept = Reach(rooms)
    for place, room, wanted in changes:
        if place < len(rooms):
            rooms[place] = room
            kept.put(place, room)
        assert kept.nodes(wanted) == Reach(rooms).nodes(wanted)


@given(rooms_by_age, st.integers(0, 200), slacks, rooms_by_age)
def test_younger_nodes_change_nothing_for_a_pool_that_does_not_need_them(
    rooms: list[int], workers: int, slack: float, young: list[int]
) -> None:
    """What stands behind the end is not looked at."""
    wanted = wanted_room(workers, slack)
    size = Reach(rooms).nodes(wanted)
    if sum(rooms) >= wanted:
        assert Reach([*rooms, *young]).nodes(wanted) == size


@given(rooms_by_age, st.integers(0, 200), st.lists(st.integers(0, 29), max_size=50), slacks)
def test_the_set_shrinks_with_the_load(rooms: list[int], workers: int, ended: list[int], slack: float) -> None:
    """Fewer workers, wherever they were, never need more nodes."""
    size, fewer = Reach(rooms).nodes(wanted_room(workers, slack)), workers
    for place in ended:
        if place < len(rooms) and fewer:
            rooms[place] += 1
            fewer -= 1
    assert Reach(rooms).nodes(wanted_room(fewer, slack)) <= size


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=30), st.integers(0, 100))
def test_a_wrong_capacity_is_a_wrong_slack_and_nothing_worse(nodes: list[tuple[int, int, bool]], workers: int) -> None:
    """Whatever nodes are taken to hold: the oldest feasible one is inside, and no more of them than room is wanted."""
    wanted = wanted_room(workers, 0.1)
    size = Reach(free_room(fits, on) if feasible else 0 for fits, on, feasible in nodes).nodes(wanted)
    inside = [feasible for _, _, feasible in nodes[:size]]
    assert any(inside) or not any(feasible for _, _, feasible in nodes)
    assert sum(inside) <= ceil(wanted)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30), st.integers(0, 100))
def test_without_slack_the_set_ends_with_the_node_that_age_would_choose(
    nodes: list[tuple[int, bool]], workers: int
) -> None:
    """So a slack of nothing is age alone, and costs what that costs."""
    size = Reach(free_room(5, on) if feasible else 0 for on, feasible in nodes).nodes(wanted_room(workers, 0.0))
    assert size == next((place for place, (_, feasible) in enumerate(nodes, 1) if feasible), len(nodes))


def test_when_the_load_halves_no_node_stays_busy_that_age_alone_would_have_emptied() -> None:
    """Forty nodes of four; keys place by random favourites inside the set. A day later only the nodes that age alone
    would need, and three for the slack of a tenth, have workers."""
    random = Random(1)  # noqa: S311 - a model
    free, places = [4] * 40, range(40)
    running: list[int] = []
    for step in range(4000):
        wanted = 120 if step < 2000 else 60
        while len(running) >= wanted:
            free[running.pop(random.randrange(len(running)))] += 1
        size = Reach(free).nodes(wanted_room(len(running), 0.1))
        place = random.choice([each for each in places[:size] if free[each]])
        free[place] -= 1
        running.append(place)
    assert max(place for place in places if free[place] < 4) < 60 / 4 + 3


# -- in a cluster -----------------------------------------------------------------------------------------------------


def test_the_set_ends_where_there_is_room_for_one_worker_and_the_slack() -> None:
    """Four nodes of four with eight workers; the first is full, the second has room for one, the third for three. A
    tenth of 28 is for nearly three more, a quarter for seven."""
    state = aged("abcd", [("a", "")] * 4 + [("b", "")] * 3 + [("c", "")])
    assert nodes_in(state, "bcd") == ["a", "b"]
    assert nodes_in(state, "bcd", slack=0.1) == ["a", "b", "c"]
    assert nodes_in(state, "bcd", slack=0.25) == ["a", "b", "c", "d"]


def test_terminating_and_finished_workers_and_those_of_other_pools_need_no_room() -> None:
    """The set is for the workers of this pool that stay."""
    state = aged("abc", [("a", "")])
    for number in range(9):
        state.upsert_pod(duck(f"going{number}", "c", terminating=True))
        state.upsert_pod(duck(f"done{number}", "c", finished=True))
        state.upsert_pod(duck(f"other{number}", "c", pool="geese"))
    assert nodes_in(state, "abc") == ["a"]


def test_nodes_of_two_types_half_of_them_full() -> None:
    """A full node has no room, and a large one has more: the set ends where it should."""
    names = [f"n{number:02}" for number in range(20)]
    state = aged(names, [(name, "") for name in names[::2] for _ in range(2)])
    for name in names[1::4]:
        state.upsert_node(node(name, allocatable={"cpu": Decimal(8), "pods": Decimal(110)}))
    # twenty workers on the full ones; the others have room for 8 and 4 in turn
    assert nodes_in(state, names[1::2], slack=0.1) == names[:2]
    assert nodes_in(state, names[1::2], slack=0.25) == names[:4]
    assert nodes_in(state, names[1::2], slack=0.5) == names[:8]


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xy")), max_size=20),
    st.sets(st.sampled_from("abcdef"), min_size=1),
    st.permutations("abcdef"),
)
def test_no_node_outside_comes_before_one_inside(
    placed: list[tuple[str, str]], feasible: set[str], order: list[str]
) -> None:
    """Whatever ran where, and in whatever order the candidates come."""
    state = aged("abcdef", placed)
    asked = [name for name in order if name in feasible]
    inside = set(nodes_in(state, asked, slack=0.1))
    answer = prioritized(state, asked, {"tenant": "x"})
    assert set(answer[: len(inside & feasible)]) == inside & feasible
    assert answer == prioritized(state, asked[::-1], {"tenant": "x"})
    assert prioritized(state, asked, {}) == sorted(asked)


KEYED = PoolsInForce(
    Pool(name="", busy_victims=BusyVictims.LAST_RESORT, cache_key=CacheKeyRule(label="tenant", slack=0.1))
)
POD_SPEC = {"containers": [{"resources": {"requests": {"cpu": "500m"}}}, {"resources": {"requests": {"cpu": "0.5"}}}]}


def prioritized(
    state: ClusterState, names: Sequence[str], labels: dict[str, str], spec: object = POD_SPEC
) -> list[str]:
    meta = {"namespace": "default", "name": "new", "labels": {POOL_LABEL: "ducks", **labels}}
    body = json.dumps({"Pod": {"metadata": meta, "spec": spec}, "Nodes": None, "NodeNames": list(names)}).encode()
    answer = webhook_over(state, pools=KEYED).prioritize(body)
    return [entry["Host"] for entry in json.loads(answer.content)]


def test_a_tenants_worker_finds_its_node_also_as_the_thirtieth_oldest() -> None:
    """All older nodes are full but one, which has room too: the key's node is the thirtieth, and comes first."""
    names = [f"n{number:02}" for number in range(34)]
    placed = [(name, "acme" if name == "n29" else "") for name in names[:32] for _ in range(4) if name != "n29"]
    state = aged(names, [*placed, ("n29", "acme")])
    assert prioritized(state, ["n33", "n32", "n29"], {"tenant": "acme"})[:2] == ["n29", "n32"]
    state.upsert_pod(duck("w0", "n00", finished=True))
    assert prioritized(state, ["n33", "n32", "n29", "n00"], {"tenant": "acme"})[:2] == ["n29", "n00"]
    assert prioritized(state, ["n33", "n32", "n29", "n00"], {"tenant": "nobody"})[:2] == ["n00", "n29"]


def test_a_spec_that_cannot_be_read_takes_each_node_to_hold_one_more() -> None:
    """What a pod asks for is a hint: a spec of another shape changes the slack and refuses nothing."""
    state = aged("abc", [("b", "acme")])
    much = {"containers": [{"resources": {"requests": {"cpu": "much"}}}]}
    unreadable: tuple[object, ...] = (5, [], {"containers": 7}, much)
    for spec in unreadable:
        assert prioritized(state, "abc", {"tenant": "acme"}, spec=spec)[0] == "b"
    readable: tuple[object, ...] = (POD_SPEC, None, {})
    for spec in readable:
        assert prioritized(state, "abc", {"tenant": "acme"}, spec=spec)[0] == "a"


steps = st.lists(
    st.tuples(
        st.sampled_from(("worker", "other pool's", "idle", "ends", "node goes", "node comes", "all listed")),
        st.integers(0, 9),
        st.sampled_from("abcdef"),
        st.sets(st.sampled_from("abcdefg")),
        st.sampled_from((1, 1, 1, 2)),
        slacks,
    ),
    max_size=40,
)


@given(steps)
def test_what_is_kept_of_a_set_is_what_is_found_anew(
    happened: list[tuple[str, int, str, set[str], int, float]],
) -> None:
    """After whatever has happened to workers and nodes, for any feasible nodes, and for workers of any size."""
    state = aged("abcdef")
    kept, name = WorkingSets(state), ""
    for what, number, name, feasible, cpus, slack in happened:
        if what == "node goes":
            state.delete_node(sized(name))
        elif what == "node comes":
            state.upsert_node(sized(name))
        elif what == "all listed":
            state.replace_pods(list(state.pods.values()))
        else:
            pool = "geese" if what == "other pool's" else "ducks"
            idle = minutes_ago(5) if what == "idle" else None
            state.upsert_pod(duck(f"w{number}", name, pool=pool, idle_since=idle, finished=what == "ends"))
        ranking = state.ranking.as_of(NOW)
        found = kept.reach("ducks", ranking, sorted(feasible), Cpus(cpus), slack)
        assert found == WorkingSets(state).reach("ducks", ranking, sorted(feasible), Cpus(cpus), slack)


@pytest.mark.parametrize("number", [1, 20, 255, 256, 257, 300])
def test_many_changes_between_two_requests_are_seen_too(number: int) -> None:
    """Also where they are more than are written down one by one."""
    names = [f"n{place:03}" for place in range(40)]
    state = aged(names)
    kept, ranking = WorkingSets(state), state.ranking.as_of(NOW)
    kept.reach("ducks", ranking, names, ONE_CPU, 0.1)
    for each in range(number):
        state.upsert_pod(duck(f"w{each}", names[each % 40]))
    assert kept.reach("ducks", ranking, names, ONE_CPU, 0.1) == WorkingSets(state).reach(
        "ducks", ranking, names, ONE_CPU, 0.1
    )


@pytest.mark.parametrize("per_node", [1, 4])
def test_workers_that_fill_their_nodes_are_followed(per_node: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is full is feasible no more: what is known is as what comes, and no request needs a look at all."""
    as_expected: list[bool] = []

    def seems_equal(kept: Any, ranking: object, nodes: int, feasible: frozenset[str]) -> bool:
        as_expected.append(kept.feasible == feasible)
        return as_expected[-1]

    monkeypatch.setattr(working_sets, "_seems_equal", seems_equal)
    names = [f"n{place:03}" for place in range(100)]
    state = aged(names)
    kept, ranking = WorkingSets(state), state.ranking.as_of(NOW)
    for step in range(120):
        feasible = names[step // per_node :]
        found = kept.reach("ducks", ranking, feasible, ONE_CPU, 0.1)
        assert found == WorkingSets(state).reach("ducks", ranking, feasible, ONE_CPU, 0.1)
        if feasible:
            state.upsert_pod(duck(f"w{step}", feasible[0]))
    assert as_expected == [True] * 118  # all but the first, and the first that finds a worker of the pool


NAMES = [f"n{place:03}" for place in range(600)]
OTHERS_OF_AS_MANY = {
    "workers that need another zone": [NAMES[:50], NAMES[50:100], NAMES[:50]],
    "a scheduler that begins to look elsewhere each time": [NAMES[:500], NAMES[100:], NAMES[:500]],
    "another pool fills the node of the set": [NAMES[:50], NAMES[1:51], NAMES[:50]],
}


@pytest.mark.parametrize("feasible", OTHERS_OF_AS_MANY.values(), ids=OTHERS_OF_AS_MANY)
def test_as_many_other_nodes_are_seen_at_once(feasible: list[list[str]]) -> None:
    """A few of the set's places tell."""
    state = aged(NAMES)
    kept, ranking = WorkingSets(state), state.ranking.as_of(NOW)
    for names in feasible:
        found = kept.reach("ducks", ranking, names, ONE_CPU, 0.1)
        assert found == WorkingSets(state).reach("ducks", ranking, names, ONE_CPU, 0.1)


@given(st.lists(st.sets(st.integers(0, 59), min_size=20, max_size=20), min_size=2, max_size=4), slacks)
def test_a_set_has_always_a_node_for_the_worker(feasible: list[set[int]], slack: float) -> None:
    """Whatever changes unseen."""
    names = [f"n{place:03}" for place in range(60)]
    state = aged(names, [(name, "") for name in names[::3] for _ in range(2)])
    kept, ranking = WorkingSets(state), state.ranking.as_of(NOW)
    for places in feasible:
        found = kept.reach("ducks", ranking, [names[place] for place in places], ONE_CPU, slack)
        assert not found.feasible.isdisjoint(list(ranking)[: found.nodes])


def test_one_node_in_place_of_another_is_seen_in_the_end() -> None:
    """Where neither number nor places show it the slack is wrong meanwhile; scores are of the request's nodes only."""
    state = aged(NAMES[:100])
    ranking = state.ranking.as_of(NOW)

    def reach(sets: WorkingSets, names: Collection[str]) -> WorkingSet:
        return sets.reach("ducks", ranking, names, ONE_CPU, 0.1)

    for older in NAMES[:50]:
        kept, names = WorkingSets(state), {older, *NAMES[50:99]}
        right = reach(WorkingSets(state), names)
        reach(kept, NAMES[50:100])
        first = reach(kept, names)
        if first != right:
            break
    else:
        pytest.fail("each was seen at once: nothing is tried here")
    assert first.feasible == names
    assert [reach(kept, names) for _ in range(TRUSTED - 1)][-1] == right


def test_the_pools_that_asked_last_are_kept() -> None:
    """Who names pools by a label may name a million."""
    state, told = aged("ab"), Counter[str]()
    sets = WorkingSets(state, lambda pool, nodes: told.update([pool]))
    ranking = state.ranking.as_of(NOW)
    for number in range(MOST_POOLS + 1):
        sets.reach(f"pool-{number}", ranking, "ab", ONE_CPU, 0.1)
        sets.reach("pool-0", ranking, "ab", ONE_CPU, 0.1)
    assert told["pool-0"] == 1
    sets.reach("pool-1", ranking, "ab", ONE_CPU, 0.1)
    assert told["pool-1"] == 2


def test_the_set_is_kept_until_something_changes_and_its_size_is_told() -> None:
    """The same request again costs a look; a worker that comes, and a node that goes, are seen at once."""
    state = aged("abc", [("a", ""), ("a", "")])
    told: list[int] = []
    ranking = state.ranking.as_of(NOW)
    sets = WorkingSets(state, lambda pool, nodes: told.append(nodes))
    first = sets.reach("ducks", ranking, list("abc"), ONE_CPU, 0.1)
    assert sets.reach("ducks", ranking, list("abc"), Cpus(), 0.1) == first
    assert sets.reach("ducks", ranking, list("bc"), ONE_CPU, 0.1) is not first
    for name in "aab":
        state.upsert_pod(duck(f"more on {name} {len(told)}", name))
        sets.reach("ducks", ranking, list("bc"), ONE_CPU, 0.1)
    state.delete_node(sized("a"))
    sets.reach("ducks", ranking, list("bc"), ONE_CPU, 0.1)
    assert told == [2, 3, 2]


def test_other_feasible_nodes_make_another_set_also_where_they_are_as_many() -> None:
    """Two kinds of worker of one pool may fit on other nodes: what is kept for one is not taken for the other."""
    state = aged("abcd", [("a", ""), ("b", "")])
    sets, ranking = WorkingSets(state), state.ranking.as_of(NOW)
    narrow = sets.reach("ducks", ranking, list("ab"), ONE_CPU, 0.0)
    wide = sets.reach("ducks", ranking, list("cd"), ONE_CPU, 0.0)
    assert (narrow.nodes, wide.nodes) == (1, 3)
    assert wide.feasible == {"c", "d"}


def test_the_metric_tells_the_size_by_pool() -> None:
    """What a cache key chooses among is to be seen."""
    metrics = Metrics()
    webhook = webhook_over(
        aged("abc", [("a", "acme")] * 4),
        pools=KEYED,
        metrics=metrics,
    )
    meta = {"namespace": "default", "name": "new", "labels": {POOL_LABEL: "ducks", "tenant": "acme"}}
    asked = {"Pod": {"metadata": meta, "spec": POD_SPEC}, "Nodes": None, "NodeNames": ["b", "c"]}
    webhook.prioritize(json.dumps(asked).encode())
    assert b'warmnode_working_set_nodes{pool="ducks"} 2.0' in metrics.exposition()


def test_claims_need_room_for_those_that_work() -> None:
    """Idle workers for this claim, and for a share of those at work: one idle and one busy on each of three nodes."""
    state = aged("abc", [("a", ""), ("b", ""), ("c", "")])
    idle = [duck(f"idle-{name}", name, idle_since=minutes_ago(5)) for name in "abc"]
    for each in idle:
        state.upsert_pod(each)
    ranking, needed = state.ranking.as_of(NOW), state.where.needed("ducks")
    by_slack = {slack: reach_for_claims(ranking, needed, slack) for slack in (0.0, 0.04, 0.25)}
    assert by_slack == {0.0: 1, 0.04: 2, 0.25: 3}
