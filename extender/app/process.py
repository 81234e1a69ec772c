"""One process: in which order its parts start, run and stop. One event loop, one TaskGroup, every task has a name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from extender import __version__
from extender.app.files import follow_files
from extender.app.options import HISTORY, Role, RunOptions
from extender.app.reap_role import Reaping
from extender.app.serve_role import Serving
from extender.app.shared import Shared, real_clock
from extender.cluster.feed import OPTIONAL, ClusterFeed
from extender.cluster.history import DecisionHistory
from extender.cluster.state import ClusterState
from extender.kube.api_client import KubeClient
from extender.kube.api_request import Lane
from extender.kube.lease import is_held
from extender.kube.ledger_store import LedgerStore
from extender.kube.listing import list_uids
from extender.logs import fields
from extender.loops.clock_skew import tell_skew
from extender.loops.departures import tell_departures
from extender.loops.ledger_keeper import PRUNE_INTERVAL, is_half_full, keep_ledger, prune_ledger
from extender.model import AgeSource, Pod
from extender.settings import Configuration
from extender.settings.in_force import InForce
from extender.telemetry import Metrics, WatchMetrics
from extender.web.admission import OPERATIONS_PLACES, allow_open_files
from extender.web.history_api import history_handler
from extender.web.ops_listener import Readiness, operations
from extender.web.requests import Handler
from extender.web.server import Address, Listener, TurnedAway
from extender.web.tls import ServerTls

log = logging.getLogger("warmnode")


class Process:
    """The parts of one process. ``serving`` and ``reaping`` are None where the process has not that role.

    ``tls`` is by the name of the listener; empty without TLS.
    """

    def __init__(
        self, options: RunOptions, client: KubeClient, tls: Mapping[str, ServerTls], stopping: asyncio.Event
    ) -> None:
        configuration = options.configuration.configuration
        self.options = options
        self.client = client
        self.tls = tls
        self.namespace = options.cluster.namespace or client.namespace
        self.metrics = Metrics(version=__version__)
        self._lease_name = configuration.leader_election.name
        self.in_force = InForce(configuration, dry_run=options.dry_run)
        self.clock = real_clock(client)
        self.state = ClusterState(
            clock=self.clock.now,
            age=configuration.age,
            ending_rules=self.in_force.configuration.ending,
            is_clock_off=lambda: self.clock.is_off,
        )
        self.history = DecisionHistory(now=self.clock.now, is_logged=lambda: self.in_force.configuration.decision_log)
        self.stopping = stopping
        self.feed = ClusterFeed(
            client.on(Lane.FEED),
            self.state,
            classify=self.in_force.classify,
            ledger=(self.namespace, configuration.ledger.name) if configuration.age is AgeSource.FIRST_SEEN else None,
            observer=WatchMetrics(self.metrics, optional=OPTIONAL),
            bound=self._bound,
            changed=self._changed,
        )
        shared = Shared(
            client=client,
            namespace=self.namespace,
            metrics=self.metrics,
            in_force=self.in_force,
            state=self.state,
            feed=self.feed,
            history=self.history,
            stopping=stopping,
            clock=self.clock,
        )
        self.serving = Serving(options, shared, tls) if Role.SERVE in options.roles else None
        self.reaping = Reaping(shared) if Role.REAP in options.roles else None
        self.metrics.api_server_silent.set_function(lambda: float(client.problem is not None))
        self.metrics.history_decisions.set_function(lambda: len(self.history))
        self.metrics.history_bytes.set_function(lambda: self.history.size_bytes)
        self.metrics.show(lambda: self.feed.figures(self.metrics, self.clock.now()))

    async def run(self) -> None:
        """Start, work until a signal comes, stop."""
        allow_open_files()
        ops = self._listener("ops", self.options.ops_listen, operations(self.metrics, self._readiness))
        told = history_handler(self.history, self.serving.shadow if self.serving is not None else None)
        history = self._listener(HISTORY, self.options.history_listen, told)
        callers = self.serving.listeners if self.serving is not None else []
        try:
            for listener in (ops, history, *callers):
                await listener.start()
            log.info(
                "started",
                extra=fields(
                    version=__version__,
                    roles=sorted(self.options.roles),
                    namespace=self.namespace,
                    dry_run=self.in_force.configuration.dry_run,
                ),
            )
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work, name=name) for name, work in self._tasks().items()]
                await self.stopping.wait()
                log.info("stopping")
                for listener in callers:
                    await listener.stop()
                for task in tasks:
                    task.cancel()
        finally:
            for listener in callers:
                await listener.stop()
            if self.reaping is not None:
                await self.reaping.close()
            await history.stop()
            await ops.stop()

    def _listener(self, name: str, address: Address, handler: Handler) -> Listener:
        crowded = self.metrics.connections_refused.labels(name).inc
        turned_away = TurnedAway(crowded=crowded)
        return Listener(name=name, address=address, handler=handler, turned_away=turned_away, places=OPERATIONS_PLACES)

    def _tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        tasks: dict[str, Coroutine[Any, Any, None]] = {
            f"watch {reflector.name}": reflector.run() for reflector in self.feed.reflectors
        }
        tasks["begin"] = self._begin()
        tasks["tell skew"] = tell_skew(self.clock, self.metrics)
        tasks["tell departures"] = tell_departures(self.state)
        tasks["follow files"] = follow_files(
            self.options.configuration, tuple(self.tls.values()), self.metrics, self._take, self.clock.now
        )
        if self.feed.ledger is not None:
            name = self.in_force.configuration.ledger.name
            store = LedgerStore(self.client, namespace=self.namespace, name=name)
            tasks["keep ledger"] = keep_ledger(self.state, store, self.metrics)
            tasks["prune ledger"] = prune_ledger(
                self.state,
                store,
                self.metrics,
                list_node_uids=lambda: list_uids(self.client, "/api/v1/nodes"),
                may_prune=self._may_prune,
            )
        if self.serving is not None:
            tasks |= self.serving.tasks()
        if self.reaping is not None:
            tasks |= self.reaping.tasks()
        return tasks

    def _bound(self, worker: Pod) -> None:
        self.metrics.workers_bound.labels(self.metrics.pool_label(worker.pool or "")).inc()
        if self.serving is not None:
            self.serving.bound(worker)

    def _changed(self, worker: Pod) -> None:
        if self.reaping is not None:
            self.reaping.costs.changed(worker)

    async def _may_prune(self) -> bool:
        """The leader prunes; where no reaper runs, any replica does once half of the limit is used."""
        if self.reaping is not None:
            return self.reaping.elector.is_leader
        if not is_half_full(self.state) or self.clock.is_off:  # whether a Lease is held is a matter of time
            return False
        # A new name is in force for those that were restarted since it was set: none of the two may be held.
        for name in {self._lease_name, self.in_force.configuration.leader_election.name}:
            if await is_held(self.client, namespace=self.namespace, name=name, within=PRUNE_INTERVAL):
                return False
        return True

    def _readiness(self) -> Readiness:
        reasons = ["stopping"] if self.stopping.is_set() else self.feed.reasons()
        ledger = self.feed.ledger
        if self.reaping is not None and ledger is not None and ledger.missing:
            reasons.append(f"ledger: cannot be read ({ledger.problem}); nothing is reaped")
        if self.reaping is not None and self.clock.is_off:
            reasons.append(f"clock: {self.clock.told_off}; nothing is reaped")
        return Readiness(reasons=tuple(reasons), api_server=self.client.problem, collections=self.feed.shown())

    async def _begin(self) -> None:
        state, ledger = self.state, self.feed.ledger
        await self.feed.begin()
        basis = "ledger" if state.ages.ledger is not None else "creation times" if ledger is not None else "created"
        log.info("synced", extra=fields(nodes=len(state.nodes), pods=len(state.pods), ages=basis))
        if ledger is not None and ledger.missing:
            log.warning(
                "the ledger cannot be read; ages start from creation times and are lost at a restart",
                extra=fields(problem=ledger.problem),
            )
        recorded = state.ages.ledger
        if recorded is not None and recorded.ignored:
            log.warning("ledger keys make no sense and are left alone", extra=fields(keys=recorded.ignored[:5]))

    def _take(self, new: Configuration) -> None:
        before = self.in_force.reading
        self.in_force.replace(new)
        self.state.go_by(self.in_force.configuration.ending)
        if self.serving is not None:
            self.serving.take_configuration()
        if self.reaping is not None:
            self.reaping.take_configuration()
        if before != self.in_force.reading:
            self.feed.list_pods_again()
