"""The working set: how far it reaches, and what that does to a pool."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from extender.cluster.state import ClusterState
from extender.cluster.working_sets import WorkingSets, end_for_claims, nodes_and_fits, working_set
from extender.model import BusyVictims, CacheKeyRule, Node, Pod
from extender.policy.pools import POOL_LABEL, PoolsInForce
from extender.policy.working_set import capacities, working_set_size
from extender.telemetry import Metrics
from tests.builders import NOW, ledger, minutes_ago, node, worker
from tests.listening import synced_state, webhook_over

holdings = st.lists(st.integers(0, 9), max_size=30)
slacks = st.sampled_from((0.0, 0.1, 0.25, 1.0))
FOUR_CPU = {"cpu": Decimal(4), "pods": Decimal(110)}
ONE_CPU = {"cpu": Decimal(1)}


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
    nodes = nodes_and_fits(ranking, state.nodes, ONE_CPU)
    found = working_set(ranking, state.where.needed("ducks"), frozenset(feasible), nodes, slack)
    inside = [name for name, place in ranking.items() if place <= found.end]
    assert len(inside) == found.nodes
    return inside


# -- the rule ---------------------------------------------------------------------------------------------------------


@given(holdings, st.integers(0, 200), slacks)
def test_the_set_is_the_shortest_prefix_with_enough_room(holds: list[int], workers: int, slack: float) -> None:
    """It holds the workers, one more, and the slack; one node less would not, unless there are no more nodes."""
    size = working_set_size(holds, workers, slack)
    wanted = (workers + 1) * (1 + slack) - 1e-6
    assert sum(holds[:size]) >= wanted or size == len(holds)
    assert size == 0 or sum(holds[: size - 1]) < wanted


@given(holdings, st.integers(0, 200), slacks, holdings)
def test_younger_nodes_change_nothing_for_a_pool_that_does_not_need_them(
    holds: list[int], workers: int, slack: float, young: list[int]
) -> None:
    """What stands behind the end is not looked at."""
    size = working_set_size(holds, workers, slack)
    if sum(holds[:size]) >= (workers + 1) * (1 + slack):
        assert working_set_size([*holds, *young], workers, slack) == size


@given(holdings, st.integers(0, 200), st.integers(0, 50), slacks)
def test_the_set_shrinks_with_the_load(holds: list[int], workers: int, gone: int, slack: float) -> None:
    """Fewer workers never need more nodes."""
    fewer = max(0, workers - gone)
    assert working_set_size(holds, fewer, slack) <= working_set_size(holds, workers, slack)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(0, 100), st.data())
def test_a_wrong_capacity_is_a_wrong_slack_and_nothing_worse(
    holds: list[int], workers: int, data: st.DataObject
) -> None:
    """Where each node is taken to hold between half and twice of what it does, the set is one of some other slack."""
    wrong = [max(1, round(each * data.draw(st.floats(0.5, 2)))) for each in holds]
    size = working_set_size(wrong, workers, 0.1)
    assert working_set_size(holds, workers, -0.7) <= size <= working_set_size(holds, workers, 1.3 * 2 + 0.1)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 5)), st.sets(st.sampled_from("abcdef")))
def test_a_full_node_holds_what_is_on_it_and_any_other_one_more(workers: dict[str, int], feasible: set[str]) -> None:
    """Not feasible: full. Feasible: what fits on it, and in any case one more than there is."""
    found = dict(zip("abcdef", capacities("abcdef", [3] * 6, workers, feasible), strict=True))
    for name, holds in found.items():
        there = workers.get(name, 0)
        assert holds == (max(3, there + 1) if name in feasible else there)


def test_when_the_load_halves_no_node_stays_busy_that_age_alone_would_have_emptied() -> None:
    """Forty nodes of four; keys place by random favourites inside the set. A day later only the set, with one node for
    the slack of a tenth, has workers: as few as with age alone."""
    random = Random(1)  # noqa: S311 - a model
    on: Counter[int] = Counter()
    nodes, room, slack = range(40), 4, 0.1
    running: list[int] = []
    for step in range(4000):
        wanted = 120 if step < 2000 else 60
        while len(running) >= wanted:
            on[running.pop(random.randrange(len(running)))] -= 1
        feasible = {each for each in nodes if on[each] < room}
        there = {str(each): on[each] for each in nodes}
        holds = capacities(list(there), [room] * len(there), there, set(map(str, feasible)))
        size = working_set_size(holds, len(running), slack)
        place = random.choice([each for each in nodes[:size] if each in feasible])
        on[place] += 1
        running.append(place)
    assert max(place for place in nodes if on[place]) < 60 * (1 + slack) / room


# -- in a cluster -----------------------------------------------------------------------------------------------------


def test_the_set_ends_where_the_pool_has_room_for_its_workers_and_one_more() -> None:
    """Four nodes of four; the first is full with four, the second has three, the third one: eight, and one more, fit on
    the first three; the slack takes the fourth."""
    state = aged("abcd", [("a", "")] * 4 + [("b", "")] * 3 + [("c", "")])
    assert nodes_in(state, "bcd") == ["a", "b", "c"]
    assert nodes_in(state, "bcd", slack=0.5) == ["a", "b", "c", "d"]


def test_terminating_and_finished_workers_and_those_of_other_pools_need_no_room() -> None:
    """The set is for the workers of this pool that stay."""
    state = aged("abc", [("a", "")])
    for number in range(9):
        state.upsert_pod(duck(f"going{number}", "c", terminating=True))
        state.upsert_pod(duck(f"done{number}", "c", finished=True))
        state.upsert_pod(duck(f"other{number}", "c", pool="geese"))
    assert nodes_in(state, "abc") == ["a"]


def test_nodes_of_two_types_half_of_them_full() -> None:
    """A full node counts what is on it, and a large one counts as large: the set ends where it should."""
    names = [f"n{number:02}" for number in range(20)]
    state = aged(names, [(name, "") for name in names[::2] for _ in range(2)])
    for name in names[1::4]:
        state.upsert_node(node(name, allocatable={"cpu": Decimal(8), "pods": Decimal(110)}))
    # full ones hold 2, the others 8 and 4 in turn; 20 workers and one more
    assert nodes_in(state, names[1::2]) == names[:6]


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
    default_busy_victims=BusyVictims.LAST_RESORT, default_cache_key=CacheKeyRule(label="tenant", slack=0.1)
)
POD_SPEC = {"containers": [{"resources": {"requests": {"cpu": "500m"}}}, {"resources": {"requests": {"cpu": "0.5"}}}]}


def prioritized(
    state: ClusterState, names: Sequence[str], labels: dict[str, str], spec: object = POD_SPEC
) -> list[str]:
    meta = {"namespace": "default", "name": "new", "labels": {POOL_LABEL: "ducks", **labels}}
    body = json.dumps({"Pod": {"metadata": meta, "spec": spec}, "Nodes": None, "NodeNames": list(names)}).encode()
    answer, _ = webhook_over(state, pools=KEYED).prioritize(body)
    return [entry["Host"] for entry in json.loads(answer)]


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
    state = aged("abc", [("a", ""), ("b", "acme")])
    much = {"containers": [{"resources": {"requests": {"cpu": "much"}}}]}
    unreadable: tuple[object, ...] = (5, [], {"containers": 7}, much)
    for spec in unreadable:
        assert prioritized(state, "abc", {"tenant": "acme"}, spec=spec)[0] == "b"
    readable: tuple[object, ...] = (POD_SPEC, None, {})
    for spec in readable:
        assert prioritized(state, "abc", {"tenant": "acme"}, spec=spec)[0] == "a"


def test_the_set_is_kept_until_something_changes_and_its_size_is_told() -> None:
    """The same request again costs a look; a worker that comes, and a node that goes, are seen at once."""
    state = aged("abc", [("a", ""), ("a", "")])
    told: list[int] = []
    ranking = state.ranking.as_of(NOW)
    sets = WorkingSets(state, lambda pool, nodes: told.append(nodes))
    first = sets.reach("ducks", ranking, list("abc"), ONE_CPU, 0.1)
    assert sets.reach("ducks", ranking, list("abc"), dict(ONE_CPU), 0.1) is first
    assert sets.reach("ducks", ranking, list("bc"), ONE_CPU, 0.1) is not first
    for name in "aab":
        state.upsert_pod(duck(f"more on {name} {len(told)}", name))
        sets.reach("ducks", ranking, list("bc"), ONE_CPU, 0.1)
    state.delete_node(sized("a"))
    sets.reach("ducks", ranking, list("bc"), ONE_CPU, 0.1)
    assert told == [1, 2, 2, 2, 2, 2]


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
    """Busy and claimed workers, this one, and the slack; a node holds as many as are on it."""
    state = aged("abc", [("a", ""), ("b", ""), ("c", "")])
    idle = [duck(f"idle-{name}", name, idle_since=minutes_ago(5)) for name in "abc"]
    for each in idle:
        state.upsert_pod(each)
    ranking, needed = state.ranking.as_of(NOW), state.where.needed("ducks")
    by_slack = {slack: end_for_claims(ranking, needed, slack) for slack in (0.0, 0.25)}
    assert by_slack == {0.0: ranking["b"], 0.25: ranking["c"]}
