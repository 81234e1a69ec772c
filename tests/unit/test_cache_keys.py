"""Cache keys from the pod's label to the answer: what is counted, when, and what hostile labels can do."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from extender.cluster.state import ClusterState
from extender.inspect.explain import Subject, explain
from extender.inspect.explain_text import render_explanation
from extender.inspect.plan import look_at
from extender.inspect.plan_text import render_json
from extender.inspect.snapshot import Snapshot
from extender.model import BusyVictims, CacheKeyRule, Pool
from extender.policy.affinity import KEYS_PER_NODE
from extender.policy.pools import POOL_LABEL, PoolsInForce, cache_key_of, pool_of
from extender.settings import Configuration, load_configuration
from extender.settings.in_force import SHARED_KEYS, InForce, pools_in_force
from tests.builders import NOW, ledger, minutes_ago, node, plan_of, worker
from tests.listening import synced_state, webhook_over

KEYED = PoolsInForce(
    Pool(name="", busy_victims=BusyVictims.LAST_RESORT, cache_key=CacheKeyRule(label="tenant", window=3))
)
HEAD = "apiVersion: warmnode.dev/v1alpha1\nkind: Configuration\n"
NAMES = [f"n{number}" for number in range(6)]


def configuration(text: str) -> Configuration:
    return load_configuration(f"{HEAD}{text}\n", source="given.yaml")


def counted(state: ClusterState, name: str, now: datetime = NOW) -> dict[str, float]:
    """Keys of a node with their workers, rounded."""
    return {use.key: round(use.workers, 2) for use in state.keys.history.uses(name, now)}


def asked(state: ClusterState, names: list[str], labels: dict[str, str], pools: PoolsInForce = KEYED) -> list[str]:
    """The hosts that prioritize answers, best first."""
    pod = {"metadata": {"namespace": "default", "name": "new", "labels": labels}}
    body = json.dumps({"Pod": pod, "Nodes": None, "NodeNames": names}).encode()
    answer = webhook_over(state, pools=pools).prioritize(body)
    return [entry["Host"] for entry in json.loads(answer.content)]


def aged_state(*workers: tuple[str, str]) -> ClusterState:
    """Six nodes, n0 the oldest, with a worker for each (node, key)."""
    nodes = [node(name) for name in NAMES]
    seen = {each.uid: minutes_ago(100 - 10 * place) for place, each in enumerate(nodes)}
    pods = [worker(f"w{number}", node=on, cache_key=key, created=NOW) for number, (on, key) in enumerate(workers)]
    return synced_state(nodes, pods, ledger(seen))


def test_a_worker_goes_where_its_key_ran_most_among_the_oldest() -> None:
    """Of the three oldest nodes the one with most workers of the key, although an old node beyond has more still."""
    state = aged_state(("n1", "acme"), ("n2", "acme"), ("n2", "acme"), ("n4", "acme"), ("n4", "acme"), ("n4", "acme"))
    labels = {POOL_LABEL: "ducks", "tenant": "acme"}
    assert asked(state, NAMES, labels) == ["n2", "n1", "n0", "n3", "n4", "n5"]
    assert asked(state, ["n5", "n4", "n3", "n0"], labels) == ["n4", "n0", "n3", "n5"]


def test_a_worker_without_key_or_with_an_unknown_one_goes_by_age() -> None:
    """No label, an empty one, and a key that never ran here: nothing changes."""
    state = aged_state(("n2", "acme"), ("n2", ""))
    for labels in ({}, {"tenant": ""}, {"tenant": "nobody"}):
        assert asked(state, NAMES, {POOL_LABEL: "ducks", **labels}) == NAMES
    assert asked(state, NAMES, {"tenant": "acme"}) == []


def test_a_worker_has_a_key_only_where_its_pool_has_a_rule() -> None:
    """A configured pool goes by its own rule; a window of one node is none, and needs no counts."""
    text = (
        "poolDefaults: {cacheKey: {label: tenant}}\npools:\n"
        "  - {name: a}\n  - {name: b, cacheKey: {label: data-set, window: 8}}\n  - {name: c, cacheKey: null}\n"
        "  - {name: d, cacheKey: {window: 1}}\n"
    )
    in_force = pools_in_force(configuration(text))
    labels = {"tenant": "acme", "data-set": "sales"}
    found = {name: cache_key_of(labels, in_force.of(name).cache_key) for name in "abcd"}
    assert found == {"a": "acme", "b": "sales", "c": None, "d": None}
    assert pool_of("default", {POOL_LABEL: "x", **labels}, in_force.pools) is None
    assert in_force.of("b").cache_key == CacheKeyRule(label="data-set", window=8)


def test_a_pool_that_is_not_listed_has_neither_a_key_nor_a_shadow() -> None:
    """Where pools are listed the defaults are of those: of another one only what happens to busy victims counts."""
    text = "poolDefaults: {cacheKey: {label: tenant}, placement: shadow, preempt: {busyVictims: protect}}\n"
    by_label, listed = pools_in_force(configuration(text)), pools_in_force(configuration(text + "pools: [{name: a}]"))
    assert (by_label.of("x").cache_key is not None, by_label.is_shadow("x")) == (True, True)
    assert (listed.of("x").cache_key, listed.is_shadow("x"), listed.is_shadow("a")) == (None, False, True)
    assert listed.of("x").busy_victims is by_label.of("x").busy_victims is BusyVictims.PROTECT


def test_counts_begin_with_the_workers_that_are_there() -> None:
    """A restart knows the live workers, each faded since it was created, and nothing of those that have gone."""
    early = worker("early", node="a", cache_key="x", created=minutes_ago(60))
    finished = worker("done", node="a", cache_key="x", created=NOW, finished=True)
    ahead = worker("ahead", node="a", cache_key="y", created=NOW + timedelta(days=999))
    state = synced_state([node("a")], [early, finished, ahead, worker("plain", node="a")])
    assert counted(state, "a") == {"x": 1.5, "y": 1}
    assert counted(state, "b") == {}


def test_counts_grow_when_a_worker_is_placed_and_not_when_it_changes() -> None:
    """Events of one worker, and lists that show it again, count once; a new one counts when it is bound."""
    state = synced_state([node("a")], [])
    new = worker("w", node=None, cache_key="x")
    state.upsert_pod(new)
    assert counted(state, "a") == {}
    state.upsert_pod(bound := worker("w", node="a", cache_key="x", ready_since=None))
    state.upsert_pod(worker("w", node="a", cache_key="x", idle_since=NOW))
    state.replace_pods([bound])
    state.replace_nodes([node("a")])
    state.upsert_node(node("a"))
    assert counted(state, "a") == {"x": 1}
    state.delete_pod(bound)
    assert counted(state, "a") == {"x": 1}
    state.replace_pods([worker("v", node="a", cache_key="x", created=NOW)])
    assert counted(state, "a") == {"x": 2}


def test_counts_wait_for_the_node_and_go_with_it() -> None:
    """A pod may be heard of before its node; another node of that name has another disk."""
    state = synced_state([], [])
    state.upsert_pod(worker("w", node="a", cache_key="x", created=NOW))
    assert counted(state, "a") == {}
    state.upsert_node(node("a"))
    assert counted(state, "a") == {"x": 1}
    state.upsert_node(node("a", uid="another"))
    assert counted(state, "a") == {}
    state.upsert_pod(worker("v", node="a", cache_key="x"))
    state.delete_node(node("a", uid="another"))
    assert counted(state, "a") == {}
    state.replace_nodes([node("a", uid="a third")])
    assert counted(state, "a") == {"x": round(0.5 ** (40 / 60), 2) + 1}


def test_a_key_that_changes_counts_as_work_for_the_new_one() -> None:
    """A warm worker that is given to a tenant later says so by its label; the change is counted."""
    state = synced_state([node("a")], [worker("w", node="a", cache_key="x", created=NOW)])
    state.upsert_pod(worker("w", node="a", cache_key="y"))
    assert counted(state, "a") == {"x": 1, "y": 1}
    assert state.keys.changes == 1
    state.upsert_pod(worker("w", node="a"))
    assert state.keys.changes == 1


def test_a_placed_worker_has_the_use_of_its_key_on_its_node() -> None:
    """What the reaper compares: -inf without a key or a node, more where more workers with it were placed."""
    state = aged_state(("n1", "x"), ("n1", "x"), ("n1", "y"))
    use = [state.key_use(worker(node="n1", cache_key=key)) for key in (None, "z", "y", "x")]
    assert use[:2] == [-inf, -inf] < [-inf, use[2]] < [-inf, use[3]]
    assert state.key_use(worker(node=None, cache_key="x")) == -inf


def test_plan_shows_the_keys_of_each_node() -> None:
    """Most used of late first, in words and in JSON; what a look at one moment cannot know is said."""
    pods = [worker(f"w{number}", node="n0", cache_key=key, created=NOW) for number, key in enumerate("yxyy")]
    snapshot = Snapshot(nodes=(node("n0"), node("n1")), pods=tuple(pods), ledger=None, taken=NOW)
    made = plan_of(snapshot, configuration("poolDefaults: {cacheKey: {label: tenant}}"), source="given")
    tree = json.loads(render_json(made))
    assert [each["cacheKeys"] for each in tree["nodes"]] == [
        [{"key": "y", "workers": 3.0}, {"key": "x", "workers": 1.0}],
        [],
    ]
    assert tree["nodes"][0]["why"].endswith("; keys: y 3, x 1")
    assert "which cache keys ran before and have gone: only the workers that are there count" in made.unknown
    assert not [line for line in plan_of(snapshot, configuration(""), source="given").unknown if "cache keys" in line]


def test_explain_tells_the_key_of_a_worker_and_the_rule_of_its_pool() -> None:
    """For a worker without the label it says which one is missing; a pool without the setting says nothing of keys."""
    pods = [worker("with", node="n0", cache_key="acme"), worker("without", node="n0")]

    def pages(text: str) -> list[str]:
        snapshot = Snapshot(nodes=(node("n0"),), pods=tuple(pods), ledger=None, taken=NOW)
        seen = look_at(snapshot, configuration(text), source="given")
        asked = ((Subject.POD, "with"), (Subject.POD, "without"), (Subject.POOL, "pool"), (Subject.NODE, "n0"))
        return [render_explanation(explain(seen, subject, name), seen.plan) for subject, name in asked]

    found = pages("poolDefaults: {cacheKey: {label: tenant}}")
    assert [[line for line in page.splitlines() if line.startswith("cache key")] for page in found] == [
        ["cache key      acme"],
        ["cache key      none: it has no label tenant"],
        ["cache key    label tenant, decides in the working set, with a slack of 10%"],
        [],
    ]
    assert "; keys: acme" in found[3]
    sets = [[line for line in page.splitlines() if line.startswith("working set")] for page in found]
    assert sets[2] == ["working set  1 node up to n0, as far as one look can say"]
    assert sets[3] == ["working set  of pool pool, 1 node up to n0: it is in it"]
    assert not any("working set" in page for page in pages("poolDefaults: {cacheKey: {label: tenant, window: 3}}"))
    assert not [page for page in pages("")[:3] if "cache key" in page]


def test_hostile_keys_are_forgotten_and_an_answer_stays_right() -> None:
    """A worker whose label changes ten thousand times, 63 characters each, leaves no more than a node may have."""
    state = aged_state(("n1", "acme"), ("n1", "acme"))
    for number in range(10_000):
        state.upsert_pod(worker("flapping", node="n2", cache_key=f"{number:063}"))
    assert len(state.keys.history) == KEYS_PER_NODE + 1
    assert state.keys.history.forgotten == 10_000 - KEYS_PER_NODE
    assert state.keys.changes == 9_999
    assert asked(state, NAMES, {POOL_LABEL: "ducks", "tenant": "acme"})[0] == "n1"


def test_pods_with_the_same_key_share_one_string_and_hostile_ones_fill_nothing() -> None:
    """100,000 pods of 60 tenants have 60 strings; a million different labels are not all kept."""
    in_force = InForce(configuration("poolDefaults: {cacheKey: {label: tenant}}"))

    def key(text: str) -> str | None:
        member = in_force.classify("default", {POOL_LABEL: "ducks", "tenant": text})
        return member.cache_key if member is not None else None

    assert key("".join(["ac", "me"])) is key("".join(["a", "cme"]))
    for number in range(2 * SHARED_KEYS):
        assert key(f"tenant-{number}") == f"tenant-{number}"
    assert len(in_force._members) <= SHARED_KEYS


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from("xyz")), max_size=30), st.randoms())
def test_replicas_that_saw_the_same_workers_answer_the_same(workers: list[tuple[str, str]], random: object) -> None:
    """The answer depends on the state and the request, not on the order in which workers were heard of."""
    labels = {POOL_LABEL: "ducks", "tenant": "x"}
    assert asked(aged_state(*workers), NAMES, labels) == asked(aged_state(*workers[::-1]), NAMES[::-1], labels)
