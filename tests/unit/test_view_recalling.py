"""What replicas of warmnode tell a live view: asked beside it, seldom, and what they do not tell is one line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from extender.inspect.view.following import Following
from extender.inspect.view.recalling import ASKED_EVERY, SHOWN
from extender.kube.api_client import KubeClient
from extender.kube.credentials import Access
from extender.kube.transport import Transport
from extender.policy.decisions import EvictionDecision, encode_decision
from extender.settings import read_configuration
from tests.builders import minutes_ago
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Fault, Where, answer, silence
from tests.fakes.store import NODES, PODS
from tests.fakes.tunnel import http, tunnel

pytestmark = pytest.mark.looptime

LABELS = {"warmnode.dev/pool": "ducks"}
STANDING = {"pool": "ducks", "verdicts": {"agreed": 1, "olderNode": 2}, "spared": 1}
BIDI = "w\u202egnp"


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as running:
        running.store.create(NODES, "", {"metadata": {"name": "old", "uid": "old-uid"}})
        worker = {"metadata": {"name": "early", "uid": "early-uid", "labels": LABELS}, "spec": {"nodeName": "old"}}
        running.store.create(PODS, "default", worker)
        yield running


def install(server: FakeApiServer, *names: str) -> None:
    for name in names:
        tree = {
            "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "warmnode"}},
            "spec": {"containers": [{"args": ["serve"]}]},
            "status": {"phase": "Running"},
        }
        server.store.create(PODS, "default", tree)


def behind_port_forward(server: FakeApiServer, *faults: Fault, pod: str = "") -> None:
    """Answer requests for a port of a pod so, one after the other; all others are served as usual."""
    left = list(faults)

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if not left or not request.path.endswith(f"{pod}/portforward"):
            return None
        return await left.pop(0)(request)

    server.fail(Where.ANY, *[fault] * 1000)


def remembering(*names: str) -> Fault:
    """A replica that evicted workers of these names, and has the pool in the shadow."""
    lines = b"".join(
        encode_decision(
            EvictionDecision(
                at=minutes_ago(len(names) - place), namespace="default", pod=name, node="old", outcome="evicted"
            )
        )
        + b"\n"
        for place, name in enumerate(names)
    )
    return tunnel(
        answer=lambda asked: http(json.dumps([STANDING]).encode() if b"/shadow" in asked else lines), frame=4096
    )


@asynccontextmanager
async def followed(server: FakeApiServer) -> AsyncIterator[Following]:
    access = Access(server=server.url, namespace="default")
    client = KubeClient(Transport(access, user_agent="test"), namespace="default")
    try:
        made = Following(client, read_configuration(None), "default", None, {})
        async with made.running():
            yield made
    finally:
        await client.close()


async def test_decisions_and_the_shadow_are_in_the_first_view(server: FakeApiServer) -> None:
    """The last decision first, names are text that turns no line around; the shadow stands at its pool."""
    install(server, "serve-0")
    behind_port_forward(server, *[remembering(*["w"] * SHOWN, BIDI)] * 4)
    async with followed(server) as following:
        assert len(following.view.decided) == SHOWN
        assert following.view.decided[0].text.startswith("default/w?gnp evicted from old ")
        (pool,) = following.view.pools
        assert pool.shadow is not None
        assert pool.shadow.startswith("3 workers bound: 1 where they would have gone, 2 would be on an older node")
        assert not any("decided" in each for each in following.view.unknown)


async def test_without_an_installation_nothing_is_said_of_it(server: FakeApiServer) -> None:
    """What is seen is shown, and that nobody has decided anything is no gap."""
    async with followed(server) as following:
        assert following.view.decided == ()
        assert not any("decided" in each for each in following.view.unknown)
        assert [each.shadow for each in following.view.pools] == [None]


async def test_replicas_that_do_not_tell_are_one_line(server: FakeApiServer) -> None:
    """With how many of them and the first one's reason."""
    install(server, "serve-0", "serve-1")
    behind_port_forward(server, *[answer(403, "Forbidden")] * 4)
    async with followed(server) as following:
        (told,) = [each for each in following.view.unknown if "decided" in each]
        assert told.startswith("what 2 of 2 replicas decided: default/serve-0: ")
        assert following.view.decided == ()


async def test_a_replica_that_never_answers_holds_nothing_up(server: FakeApiServer) -> None:
    """The first view comes after two seconds, the next ones as ever; the replica is asked again, not faster."""
    install(server, "serve-0")
    behind_port_forward(server, *[silence()] * 1000)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with followed(server) as following:
        assert loop.time() - begun < 4
        first = following.view
        await following.next_view(first)
        assert loop.time() - begun < 5
        async with asyncio.timeout(60):
            while not any("decided" in each for each in following.view.unknown):
                await following.next_view(following.view)
        before = sum(each.path.endswith("/portforward") for each in server.requests)
        await asyncio.sleep(ASKED_EVERY.total_seconds() * 4)
        assert sum(each.path.endswith("/portforward") for each in server.requests) - before <= 6
