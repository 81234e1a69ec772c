"""Placing in the shadow: schedulers are answered as for a pod of no pool, and what would have been is compared."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from extender.cluster.history import DecisionHistory
from extender.cluster.shadow import ShadowScore, ShadowVerdict, shadow_verdict
from extender.inspect.explain import Subject, explain
from extender.inspect.explain_text import render_explanation
from extender.inspect.plan import look_at
from extender.inspect.plan_text import render_table
from extender.inspect.snapshot import Snapshot
from extender.model import BusyVictims, PlacementMode, Pool
from extender.policy.decisions import KeptPlacement, PlacementDecision, RankedNode
from extender.policy.pools import PoolsInForce
from extender.settings import load_configuration
from extender.settings.in_force import pools_in_force
from extender.web.history_api import history_handler
from extender.web.webhook import NO_SCORES, Webhook, WebhookAnswer
from tests.builders import NOW, ledger, minutes_ago, node, stranger, worker
from tests.listening import synced_state, webhook_over

HEAD = "apiVersion: warmnode.dev/v1alpha1\nkind: Configuration\n"
NODES = [node("a"), node("b"), node("c")]
AGES = ledger({"uid-of-a": minutes_ago(300), "uid-of-b": minutes_ago(200), "uid-of-c": minutes_ago(100)})
IN_SHADOW = PoolsInForce(Pool(name="", busy_victims=BusyVictims.PROTECT, placement=PlacementMode.SHADOW))
ACTIVE = PoolsInForce(Pool(name="", busy_victims=BusyVictims.PROTECT))


def prioritize(webhook: Webhook, labels: dict[str, str], names: Sequence[str] = ("a", "b", "c")) -> WebhookAnswer:
    """Ask it for a pod."""
    pod = {"metadata": {"name": "w", "namespace": "default", "uid": "uid-of-w", "labels": labels}}
    return webhook.prioritize(json.dumps({"Pod": pod, "NodeNames": list(names)}).encode())


def preempt(webhook: Webhook, labels: dict[str, str], victims: dict[str, str]) -> bytes:
    """Ask it about a preemption: a victim by node."""
    pod = {"metadata": {"name": "p", "namespace": "default", "uid": "p", "labels": labels}}
    nodes = {name: {"Pods": [{"UID": uid}], "NumPDBViolations": 0} for name, uid in victims.items()}
    return webhook.preempt(json.dumps({"Pod": pod, "NodeNameToMetaVictims": nodes}).encode()).content


def decision(
    *names: str, bound: str, key_uses: Sequence[float] = (), pod: str = "w", pool: str = "pool"
) -> PlacementDecision:
    """What would have been answered, best first, and where the worker went."""
    uses = [*key_uses, *[0.0] * len(names)]
    best = tuple(RankedNode(node=name, rank=at + 1, key_uses=uses[at]) for at, name in enumerate(names))
    return PlacementDecision(
        at=NOW,
        namespace="default",
        pod=pod,
        uid=f"uid-of-{pod}",
        pool=pool,
        candidates=3,
        best=best,
        shadow=True,
        node=bound,
    )


# -- what is answered -------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abcx"), max_size=6))
def test_a_scheduler_is_answered_as_for_a_pod_of_no_pool(names: list[str]) -> None:
    """Byte for byte."""
    webhook = webhook_over(synced_state(NODES, ledger=AGES), pools=IN_SHADOW)
    shadow, neutral = (prioritize(webhook, labels, names).content for labels in ({"warmnode.dev/pool": "pool"}, {}))
    assert shadow == neutral == NO_SCORES


def test_what_would_have_been_answered_is_remembered() -> None:
    """The same nodes in the same order as without the shadow."""
    best = []
    for pools in (IN_SHADOW, ACTIVE):
        webhook = webhook_over(synced_state(NODES, ledger=AGES), pools=pools)
        found = prioritize(webhook, {"warmnode.dev/pool": "pool"}).decision
        assert isinstance(found, KeptPlacement)
        assert found.shadow == (pools is IN_SHADOW)
        best.append(found.nodes)
    assert best == [("a", "b", "c")] * 2


@pytest.mark.parametrize("labels", [{}, {"warmnode.dev/pool": "pool"}])
def test_a_preemption_is_left_to_the_scheduler(labels: dict[str, str]) -> None:
    """Busy workers of a pool in the shadow are victims as pods of no pool are, and choose no node as preemptors."""
    workers = [worker("x", uid="x", node="a", priority=0), worker("y", uid="y", node="b", priority=0)]
    strangers = [worker(each.name, uid=each.uid, node=each.node, priority=0, pool=None) for each in workers]
    victims = {"a": "x", "b": "y"}
    shadow = preempt(webhook_over(synced_state(NODES, workers, AGES), pools=IN_SHADOW), labels, victims)
    neutral = preempt(webhook_over(synced_state(NODES, strangers, AGES), pools=ACTIVE), {}, victims)
    active = preempt(webhook_over(synced_state(NODES, workers, AGES), pools=ACTIVE), labels, victims)
    assert shadow == neutral
    assert active != neutral


@pytest.mark.parametrize(
    ("text", "in_shadow"),
    [
        ("", set()),
        ("poolDefaults: {placement: shadow}\n", {"a", "b"}),
        ("pools: [{name: a, placement: shadow, namespaces: [a]}, {name: b, namespaces: [b]}]\n", {"a"}),
        (
            "poolDefaults: {placement: shadow}\npools:\n- {name: a, namespaces: [a]}\n"
            "- {name: b, namespaces: [b], placement: active}\n",
            {"a"},
        ),
    ],
)
def test_placement_is_set_for_all_or_for_a_pool(text: str, in_shadow: set[str]) -> None:
    """And a pod of no pool is never in the shadow."""
    pools = pools_in_force(load_configuration(HEAD + text, source="test"))
    assert {name for name in ("a", "b") if pools.is_shadow(name)} == in_shadow
    assert not pools.is_shadow(None)


# -- what is counted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (decision("a", "b", bound="a"), ShadowVerdict.AGREED),
        (decision("a", "b", bound="b"), ShadowVerdict.OLDER_NODE),
        (decision("a", "b", bound="z"), ShadowVerdict.OLDER_NODE),
        (decision("b", "a", bound="a", key_uses=[2.0, 0.5]), ShadowVerdict.KEY_NODE),
        (decision("a", "b", bound="b", key_uses=[1.0, 1.0]), ShadowVerdict.OLDER_NODE),
        (decision("b", "a", bound="b", key_uses=[2.0]), ShadowVerdict.AGREED),
        (decision(bound="a"), ShadowVerdict.UNKNOWN),
    ],
)
def test_where_a_worker_went_is_compared_with_the_answer(found: PlacementDecision, verdict: ShadowVerdict) -> None:
    """One verdict for each worker: the first that is true."""
    assert shadow_verdict(found) is verdict


def test_nodes_that_would_be_empty_are_counted_with_the_room_that_was_seen() -> None:
    """Two workers were seen on one node, so four need two nodes: of three that hold one each or two, one is spared.

    A worker that goes is nowhere any more; a pod of no pool keeps its node.
    """
    state = synced_state(NODES, ledger=AGES)
    score = ShadowScore(state)
    for name, where in (("w1", "a"), ("w2", "b"), ("w3", "c"), ("w4", "c")):
        pod = worker(name, uid=f"uid-of-{name}", node=where)
        score.bound(pod, decision("a", "b", "c", bound=where, pod=name))
        state.upsert_pod(pod)
    assert score.spared("pool") == 0  # one a node: the fourth was the first to share one
    late = worker("w5", uid="uid-of-w5", node="c")
    state.delete_pod(worker("w3", uid="uid-of-w3"))
    score.bound(late, decision("a", "b", "c", bound="c", pod="w5"))
    state.upsert_pod(late)
    assert score.standing("pool").verdicts[ShadowVerdict.OLDER_NODE] == 4
    assert score.spared("pool") == 1
    state.upsert_pod(stranger("s", node="c"))
    assert score.spared("pool") == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=40))
def test_no_worker_is_lost_in_the_shadow(moves: list[tuple[int, int, bool]]) -> None:
    """Every worker that is there would be on one node, and they need one at least."""
    state = synced_state(NODES, ledger=AGES)
    score = ShadowScore(state)
    names = ["a", "b", "c"]
    for number, (real, first, leaves) in enumerate(moves):
        pod = worker(f"w{number}", uid=f"uid-of-w{number}", node=names[real])
        order = names[first:] + names[:first]
        score.bound(pod, decision(*order, bound=names[real], pod=f"w{number}"))
        state.upsert_pod(pod)
        if leaves:
            state.delete_pod(pod)
        pool = score._pools["pool"]
        assert sum(score._held("pool", pool, name) for name in names) == len(state.pods)
        used = {each.node for each in state.pods.values()}
        assert len(used) - len(names) <= score.spared("pool") <= max(0, len(used) - 1)
    total = sum(score.standing("pool").verdicts.values())
    assert total == len(moves)


def test_dead_workers_are_forgotten() -> None:
    """Nothing grows with the workers that ever were."""
    state = synced_state(NODES, ledger=AGES)
    score = ShadowScore(state)
    for number in range(3000):
        score.bound(worker(f"w{number}", node="a"), decision("a", bound="a", pod=f"w{number}"))
    assert len(score._pools["pool"].would_be) <= 1001


async def test_the_listener_tells_how_a_pool_stands() -> None:
    """For `warmnode explain pool` and the live view."""
    score = ShadowScore(synced_state(NODES, ledger=AGES))
    score.bound(worker("w", node="b"), decision("a", "b", bound="b"))
    response = await history_handler(DecisionHistory(now=lambda: NOW), score)(make_mocked_request("GET", "/shadow"))
    verdicts = {"agreed": 0, "keyNode": 0, "olderNode": 1, "unknown": 0}
    assert json.loads(getattr(response, "body", b"")) == [{"pool": "pool", "verdicts": verdicts, "spared": 0}]


def test_a_plan_names_placement_where_a_pool_is_in_the_shadow() -> None:
    """So that nobody waits for scores to matter."""
    snapshot = Snapshot(nodes=tuple(NODES), pods=(worker("w", node="a"),), ledger=AGES, taken=NOW)
    for text, is_shown in (("poolDefaults: {placement: shadow}\n", True), ("", False)):
        configuration = load_configuration(HEAD + text, source="test")
        table = render_table(look_at(snapshot, configuration, source="test").plan)
        assert ("PLACEMENT" in table and "shadow" in table) == is_shown


@pytest.mark.parametrize(("text", "is_told"), [("poolDefaults: {placement: shadow}\n", True), ("", False)])
def test_an_explanation_says_that_a_worker_is_placed_in_the_shadow(text: str, is_told: bool) -> None:
    """Among the settings that concern it."""
    snapshot = Snapshot(nodes=tuple(NODES), pods=(worker("w", node="a"),), ledger=AGES, taken=NOW)
    configuration = load_configuration(HEAD + text, source="test")
    seen = look_at(snapshot, configuration, source="test")
    assert ("in the shadow" in render_explanation(explain(seen, Subject.POD, "w"), seen.plan)) == is_told
