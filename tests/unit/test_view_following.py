"""Following a cluster for a live view: what may not be read is told, and what is not followed, since when.

Virtual time throughout.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import _AsyncGeneratorContextManager, asynccontextmanager
from datetime import timedelta

import pytest

from extender.inspect.explain import NodeExplanation, Subject, explain
from extender.inspect.live_snapshot import find_ledger
from extender.inspect.view.following import Following
from extender.inspect.view.view_model import CellState
from extender.kube.api_client import KubeClient
from extender.kube.credentials import Access
from extender.kube.errors import Forbidden, KubeError, Unavailable
from extender.kube.transport import Transport
from extender.kube.watch import PAGE_TIMEOUT
from extender.settings import read_configuration
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.store import CONFIG_MAPS, NODES, PODS

pytestmark = pytest.mark.looptime

FORBIDDEN = Forbidden(403, "Forbidden", "you are not allowed")
LABELS = {"warmnode.dev/pool": "ducks"}


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as running:
        running.store.create(NODES, "", {"metadata": {"name": "old", "uid": "old-uid"}})
        yield running


class Refusing(KubeClient):
    """A client for which requests fail whose path has one of these parts."""

    def __init__(self, server: FakeApiServer, errors: dict[str, KubeError]) -> None:
        access = Access(server=server.url, namespace="default")
        super().__init__(Transport(access, user_agent="test"), namespace="default")
        self.errors = errors

    async def get_bytes(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        timeout: timedelta = PAGE_TIMEOUT,  # noqa: ASYNC109
    ) -> bytes:
        self._check(path)
        return await super().get_bytes(path, params=params, timeout=timeout)

    def watch_stream(
        self, path: str, *, params: Mapping[str, str], silence_limit: timedelta
    ) -> _AsyncGeneratorContextManager[AsyncIterator[bytes]]:
        self._check(path)
        return super().watch_stream(path, params=params, silence_limit=silence_limit)

    def _check(self, path: str) -> None:
        for part, error in self.errors.items():
            if part in path:
                raise error


def create_worker(server: FakeApiServer, name: str, node: str = "old") -> None:
    server.store.create(
        PODS,
        "default",
        {"metadata": {"name": name, "uid": f"{name}-uid", "labels": LABELS}, "spec": {"nodeName": node}},
    )


@asynccontextmanager
async def followed(server: FakeApiServer, errors: dict[str, KubeError] | None = None) -> AsyncIterator[Following]:
    """A following of the fake server, as `following` makes it of a real one. ``errors`` may change meanwhile."""
    client = Refusing(server, {} if errors is None else errors)
    try:
        configuration = read_configuration(None)
        ledger = await find_ledger(client, namespace="default", name=configuration.ledger.name)
        made = Following(client, configuration, "default", ledger, {})
        async with made.running():
            yield made
    finally:
        await client.close()


async def until(following: Following, condition: Callable[[], object], seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await following.next_view(following.view)


async def test_it_shows_what_is_there_and_what_comes(server: FakeApiServer) -> None:
    """Workers in their nodes, and what happened since in a sentence."""
    create_worker(server, "early")
    async with followed(server) as following:
        (column,) = following.view.columns
        assert [(cell.pod, cell.state) for cell in column.cells] == [("default/early", CellState.STARTING)]
        assert not following.view.lately
        create_worker(server, "late")
        await until(following, lambda: following.view.lately)
        assert following.view.lately[0].text == "default/late went to old, rank 1 of 1"
        explained = explain(following.look(), Subject.NODE, "old")
        assert isinstance(explained, NodeExplanation)
        assert len(explained.workers) == 2


async def test_without_nodes_or_pods_it_does_not_start(server: FakeApiServer) -> None:
    """It says what is forbidden, and asks for nothing twice."""
    with pytest.raises(Forbidden, match="not allowed"):
        async with followed(server, {"/pods": FORBIDDEN}):
            pass


async def test_the_rest_may_be_forbidden(server: FakeApiServer) -> None:
    """Ledger, Lease, budgets and Karpenter's objects: each is told with what it leaves open."""
    create_worker(server, "early")
    async with followed(server, {"configmaps": FORBIDDEN, "/apis/": FORBIDDEN}) as following:
        told = " ".join(following.view.unknown)
        assert "no ledger" in told
        assert following.view.troubles == ()
        assert len(following.view.columns) == 1
        assert [each.path for each in server.requests if each.method != "GET"] == []


async def test_a_broken_watch_says_since_when(server: FakeApiServer) -> None:
    """And what is drawn stays; once it is followed again, nothing is said."""
    create_worker(server, "early")
    errors: dict[str, KubeError] = {}
    async with followed(server, errors) as following:
        await until(following, lambda: server.watching >= 2)
        before = following.view.now
        errors["/pods"] = Unavailable(0, "ConnectError", "connection refused")
        server.end_watches()
        await until(following, lambda: following.view.troubles)
        (trouble,) = [each for each in following.view.troubles if each.what == "pods"]
        assert trouble.since <= before + timedelta(seconds=1)
        assert "connection refused" in trouble.problem
        assert len(following.view.columns[0].cells) == 1
        errors.clear()
        await until(following, lambda: not following.view.troubles)


async def test_an_installed_ledger_is_followed_wherever_it_is(server: FakeApiServer) -> None:
    """By its labels, in another namespace than ours."""
    labels = {"app.kubernetes.io/name": "warmnode", "app.kubernetes.io/component": "ledger"}
    server.store.create(
        CONFIG_MAPS, "kube-system", {"metadata": {"name": "mine", "labels": labels}, "data": {"old-uid": "1767225600"}}
    )
    async with followed(server) as following:
        (column,) = following.view.columns
        assert column.first_seen is not None
        assert column.first_seen.isoformat() == "2026-01-01T00:00:00+00:00"
