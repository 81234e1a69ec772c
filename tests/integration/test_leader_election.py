"""Leader election against a real API server: one leads, whoever is killed or stopped, the API server included."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from extender.clock import Clock, Steady
from extender.kube.api_client import KubeClient
from extender.kube.lease import LeaseStore
from extender.loops.election_observer import ElectionTelemetry
from extender.loops.elector import JITTER, LeaderElector, make_identity
from extender.telemetry import Metrics
from scripts.tools.controlplane import Component, ControlPlane, Options, wait_for
from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.proxy import Proxy

pytestmark = pytest.mark.controlplane

LEASE, DEADLINE, RETRY = timedelta(seconds=3), timedelta(seconds=2), timedelta(seconds=0.5)
PAUSE = RETRY.total_seconds() * (1 + JITTER)
SLACK = 1.5
"""Seconds that a busy machine may add."""
SECONDS = 30.0


@pytest.fixture(scope="module")
def plane(require_binaries: RequireBinaries) -> Iterator[ControlPlane]:
    """An API server of our own, which can be stopped without others' harm."""
    options = Options(scheduler=False, controller_manager=False, kwok=False)
    require_binaries(options.binaries())
    with ControlPlane(options) as running:
        yield running


@pytest.fixture
def name() -> str:
    """Of a Lease that does not exist yet, in the namespace `default`."""
    return f"election-{secrets.token_hex(4)}"


class Replica:
    """An elector with its own connections, running in a task."""

    def __init__(self, client: KubeClient, name: str) -> None:
        random = Random()  # noqa: S311
        identity = make_identity(random)
        self.elector = LeaderElector(
            LeaseStore(client, namespace="default", name=name),
            identity=identity,
            lease_duration=LEASE,
            renew_deadline=DEADLINE,
            retry_period=RETRY,
            random=random,
            observer=ElectionTelemetry(Metrics(), identity=identity),
            clock=Clock(now=lambda: datetime.now(UTC), steady=lambda: Steady(time.monotonic())),
        )
        self._client = client
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self.elector.run())

    async def die(self) -> None:
        """Stop at once; the Lease stays as it is."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None


@asynccontextmanager
async def replicas(
    plane: ControlPlane, name: str, count: int, *, kubeconfig: Path | None = None
) -> AsyncIterator[list[Replica]]:
    """That many electors, and a look at all of them every few milliseconds: never two lead."""
    given = str(kubeconfig or plane.kubeconfig)
    clients = [await KubeClient.connect(kubeconfig=given, user_agent="warmnode/test") for _ in range(count)]
    made = [Replica(client, name) for client in clients]

    async def watch() -> None:
        while True:
            assert sum(each.elector.is_leader for each in made) <= 1
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    try:
        for each in made:
            each.start()
        yield made
        assert not watching.done(), watching.exception()
    finally:
        watching.cancel()
        for each in made:
            await each.die()
        for client in clients:
            await client.close()


async def leader_of(some: list[Replica], within: float) -> Replica:
    """The one that leads, as soon as there is one."""
    async with asyncio.timeout(within):
        while True:
            for each in some:
                if each.elector.is_leader:
                    return each
            await asyncio.sleep(0.005)


async def test_one_leads_and_the_others_know_it(plane: ControlPlane, name: str) -> None:
    async with replicas(plane, name, 3) as some:
        leader = await leader_of(some, SECONDS)
        await asyncio.sleep(2 * LEASE.total_seconds())
        assert leader.elector.is_leader
        assert {each.elector.leader for each in some} == {leader.elector.identity}
    spec = plane.api("GET", f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{name}")["spec"]
    assert spec["holderIdentity"] == leader.elector.identity
    assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (3, 0)
    assert spec["acquireTime"] < spec["renewTime"]


async def test_release_hands_over_at_the_next_look(plane: ControlPlane, name: str) -> None:
    async with replicas(plane, name, 2) as some:
        leader = await leader_of(some, SECONDS)
        await asyncio.sleep(1)
        await leader.die()
        await leader.elector.release()
        assert not leader.elector.is_leader
        successor = await leader_of(some, PAUSE + SLACK)
        assert successor is not leader
    spec = plane.api("GET", f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{name}")["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == (successor.elector.identity, 1)


async def test_deleted_lease_costs_no_leadership(plane: ControlPlane, name: str) -> None:
    async with replicas(plane, name, 2) as some:
        leader = await leader_of(some, SECONDS)
        await asyncio.sleep(1)
        plane.api("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{name}")
        await asyncio.sleep(LEASE.total_seconds() + SLACK)
        assert leader.elector.is_leader


async def lost(elector: LeaderElector) -> None:
    while elector.is_leader:  # noqa: ASYNC110 - nobody else is told
        await asyncio.sleep(0.05)


async def test_stopped_api_server_never_makes_two_leaders(plane: ControlPlane, name: str) -> None:
    """Leadership ends before the lease runs out; afterwards exactly one leads again."""
    async with replicas(plane, name, 2) as some:
        leader = await leader_of(some, SECONDS)
        plane.pause(Component.API_SERVER)
        try:
            async with asyncio.timeout(DEADLINE.total_seconds() + SLACK):
                await lost(leader.elector)
            await asyncio.sleep(LEASE.total_seconds())
            assert not any(each.elector.is_leader for each in some)
        finally:
            plane.resume(Component.API_SERVER)
        leader = await leader_of(some, LEASE.total_seconds() + 2 * PAUSE + SLACK)
        await asyncio.sleep(LEASE.total_seconds())
        assert leader.elector.is_leader


async def test_slow_api_server_never_makes_two_leaders(plane: ControlPlane, name: str, tmp_path: Path) -> None:
    """Slow answers that come in time cost no leadership. When they come too late nobody leads; afterwards one does.

    A write whose answer comes too late was carried out all the same.
    """
    delay = 0.0
    with Proxy(plane) as proxy:
        proxy.hook = lambda seen: time.sleep(delay)
        async with replicas(plane, name, 2, kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig")) as some:
            leader = await leader_of(some, SECONDS)
            delay = DEADLINE.total_seconds() / 8
            await asyncio.sleep(LEASE.total_seconds())
            assert leader.elector.is_leader
            delay = DEADLINE.total_seconds() / 2
            async with asyncio.timeout(DEADLINE.total_seconds() + SLACK):
                await lost(leader.elector)
            await asyncio.sleep(LEASE.total_seconds())
            assert not any(each.elector.is_leader for each in some)
            delay = 0.0
            leader = await leader_of(some, LEASE.total_seconds() + 2 * PAUSE + SLACK)
            await asyncio.sleep(LEASE.total_seconds())
            assert leader.elector.is_leader


PROGRAM = """
import asyncio, sys, time
from tests.integration.test_leader_election import run_alone
asyncio.run(run_alone(sys.argv[1], sys.argv[2]))
"""


async def run_alone(kubeconfig: str, name: str) -> None:
    """In a process of its own: say for ever whether it leads and knows who does: ``monotonic-seconds 0|1 0|1``."""
    client = await KubeClient.connect(kubeconfig=kubeconfig, user_agent="warmnode/test")
    replica = Replica(client, name)
    replica.start()
    while True:
        now = time.monotonic()  # before the question: a process may be stopped in between
        print(now, int(replica.elector.is_leader), int(replica.elector.leader != ""), flush=True)
        await asyncio.sleep(0.01)


class Alone:
    """A replica in a process of its own. CLOCK_MONOTONIC is the machine's, so that what they say can be compared."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self.output = output

    def told(self) -> list[tuple[float, bool, bool]]:
        lines = self.output.read_text().rpartition("\n")[0].splitlines()
        return [(float(at), leads == "1", knows == "1") for at, leads, knows in (line.split() for line in lines)]

    def leads(self) -> bool:
        """Whether it said so last, not long ago."""
        told = self.told()
        return bool(told) and told[-1][1] and time.monotonic() - told[-1][0] < 0.5

    def knows(self) -> bool:
        """Whether it has seen that somebody leads."""
        return any(knows for _, _, knows in self.told())

    def led(self) -> list[float]:
        return [at for at, leads, _ in self.told() if leads]


@contextmanager
def alone(plane: ControlPlane, name: str, output: Path) -> Iterator[Alone]:
    command = [sys.executable, "-P", "-c", PROGRAM, str(plane.kubeconfig), name]
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield Alone(process, output)
    finally:
        process.kill()
        process.wait()


def await_leading(replica: Alone, within: float) -> None:
    wait_for(lambda: replica.leads() or None, within, lambda: f"the other to lead: {replica.told()[-5:]}")


def test_stopped_and_killed_processes_hand_over(plane: ControlPlane, name: str, tmp_path: Path) -> None:
    """A stopped leader does not lead when it wakes up; a killed one is followed when its lease is over."""
    with alone(plane, name, tmp_path / "one") as one, alone(plane, name, tmp_path / "two") as two:
        wait_for(lambda: (one.leads() or two.leads()) or None, SECONDS, "one to lead")
        if two.leads():
            one, two = two, one
        wait_for(lambda: two.knows() or None, SECONDS, "the other to see it")

        one.process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        await_leading(two, LEASE.total_seconds() + 2 * PAUSE + SLACK)
        one.process.send_signal(signal.SIGCONT)
        woken = time.monotonic()
        wait_for(lambda: one.told()[-1][0] > woken + 1 or None, SECONDS, "the first to go on")
        assert two.leads()
        assert not [at for at in one.led() if at > stopped + 0.1]

        two.process.kill()
        killed = time.monotonic()
        await_leading(one, LEASE.total_seconds() + 2 * PAUSE + SLACK)
        again = [at for at in one.led() if at > killed]
        assert two.led()[0] > max(at for at in one.led() if at < woken)
        assert two.led()[-1] < min(again)
