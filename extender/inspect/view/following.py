"""Follows a cluster for a live view: list and watch as every process of ours does, and a view of it twice a second.

Owns the loop and what is read beside it. Writes nothing into the cluster, and needs no right but to list and watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from extender.cluster.feed import FRESH, NODE_CLAIMS, NODE_POOLS, NODES, PODS, ClusterFeed
from extender.cluster.state import ClusterState
from extender.inspect.live_snapshot import FoundLedger, ReadBeside, find_ledger, read_beside, server_time
from extender.inspect.plan import Look, Plan, plan_for
from extender.inspect.snapshot import Snapshot
from extender.inspect.view.frames import Past
from extender.inspect.view.happenings import with_happenings
from extender.inspect.view.recalling import Recalling
from extender.inspect.view.view_model import Beside, Trouble, View, view_of
from extender.kube.api_client import ClusterOptions, KubeClient, connected
from extender.kube.errors import KubeError, NotFound
from extender.kube.watch_reports import NullObserver
from extender.model import AgeSource
from extender.settings import Configuration
from extender.settings.in_force import InForce

TICK = timedelta(milliseconds=500)
JUDGED_EVERY = timedelta(seconds=2)
"""What a pass would do, for all workers: of a large cluster that takes a tenth of a second."""
BESIDE_EVERY = timedelta(seconds=15)
FIRST_TOLD = timedelta(seconds=2)
"""So long it takes at most until it is shown, while replicas of warmnode tell what they decided."""

_KINDS = {NODES: "Node", PODS: "Pod", NODE_CLAIMS: "NodeClaim", NODE_POOLS: "NodePool"}


class Following:
    """A cluster that is followed. ``view`` is the last one, ``past`` those of the last hour."""

    def __init__(
        self,
        client: KubeClient,
        configuration: Configuration,
        namespace: str,
        ledger: FoundLedger | None,
        prices: Mapping[str, float],
    ) -> None:
        self.past = Past()
        self._client = client
        self._configuration = configuration
        self._namespace = namespace
        self._ledger = ledger
        self._failures = _Failures()
        self._changed = asyncio.Condition()
        self._state = ClusterState(
            clock=lambda: server_time(client), age=configuration.age, ending_rules=configuration.ending
        )
        self._feed = ClusterFeed(
            client,
            self._state,
            classify=InForce(configuration).classify,
            ledger=ledger.place if ledger is not None else None,
            observer=self._failures,
        )
        self._read = ReadBeside(brakes=None, pod_budgets=(), unread={})
        self._beside = Beside(prices=prices)
        self._recalling = Recalling(client)
        self._plan: Plan | None = None
        self._judged_at = 0.0
        self.view = view_of(self._state, server_time(client), self._beside)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """List everything, and then follow it until the end of the block.

        Raises:
            KubeError: nodes or pods cannot be listed.
        """
        await self._read_beside()
        try:
            async with asyncio.TaskGroup() as group:
                tasks: list[asyncio.Task[Any]] = [
                    group.create_task(each.run(), name=f"watch {each.name}") for each in self._feed.reflectors
                ]
                try:
                    await self._begin()
                    tasks.append(group.create_task(self._recalling.run(), name="recall"))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(FIRST_TOLD.total_seconds()):
                            await self._recalling.has_asked.wait()
                    self._look_again()
                    tasks.append(group.create_task(self._tick(), name="tick"))
                    tasks.append(group.create_task(self._keep_reading(), name="read beside"))
                    yield
                finally:
                    for task in tasks:
                        task.cancel()
        except BaseExceptionGroup as group_of_one:  # a TaskGroup wraps what its own block raises too
            raise group_of_one.exceptions[0] from None

    async def next_view(self, after: View | None) -> View:
        """Wait for another view than ``after``."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.view is not after)
        return self.view

    def look(self) -> Look:
        """Look at the cluster as it is now, to explain something in it."""
        now = server_time(self._client)
        snapshot = Snapshot(
            nodes=tuple(self._state.nodes.values()),
            pods=(),
            node_pools=tuple(self._state.node_pools.values()),
            ledger=self._state.ages.ledger,
            taken=now,
            pod_budgets=self._read.pod_budgets,
            unread=self._unread(),
            brakes=self._read.brakes,
        )
        note = f", {self._ledger.note}" if self._ledger is not None else ""
        plan = plan_for(self._state, snapshot, self._configuration, source=f"the cluster{note}")
        return Look(state=self._state, plan=plan, configuration=self._configuration)

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        begun = asyncio.create_task(self._feed.begin())
        failed = asyncio.create_task(self._failures.first())
        try:
            await asyncio.wait({begun, failed}, return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                raise failed.result()
        finally:
            begun.cancel()
            failed.cancel()
        self._look_again()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK.total_seconds())
            self._look_again()
            async with self._changed:
                self._changed.notify_all()

    def _look_again(self) -> None:
        """Make a new view. What a pass would do is judged anew more seldom."""
        steady = asyncio.get_running_loop().time()
        if self._plan is None or steady - self._judged_at >= JUDGED_EVERY.total_seconds():
            self._plan, self._judged_at = self.look().plan, steady
        now, before = server_time(self._client), self.view if self.past.begun is not None else None
        self._beside = replace(
            self._beside,
            reaps=self._plan.reaps,
            decided=self._recalling.decided(now),
            shadow=self._recalling.shadow(),
            unknown=(*self._recalling.unknown(), *self._plan.unknown),
            troubles=tuple(self._troubles()),
        )
        self.view = with_happenings(view_of(self._state, now, self._beside, self.view), before)
        self.past.note(self.view)

    def _troubles(self) -> Iterator[Trouble]:
        """Say what is not followed now: a watch that is broken, or was silent for longer than an open one is.

        What is optional and missing is no trouble: it is not known, and said there.
        """
        now, steady = server_time(self._client), asyncio.get_running_loop().time()
        for each in self._feed.reflectors:
            if each.last_contact is None or each.missing:
                continue
            silent = timedelta(seconds=steady - each.last_contact)
            if (each.following_since is None and each.problem is not None) or silent > FRESH:
                problem = each.problem or self._client.problem or "nothing was heard, not even a bookmark"
                yield Trouble(what=each.name, since=now - silent, problem=problem)

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(BESIDE_EVERY.total_seconds())
            await self._read_beside()

    async def _read_beside(self) -> None:
        lease = self._configuration.leader_election.name
        self._read = await read_beside(self._client, namespace=self._namespace, lease_name=lease)

    def _unread(self) -> dict[str, str]:
        """Say why kinds that are not there, or may not be read, are unknown."""
        told = {
            _KINDS[each.name]: "not in this cluster"
            if isinstance(self._failures.last.get(each.name), NotFound)
            else each.problem or "missing"
            for each in self._feed.reflectors
            if each.missing and each.name in _KINDS
        }
        return {**self._read.unread, **told}


class _Failures(NullObserver):
    """Remembers why each collection could not be read last. Without nodes or pods there is nothing to show."""

    def __init__(self) -> None:
        self.last: dict[str, KubeError] = {}
        self._is_hopeless = asyncio.Event()

    def watch_failed(self, name: str, error: KubeError) -> None:
        """Called by each reflector."""
        self.last[name] = error
        if name in (NODES, PODS):
            self._is_hopeless.set()

    async def first(self) -> KubeError:
        """Wait for the first failure of nodes or pods."""
        await self._is_hopeless.wait()
        return self.last[NODES] if NODES in self.last else self.last[PODS]


@asynccontextmanager
async def following(
    options: ClusterOptions, configuration: Configuration, prices: Mapping[str, float]
) -> AsyncIterator[Following]:
    """Follow a cluster until the end of the block.

    Raises:
        ConfigurationProblem: the API server cannot be addressed.
        KubeError: nodes or pods cannot be listed.
    """
    async with connected(options) as client:
        namespace, ledger = options.namespace or client.namespace, None
        if configuration.age is AgeSource.FIRST_SEEN:
            ledger = await find_ledger(client, namespace=namespace, name=configuration.ledger.name)
        made = Following(client, configuration, namespace, ledger, prices)
        async with made.running():
            yield made
