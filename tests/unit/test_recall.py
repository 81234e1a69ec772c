"""What the replicas remember, read through the API server, and how it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from extender.inspect.decision_text import tell_decision, tell_history
from extender.inspect.recall import OTHER_VERSION, History, Recollection, Replica, recall, recall_shadow
from extender.kube.api_client import KubeClient
from extender.kube.credentials import Access, Credential
from extender.kube.errors import Forbidden, Unavailable
from extender.kube.port_forward import get_from_pod
from extender.kube.transport import Transport
from extender.policy.decisions import (
    ClaimDecision,
    Decision,
    EvictionDecision,
    PlacementDecision,
    PreemptionDecision,
    RankedNode,
    encode_decision,
)
from tests.builders import NOW, minutes_ago
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Where, answer
from tests.fakes.store import PODS
from tests.fakes.tunnel import http, tunnel

POD: dict[str, Any] = {"namespace": "default", "pod": "w", "uid": "u", "pool": "ducks"}
PLACED = PlacementDecision(
    at=minutes_ago(65),
    candidates=12,
    best=(RankedNode(node="a", rank=1), RankedNode(node="b", rank=3, key_uses=2.5, in_window=True)),
    key="tenant-1",
    node="a",
    bound_after_seconds=0.25,
    **POD,
)
EVICTED = EvictionDecision(at=minutes_ago(2), node="a", outcome="evicted", idle_since=minutes_ago(12), **POD)
PATH = "/api/v1/namespaces/warmnode/pods/serve-0/portforward"


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as running:
        yield running


@pytest.fixture
async def client(server: FakeApiServer) -> AsyncIterator[KubeClient]:
    access = Access(server=server.url, namespace="default", credentials=Credential(authorization="Bearer t"))
    connected = KubeClient(Transport(access, user_agent="test"), namespace="default")
    yield connected
    await connected.close()


def install(server: FakeApiServer, name: str, *arguments: str, phase: str = "Running") -> None:
    """A pod of warmnode."""
    tree = {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "warmnode"}},
        "spec": {"containers": [{"name": "kube-scheduler"}], "initContainers": [{"args": list(arguments)}]},
        "status": {"phase": phase},
    }
    server.store.create(PODS, "default", tree)


# -- the tunnel -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [1, 7, 4096])
async def test_an_answer_comes_through_the_tunnel_however_it_is_cut(
    server: FakeApiServer, client: KubeClient, frame: int
) -> None:
    """With its headers. The port is in the query, and the credentials are the user's."""
    asked: list[bytes] = []
    server.fail(Where.ANY, tunnel(answer=http(b"x\r\n\r\ny\n", oldest=b"then"), frame=frame, asked=asked))
    found = await get_from_pod(client, namespace="warmnode", pod="serve-0", port=9889, target="/decisions?pod=w")
    assert found.body == b"x\r\n\r\ny\n"
    assert found.headers["warmnode-oldest"] == "then"
    assert asked[0].startswith(b"\x00GET /decisions?pod=w HTTP/1.1\r\n")
    seen = server.requests[-1]
    assert (seen.path, seen.params["ports"], seen.headers["Authorization"]) == (PATH, "9889", "Bearer t")


async def test_who_may_not_port_forward_is_told_so(server: FakeApiServer, client: KubeClient) -> None:
    """The API server decides."""
    server.fail(Where.ANY, answer(403, "Forbidden"))
    with pytest.raises(Forbidden):
        await get_from_pod(client, namespace="warmnode", pod="serve-0", port=9889, target="/decisions")


@pytest.mark.parametrize(
    "fault",
    [
        tunnel(error=b"error forwarding port 9889: connection refused"),
        tunnel(answer=http(b"{}", status=b"404 Not Found")),
        tunnel(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut short"),
        tunnel(answer=b"SSH-2.0-OpenSSH\r\n\r\n"),
        tunnel(),
        answer(200, body=b"{}"),
    ],
)
async def test_whatever_else_comes_back_is_no_answer(server: FakeApiServer, client: KubeClient, fault: object) -> None:
    """Nothing listens there, an older version does, something else does, or it broke off."""
    server.fail(Where.ANY, fault)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await get_from_pod(client, namespace="warmnode", pod="serve-0", port=9889, target="/decisions")


# -- the replicas -----------------------------------------------------------------------------------------------------


async def test_every_replica_is_asked_and_decisions_are_put_in_order(server: FakeApiServer, client: KubeClient) -> None:
    """One that does not run is not asked, nor a pod of the installation that is no replica; one that fails is named."""
    install(server, "reap-0", "reap", "--history-listen=127.0.0.1:7777")
    install(server, "serve-0", "serve")
    install(server, "serve-1", "serve", phase="Pending")
    install(server, "test", "plan")
    lines = [encode_decision(each) + b"\n" for each in (EVICTED, PLACED)]
    server.fail(Where.LIST, lambda request: _pass())
    ports: list[str] = []

    async def by_port(request):  # type: ignore[no-untyped-def]
        ports.append(request.query["ports"])
        line = lines[0] if request.query["ports"] == "7777" else lines[1]
        return await tunnel(answer=http(line, oldest=b"2026-11-01T11:00:00Z"))(request)

    server.fail(Where.ANY, by_port, by_port)
    history = await recall(client, pod="default/w")
    assert history.decisions == [PLACED, EVICTED]
    assert sorted(ports) == ["7777", "9889"]
    server.fail(Where.LIST, lambda request: _pass())
    server.fail(Where.ANY, answer(403, "Forbidden"), tunnel(answer=http(b"no decision\n")))
    history = await recall(client, pod="default/w")
    assert history.decisions == []
    assert all(each.problem for each in history.replicas)


async def _pass() -> None:
    return None


async def test_without_an_installation_it_is_said_that_there_is_none(server: FakeApiServer, client: KubeClient) -> None:
    """Nothing was decided by anybody. Where pods cannot be listed, that is not known."""
    assert "no pod of warmnode runs here" in ((await recall(client, node="a")).problem or "")
    server.fail(Where.LIST, answer(403, "Forbidden"))
    assert "cannot be listed" in ((await recall(client, node="a")).problem or "")


# -- in words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (
            PLACED,
            "default/w placed on a, bound 0.25 s later, 1h5m ago: a (rank 1), then b (rank 3, 2.5 of its key); "
            "of 12 candidates for key tenant-1",
        ),
        (
            PlacementDecision(
                at=minutes_ago(1), candidates=3, shadow=True, best=(RankedNode(node="a", rank=1),), **POD
            ),
            "default/w asked for 1m ago: shadow, nothing was answered; it would have been a (rank 1); of 3 candidates",
        ),
        (
            PlacementDecision(at=minutes_ago(1), candidates=1, **POD),
            "default/w asked for 1m ago: none of 1 candidate is known here",
        ),
        (EVICTED, "default/w evicted from a 2m ago, idle for 10m"),
        (
            EvictionDecision(at=minutes_ago(2), node="a", outcome="floor", **POD),
            "default/w not evicted from a 2m ago: it is one of the claimable workers to keep",
        ),
        (
            EvictionDecision(at=minutes_ago(2), node="a", outcome="conflict", **POD),
            "default/w not evicted from a 2m ago: conflict",
        ),
        (
            ClaimDecision(
                at=minutes_ago(3), node="a", user="front", claimant="q-1", expires=NOW + timedelta(minutes=1), **POD
            ),
            f"default/w on a claimed 3m ago by q-1 of front, until {NOW + timedelta(minutes=1):%H:%M:%S} UTC",
        ),
        (
            PreemptionDecision(at=minutes_ago(3), candidates=2, verdict="vetoed", **POD),
            "default/w was not let make room 3m ago: busy workers are protected on each of 2 nodes where it could",
        ),
        (
            PreemptionDecision(at=minutes_ago(3), candidates=2, verdict="chosen", node="a", **POD),
            "default/w was sent to make room on a 3m ago, one of 2 nodes where it could",
        ),
    ],
)
def test_a_decision_is_a_sentence(decision: Decision, words: str) -> None:
    """What was decided, when, and why."""
    assert tell_decision(decision, NOW) == words


def test_what_nobody_remembers_is_told_from_what_nobody_could_be_asked_about() -> None:
    """Too long ago, nothing yet, not reached: three different things."""
    at = {name: Replica(namespace="warmnode", name=name) for name in ("old", "new", "away", "knows")}
    history = History(
        replicas=(
            Recollection(replica=at["old"], oldest="2026-11-01T11:00:00Z"),
            Recollection(replica=at["new"]),
            Recollection(replica=at["away"], problem="forbidden"),
            Recollection(replica=at["knows"], oldest="2026-11-01T11:00:00Z", decisions=(EVICTED,)),
        )
    )
    assert list(tell_history(history, NOW)) == [
        "what was decided of late:",
        "default/w evicted from a 2m ago, idle for 10m",
        "warmnode/old remembers none of it; what it knows begins at 2026-11-01T11:00:00Z",
        "warmnode/new remembers no decision yet",
        "warmnode/away could not be asked: forbidden",
    ]


async def test_how_a_pool_stands_in_the_shadow_is_asked_of_all(server: FakeApiServer, client: KubeClient) -> None:
    """Each replica has counted those that it was asked about; one that answers something else is named."""
    for name in ("serve-0", "serve-1", "serve-2"):
        install(server, name, "serve")
    verdicts = {"agreed": 1, "olderNode": 2, "keyNode": 3, "unknown": 0}
    pools = [{"pool": "ducks", "verdicts": verdicts, "spared": 4}, {"pool": "geese", "verdicts": {}, "spared": 0}]
    answers = [http(json.dumps(pools).encode()), http(b"[]"), http(b"{}")]
    server.fail(Where.LIST, lambda request: _pass())
    server.fail(Where.ANY, *(tunnel(answer=each) for each in answers))
    history = await recall_shadow(client, "ducks")
    (ducks,) = history.shadow
    assert (ducks.pool, ducks.verdicts, ducks.spared) == ("ducks", verdicts, 4)
    heading, told, problem = tell_history(history, NOW)
    assert heading == "placed in the shadow:"
    assert told == (
        "6 workers bound: 1 where they would have gone, 2 would be on an older node, 3 on one that knows their key; "
        "4 nodes fewer would be in use (estimated)"
    )
    assert problem.endswith("could not be asked: what it answers cannot be read: it is of another version")


async def test_a_time_without_its_zone_is_of_another_version(server: FakeApiServer, client: KubeClient) -> None:
    """Anybody may call a pod warmnode, and answer anything: no time of it is subtracted from one that has a zone."""
    install(server, "serve-0", "serve")
    server.fail(Where.LIST, lambda request: _pass())
    line = encode_decision(EVICTED).replace(b'Z"', b'"')
    server.fail(Where.ANY, tunnel(answer=http(line + b"\n")))
    (told,) = (await recall(client, pod="default/w")).replicas
    assert told.problem == OTHER_VERSION
