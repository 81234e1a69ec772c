"""The webhook's handlers: what they tell besides their answer."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime, timedelta

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request

from extender.cluster.history import DecisionHistory
from extender.cluster.node_ranking import NodeRanking
from extender.cluster.state import ClusterState
from extender.model import AgeSource, BusyVictims, Pool
from extender.policy.decisions import PlacementDecision, PreemptionDecision, decode_decision
from extender.policy.pools import PoolsInForce
from extender.policy.scoring import Ranking
from extender.telemetry import Metrics
from extender.web.webhook import Webhook
from tests.builders import NOW, clock_of, node, worker
from tests.listening import synced_state

WORKER = {"metadata": {"name": "w", "namespace": "default", "uid": "u", "labels": {"warmnode.dev/pool": "ducks"}}}
PRIORITIZE = {"Pod": WORKER, "NodeNames": ["a"]}
PREEMPT = {"Pod": WORKER, "NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "x"}], "NumPDBViolations": 0}}}


class Calls:
    """A webhook, and how often it said that a scheduler calls."""

    def __init__(self, state: ClusterState, busy_victims: BusyVictims = BusyVictims.LAST_RESORT) -> None:
        self.state = state
        self.count = 0
        self.metrics = Metrics()
        self.history = DecisionHistory(now=lambda: NOW)
        self.is_clock_off = False
        self.webhook = Webhook(
            state=state,
            pools=PoolsInForce(Pool(name="", busy_victims=busy_victims)),
            metrics=self.metrics,
            history=self.history,
            called=self._called,
            clock=clock_of(lambda: NOW, ahead=lambda: timedelta(hours=self.is_clock_off)),
        )

    def _called(self) -> None:
        self.count += 1

    async def post(self, path: str, body: object) -> int:
        """Call it: the status."""
        loop = asyncio.get_running_loop()
        protocol = BaseProtocol(loop)
        protocol.connection_made(asyncio.Transport())
        content = StreamReader(protocol, 2**30, loop=loop)
        content.feed_data(json.dumps(body).encode())
        content.feed_eof()
        known = self.count, len(self.history), self.metrics.exposition()
        response = await self.webhook.handler()(make_mocked_request("POST", path, payload=content))
        assert (self.count, len(self.history), self.metrics.exposition()) == known  # all of it is told after the answer
        await asyncio.sleep(0)
        assert isinstance(response, web.Response)
        return response.status

    def counted(self, verb: str, outcome: str) -> float:
        """Read the metric."""
        labels = {"verb": verb, "outcome": outcome}
        return self.metrics.registry.get_sample_value("warmnode_webhook_requests_total", labels) or 0.0


async def test_with_a_clock_that_is_off_victims_are_not_judged() -> None:
    """A claimed worker may look idle then. Scores need no clock."""
    calls = Calls(synced_state([node("a")]))
    calls.is_clock_off = True
    assert await calls.post("/preempt", PREEMPT) == 200
    assert calls.counted("preempt", "clockOff") == 1
    assert await calls.post("/prioritize", PRIORITIZE) == 200
    assert calls.counted("prioritize", "scored") == 1


@pytest.mark.parametrize(("path", "body"), [("/prioritize", PRIORITIZE), ("/preempt", PREEMPT)])
async def test_a_call_that_is_answered_shows_that_a_scheduler_calls(path: str, body: object) -> None:
    """`doctor` and the alert on a scheduler that does not call go by it. A body that is no request shows nothing."""
    calls = Calls(synced_state([node("a")]))
    assert await calls.post(path, body) == 200
    assert calls.count == 1
    assert await calls.post(path, "no request") == 400
    assert calls.count == 1


async def test_a_call_before_everything_is_loaded_is_no_call_that_was_answered() -> None:
    """The scheduler goes on without us."""
    calls = Calls(ClusterState(clock=lambda: NOW))
    assert await calls.post("/prioritize", PRIORITIZE) == 503
    assert calls.counted("prioritize", "notSynced") == 1
    assert calls.count == 0


async def test_before_everything_is_loaded_victims_are_not_judged() -> None:
    """They go back as they came: an error would end the preemption."""
    calls = Calls(ClusterState(clock=lambda: NOW))
    assert await calls.post("/preempt", PREEMPT) == 200
    assert calls.counted("preempt", "notSynced") == 1


class Broken(NodeRanking):
    """A part of the state with a bug."""

    def as_of(self, now: datetime) -> Ranking:
        raise ZeroDivisionError("a bug")


@pytest.mark.parametrize(("path", "body"), [("/prioritize", PRIORITIZE), ("/preempt", PREEMPT)])
async def test_a_bug_is_counted(path: str, body: object) -> None:
    """It is the one outcome to wake somebody for, and the scheduler goes on without us."""
    state = ClusterState(clock=lambda: NOW)
    state.begin()
    state.ranking = Broken(state.objects, state.ages, age=AgeSource.FIRST_SEEN, ending_rules=None)
    calls = Calls(state)
    assert await calls.post(path, body) == 500
    assert calls.counted(path.strip("/"), "crashed") == 1
    assert calls.count == 0


async def test_a_placement_is_remembered_with_its_best_nodes() -> None:
    """How many candidates there were, and which nodes came first, with their rank among all nodes."""
    calls = Calls(synced_state([node("a"), node("b"), node("c")]))
    ranks = {name: place for place, name in enumerate(calls.state.ranking.as_of(NOW), 1)}
    assert await calls.post("/prioritize", PRIORITIZE | {"NodeNames": ["a", "b", "x"]}) == 200
    (decision,) = map(decode_decision, calls.history.lines())
    assert isinstance(decision, PlacementDecision)
    assert (decision.namespace, decision.pod, decision.uid, decision.pool) == ("default", "w", "u", "ducks")
    assert (decision.candidates, decision.node, decision.shadow) == (3, None, False)
    assert [(each.node, each.rank) for each in decision.best] == sorted(
        ((name, ranks[name]) for name in ("a", "b")), key=lambda pair: pair[1]
    )


async def test_a_pod_of_no_pool_is_not_remembered() -> None:
    """Nothing was decided."""
    calls = Calls(synced_state([node("a")]))
    stray = {"metadata": {"name": "s", "namespace": "default", "uid": "s"}}
    assert await calls.post("/prioritize", {"Pod": stray, "NodeNames": ["a"]}) == 200
    assert list(calls.history.lines()) == []


async def test_a_veto_of_a_preemption_is_remembered_and_an_echo_is_not() -> None:
    """The worker ``x`` is busy and protected in the first, and not known in the second."""
    calls = Calls(synced_state([node("a")], [worker("x", uid="x", node="a", priority=0)]), BusyVictims.PROTECT)
    assert await calls.post("/preempt", PREEMPT) == 200
    assert await calls.post("/preempt", {**PREEMPT, "NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "y"}]}}}) == 200
    (decision,) = map(decode_decision, calls.history.lines())
    assert isinstance(decision, PreemptionDecision)
    assert (decision.pod, decision.verdict, decision.node, decision.candidates) == ("w", "vetoed", None, 1)


@pytest.mark.parametrize(("path", "body"), [("/prioritize", PRIORITIZE), ("/preempt", PREEMPT)])
async def test_a_decision_is_one_line_at_debug(path: str, body: object, caplog: pytest.LogCaptureFixture) -> None:
    """With the pod that it was for. At INFO there is none: there are hundreds a second."""
    calls = Calls(synced_state([node("a")]))
    for level, lines in ((logging.INFO, 0), (logging.DEBUG, 1)):
        caplog.clear()
        with caplog.at_level(level, "warmnode.webhook"):
            assert await calls.post(path, body) == 200
        told = [(record.message, vars(record)["fields"]["pod"]) for record in caplog.records]
        assert told == [(path.strip("/"), "w")] * lines
