"""How a process is put together: what its parts ask each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from extender.app.files import follow_files
from extender.app.options import Role, RunOptions
from extender.app.process import Process
from extender.kube.api_client import ClusterOptions, KubeClient
from extender.kube.api_request import CONNECTIONS
from extender.kube.credentials import Access
from extender.kube.lease import LeaseStore
from extender.kube.ledger_store import LIMIT_BYTES
from extender.kube.transport import Transport
from extender.model import Ledger
from extender.policy.election import LeaseRecord
from extender.settings import Configuration, ConfigurationFile, load_configuration
from extender.telemetry import Metrics
from extender.web.server import Address
from tests.builders import NOW, node, worker
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Where

ANY_PORT = Address("127.0.0.1", 0)
HEAD = "apiVersion: warmnode.dev/v1alpha1\nkind: Configuration\n"


@dataclass
class Serving:
    """A process that serves, before its loops run, and its API server."""

    process: Process
    server: FakeApiServer
    client: KubeClient

    async def hold(self, name: str) -> None:
        """Somebody leads the reapers by this Lease."""
        store = LeaseStore(self.client, namespace="default", name=name)
        await store.create(LeaseRecord(holder="a reaper", renewed=datetime.now(UTC)))


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with FakeApiServer() as server:
        access = Access(server=server.url, namespace="default")
        client = KubeClient(Transport(access, user_agent="test"), namespace="default")
        options = RunOptions(
            roles=frozenset({Role.SERVE}),
            cluster=ClusterOptions(),
            configuration=ConfigurationFile(None),
            dry_run=False,
            ops_listen=ANY_PORT,
            history_listen=ANY_PORT,
        )
        process = Process(options, client, {}, asyncio.Event())
        process.state.take_ledger(Ledger(first_seen={}, resource_version="1", size_bytes=LIMIT_BYTES))
        yield Serving(process, server, client)
        await client.close()


async def test_only_who_leads_shows_its_passes(serving: Serving) -> None:
    """Alerts take the highest figure of all replicas: a pool that was paused once would be so for ever."""
    options = replace(serving.process.options, roles=frozenset({Role.REAP}))
    process = Process(options, serving.client, {}, asyncio.Event())
    assert process.reaping is not None
    elector = process.reaping.elector
    process.state.replace_nodes([node()])
    process.state.replace_pods([worker()])
    process.state.begin()
    electing = asyncio.create_task(elector.run())
    try:
        while not elector.is_leader:  # noqa: ASYNC110 - nobody else is told
            await asyncio.sleep(0.001)
        await process.reaping.reaper.one_pass("pool")
        shown = process.metrics.exposition().decode()
        assert 'warmnode_pool_workers{pool="pool",state="busy"} 1.0' in shown
        assert 'warmnode_reap_paused{pool="pool"} 0.0' in shown
    finally:
        electing.cancel()
        await process.reaping.close()
    shown = process.metrics.exposition().decode()
    assert "warmnode_pool_workers{" not in shown
    assert "warmnode_reap_paused{" not in shown


def renamed(name: str) -> Configuration:
    """The defaults, with another name of the reapers' Lease."""
    return load_configuration(f"{HEAD}leaderElection: {{name: {name}}}\n", source="test")


async def test_who_serves_prunes_where_nobody_reaps(serving: Serving) -> None:
    """A reaper's leader prunes better: it is one."""
    assert await serving.process._may_prune()
    await serving.hold("warmnode-reaper")
    assert not await serving.process._may_prune()


@pytest.mark.parametrize("held", ["warmnode-reaper", "renamed"])
async def test_a_lease_that_is_renamed_counts_under_both_names(serving: Serving, held: str) -> None:
    """The name goes for whoever is started after it was set: the reapers may be, or may not be yet."""
    serving.process._take(renamed("renamed"))
    assert await serving.process._may_prune()
    await serving.hold(held)
    assert not await serving.process._may_prune()


async def test_the_feed_waits_for_nobody_elses_requests(serving: Serving) -> None:
    """It has connections of its own: slow requests take all others."""
    begun = asyncio.Semaphore(0)

    async def slow(request: web.Request) -> None:
        begun.release()
        await asyncio.Event().wait()

    serving.server.fail(Where.WRITE, *[slow] * CONNECTIONS)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(serving.client.send("POST", "/api/v1/nodes", b"{}")) for _ in range(CONNECTIONS)]
        for _ in tasks:
            await begun.acquire()
        nodes = serving.process.feed.nodes
        following = group.create_task(nodes.run())
        async with asyncio.timeout(5):
            await nodes.synced_event.wait()
        for each in (*tasks, following):
            each.cancel()


# -- files ------------------------------------------------------------------------------------------------------------


class SlowFile(ConfigurationFile):
    """A file that takes as long to be read as `release` is not called."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_polled = threading.Event()
        self.was_in_vain = False
        self._released = threading.Event()

    def release(self) -> None:
        """Let it be read."""
        self._released.set()

    def poll(self) -> Configuration | None:
        """Wait, and read. On the loop nobody could release it."""
        self.is_polled.set()
        if not self._released.wait(5):
            self.was_in_vain = True
            return None
        return super().poll()


@pytest.mark.looptime
async def test_a_configuration_that_takes_long_to_read_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Hundreds of pools take tens of milliseconds, and a scheduler waits 250 ms for an answer at most."""
    path = tmp_path / "warmnode.yaml"
    path.write_text(HEAD)
    file, taken = SlowFile(path), list[Configuration]()
    path.write_text(f"{HEAD}dryRun: true\n")
    task = asyncio.create_task(follow_files(file, (), Metrics(), taken.append, lambda: NOW))
    async with asyncio.timeout(600):
        while not file.is_polled.is_set():  # noqa: ASYNC110 - a condition of the test
            await asyncio.sleep(0.1)
        file.release()
        while not taken:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
    assert [each.dry_run for each in taken] == [True]
    assert not file.was_in_vain
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
