"""The claim API over HTTP: each request has one documented answer, and what it leaves on the pod."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import msgspec
import pytest
from aiohttp import web
from msgspec import structs

from extender.cluster.history import DecisionHistory
from extender.cluster.state import ClusterState
from extender.kube.api_client import KubeClient
from extender.kube.claim_store import ClaimStore, format_claim
from extender.kube.errors import Forbidden, Unavailable
from extender.kube.objects import (
    CLAIM,
    CLAIM_ENDED,
    CLAIMED_BY,
    DELETION_COST,
    DO_NOT_DISRUPT,
    IDLE_SINCE,
    PodObject,
    pod_from,
)
from extender.model import CacheKeyRule
from extender.policy.affinity import KeyUse
from extender.policy.claim_spread import Spread
from extender.policy.claims import Claimant, PoolClaims
from extender.policy.decisions import ClaimDecision, decode_decision
from extender.policy.defaults import ClaimRules, PoolCosts
from extender.policy.deletion_cost import busy_cost
from extender.policy.pools import POOL_LABEL
from extender.telemetry import Metrics
from extender.web.authorization import Authorization
from extender.web.callers import Anybody, Caller, NotAuthenticated
from extender.web.claim_answers import ClaimAnswers
from extender.web.claim_wire import ClaimOutcome
from extender.web.claiming import REFUSALS_IN_ONE_CALL, Claiming
from extender.web.claims_api import BURST, CALLS_AT_ONCE, CALLS_PER_SECOND, COLLECTION, WAITING_AT_ONCE, ClaimsApi
from extender.web.held_claims import HeldClaims
from extender.web.limits import RateLimit
from extender.web.openapi import DOCUMENT_PATH, document_handler
from extender.web.refusals import Reason
from extender.web.requests import route
from extender.web.server import Address, Listener
from extender.web.wanted_workers import WantedWorkers
from tests.builders import NOW, by_label, claim, clock_of, ledger, minutes_ago, node
from tests.documented import DOCUMENT, holds, is_promised
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Fault, Where, answer, reset
from tests.fakes.store import PODS, Change

CLAIMS = "/v1/pools/ducks/claims"
TEN_MINUTES_AGO = minutes_ago(10)
COSTS = PoolCosts()
SETTINGS = PoolClaims(
    rules=ClaimRules(),
    costs=COSTS,
    dry_run=False,
    is_by_label=True,
)


class Names:
    """Callers by their header ``user``; without it nobody knows who calls."""

    async def identify(self, request: web.BaseRequest) -> Caller:
        user = request.headers.get("user")
        if user is None:
            raise NotAuthenticated("say who you are")
        return Caller(user=user, groups=("system:authenticated",))


class Rbac:
    """Answers SubjectAccessReviews. ``allowed`` are (user, verb, pool, namespace), None: everything."""

    def __init__(self) -> None:
        self.allowed: set[tuple[str, str, str, str]] | None = None
        self.asked: list[dict[str, Any]] = []
        self.problem: Exception | None = None

    async def send(self, method: str, path: str, body: bytes, *, timeout: timedelta = timedelta(1)) -> bytes:  # noqa: ASYNC109
        assert (method, path) == ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews")
        spec = json.loads(body)["spec"]
        self.asked.append(spec)
        if self.problem is not None:
            raise self.problem
        about = spec["resourceAttributes"]
        assert (about["group"], about["resource"]) == ("warmnode.dev", "claims")
        entry = (spec["user"], about["verb"], about["name"], about["namespace"])
        allowed = self.allowed is None or entry in self.allowed
        return json.dumps({"status": {"allowed": allowed, "reason": "" if allowed else "RBAC says no"}}).encode()


class Desk:
    """An API server, one replica before it whose state follows at once, and a way to call it. The clock is ours."""

    def __init__(self, server: FakeApiServer, client: KubeClient, *, at_once: int = CALLS_AT_ONCE) -> None:
        self.server = server
        self.now = NOW
        self.skew: timedelta | None = None
        self.jump: timedelta | None = None  # the skew, for all who are asked after the call was let in
        self.settings: dict[str, PoolClaims | None] = {}
        self.unlisted = SETTINGS
        self.rbac = Rbac()
        self.metrics = Metrics()
        self.history = DecisionHistory(now=lambda: self.now)
        self.state = ClusterState(clock=lambda: self.now)
        self.state.replace_nodes([node("old"), node("new"), node("cordoned", unschedulable=True)])
        self.state.take_ledger(ledger({"uid-of-old": minutes_ago(500), "uid-of-new": minutes_ago(50)}))
        self.state.begin()
        self.follows = True
        server.store.listeners.append(self._follow)
        numbers = iter(range(1000))
        clock = replace(clock_of(lambda: self.now), skew=lambda: self.jump)
        held = HeldClaims(
            state=self.state,
            claims=ClaimStore(client, by_label),
            clock=clock,
            lost_race=self.metrics.claim_lost_races.inc,
        )
        self.knows_now = True
        self.claiming = Claiming(
            state=self.state,
            held=held,
            clock=clock,
            nonce=lambda: f"n{next(numbers)}",
            knows_now=lambda: self.knows_now,
            sleep=lambda seconds: asyncio.sleep(0),
        )
        self.wanted = WantedWorkers(
            state=self.state,
            lines=self.claiming.lines,
            settings=lambda pool: self.settings.get(pool, SETTINGS),
            listed=lambda: self.settings.keys(),
            clock=clock,
        )
        self.api = ClaimsApi(
            answers=ClaimAnswers(
                claiming=self.claiming,
                held=held,
                wanted=self.wanted,
                state=self.state,
                history=self.history,
            ),
            state=self.state,
            callers=Names(),
            authorization=Authorization(self.rbac),
            settings=lambda pool: self.settings.get(pool, SETTINGS),
            unlisted=lambda: self.unlisted,
            namespace="warmnode",
            metrics=self.metrics,
            clock=replace(clock_of(lambda: self.now), skew=lambda: self.skew),
            limit=RateLimit(per_second=CALLS_PER_SECOND, burst=BURST, timer=lambda: 0.0),
            at_once=at_once,
        )
        self.url = ""

    def _follow(self, change: Change) -> None:
        if change.resource == PODS and self.follows:
            pod = pod_from(msgspec.json.decode(change.after.raw, type=PodObject), by_label)
            (self.state.delete_pod if change.deleted else self.state.upsert_pod)(pod)

    def worker(
        self,
        name: str,
        *,
        on: str = "old",
        idle: datetime | None = TEN_MINUTES_AGO,
        ready: bool = True,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Create a worker of pool ducks."""
        marks = {} if idle is None else {IDLE_SINCE: idle.isoformat()}
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": minutes_ago(40).isoformat()}
        tree = {
            "metadata": {
                "name": name,
                "labels": {POOL_LABEL: "ducks"},
                "annotations": {**marks, **(annotations or {})},
            },
            "spec": {"nodeName": on},
            "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [condition]},
        }
        self.server.store.create(PODS, "default", tree)

    def change(self, name: str, patch: dict[str, Any]) -> None:
        """Change a pod behind the back of the replica."""
        self.server.store.patch(PODS, ("default", name), patch)

    def meta(self, name: str) -> dict[str, Any]:
        """The pod's metadata as stored."""
        found: dict[str, Any] = self.server.store.get(PODS, ("default", name)).tree["metadata"]
        return found

    def annotation(self, name: str, key: str) -> str | None:
        value: str | None = self.meta(name).get("annotations", {}).get(key)
        return value

    async def call(
        self,
        method: str,
        path: str = CLAIMS,
        body: Any = None,
        *,
        user: str | None = "front",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Call: status, JSON, headers. A body of bytes is sent as it is."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        who = {} if user is None else {"user": user}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=content, headers={**who, **(headers or {})}) as response,
        ):
            text = await response.read()
            tree: Any = json.loads(text) if text else None
            if path != DOCUMENT_PATH:
                is_promised(method, path, response.status, tree, response.headers)
            return response.status, tree, response.headers

    async def claim(self, claimant: str = "query-1", *, user: str = "front", **body: Any) -> tuple[int, Any]:
        """Claim a worker of pool ducks."""
        status, tree, _ = await self.call("POST", body={"claimant": claimant, **body}, user=user)
        return status, tree

    def counted(self, verb: str, outcome: str) -> float:
        """Read the metric."""
        labels = {"verb": verb, "outcome": str(outcome)}
        return self.metrics.registry.get_sample_value("warmnode_claim_requests_total", labels) or 0.0


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what happens in the same loop."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """``param`` is how many calls are taken at once."""
    for name in ("HTTP_PROXY", "ALL_PROXY", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    async with FakeApiServer() as server:
        client = await KubeClient.connect(kubeconfig=str(server.write_kubeconfig(tmp_path / "config")), user_agent="t")
        desk = Desk(server, client, at_once=getattr(request, "param", CALLS_AT_ONCE))
        exact = {("GET", DOCUMENT_PATH): document_handler()}
        handler = route(exact, templates=desk.api.routes())
        listener = Listener(name="claims", address=Address("127.0.0.1", 0), handler=handler)
        await listener.start()
        desk.url = f"http://{listener.address}"
        calling = asyncio.create_task(desk.claiming.call_waiting())
        try:
            yield desk
        finally:
            calling.cancel()
            await listener.stop()
            await client.close()


async def test_a_bug_is_counted_and_answered_in_one_line(desk: Desk) -> None:
    """It is the one outcome to wake somebody for: an answer of 500 that is not counted shows nowhere."""
    desk.rbac.problem = ZeroDivisionError("an inside")
    status, body, _ = await desk.call("POST", body={"claimant": "query-1"})
    assert (status, body["reason"]) == (500, "crashed")
    assert "an inside" not in body["detail"]
    assert desk.counted("create", Reason.CRASHED) == 1


# --- a claim -----------------------------------------------------------------------------------------------------


async def test_a_claim_gives_the_worker_on_the_warmest_node(desk: Desk) -> None:
    """With all that a caller needs to reach it, and a path to renew and release it."""
    desk.worker("cold", on="new")
    desk.worker("warm", on="old")
    status, body, headers = await desk.call("POST", body={"claimant": "query-1", "ttl": "90s"})
    assert status == 201
    assert body == {
        "id": "default.warm.n0",
        "pool": "ducks",
        "claimant": "query-1",
        "namespace": "default",
        "pod": "warm",
        "uid": desk.meta("warm")["uid"],
        "ip": "10.0.0.7",
        "node": "old",
        "firstSeen": minutes_ago(500).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "since": "2026-11-01T12:00:00.000Z",
        "expires": "2026-11-01T12:01:30.000Z",
    }
    assert headers["Location"] == f"{CLAIMS}/default.warm.n0"
    assert desk.counted("create", ClaimOutcome.CLAIMED) == 1


async def test_a_claim_stands_on_the_pod_with_the_busy_cost_in_one_write(desk: Desk) -> None:
    """Annotation, the claimant's label and the cost: a moment with one of them alone does not exist."""
    old_cost = "-1000"
    desk.worker("w", annotations={DELETION_COST: old_cost, "warmnode.dev/deletion-cost-owner": old_cost})
    await desk.claim()
    writes = [each for each in desk.server.requests if each.method == "PATCH"]
    assert len(writes) == 1
    record = json.loads(desk.annotation("w", CLAIM) or "")
    assert (record["user"], record["pool"], record["claimant"]) == ("front", "ducks", "query-1")
    assert desk.meta("w")["labels"][CLAIMED_BY] == Claimant(user="front", pool="ducks", name="query-1").key
    assert desk.annotation("w", DELETION_COST) == str(busy_cost(desk.state.order["old"]))
    assert desk.annotation("w", DO_NOT_DISRUPT) is None


async def test_workers_are_handed_out_by_node_then_idle_longest_then_uid(desk: Desk) -> None:
    desk.worker("n", on="new", idle=minutes_ago(600))
    desk.worker("o2", on="old", idle=minutes_ago(20))
    desk.worker("o1", on="old", idle=minutes_ago(30))
    desk.worker("c", on="cordoned", idle=minutes_ago(900))
    desk.worker("elsewhere", on="unknown", idle=minutes_ago(900))
    pods = [(await desk.claim(f"q{number}"))[1].get("pod") for number in range(4)]
    assert pods == ["o1", "o2", "n", None]


KEYED = replace(SETTINGS, cache_key=CacheKeyRule(label="tenant", window=2))


async def test_a_cache_key_decides_among_the_oldest_nodes_with_an_idle_worker(desk: Desk) -> None:
    """Window 2: of the two oldest that have one to hand out the one that knows the key, and then the next two.

    Without a key, with one that nobody knows, and in a pool without the setting, age decides.
    """
    desk.state.upsert_node(node("newest"))
    for name in ("new", "newest", "newest"):
        desk.state.keys.history.record(name, "acme", NOW)
    for number, on in enumerate(("old", "old", "old", "old", "new", "newest")):
        desk.worker(f"w{number}", on=on)
    assert (await desk.claim("no setting", cacheKey="acme"))[1]["node"] == "old"
    desk.settings["ducks"] = KEYED
    assert (await desk.claim("no key"))[1]["node"] == "old"
    assert (await desk.claim("unknown key", cacheKey="nobody"))[1]["node"] == "old"
    assert [(await desk.claim(f"q{number}", cacheKey="acme"))[1].get("node") for number in range(4)] == [
        *("new", "newest", "old", None),
    ]


async def test_a_cache_key_decides_in_the_working_set_of_those_that_work(desk: Desk) -> None:
    """Without slack a claim takes what age takes: the newest node, which acme used most, only once no other has one.

    With some the newest is in the set for the first claim.
    """
    desk.state.upsert_node(node("newest"))
    for name in ("new", "newest", "newest"):
        desk.state.keys.history.record(name, "acme", NOW)
    for number, on in enumerate(("old", "old", "new", "newest", "newest")):
        desk.worker(f"w{number}", on=on)
    desk.settings["ducks"] = replace(SETTINGS, cache_key=CacheKeyRule(label="tenant", slack=0))
    assert [(await desk.claim(f"q{number}", cacheKey="acme"))[1].get("node") for number in range(5)] == [
        *("old", "old", "new", "newest", "newest"),
    ]
    assert desk.state.where.needed("ducks").at_work == 5
    desk.settings["ducks"] = replace(SETTINGS, cache_key=CacheKeyRule(label="tenant", slack=0.25))
    for number, on in enumerate(("old", "newest")):
        desk.worker(f"later{number}", on=on)
    assert (await desk.claim("late", cacheKey="acme"))[1]["node"] == "newest"


async def test_a_worker_that_is_handed_out_counts_for_the_key_once(desk: Desk) -> None:
    """A pool of warm workers without the label learns from its claims; a repeated request is no second one."""
    desk.settings["ducks"] = KEYED
    desk.worker("w")
    await desk.claim(cacheKey="acme")
    await desk.claim(cacheKey="acme")
    assert desk.state.keys.history.uses("old", desk.now) == [KeyUse(key="acme", workers=1.0)]


@pytest.mark.parametrize("key", ["", "x" * 64, "a/b", "-a", "a b", 7, ["a"]])
async def test_a_cache_key_that_no_label_can_have_is_refused(desk: Desk, key: object) -> None:
    desk.worker("w")
    status, body = await desk.claim(cacheKey=key)
    assert (status, body["reason"]) == (400, "badRequest")
    assert "cacheKey" in body["detail"]


async def test_an_ending_node_comes_last(desk: Desk) -> None:
    """However old it is: its worker would have to move soon."""
    desk.worker("o", on="old")
    desk.worker("n", on="new")
    desk.state.ranking.as_of(NOW).put("old", (1, *desk.state.order["old"]))
    assert (await desk.claim("a"))[1]["node"] == "new"
    desk.state.ranking.as_of(NOW).put("old", (1, *desk.state.order["old"]))
    assert (await desk.claim("b"))[1]["node"] == "old"


async def test_nothing_idle_is_404_and_says_why(desk: Desk) -> None:
    desk.worker("busy", idle=None)
    desk.worker("unready", ready=False)
    desk.worker("leaving", on="cordoned")
    desk.worker("claimed")
    await desk.claim("first")
    status, body = await desk.claim("second")
    assert (status, body["reason"]) == (404, "noneIdle")
    assert body["workers"] == {"busy": 1, "claimed": 1, "notReady": 1, "leavingNode": 1}
    assert "1 busy, 1 claimed" in body["detail"]
    assert desk.counted("create", Reason.NONE_IDLE) == 1


async def test_an_unknown_pool_is_404(desk: Desk) -> None:
    """By label: no pod has it. By configuration: it is not listed. A listed one without workers has nothing idle."""
    status, body = await desk.claim()
    assert (status, body["reason"]) == (404, "unknownPool")
    desk.settings["ducks"] = None
    status, body = await desk.claim()
    assert (status, body["reason"]) == (404, "unknownPool")
    assert "configuration" in body["detail"]
    desk.settings["ducks"] = replace(SETTINGS, is_by_label=False)
    status, body = await desk.claim()
    assert (status, body["reason"], body["workers"]) == (404, "noneIdle", {"busy": 0, "claimed": 0})


async def test_a_claim_in_a_pool_that_is_listed_no_more_can_be_released(desk: Desk) -> None:
    """And nothing else. By a user with the permission in warmnode's own namespace, and not in dry-run."""
    desk.worker("a")
    held = (await desk.claim())[1]
    desk.settings["ducks"] = None
    assert (await desk.call("PUT", path_of(held)))[1]["reason"] == "unknownPool"
    assert (await desk.call("DELETE", f"{CLAIMS}/default.a.other"))[1]["reason"] == "noClaim"
    desk.unlisted = replace(SETTINGS, dry_run=True)
    assert (await desk.call("DELETE", path_of(held)))[1]["reason"] == "dryRun"
    desk.unlisted = SETTINGS
    desk.rbac.allowed = {("front", "delete", "ducks", "warmnode")}
    assert (await desk.call("DELETE", path_of(held)))[0] == 204
    assert desk.annotation("a", CLAIM) is None


# --- again -------------------------------------------------------------------------------------------------------


async def test_the_same_claimant_gets_the_same_worker_prolonged(desk: Desk) -> None:
    """200, the same claim, at least ttl from now. Another claimant, or user, gets another worker."""
    desk.worker("a")
    desk.worker("b")
    desk.worker("c")
    first = (await desk.claim())[1]
    desk.now += timedelta(seconds=30)
    status, again = await desk.claim()
    assert status == 200
    assert again == {**first, "expires": "2026-11-01T12:01:30.000Z"}
    assert (await desk.claim(ttl="1s"))[1] == again, "never shorter"
    assert (await desk.claim("other"))[1]["pod"] != first["pod"]
    assert (await desk.claim(user="other"))[1]["pod"] not in (first["pod"], None)
    assert desk.counted("create", ClaimOutcome.FOUND) == 2


async def test_a_first_claim_its_renewal_and_its_release_are_one_write_each(desk: Desk) -> None:
    """What is held is known from the watch and from what was written here: the API server is read for none of them."""
    desk.worker("a")
    held = (await desk.claim())[1]
    await desk.call("PUT", path_of(held))
    await desk.call("DELETE", path_of(held))
    assert [each.method for each in desk.server.requests] == ["PATCH"] * 3


async def test_a_claim_that_the_watch_has_shown_is_found_without_a_look(desk: Desk) -> None:
    """Whoever made it: another replica, or this one before it was started again."""
    desk.worker("a", idle=minutes_ago(20))
    desk.worker("b")
    claimant = Claimant(user="front", pool="ducks", name="query-1")
    annotations = {CLAIM: format_claim(claim(id="default.b.x", pool="ducks", user="front", claimant="query-1"))}
    desk.change("b", {"metadata": {"annotations": annotations, "labels": {CLAIMED_BY: claimant.key}}})
    status, found = await desk.claim()
    assert (status, found["id"]) == (200, "default.b.x")
    assert [each.method for each in desk.server.requests] == ["PATCH"]


@pytest.mark.parametrize("how", ["header", "retry", "seen", "behind"])
async def test_a_claim_is_found_by_a_replica_that_knows_nothing_of_it(desk: Desk, how: str) -> None:
    """It asks the API server where the caller says that it repeats, where the claimant called here within a minute, and
    while the watch is known to be behind. After that minute, and without a word, it goes by what it knows."""
    desk.worker("a")
    desk.worker("b")
    desk.follows = False
    first = (await desk.claim())[1]
    for pod in list(desk.state.pods.values()):
        desk.state.upsert_pod(structs.replace(pod, claim=None))
    desk.now += timedelta(seconds=59 if how == "seen" else 61)
    desk.knows_now = how != "behind"
    headers = {"Idempotency-Key": "1"} if how == "header" else {}
    body = {"claimant": "query-1", "retry": how == "retry"}
    status, again, _ = await desk.call("POST", body=body, headers=headers)
    assert (status, again["pod"]) == (200, first["pod"])


async def test_who_comes_again_because_nothing_is_idle_costs_the_api_server_nothing(desk: Desk) -> None:
    """Nothing was written for it, so there is nothing to ask about."""
    desk.worker("a", idle=None)
    for _ in range(3):
        assert (await desk.claim())[0] == 404
    assert desk.server.requests == []


async def test_a_worker_is_given_back_where_the_watch_shows_that_another_replica_was_first(desk: Desk) -> None:
    """Two replicas get two first requests of one claimant: whose answer is later gives back what nobody was told of."""
    desk.worker("a")
    desk.worker("b", on="new")
    claimant = Claimant(user="front", pool="ducks", name="query-1")
    annotations = {CLAIM: format_claim(claim(id="default.b.x", pool="ducks", user="front", claimant="query-1"))}

    async def overtake(request: web.Request) -> None:
        desk.change("b", {"metadata": {"annotations": annotations, "labels": {CLAIMED_BY: claimant.key}}})

    desk.server.fail(Where.WRITE, overtake)
    status, found = await desk.claim()
    assert (status, found["id"]) == (200, "default.b.x")
    assert desk.annotation("a", CLAIM) is None


async def test_two_that_were_both_told_stay_until_they_are_released_or_run_out(desk: Desk) -> None:
    """Whoever asks then gets the one that is held longest."""
    claimant = Claimant(user="front", pool="ducks", name="query-1")
    for name, since in (("a", NOW), ("b", NOW - timedelta(seconds=1))):
        desk.worker(name)
        text = format_claim(claim(id=f"default.{name}.x", pool="ducks", user="front", claimant="query-1", since=since))
        desk.change(name, {"metadata": {"annotations": {CLAIM: text}, "labels": {CLAIMED_BY: claimant.key}}})
    assert (await desk.claim())[1]["id"] == "default.b.x"
    assert desk.annotation("a", CLAIM) is not None


async def test_a_claim_of_a_worker_that_is_going_is_none(desk: Desk) -> None:
    """The claimant gets another one."""
    desk.worker("a", idle=minutes_ago(20))
    desk.worker("b")
    assert (await desk.claim())[1]["pod"] == "a"
    desk.server.store.delete(PODS, ("default", "a"), {})
    assert (await desk.claim())[1]["pod"] == "b"


async def test_an_expired_claim_is_free_for_others_after_five_seconds(desk: Desk) -> None:
    """Until then it is its claimant's, who may have renewed it at a replica whose clock is behind."""
    desk.worker("a")
    first = (await desk.claim(ttl="10s"))[1]
    desk.now += timedelta(seconds=14, milliseconds=999)
    assert (await desk.claim("other"))[0] == 404
    status, again = await desk.claim(ttl="10s")
    assert (status, again["id"]) == (200, first["id"])
    desk.now += timedelta(seconds=15)
    status, other = await desk.claim("other")
    assert (status, other["pod"]) == (201, "a")
    assert desk.annotation("a", CLAIM_ENDED) == again["expires"], "idle since the end of the last claim"
    assert (await desk.claim())[0] == 404, "it is another's now"


# --- several, and waiting ----------------------------------------------------------------------------------------


async def test_several_are_claimed_at_once_each_with_a_claim_of_its_own(desk: Desk) -> None:
    """From the warmest nodes on, for claimants of their own names: the same request again gets the same workers."""
    for name, on in (("a", "old"), ("b", "old"), ("c", "new"), ("d", "new")):
        desk.worker(name, on=on)
    status, body, headers = await desk.call("POST", body={"claimant": "q", "count": 3})
    assert (status, headers["Location"]) == (201, CLAIMS)
    assert [(each["claimant"], each["node"]) for each in body["claims"]] == [
        ("q/1", "old"),
        ("q/2", "old"),
        ("q/3", "new"),
    ]
    assert len({each["id"] for each in body["claims"]}) == 3
    status, again, _ = await desk.call("POST", body={"claimant": "q", "count": 3})
    assert (status, [each["id"] for each in again["claims"]]) == (200, [each["id"] for each in body["claims"]])
    assert (await desk.call("DELETE", path_of(body["claims"][1])))[0] == 204
    assert (await desk.claim("other"))[1]["pod"] == body["claims"][1]["pod"]


async def test_with_fewer_workers_than_are_enough_none_is_claimed(desk: Desk) -> None:
    """Those that were taken are given back before anybody was told. Never more than count, nor fewer than atLeast."""
    for name in ("a", "b"):
        desk.worker(name)
    status, body, _ = await desk.call("POST", body={"claimant": "q", "count": 3})
    assert (status, body["reason"]) == (404, "noneIdle")
    assert [desk.annotation(name, CLAIM) for name in ("a", "b")] == [None, None]
    status, body, _ = await desk.call("POST", body={"claimant": "q", "count": 3, "atLeast": 2})
    assert (status, len(body["claims"])) == (201, 2)
    assert (await desk.call("POST", body={"claimant": "p", "count": 3, "atLeast": 1}))[0] == 404


async def test_what_was_told_before_is_not_given_back_with_the_rest(desk: Desk) -> None:
    """A second request for more than there are leaves what the first one got."""
    for name in ("a", "b"):
        desk.worker(name)
    held = (await desk.call("POST", body={"claimant": "q", "count": 1}))[1]["claims"][0]
    assert (await desk.call("POST", body={"claimant": "q", "count": 3}))[0] == 404
    assert (await desk.call("GET"))[1]["claims"] == [{**held, "expires": held["expires"]}]


async def test_nobody_is_counted_where_nobody_is_asked_who_it_is(desk: Desk) -> None:
    """Only this machine reaches such a listener, and all who do are one caller."""
    desk.api.callers = Anybody()
    assert {(await desk.call("GET"))[0] for _ in range(BURST + 1)} == {200}


async def test_each_of_several_counts_against_the_rate(desk: Desk) -> None:
    answers = [(await desk.call("POST", body={"claimant": "q", "count": 100, "atLeast": 1}))[0] for _ in range(3)]
    assert answers == [404, 404, 429]


async def test_a_call_waits_until_a_worker_is_idle(desk: Desk) -> None:
    desk.worker("a", idle=None)
    call = asyncio.create_task(desk.call("POST", f"{CLAIMS}?wait=30s", {"claimant": "q"}))
    await until(lambda: desk.claiming.lines.waiting("ducks") == 1)
    desk.change("a", {"metadata": {"annotations": {IDLE_SINCE: TEN_MINUTES_AGO.isoformat()}}})
    status, body, _ = await call
    assert (status, body["pod"]) == (201, "a")
    assert not desk.claiming.lines.has("ducks")


async def test_who_waits_longest_is_first_and_who_does_not_wait_is_last(desk: Desk) -> None:
    """So a burst of calls that wait is served in its order, and nobody who comes by takes a worker from it."""
    desk.worker("a", idle=None)
    calls = []
    for number in range(3):
        calls.append(asyncio.create_task(desk.call("POST", f"{CLAIMS}?wait=30s", {"claimant": f"q{number}"})))
        await until(lambda number=number: desk.claiming.lines.waiting("ducks") == number + 1)  # type: ignore[misc]
    desk.change("a", {"metadata": {"annotations": {IDLE_SINCE: TEN_MINUTES_AGO.isoformat()}}})
    assert (await desk.claim("in a hurry"))[1]["reason"] == "noneIdle"
    for call in calls:
        status, held, _ = await call
        assert (status, held["pod"]) == (201, "a")
        assert sum(each.done() for each in calls) == calls.index(call) + 1
        assert (await desk.call("DELETE", path_of(held)))[0] == 204


async def test_a_line_whose_callers_are_all_served_keeps_nobody_out(desk: Desk) -> None:
    """404 would be wrong: there are more workers than callers that wait."""
    desk.worker("a", idle=None)
    call = asyncio.create_task(desk.call("POST", f"{CLAIMS}?wait=30s", {"claimant": "q"}))
    await until(lambda: desk.claiming.lines.has("ducks"))
    writing, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: web.Request) -> None:
        writing.set()
        await go_on.wait()

    desk.server.fail(Where.WRITE, held)
    desk.worker("b")
    await writing.wait()
    desk.worker("c")
    assert (await desk.claim("in a hurry"))[1]["pod"] == "c"
    go_on.set()
    assert (await call)[1]["pod"] == "b"


async def test_waiting_ends(desk: Desk) -> None:
    """404 as without it, and nobody is in the line any more."""
    desk.worker("a", idle=None)
    status, body, _ = await desk.call("POST", f"{CLAIMS}?wait=20ms", {"claimant": "q"})
    assert (status, body["reason"]) == (404, "noneIdle")
    assert not desk.claiming.lines.has("ducks")


async def test_who_waits_is_told_that_the_replica_ends(desk: Desk) -> None:
    """At once, and that nothing was claimed. So is who comes then."""
    desk.worker("a", idle=None)
    call = asyncio.create_task(desk.call("POST", f"{CLAIMS}?wait=30s", {"claimant": "q"}))
    await until(lambda: desk.claiming.lines.has("ducks"))
    desk.claiming.lines.close()
    status, body, _ = await call
    assert (status, body["reason"]) == (503, "stopping")
    assert (await desk.call("POST", f"{CLAIMS}?wait=30s", {"claimant": "q"}))[1]["reason"] == "stopping"


async def test_who_hung_up_is_passed_over_and_not_counted(desk: Desk) -> None:
    desk.worker("a", idle=None)
    gone = asyncio.create_task(desk.call("POST", f"{CLAIMS}?wait=30s", {"claimant": "gone"}))
    await until(lambda: desk.claiming.lines.waiting("ducks") == 1)
    call = asyncio.create_task(desk.call("POST", f"{CLAIMS}?wait=30s", {"claimant": "q"}))
    await until(lambda: desk.claiming.lines.waiting("ducks") == 2)
    gone.cancel()
    await until(lambda: desk.claiming.lines.waiting("ducks") == 1)
    desk.change("a", {"metadata": {"annotations": {IDLE_SINCE: TEN_MINUTES_AGO.isoformat()}}})
    status, held, _ = await call
    assert (status, held["claimant"]) == (201, "q")


@pytest.mark.parametrize("wait", ["", "ten", "61s", "-1s", "5"])
async def test_a_wait_that_makes_no_sense_is_400(desk: Desk, wait: str) -> None:
    desk.worker("a")
    status, body, _ = await desk.call("POST", f"{CLAIMS}?wait={wait}", {"claimant": "q"})
    assert (status, body["reason"]) == (400, "badRequest")


# --- how many are wanted -----------------------------------------------------------------------------------------

WANTED = "/v1/pools/ducks/wanted"


async def test_wanted_are_those_in_use_those_that_are_waited_for_and_the_spare_ones(desk: Desk) -> None:
    """A worker that starts or ends is not in use: for each that is made another one would be wanted."""
    desk.worker("busy", idle=None)
    desk.worker("claimed")
    desk.worker("starting", idle=None, ready=False)
    desk.worker("ending", idle=None)
    desk.server.store.delete(PODS, ("default", "ending"), {})
    await desk.claim("first")
    call = asyncio.create_task(desk.call("POST", f"{CLAIMS}?wait=30s", {"claimant": "q"}))
    await until(lambda: desk.claiming.lines.waiting("ducks") == 1)
    status, body, _ = await desk.call("GET", WANTED)
    assert (status, body) == (
        200,
        {"pool": "ducks", "wanted": 3, "busy": 1, "claimed": 1, "waiting": 1, "spare": 0},
    )
    desk.settings["ducks"] = replace(SETTINGS, rules=ClaimRules(spare=4), floor=2)
    assert (await desk.call("GET", WANTED))[1]["wanted"] == 7
    desk.settings["ducks"] = replace(SETTINGS, rules=ClaimRules(spare=4), floor=5)
    assert (await desk.call("GET", WANTED))[1]["spare"] == 5
    figures = {(each.metric.name, *each.labels): each.value for each in desk.wanted.figures(desk.metrics)}
    assert figures["warmnode_pool_wanted_workers", "ducks"] == 8
    assert figures["warmnode_claims_waiting", "ducks"] == 1
    call.cancel()


@pytest.mark.parametrize("hours", [-2, 2])
async def test_with_a_wrong_clock_nobody_is_told_how_many_are_wanted(desk: Desk, hours: int) -> None:
    """Idle workers would look busy to it, and one more be made for each. Afterwards they are counted anew first."""
    desk.worker("idle")
    desk.worker("busy", idle=None)
    assert (await desk.call("GET", WANTED))[1]["wanted"] == 1
    desk.now, desk.jump = NOW + timedelta(hours=hours), timedelta(hours=-hours)
    status, body, _ = await desk.call("GET", WANTED)
    assert (status, body["reason"]) == (503, "unavailable")
    assert "the clock here is 7200 s" in body["detail"]
    await desk.wanted.count()
    shown = [[each.metric.name for each in desk.wanted.figures(desk.metrics)]]
    desk.now, desk.jump = NOW, timedelta()
    shown.append([each.metric.name for each in desk.wanted.figures(desk.metrics)])
    assert shown == [["warmnode_claims_waiting"]] * 2
    assert (await desk.call("GET", WANTED))[1]["wanted"] == 1
    figures = {each.metric.name: each.value for each in desk.wanted.figures(desk.metrics)}
    assert figures["warmnode_pool_wanted_workers"] == 1


async def test_none_is_idle_is_not_said_by_a_clock_that_is_off(desk: Desk) -> None:
    """All marks lie in the future for one that is slow: a worker looks busy that is idle."""
    desk.worker("a")
    desk.now, desk.jump = NOW - timedelta(hours=2), timedelta(hours=2)
    status, body = await desk.claim()
    assert (status, body["reason"]) == (503, "unavailable")
    assert "7200 s behind" in body["detail"]


async def test_nothing_is_wanted_before_everything_is_loaded(desk: Desk) -> None:
    """Who follows the gauge would take away what is in use: after a restart it is not there until it is right."""
    desk.state.synced = False
    counting = asyncio.create_task(desk.wanted.run())
    await asyncio.sleep(0)
    desk.worker("busy", idle=None)
    desk.state.synced = True
    assert [each.metric.name for each in desk.wanted.figures(desk.metrics)] == ["warmnode_claims_waiting"]
    await desk.wanted.count()
    figures = {each.metric.name: each.value for each in desk.wanted.figures(desk.metrics)}
    assert figures["warmnode_pool_wanted_workers"] == 1
    counting.cancel()


async def test_a_pool_without_workers_wants_its_spare_ones(desk: Desk) -> None:
    """Or it would never get its first. One that is not there wants none: 404."""
    desk.settings = {"ducks": replace(SETTINGS, floor=2), "geese": None}
    assert (await desk.call("GET", WANTED))[1]["wanted"] == 2
    assert (await desk.call("GET", "/v1/pools/geese/wanted"))[1]["reason"] == "unknownPool"
    figures = [(each.metric.name, *each.labels, each.value) for each in desk.wanted.figures(desk.metrics)]
    assert figures == [("warmnode_pool_wanted_workers", "ducks", 2), ("warmnode_claims_waiting", "ducks", 0)]


# --- races -------------------------------------------------------------------------------------------------------


async def test_a_worker_that_changed_is_read_again_and_claimed_if_it_still_can_be(desk: Desk) -> None:
    desk.worker("a")
    desk.follows = False
    desk.change("a", {"status": {"phase": "Running", "message": "changed"}})
    assert (await desk.claim())[0] == 201
    assert desk.metrics.registry.get_sample_value("warmnode_claim_lost_races_total") == 1


@pytest.mark.parametrize("how", ["busy", "terminating", "gone", "relabelled"])
async def test_a_worker_that_cannot_be_had_any_more_is_passed_over(desk: Desk, how: str) -> None:
    """The state does not know it yet."""
    desk.worker("a", idle=minutes_ago(20))
    desk.worker("b", idle=minutes_ago(10))
    desk.follows = False
    match how:
        case "busy":
            desk.change("a", {"metadata": {"annotations": {IDLE_SINCE: None}}})
        case "terminating":
            desk.server.store.delete(PODS, ("default", "a"), {})
        case "gone":
            desk.server.store.remove(PODS, ("default", "a"))
        case "relabelled":
            desk.change("a", {"metadata": {"labels": {POOL_LABEL: "geese"}}})
    assert (await desk.claim())[1]["pod"] == "b"
    assert desk.annotation("a", CLAIM) is None if how != "gone" else True


async def test_who_loses_a_race_begins_anew_at_a_place_of_its_own(desk: Desk) -> None:
    """Going on where it was, it would meet whoever took the first worker at the next one, and so on."""
    nodes = [f"n{number:02}" for number in range(8)]
    desk.state.replace_nodes([node(name) for name in nodes])
    desk.state.take_ledger(ledger({f"uid-of-{name}": minutes_ago(500 - at) for at, name in enumerate(nodes)}))
    for name in nodes:
        desk.worker(f"on-{name}", on=name)
    desk.follows = False
    desk.change("on-n00", {"metadata": {"annotations": {CLAIM: format_claim(claim())}}})
    others = Spread().own_order(nodes[1:4], "")
    assert others[0] != "n01", "or nothing is shown"
    assert (await desk.claim())[1]["node"] == others[0]


@pytest.mark.parametrize("refusal", [answer(422, "Invalid"), answer(403, "Forbidden"), answer(400, "BadRequest")])
async def test_a_worker_that_the_api_server_refuses_stops_nobody(desk: Desk, refusal: Fault) -> None:
    """Its annotations are full, or a policy says no: the next is tried, and that one last."""
    for name in ("a", "b", "c"):
        desk.worker(name, idle=TEN_MINUTES_AGO - timedelta(minutes=name == "a"))
    desk.server.fail(Where.WRITE, refusal)
    pods = [(await desk.claim("first"))[1]["pod"], (await desk.claim("second"))[1]["pod"]]
    assert sorted(pods) == ["b", "c"]
    writes = [each.path.rpartition("/")[2] for each in desk.server.requests if each.method == "PATCH"]
    assert writes == ["a", *pods]
    assert (await desk.claim("third"))[1]["pod"] == "a", "as there is no other"


async def test_a_worker_is_passed_by_for_two_minutes(desk: Desk) -> None:
    desk.worker("a", idle=minutes_ago(20))
    desk.worker("b")
    desk.worker("c")
    desk.server.fail(Where.WRITE, answer(422, "Invalid"))
    assert (await desk.claim("first"))[1]["pod"] != "a"
    desk.now += timedelta(minutes=2, seconds=1)
    assert (await desk.claim("second"))[1]["pod"] == "a"


async def test_refused_workers_are_counted_and_a_missing_permission_is_named(desk: Desk) -> None:
    """Few are tried in one call: all may be refused, and each is a write."""
    desk.worker("a")
    desk.server.fail(Where.WRITE, answer(422, "Invalid"))
    status, body = await desk.claim()
    assert (status, body["reason"]) == (404, "noneIdle")
    assert body["workers"] == {"busy": 0, "claimed": 0, "refused": 1}
    for number in range(20):
        desk.worker(f"more-{number}")
    before = len(desk.server.requests)
    desk.server.fail(Where.WRITE, *(answer(403, "Forbidden") for _ in range(30)))
    status, body = await desk.claim()
    assert (status, body["reason"]) == (503, "unavailable")
    assert "patch pods" in body["detail"]
    assert sum(each.method == "PATCH" for each in desk.server.requests[before:]) == REFUSALS_IN_ONE_CALL


@pytest.mark.parametrize("end", [answer(401, "Unauthorized"), answer(429, "TooManyRequests"), answer(500), reset()])
async def test_without_an_answer_about_one_worker_no_other_is_tried(desk: Desk, end: Fault) -> None:
    desk.worker("a")
    desk.worker("b")
    desk.server.fail(Where.WRITE, end)
    assert (await desk.claim())[0] == 503
    assert sum(each.method == "PATCH" for each in desk.server.requests) == 1


async def test_a_worker_that_changes_all_the_time_is_503_and_not_404(desk: Desk) -> None:
    """It is idle: to say that there is none would be wrong."""
    desk.worker("a")

    async def change(request: web.Request) -> None:
        desk.change("a", {"status": {"message": str(len(desk.server.requests))}})

    desk.server.fail(Where.WRITE, *[change] * 5)
    status, body, headers = await desk.call("POST", body={"claimant": "q"})
    assert (status, body["reason"], headers["Retry-After"]) == (503, "changing", "1")
    assert (await desk.claim())[0] == 201


async def test_concurrent_claims_never_share_a_worker(desk: Desk) -> None:
    for number in range(6):
        desk.worker(f"w{number}", on="old" if number < 3 else "new")
    answers = await asyncio.gather(*(desk.claim(f"q{number}") for number in range(10)))
    granted = [body["pod"] for status, body in answers if status == 201]
    assert sorted(granted) == [f"w{number}" for number in range(6)]
    assert sorted(status for status, _ in answers) == [201] * 6 + [404] * 4


async def test_concurrent_calls_of_one_claimant_end_with_one_worker(desk: Desk) -> None:
    """The younger claim is given back by whoever made it, and both answers name the older."""
    for number in range(6):
        desk.worker(f"w{number}")
    answers = await asyncio.gather(*(desk.claim("the same") for _ in range(6)))
    assert {status for status, _ in answers} <= {200, 201}
    assert len({body["id"] for _, body in answers}) == 1
    assert sum(desk.annotation(f"w{number}", CLAIM) is not None for number in range(6)) == 1
    assert sum(CLAIMED_BY in desk.meta(f"w{number}")["labels"] for number in range(6)) == 1


async def test_a_claim_that_nobody_can_say_was_first_is_given_back(desk: Desk) -> None:
    """How another worker of the claimant was at our own write is compacted away: the other request did not find ours,
    and keeps its own."""
    for name in ("a", "b"):
        desk.worker(name)

    async def look(request: web.Request) -> None:
        """The first look, for what the claimant holds."""

    async def be_overtaken(request: web.Request) -> None:
        """Another request of the claimant has claimed the other worker meanwhile."""
        claimed, other = ("a", "b") if desk.annotation("a", CLAIM) else ("b", "a")
        claim = json.loads(desk.annotation(claimed, CLAIM) or "")
        claim["id"] = f"{claim['id']}-of-the-other"
        labels = {CLAIMED_BY: desk.meta(claimed)["labels"][CLAIMED_BY]}
        desk.change(other, {"metadata": {"annotations": {CLAIM: json.dumps(claim)}, "labels": labels}})

    desk.server.fail(Where.LIST, look, be_overtaken, answer(410, "Expired"))
    status, body = await desk.claim(retry=True)
    held = [name for name in ("a", "b") if desk.annotation(name, CLAIM) is not None]
    assert status == 200
    assert held == [body["pod"]]
    assert body["id"].endswith("-of-the-other")


async def test_a_caller_who_hung_up_gets_no_worker(desk: Desk) -> None:
    """Nobody would use it, or give it back."""
    desk.worker("a")
    looking, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: web.Request) -> None:
        looking.set()
        await go_on.wait()

    desk.server.fail(Where.LIST, held)
    call = asyncio.create_task(desk.claim(retry=True))
    await looking.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await asyncio.sleep(0.05)  # the server notices the end of a connection in one of its next turns
    go_on.set()
    async with asyncio.timeout(10):
        while not desk.counted("create", Reason.CALLER_GONE):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert desk.annotation("a", CLAIM) is None


async def test_a_claim_whose_answer_was_lost_is_found_by_the_next_call(desk: Desk) -> None:
    """503, nobody knows; the same request again gets what was written."""
    desk.worker("a", idle=minutes_ago(20))
    desk.worker("b")

    async def write_and_break(request: web.Request) -> web.StreamResponse:
        desk.server.store.patch(PODS, ("default", "a"), json.loads(await request.read()))
        response = await reset()(request)
        assert response is not None
        return response

    desk.server.fail(Where.WRITE, write_and_break)
    status, body, headers = await desk.call("POST", body={"claimant": "query-1"})
    assert (status, body["reason"], headers["Retry-After"]) == (503, "unavailable", "1")
    status, again = await desk.claim()
    assert (status, again["pod"]) == (200, "a")


# --- renew and release -------------------------------------------------------------------------------------------


def path_of(claim: Mapping[str, Any]) -> str:
    return f"{CLAIMS}/{claim['id']}"


async def test_renewing_prolongs_and_never_shortens(desk: Desk) -> None:
    desk.worker("a")
    held = (await desk.claim(ttl="30s"))[1]
    for body, expires in (
        (None, "12:01:00"),
        ({"ttl": "5m"}, "12:05:00"),
        ({}, "12:05:00"),
        ({"ttl": "1s"}, "12:05:00"),
    ):
        status, renewed, _ = await desk.call("PUT", path_of(held), body)
        assert (status, renewed["expires"]) == (200, f"2026-11-01T{expires}.000Z")
        assert renewed["id"] == held["id"]


async def test_releasing_gives_the_worker_to_the_next_at_once(desk: Desk) -> None:
    """Nothing of the claim stays but when it ended."""
    desk.worker("a")
    held = (await desk.claim())[1]
    desk.now += timedelta(seconds=7)
    status, body, _ = await desk.call("DELETE", path_of(held))
    assert (status, body) == (204, None)
    assert desk.annotation("a", CLAIM) is None
    assert CLAIMED_BY not in desk.meta("a")["labels"]
    assert desk.annotation("a", CLAIM_ENDED) == "2026-11-01T12:00:07.000Z"
    assert (await desk.claim("other"))[0] == 201


async def test_what_is_over_or_not_yours_is_404_for_renewing_and_releasing(desk: Desk) -> None:
    """Released, expired, another user's, another pool's, never there: one answer, and nobody learns which."""
    desk.worker("a")
    released = (await desk.claim())[1]
    await desk.call("DELETE", path_of(released))
    held = (await desk.claim(ttl="10s"))[1]
    elsewhere = f"/v1/pools/geese/claims/{held['id']}"
    for path, user in (
        (path_of(released), "front"),
        (path_of(held), "other"),
        (elsewhere, "front"),
        (f"{CLAIMS}/default.a.guess", "front"),
        (f"{CLAIMS}/default.gone.n0", "front"),
        (f"{CLAIMS}/nonsense", "front"),
    ):
        for method in ("PUT", "DELETE"):
            status, body, _ = await desk.call(method, path, user=user)
            assert (status, body["reason"]) == (404, "noClaim"), path
    assert (await desk.call("PUT", path_of(held)))[0] == 200
    desk.now += timedelta(seconds=65)
    for method in ("PUT", "DELETE"):
        assert (await desk.call(method, path_of(held)))[1]["reason"] == "noClaim"
    assert desk.annotation("a", CLAIM) is not None, "nobody touched it"


async def test_a_claim_can_be_renewed_until_others_may_have_it(desk: Desk) -> None:
    """5 s after it expired: until then nobody else got it."""
    desk.worker("a")
    held = (await desk.claim(ttl="10s"))[1]
    desk.now += timedelta(seconds=14)
    assert (await desk.call("PUT", path_of(held)))[0] == 200


async def test_concurrent_renewals_all_hold(desk: Desk) -> None:
    """Each waited for its own; the longest stays."""
    desk.worker("a")
    held = (await desk.claim())[1]
    answers = await asyncio.gather(*(desk.call("PUT", path_of(held), {"ttl": f"{minutes}m"}) for minutes in (2, 9, 5)))
    assert [status for status, _, _ in answers] == [200] * 3
    record = json.loads(desk.annotation("a", CLAIM) or "")
    assert (record["expires"], record["renewals"]) == ("2026-11-01T12:09:00.000Z", 3)


async def test_of_concurrent_releases_one_is_204_and_the_others_404(desk: Desk) -> None:
    desk.worker("a")
    held = (await desk.claim())[1]
    answers = await asyncio.gather(*(desk.call("DELETE", path_of(held)) for _ in range(4)))
    assert sorted(status for status, _, _ in answers) == [204, 404, 404, 404]


async def test_a_worker_that_is_being_deleted_is_released_and_not_renewed(desk: Desk) -> None:
    desk.worker("a")
    held = (await desk.claim())[1]
    desk.server.store.delete(PODS, ("default", "a"), {})
    status, body, _ = await desk.call("PUT", path_of(held))
    assert (status, body["reason"]) == (409, "terminating")
    assert (await desk.call("DELETE", path_of(held)))[0] == 204


async def test_a_list_has_what_the_user_holds(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        desk.worker(name)
    held = [(await desk.claim(claimant))[1] for claimant in ("q1", "q2")]
    await desk.claim("q3", user="other")
    status, body, _ = await desk.call("GET")
    holds("ClaimList", body)
    assert (status, body["claims"]) == (200, sorted(held, key=lambda claim: claim["id"]))
    desk.now += timedelta(seconds=65)
    assert (await desk.call("GET"))[1] == {"claims": []}


# --- do-not-disrupt ----------------------------------------------------------------------------------------------


async def test_do_not_disrupt_comes_and_goes_with_the_claim(desk: Desk) -> None:
    desk.settings["ducks"] = replace(SETTINGS, rules=ClaimRules(do_not_disrupt=True))
    desk.worker("a")
    held = (await desk.claim())[1]
    assert desk.annotation("a", DO_NOT_DISRUPT) == "true"
    await desk.call("DELETE", path_of(held))
    assert desk.annotation("a", DO_NOT_DISRUPT) is None


async def test_somebody_elses_do_not_disrupt_stays(desk: Desk) -> None:
    desk.settings["ducks"] = replace(SETTINGS, rules=ClaimRules(do_not_disrupt=True))
    desk.worker("a", annotations={DO_NOT_DISRUPT: "true"})
    held = (await desk.claim())[1]
    await desk.call("DELETE", path_of(held))
    assert desk.annotation("a", DO_NOT_DISRUPT) == "true"


async def test_a_do_not_disrupt_that_ran_out_is_nobodys(desk: Desk) -> None:
    """A duration counts from the pod's start: an old pod with a short one is not protected any more."""
    desk.settings["ducks"] = replace(SETTINGS, rules=ClaimRules(do_not_disrupt=True))
    desk.worker("a", annotations={DO_NOT_DISRUPT: "10m"})
    desk.now = datetime.now(UTC) + timedelta(hours=1)
    await desk.claim()
    assert desk.annotation("a", DO_NOT_DISRUPT) == "true"


@pytest.mark.parametrize("on", [True, False])
async def test_do_not_disrupt_of_an_expired_claim_goes_over_to_the_next(desk: Desk, on: bool) -> None:
    """Or goes, where the setting was switched off meanwhile."""
    desk.settings["ducks"] = replace(SETTINGS, rules=ClaimRules(do_not_disrupt=True))
    desk.worker("a")
    await desk.claim(ttl="1s")
    desk.now += timedelta(seconds=6)
    desk.settings["ducks"] = replace(SETTINGS, rules=ClaimRules(do_not_disrupt=on))
    held = (await desk.claim("other"))[1]
    assert desk.annotation("a", DO_NOT_DISRUPT) == ("true" if on else None)
    await desk.call("DELETE", path_of(held))
    assert desk.annotation("a", DO_NOT_DISRUPT) is None


# --- who may, and what makes no sense ----------------------------------------------------------------------------


async def test_nobody_knows_who_calls_is_401(desk: Desk) -> None:
    desk.worker("a")
    for method, path in (("POST", CLAIMS), ("GET", CLAIMS), ("PUT", f"{CLAIMS}/a"), ("DELETE", f"{CLAIMS}/a")):
        status, body, headers = await desk.call(method, path, {"claimant": "q"}, user=None)
        assert (status, body["reason"]) == (401, "notAuthenticated")
        assert headers["WWW-Authenticate"].startswith("Bearer")
    assert desk.server.requests == []
    assert desk.rbac.asked == []


async def test_each_verb_is_asked_for_and_403_says_what_to_grant(desk: Desk) -> None:
    """In the pool's namespace, or in warmnode's own where the pool may span several."""
    desk.worker("a")
    desk.rbac.allowed = {("front", "create", "ducks", "warmnode")}
    held = (await desk.claim())[1]
    for method, path, verb in (
        ("GET", CLAIMS, "list"),
        ("PUT", path_of(held), "update"),
        ("DELETE", path_of(held), "delete"),
    ):
        status, body, _ = await desk.call(method, path)
        assert (status, body["reason"]) == (403, "forbidden")
        assert (
            f"front may not {verb} claims.warmnode.dev 'ducks' in namespace 'warmnode': RBAC says no" == body["detail"]
        )
    desk.settings["ducks"] = replace(SETTINGS, namespace="default")
    assert (await desk.claim())[0] == 403
    desk.rbac.allowed.add(("front", "create", "ducks", "default"))
    assert (await desk.claim("other", user="x"))[0] == 403
    assert desk.rbac.asked[0]["groups"] == ["system:authenticated"]


async def test_permissions_are_asked_about_once_in_ten_seconds(desk: Desk) -> None:
    desk.worker("a")
    for _ in range(5):
        await desk.call("GET")
    assert len(desk.rbac.asked) == 1


@pytest.mark.parametrize("problem", [Unavailable(0, "Timeout", "away"), Forbidden(403, "Forbidden", "no")])
async def test_without_an_answer_about_permissions_nothing_is_done(desk: Desk, problem: Exception) -> None:
    desk.worker("a")
    desk.rbac.problem = problem
    status, body, headers = await desk.call("POST", body={"claimant": "q"})
    assert (status, body["reason"], headers["Retry-After"]) == (503, "unavailable", "1")
    if isinstance(problem, Forbidden):
        assert "subjectaccessreviews" in body["detail"]
    assert desk.annotation("a", CLAIM) is None


async def test_a_user_who_calls_too_often_is_429_and_others_are_not(desk: Desk) -> None:
    desk.worker("a")
    answers = [await desk.call("GET") for _ in range(BURST + 1)]
    assert [status for status, _, _ in answers] == [200] * BURST + [429]
    assert answers[-1][1]["reason"] == "rateLimited"
    assert answers[-1][2]["Retry-After"] == "1"
    assert (await desk.call("GET", user="other"))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"claimant": null}',
        b'{"claimant": 7}',
        b'{"claimant": ""}',
        b'{"claimant": "two\\nlines"}',
        b'{"claimant": "\\ud800"}',
        b'{"claimant": "q", "ttl": "forever"}',
        b'{"claimant": "q", "ttl": "0s"}',
        b'{"claimant": "q", "ttl": "-5s"}',
        b'{"claimant": "q", "ttl": "3601s"}',
        b'{"claimant": "q", "ttl": "99999999999h"}',
        b'{"claimant": "q", "ttl": 60}',
        b'{"claimant": "q", "more": 1}',
        json.dumps({"claimant": "x" * 257}).encode(),
        b'{"claimant": "q", "count": 0}',
        b'{"claimant": "q", "count": 101}',
        b'{"claimant": "q", "count": true}',
        b'{"claimant": "q", "atLeast": 1}',
        b'{"claimant": "q", "count": 2, "atLeast": 3}',
        b'{"claimant": "q", "count": 2, "atLeast": 0}',
    ],
)
async def test_a_body_that_makes_no_sense_is_400_and_claims_nothing(desk: Desk, body: bytes) -> None:
    desk.worker("a")
    status, problem, _ = await desk.call("POST", body=body)
    assert (status, problem["reason"]) == (400, "badRequest")
    assert desk.annotation("a", CLAIM) is None


async def test_a_huge_body_is_413(desk: Desk) -> None:
    desk.worker("a")
    status, problem, _ = await desk.call("POST", body=json.dumps({"claimant": "x" * 5000}).encode())
    assert (status, problem["reason"]) == (413, "badRequest")


@pytest.mark.parametrize("body", [b"{", b'{"ttl": "2h"}', b'{"claimant": "q"}'])
async def test_a_renewal_that_makes_no_sense_is_400(desk: Desk, body: bytes) -> None:
    desk.worker("a")
    held = (await desk.claim())[1]
    assert (await desk.call("PUT", path_of(held), body))[1]["reason"] == "badRequest"


async def test_names_that_can_be_none_are_400(desk: Desk) -> None:
    for path in ("/v1/pools/-x/claims", f"/v1/pools/{'x' * 64}/claims", "/v1/pools/a%20b/claims"):
        assert (await desk.call("GET", path))[0] == 400
    assert (await desk.call("PUT", f"{CLAIMS}/{'x' * 401}"))[0] == 400
    assert desk.rbac.asked == []


async def test_a_claimant_may_be_any_printable_text(desk: Desk) -> None:
    desk.worker("a")
    for text in ("Anfrage Nr. 7 (Müller)", "x" * 256, "漢字"):
        status, held = await desk.claim(text)
        assert (status, held["claimant"]) == (201, text)
        assert (await desk.claim(text))[0] == 200
        await desk.call("DELETE", path_of(held))


async def test_before_the_first_sync_it_is_503(desk: Desk) -> None:
    desk.worker("a")
    desk.state.synced = False
    status, body, headers = await desk.call("POST", body={"claimant": "q"})
    assert (status, body["reason"], headers["Retry-After"]) == (503, "notSynced", "1")


@pytest.mark.parametrize("seconds", [7, -7, 3600])
async def test_with_a_wrong_clock_no_claim_is_made_or_prolonged(desk: Desk, seconds: int) -> None:
    """A replica that believes claims to be over would hand out workers that others hold."""
    desk.worker("a")
    desk.skew = timedelta(seconds=5)
    held = (await desk.claim())[1]
    desk.skew = timedelta(seconds=seconds)
    for method, path in (("POST", CLAIMS), ("PUT", path_of(held))):
        status, body, _ = await desk.call(method, path, {"claimant": "q"} if method == "POST" else None)
        assert (status, body["reason"]) == (503, "unavailable")
        assert "clock" in body["detail"]
    assert (await desk.call("GET"))[0] == 200
    assert (await desk.call("DELETE", path_of(held)))[0] == 204


async def test_a_claim_for_which_the_clock_jumps_while_the_call_is_under_way_is_not_made(desk: Desk) -> None:
    """All that was claimed by others would look as if it were free."""
    desk.worker("a")
    before = desk.meta("a")
    desk.jump = timedelta(seconds=-60)
    status, body = await desk.claim()
    assert (status, body["reason"]) == (503, "unavailable")
    assert "60 s ahead" in body["detail"]
    assert desk.meta("a") == before


async def test_in_dry_run_nothing_is_written(desk: Desk) -> None:
    """409 to everything but a look: a claim from before ends by itself."""
    desk.worker("a")
    held = (await desk.claim())[1]
    before = desk.meta("a")
    desk.settings["ducks"] = replace(SETTINGS, dry_run=True)
    for method, path in (("POST", CLAIMS), ("PUT", path_of(held)), ("DELETE", path_of(held))):
        status, body, _ = await desk.call(method, path, {"claimant": "q"} if method == "POST" else None)
        assert (status, body["reason"]) == (409, "dryRun")
    assert (await desk.call("GET"))[1] == {"claims": [held]}
    assert desk.meta("a") == before


async def test_a_pool_that_is_switched_off_hands_out_nothing_and_takes_back(desk: Desk) -> None:
    desk.worker("a")
    held = (await desk.claim())[1]
    desk.settings["ducks"] = replace(SETTINGS, rules=ClaimRules(enabled=False))
    assert (await desk.claim("other"))[1]["reason"] == "disabled"
    assert (await desk.call("PUT", path_of(held)))[1]["reason"] == "disabled"
    assert (await desk.call("DELETE", path_of(held)))[0] == 204


async def test_the_api_server_away_is_503(desk: Desk) -> None:
    desk.worker("a")
    desk.server.fail(Where.LIST, answer(500))
    status, body, _ = await desk.call("POST", body={"claimant": "q", "retry": True})
    assert (status, body["reason"]) == (503, "unavailable")
    assert desk.annotation("a", CLAIM) is None


@pytest.mark.parametrize("desk", [3], indirect=True)
async def test_more_calls_than_can_be_done_at_once_are_429_until_some_are_done(desk: Desk) -> None:
    """Of all users together: each of them is far below what one may ask for."""
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def held(request: web.Request) -> None:
        begun.release()
        await go_on.wait()

    desk.server.fail(Where.LIST, held, held, held)
    under_way = [asyncio.create_task(desk.call("GET", user=f"user-{number}")) for number in range(3)]
    for _ in under_way:
        await begun.acquire()
    status, body, headers = await desk.call("POST", body={"claimant": "q"}, user="user-4")
    assert (status, body["reason"], headers["Retry-After"]) == (429, "tooMany", "1")
    assert desk.counted("create", Reason.TOO_MANY) == 1
    assert (await desk.call("GET", user=None))[0] == 401
    go_on.set()
    assert [(await each)[0] for each in under_way] == [200] * 3
    assert (await desk.call("GET", user="user-4"))[0] == 200


async def test_calls_that_wait_are_bounded_and_keep_nobody_out_who_does_not(desk: Desk) -> None:
    """Each is a connection and some memory, for up to a minute."""
    desk.worker("a")
    with ExitStack() as waiting:
        for _ in range(WAITING_AT_ONCE):
            waiting.enter_context(desk.api._one_of_those_at_once(waits=True))
        status, body, headers = await desk.call("POST", f"{CLAIMS}?wait=1s", {"claimant": "q"})
        assert (status, body["reason"], headers["Retry-After"]) == (429, "tooMany", "1")
        assert (await desk.claim())[0] == 201
    desk.worker("b")
    assert (await desk.call("POST", f"{CLAIMS}?wait=1s", {"claimant": "q"}))[0] == 201


# --- the document ------------------------------------------------------------------------------------------------


async def test_the_document_is_served_to_anybody(desk: Desk) -> None:
    """It says nothing of the cluster."""
    status, tree, _ = await desk.call("GET", DOCUMENT_PATH, user=None)
    assert status == 200
    assert tree["paths"].keys() == DOCUMENT["paths"].keys()


async def test_the_document_names_every_route(desk: Desk) -> None:
    paths = {
        (method.upper(), path)
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method != "parameters" and path.startswith("/v1/pools")
    }
    assert paths == set(desk.api.routes())


@pytest.mark.parametrize("pool", ["ducks", "a_B.9", "x" * 63, "x" * 64, "-a", "a%20b", "%C3%A9"])
async def test_what_the_document_says_of_a_pool_is_what_is_taken(desk: Desk, pool: str) -> None:
    """Whatever the pattern of the parameter does not match is answered with 400, and nothing else is."""
    (said,) = (each for each in DOCUMENT["paths"][COLLECTION]["parameters"] if each["name"] == "pool")
    status, _, _ = await desk.call("GET", f"/v1/pools/{pool}/claims")
    assert (status != 400) == (re.search(said["schema"]["pattern"], unquote(pool)) is not None)


async def test_a_new_claim_is_remembered_and_a_found_one_is_not(desk: Desk) -> None:
    """For `warmnode explain`: who got which worker where."""
    desk.worker("w1", on="old")
    await desk.claim()
    await desk.claim()
    (decision,) = map(decode_decision, desk.history.lines())
    assert isinstance(decision, ClaimDecision)
    assert (decision.pod, decision.node, decision.user, decision.claimant) == ("w1", "old", "front", "query-1")
