"""What feeds the state. Karpenter's collections are optional: whatever happens to them, everything else goes on.

Virtual time throughout.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

import pytest

from extender.cluster.feed import OPTIONAL, ClusterFeed
from extender.cluster.state import ClusterState
from extender.kube.api_client import KubeClient
from extender.kube.credentials import Access
from extender.kube.errors import Forbidden, KubeError, Unavailable
from extender.kube.transport import Transport
from extender.kube.watch import PAGE_TIMEOUT, ListWatchClient
from extender.model import Departure, Pod
from extender.policy.pools import POOL_LABEL
from extender.telemetry import Metrics, WatchMetrics
from tests.builders import NOW, by_label, minutes_ago
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Then, Where, answer, silence, stream
from tests.fakes.store import CONFIG_MAPS, NODE_CLAIMS, NODE_POOLS, NODES, PODS

pytestmark = pytest.mark.looptime

LEDGER = ("default", "warmnode-first-seen")
CLAIM = {"metadata": {"name": "claim", "uid": "claim-uid", "deletionTimestamp": "2026-11-01T12:00:00Z"}}
OWNER = {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": "claim", "uid": "claim-uid"}


class Without:
    """A client for which every request with ``part`` in its path fails while ``error`` is set."""

    def __init__(self, client: KubeClient, error: KubeError | None = None, part: str = "karpenter.sh") -> None:
        self.error = error
        self.part = part
        self.refused = 0
        self._client = client

    async def get_bytes(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        timeout: timedelta = PAGE_TIMEOUT,  # noqa: ASYNC109
    ) -> bytes:
        self._check(path)
        return await self._client.get_bytes(path, params=params, timeout=timeout)

    def watch_stream(
        self, path: str, *, params: Mapping[str, str], silence_limit: timedelta
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        self._check(path)
        return self._client.watch_stream(path, params=params, silence_limit=silence_limit)

    def _check(self, path: str) -> None:
        if self.error is not None and self.part in path:
            self.refused += 1
            raise self.error


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as running:
        running.store.create(NODES, "", {"metadata": {"name": "node", "uid": "node-uid", "ownerReferences": [OWNER]}})
        yield running


@pytest.fixture
async def client(server: FakeApiServer) -> AsyncIterator[KubeClient]:
    access = Access(server=server.url, namespace="default")
    connected = KubeClient(Transport(access, user_agent="test"), namespace="default")
    yield connected
    await connected.close()


class Followed:
    """A feed at work, its state, and how long it took until it began."""

    def __init__(self, client: ListWatchClient, ledger: tuple[str, str] | None = None) -> None:
        self.state = ClusterState(clock=lambda: NOW)
        self.feed = ClusterFeed(
            client,
            self.state,
            classify=by_label,
            ledger=ledger,
            observer=WatchMetrics(Metrics(), optional=OPTIONAL),
        )
        self.began_after = 0.0


@asynccontextmanager
async def following(client: ListWatchClient, ledger: tuple[str, str] | None = None) -> AsyncIterator[Followed]:
    loop = asyncio.get_running_loop()
    followed, started = Followed(client, ledger), loop.time()
    tasks = [asyncio.create_task(reflector.run()) for reflector in followed.feed.reflectors]
    try:
        await followed.feed.begin()
        followed.began_after = loop.time() - started
        yield followed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise TimeoutError


@pytest.mark.parametrize("ledger", [None, LEDGER])
async def test_an_api_server_that_never_answers_is_told_within_half_a_minute(
    server: FakeApiServer, client: KubeClient, caplog: pytest.LogCaptureFixture, ledger: tuple[str, str] | None
) -> None:
    """A first installation whose API server hangs: at INFO or above, and as the reason that `/readyz` gives."""
    caplog.set_level(logging.INFO)
    server.fail(Where.ANY, *[silence()] * 100)
    followed = Followed(client, ledger)
    tasks = [asyncio.create_task(reflector.run()) for reflector in followed.feed.reflectors]
    await asyncio.sleep(30)
    told = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert {each["collection"] for each in told} == {each.name for each in followed.feed.reflectors}
    assert all(f"the API server {server.url} did not answer" in each["error"] for each in told)
    assert f"nodes: not listed yet (GET /api/v1/nodes: the API server {server.url} did" in followed.feed.reasons()[0]
    assert "did not answer" in str(followed.feed.shown()["pods"]["problem"])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_stale_collection_says_why(server: FakeApiServer, client: KubeClient) -> None:
    """Two minutes after the API server began to hang, `/readyz` has its name."""
    server.fail(Where.WATCH, *[stream(then=Then.HANG)] * 2)
    async with following(client) as followed:
        await asyncio.sleep(1)
        server.fail(Where.ANY, *[silence()] * 100)
        await asyncio.sleep(130)
        assert followed.feed.reasons()[0].startswith("nodes: nothing heard for ")
        assert f"the API server {server.url} did not answer for 20 s" in followed.feed.reasons()[0]


def about_karpenter(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if getattr(record, "fields", {}).get("collection") in OPTIONAL]


async def test_cluster_without_karpenter_is_told_once_and_is_ready(
    server: FakeApiServer, client: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Absent CRDs are one line each; ready and fresh at once and after ten minutes; a look every half minute."""
    caplog.set_level(logging.INFO)
    async with following(client) as followed:
        assert followed.began_after < 1
        await asyncio.sleep(600)
        server.send_bookmarks()
        await asyncio.sleep(1)
        assert followed.feed.reasons() == []
        assert followed.feed.is_fresh()
        shown = followed.feed.shown()["nodeclaims"]
        assert (shown["synced"], shown["ageSeconds"], shown["optional"]) == (False, None, True)
        assert "404" in str(shown["problem"])
        metrics = Metrics()
        figures = followed.feed.figures(metrics, NOW)
        assert {each.labels[0]: each.value for each in figures if each.metric is metrics.collection_missing} == {
            "nodes": False,
            "pods": False,
            "nodeclaims": True,
            "nodepools": True,
        }
    assert [(record.levelno, record.getMessage()[:22]) for record in about_karpenter(caplog)] == [
        (logging.INFO, "not in this cluster, g")
    ] * 2
    assert len([each for each in server.requests if "karpenter.sh" in each.path]) <= 2 * 26


async def test_crds_that_appear_later_are_picked_up(server: FakeApiServer, client: KubeClient) -> None:
    """Installing Karpenter needs no restart: half a minute later its NodeClaims say which nodes are leaving."""
    async with following(client) as followed:
        assert followed.state.departure("node") is None
        for resource in (NODE_CLAIMS, NODE_POOLS):
            server.store.enable(resource)
        server.store.create(NODE_CLAIMS, "", CLAIM)
        await until(lambda: followed.state.departure("node") is Departure.NODE_CLAIM_DELETING)
        await until(lambda: followed.feed.node_pools.synced)
        assert followed.feed.shown()["nodeclaims"]["problem"] is None


async def test_permission_that_is_taken_away_leaves_fewer_signals(
    server: FakeApiServer, client: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A 403 forgets what NodeClaims said, for it would stay true for ever; given back, it is known again."""
    for resource in (NODE_CLAIMS, NODE_POOLS):
        server.store.enable(resource)
    server.store.create(NODE_CLAIMS, "", CLAIM)
    limited = Without(client)
    async with following(limited) as followed:
        assert followed.state.departure("node") is Departure.NODE_CLAIM_DELETING
        await until(lambda: server.watching == len(followed.feed.reflectors))
        limited.error = Forbidden(403, "Forbidden", "nodeclaims is forbidden")
        server.end_watches()
        await until(lambda: limited.refused >= 6)
        assert followed.state.departure("node") is None
        assert "node" in followed.state.ranking.as_of(NOW)
        assert followed.feed.is_fresh()
        assert len([r for r in about_karpenter(caplog) if r.levelno == logging.WARNING]) == 2
        limited.error = None
        await until(lambda: followed.state.departure("node") is Departure.NODE_CLAIM_DELETING)


async def test_claims_that_cannot_be_read_for_two_minutes_are_forgotten(
    server: FakeApiServer, client: KubeClient
) -> None:
    """On a leaving node no floor is kept: what a NodeClaim said must not stay true when it may have been taken back."""
    for resource in (NODE_CLAIMS, NODE_POOLS):
        server.store.enable(resource)
    server.store.create(NODE_CLAIMS, "", CLAIM)
    limited = Without(client)
    async with following(limited) as followed:
        await until(lambda: server.watching == len(followed.feed.reflectors))
        limited.error = Unavailable(500, "InternalError", "conversion webhook failed")
        server.end_watches()
        await asyncio.sleep(100)
        assert followed.state.departure("node") is Departure.NODE_CLAIM_DELETING
        await until(lambda: followed.state.departure("node") is None)
        limited.error = None
        await until(lambda: followed.state.departure("node") is Departure.NODE_CLAIM_DELETING)


async def test_broken_collection_delays_the_start_by_seconds_and_no_more(client: KubeClient) -> None:
    """A CRD whose conversion webhook fails answers 500 for ever: the rest begins, is ready and stays fresh."""
    broken = Without(client, Unavailable(500, "InternalError", "conversion webhook failed"))
    async with following(broken) as followed:
        assert 4.9 < followed.began_after < 5.5
        await asyncio.sleep(50)
        assert followed.feed.reasons() == []
        assert followed.feed.is_fresh()
        assert followed.feed.shown()["nodeclaims"]["synced"] is False
        assert broken.refused < 40


# -- fresh enough for what cannot be taken back -----------------------------------------------------------------------


async def becomes_fresh(feed: ClusterFeed) -> float:
    """Wait until the feed is fresh: how many seconds that took."""
    started = asyncio.get_running_loop().time()
    await until(feed.is_fresh)
    return asyncio.get_running_loop().time() - started


async def test_state_is_fresh_a_second_after_its_watches_are_open(client: KubeClient) -> None:
    """What happened between list and watch is sent at once; until then nothing is decided that cannot be taken back."""
    async with following(client) as followed:
        assert not followed.feed.is_fresh()
        assert 0.8 < await becomes_fresh(followed.feed) < 1.3


async def test_state_is_not_fresh_while_a_watch_is_broken(server: FakeApiServer, client: KubeClient) -> None:
    """However short ago it was heard of: what happens now is not known. Back again, it is fresh a second later."""
    async with following(client) as followed:
        await becomes_fresh(followed.feed)
        server.fail(Where.WATCH, *[answer(500)] * 8)
        server.end_watches()
        await asyncio.sleep(0.5)
        assert not followed.feed.is_fresh()
        assert followed.feed.reasons() == []  # for scores an old state is better than none
        assert followed.feed.shown()["nodes"]["following"] is False
        await becomes_fresh(followed.feed)
        assert followed.feed.shown()["nodes"]["following"] is True


async def test_watch_that_goes_silent_is_found_out_and_begun_anew(server: FakeApiServer, client: KubeClient) -> None:
    """A connection that is dead and says nothing: not fresh after 75 s at most, and up to date soon after it lives."""
    server.fail(Where.WATCH, *[stream(then=Then.HANG)] * 2, *[silence()] * 4)
    async with following(client) as followed:
        await becomes_fresh(followed.feed)
        server.store.create(NODES, "", {"metadata": {"name": "late", "uid": "late-uid"}})
        await asyncio.sleep(77)
        assert not followed.feed.is_fresh()
        assert "late" not in followed.state.nodes
        await until(lambda: "late" in followed.state.nodes)
        await becomes_fresh(followed.feed)
        assert followed.feed.reasons() == []


async def test_a_ledger_that_may_be_read_only_later_is_not_overwritten(
    server: FakeApiServer, client: KubeClient
) -> None:
    """A control plane that answers 403 until its roles are loaded: the ledger stays as it is."""
    created, recorded = minutes_ago(500), minutes_ago(50)
    node = {"name": "a", "uid": "uid-of-a", "creationTimestamp": created.isoformat()}
    server.store.create(NODES, "", {"metadata": node})
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": minutes_ago(40).isoformat()}
    status = {"phase": "Running", "conditions": [condition]}
    metadata = {"name": "w", "labels": {POOL_LABEL: "ducks"}}
    server.store.create(PODS, "default", {"metadata": metadata, "spec": {"nodeName": "a"}, "status": status})
    data = {"uid-of-a": str(int(recorded.timestamp()))}
    server.store.create(CONFIG_MAPS, LEDGER[0], {"metadata": {"name": LEDGER[1]}, "data": data})
    limited = Without(client, Forbidden(403, "Forbidden", "RBAC is not loaded"), part="configmaps")
    async with following(limited, LEDGER) as followed:
        state = followed.state
        assert state.ages.first_seen(state.nodes["a"]) == created
        assert state.ages.unrecorded() == {"uid-of-a": minutes_ago(40)}
        limited.error = None
        await asyncio.sleep(60)
        assert state.ages.first_seen(state.nodes["a"]) == recorded
        assert state.ages.unrecorded() == {}


async def test_a_worker_that_was_bound_while_no_watch_was_open_is_told_of(
    server: FakeApiServer, client: KubeClient
) -> None:
    """The next list shows it. One that the first list shows already was bound by somebody else's doing."""
    labels = {POOL_LABEL: "ducks"}
    for name, spec in (("early", {"nodeName": "node"}), ("late", {})):
        server.store.create(PODS, "default", {"metadata": {"name": name, "labels": labels}, "spec": spec})
    bound, was_told = [], asyncio.Event()

    def take(pod: Pod) -> None:
        bound.append(pod.name)
        was_told.set()

    feed = ClusterFeed(
        client,
        ClusterState(clock=lambda: NOW),
        classify=by_label,
        ledger=None,
        observer=WatchMetrics(Metrics(), optional=OPTIONAL),
        bound=take,
    )
    following = asyncio.create_task(feed.pods.run())
    await feed.pods.synced_event.wait()
    following.cancel()
    assert bound == []
    server.store.patch(PODS, ("default", "late"), {"spec": {"nodeName": "node"}})
    server.compact()  # so that it cannot be heard of in a watch
    following = asyncio.create_task(feed.pods.run())
    async with asyncio.timeout(60):
        await was_told.wait()
    following.cancel()
    assert bound == ["late"]
