"""The ring of decisions: its bounds, and the join of a placement with where the worker went."""

from __future__ import annotations

import gc
import json
import tracemalloc
from datetime import datetime, timedelta

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from extender.cluster.history import MOST_BYTES, MOST_DECISIONS, DecisionHistory
from extender.loops.pass_report import EvictionHistory
from extender.policy.decisions import (
    EvictionDecision,
    KeptPlacement,
    PlacementDecision,
    RankedNode,
    decode_decision,
    encode_decision,
)
from extender.web.history_api import history_handler
from tests.builders import NOW, minutes_ago, worker

LONGEST_NAME = "n" * 253


def placement(
    pod: str = "w", *, at: datetime = NOW, namespace: str = "default", nodes: tuple[str, ...] = ("a", "b")
) -> KeptPlacement:
    """An answer that prefers the first of these nodes."""
    return KeptPlacement(
        at=at,
        namespace=namespace,
        pod=pod,
        uid=f"uid-of-{pod}",
        pool="ducks",
        key=None,
        shadow=False,
        candidates=len(nodes),
        nodes=nodes,
        ranks=tuple(range(1, len(nodes) + 1)),
    )


def eviction(pod: str = "w", *, node: str = "a", outcome: str = "evicted") -> EvictionDecision:
    """A worker that went."""
    return EvictionDecision(
        at=NOW, namespace="default", pod=pod, uid=f"uid-of-{pod}", pool="ducks", node=node, outcome=outcome
    )


def kept(history: DecisionHistory) -> list[str]:
    """The pods of the decisions, oldest first."""
    return [decode_decision(line).pod for line in history.lines()]


async def asked(history: DecisionHistory, query: str) -> list[str]:
    """What the listener answers: the pods of the decisions, oldest first."""
    response = await history_handler(history)(make_mocked_request("GET", f"/decisions{query}"))
    body = getattr(response, "body", b"")
    assert response.status == 200, body
    return [json.loads(line)["pod"] for line in body.splitlines()]


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_the_oldest_is_forgotten_first() -> None:
    """Beyond the number of decisions that are kept."""
    history = DecisionHistory(now=lambda: NOW, most_decisions=3)
    for number in range(5):
        history.add(placement(f"w{number}"))
    assert kept(history) == ["w2", "w3", "w4"]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 253)), max_size=60), st.integers(0, 20_000))
def test_neither_bound_is_passed(shapes: list[tuple[int, int]], most_bytes: int) -> None:
    """Whatever the names are. What is counted is what the lines that are left add up to."""
    history = DecisionHistory(now=lambda: NOW, most_decisions=20, most_bytes=most_bytes)
    for number, (nodes, length) in enumerate(shapes):
        history.add(placement(f"w{number}", nodes=("n" * length,) * nodes))
        if number % 3:
            history.bound(worker(f"w{number - 1}", node="n" * length))
        assert len(history) <= 20
        assert history.size_bytes <= most_bytes
        assert (history.size_bytes > 0) == (len(history) > 0)


@pytest.mark.parametrize("name", ["ip-10-0-41-17.ec2.internal", LONGEST_NAME])
def test_all_decisions_take_10_mib_at_most(name: str) -> None:
    """Measured: the memory that Python gives out for a full ring, with names as they are and as long as they may be."""
    gc.collect()
    tracemalloc.start()
    try:
        history = DecisionHistory(now=lambda: NOW)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(MOST_DECISIONS + 500):
            history.add(placement(f"duckdb-worker-{number}", nodes=(name,) * 9))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= MOST_BYTES
    assert len(history) == (MOST_DECISIONS if name != LONGEST_NAME else len(history))


def test_what_falls_out_of_the_ring_leaves_nothing_behind() -> None:
    """One a second, every other one bound: nothing beside the ring grows."""
    now = NOW
    history = DecisionHistory(now=lambda: now, most_decisions=500)
    sizes = []
    for number in range(20_000):
        now += timedelta(seconds=1)
        history.add(placement(f"w{number:06}", at=now))
        if number % 2:
            history.bound(worker(f"w{number:06}", node="a"))
        if number in (999, 19_999):
            sizes.append((len(history), len(history._unbound), history.size_bytes))
    assert sizes[0] == sizes[1]


# -- where it went ----------------------------------------------------------------------------------------------------


def test_a_placement_is_joined_with_where_the_worker_was_bound() -> None:
    """And after how long; once."""
    now = NOW
    history = DecisionHistory(now=lambda: now)
    history.add(placement())
    now = NOW + timedelta(seconds=1.5)
    joined = history.bound(worker("w", node="b"))
    assert joined is not None
    assert (joined.node, joined.bound_after_seconds) == ("b", 1.5)
    assert [decode_decision(line) for line in history.lines()] == [joined.decision()]
    assert history.bound(worker("w", node="b")) is None


def test_the_last_answer_of_several_is_joined() -> None:
    """A pod that found no place is asked about again."""
    history = DecisionHistory(now=lambda: NOW)
    history.add(placement(at=minutes_ago(2)))
    history.add(placement(at=minutes_ago(1)))
    history.bound(worker("w", node="b"))
    found = [decode_decision(line) for line in history.lines()]
    assert [each.node for each in found if isinstance(each, PlacementDecision)] == [None, "b"]


def test_a_worker_without_a_node_or_without_an_answer_is_joined_with_nothing() -> None:
    """Another scheduler placed it, or its answer is forgotten already."""
    history = DecisionHistory(now=lambda: NOW, most_decisions=1)
    history.add(placement("forgotten"))
    history.add(placement("w"))
    assert history.bound(worker("w", node=None)) is None
    assert history.bound(worker("forgotten", node="a")) is None
    assert history.bound(worker("other", node="a")) is None


def test_after_others_were_forgotten_the_right_ones_are_joined() -> None:
    """The oldest and the newest that wait."""
    history = DecisionHistory(now=lambda: NOW, most_decisions=3)
    for number in range(8):
        history.add(placement(f"w{number}"))
    for name in ("w5", "w7"):
        history.bound(worker(name, node="b"))
    found = [decode_decision(line) for line in history.lines()]
    assert [(each.pod, each.node) for each in found if isinstance(each, PlacementDecision)] == [
        ("w5", "b"),
        ("w6", None),
        ("w7", "b"),
    ]


def test_what_says_nothing_is_left_out() -> None:
    """Of a worker without a key each node has its rank only."""
    assert b'{"node":"a","rank":1}' in encode_decision(placement().decision())


@pytest.mark.parametrize("decision", [placement().decision(), eviction()])
def test_a_decision_is_one_line_and_reads_back(decision: PlacementDecision | EvictionDecision) -> None:
    """With its kind in it."""
    line = encode_decision(decision)
    assert b"\n" not in line
    assert decode_decision(line) == decision


def test_a_placement_is_read_as_it_was_decided() -> None:
    """It is kept as a row of values; with a key each node says how much it was used, and whether it could choose it."""
    history = DecisionHistory(now=lambda: NOW)
    row = msgspec.structs.replace(placement(), key="acme", key_uses=(1.5, 0.0), reach=1)
    history.add(row)
    (found,) = map(decode_decision, history.lines())
    assert isinstance(found, PlacementDecision)
    assert found.best == (RankedNode(node="a", rank=1, key_uses=1.5, in_window=True), RankedNode(node="b", rank=2))
    assert (found.pod, found.uid, found.pool, found.key, found.candidates) == ("w", "uid-of-w", "ducks", "acme", 2)


def test_lines_are_those_of_the_moment_when_they_were_asked_for() -> None:
    """What comes or goes while they are read changes nothing: a reader lets others work in between."""
    history = DecisionHistory(now=lambda: NOW, most_decisions=2)
    for pod in ("w1", "w2"):
        history.add(placement(pod))
    lines = history.lines(latest_first=True)
    history.add(placement("w3"))
    assert [decode_decision(line).pod for line in lines] == ["w2", "w1"]


def test_decisions_are_logged_where_that_is_switched_on(caplog: pytest.LogCaptureFixture) -> None:
    """At each decision anew; the binding is a line of its own."""
    is_logged = False
    history = DecisionHistory(now=lambda: NOW, is_logged=lambda: is_logged)
    caplog.set_level("INFO")
    history.add(placement("quiet"))
    is_logged = True
    history.add(placement("w"))
    history.bound(worker("w", node="b"))
    told = [(record.message, record.__dict__["fields"]["pod"]) for record in caplog.records]
    assert told == [("decision", "w"), ("bound", "w")]


# -- evictions --------------------------------------------------------------------------------------------------------


def told(history: DecisionHistory) -> list[tuple[str, str]]:
    """Pods and what came of them."""
    found = [decode_decision(line) for line in history.lines()]
    return [(each.pod, each.outcome) for each in found if isinstance(each, EvictionDecision)]


def test_a_worker_that_stays_is_told_once_for_each_reason() -> None:
    """Passes come every half minute, and a floor lasts for hours: the ring is for what changed."""
    history = DecisionHistory(now=lambda: NOW)
    passes = EvictionHistory(history)
    a, b = worker("a", node="n"), worker("b", node="n")
    passes.passed("ducks", [a, b], {a.uid: "evicted", b.uid: "budgetBlocked", "other": "floor"})
    passes.passed("ducks", [b], {b.uid: "budgetBlocked"})
    passes.passed("geese", [], {})
    passes.passed("ducks", [b], {b.uid: "backingOff"})
    passes.passed("ducks", [], {})
    passes.passed("ducks", [b], {b.uid: "backingOff"})
    assert told(history) == [
        ("a", "evicted"),
        ("b", "budgetBlocked"),
        ("b", "backingOff"),
        ("b", "backingOff"),
    ]


# -- the listener -----------------------------------------------------------------------------------------------------


async def test_the_listener_gives_what_is_asked_for() -> None:
    """Of a pod, by name or namespace and name; of a node, what was chosen or taken from it; the last ones."""
    history = DecisionHistory(now=lambda: NOW)
    history.add(placement("w1"))
    history.add(placement("w1", namespace="other", nodes=("b", "a")))
    history.add(placement("w2", nodes=("c", "a")))
    history.add(eviction("w3", node="b"))
    history.bound(worker("w2", node="b"))
    assert await asked(history, "") == ["w1", "w1", "w2", "w3"]
    assert await asked(history, "?pod=w1") == ["w1", "w1"]
    assert await asked(history, "?pod=default/w1") == ["w1"]
    assert await asked(history, "?node=b") == ["w1", "w2", "w3"]
    assert await asked(history, "?node=a") == ["w1"]
    assert await asked(history, "?last=1") == ["w3"]
    assert await asked(history, "?last=0") == []
    assert await asked(history, '?pod=%22%5C"') == []


async def test_the_listener_says_how_far_back_it_goes() -> None:
    """So that "nothing" can be told from "too long ago"."""
    history = DecisionHistory(now=lambda: NOW)
    history.add(placement(at=minutes_ago(90)))
    response = await history_handler(history)(make_mocked_request("GET", "/decisions?pod=other"))
    assert response.headers["Warmnode-Oldest"] == f"{minutes_ago(90):%Y-%m-%dT%H:%M:%SZ}"


async def test_a_number_that_is_none_is_refused() -> None:
    """In one line."""
    response = await history_handler(DecisionHistory(now=lambda: NOW))(make_mocked_request("GET", "/decisions?last=x"))
    assert response.status == 400
