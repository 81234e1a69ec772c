"""Composition root: builds everything a role needs, runs it, and stops it in order.

The only place where parts meet. One event loop; one TaskGroup; every task has a name and none ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any

from extender import __version__
from extender.feed import ClusterFeed
from extender.inforce import InForce
from extender.kube.annotate import annotate, cost_annotations
from extender.kube.client import KubeClient
from extender.kube.events import EventRecorder
from extender.kube.eviction import Evictor
from extender.kube.lease import LeaseStore, is_held
from extender.kube.ledger import LedgerStore
from extender.kube.listing import list_uids
from extender.kube.marks import Marks
from extender.loops.costs import CostWriter
from extender.loops.election_observer import ElectionTelemetry
from extender.loops.elector import LeaderElector, make_identity
from extender.loops.ledger import PRUNE_INTERVAL, is_half_full, keep_ledger, prune_ledger
from extender.loops.reaper import Reaper
from extender.model import AgeSource, Pod
from extender.once import USER_AGENT, ClusterOptions
from extender.policy.deletion_cost import CostWrite
from extender.settings import Accepted, Configuration, ConfigurationFile, Refused, Unchanged
from extender.state import ClusterState
from extender.telemetry import Metrics, WatchMetrics, fields
from extender.web.callers import callers_for
from extender.web.http import route
from extender.web.idle import IdleApi
from extender.web.ops import Readiness, operations
from extender.web.server import Address, Listener, ListenerProblem, ServerTls
from extender.web.webhook import Webhook

log = logging.getLogger("warmnode")

POLL_INTERVAL = timedelta(seconds=5)
"""How often the configuration file and the TLS files are looked at."""


class Role(StrEnum):
    """What a process does: answer kube-scheduler, reap, or both."""

    SERVE = "serve"
    REAP = "reap"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What `warmnode serve`, `reap` or `run` is told on its command line. ``claims_listen`` None: off."""

    roles: frozenset[Role]
    cluster: ClusterOptions
    configuration: ConfigurationFile
    dry_run: bool
    ops_listen: Address
    webhook_listen: Address | None = None
    claims_listen: Address | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    client_ca_file: Path | None = None


async def run(options: RunOptions) -> None:
    """Run the roles until SIGTERM or SIGINT.

    Stops in order: readiness off, the callers' listeners stop listening and finish their answers, the loops end and the
    Lease is given up, the operations listener closes last.

    Raises:
        ConfigurationProblem: the API server cannot be addressed.
        ListenerProblem: an address cannot be had, or TLS files do not load.
    """
    tls = _tls(options)
    stopping = _on_signals(asyncio.Event())
    client = await KubeClient.connect(
        kubeconfig=options.cluster.kubeconfig, context=options.cluster.context, user_agent=USER_AGENT
    )
    try:
        await _Process(options, client, tls, stopping).run()
    finally:
        await client.close()
    log.info("stopped")


class _Process:
    """The parts of one process, and the order in which they start and stop."""

    def __init__(self, options: RunOptions, client: KubeClient, tls: ServerTls | None, stopping: asyncio.Event) -> None:
        configuration = options.configuration.configuration
        self.options = options
        self.client = client
        self.tls = tls
        self.namespace = options.cluster.namespace or client.namespace
        self.metrics = Metrics(version=__version__)
        self.in_force = InForce(configuration, dry_run=options.dry_run)
        self.state = ClusterState(clock=_now, age=configuration.age)
        self.stopping = stopping
        self.feed = ClusterFeed(
            client,
            self.state,
            classify=self.in_force.classify,
            ledger=(self.namespace, configuration.ledger.name) if configuration.age is AgeSource.FIRST_SEEN else None,
            observer=WatchMetrics(self.metrics, logging.getLogger("warmnode.watch")),
            bound=self._bound,
            changed=self._changed,
        )
        self.webhook = Webhook(
            state=self.state,
            pools=self.in_force.pools,
            metrics=self.metrics,
            called=self.metrics.webhook_last_call.set_to_current_time,
        )
        identity = make_identity(Random())  # noqa: S311 - a name, no secret
        self.elector = LeaderElector(
            LeaseStore(client, namespace=self.namespace, name=configuration.leader_election.name),
            identity=identity,
            lease_duration=configuration.leader_election.lease_duration,
            renew_deadline=configuration.leader_election.renew_deadline,
            retry_period=configuration.leader_election.retry_period,
            random=Random(),  # noqa: S311 - jitter
            wall_clock=_now,
            observer=ElectionTelemetry(self.metrics, identity=identity),
        )
        self.costs = CostWriter(
            state=self.state,
            write=self._write_cost,
            metrics=self.metrics,
            pool_settings=self.in_force.costs,
            may_write=self._may_write,
            clock=_now,
        )
        self.reaper = Reaper(
            state=self.state,
            pods=Evictor(client, self.in_force.classify),
            announcer=EventRecorder(client, instance=identity, clock=_now, timer=time.monotonic),
            metrics=self.metrics,
            pool_settings=self.in_force.reaping,
            is_leader=self._is_leading,
            is_fresh=self.feed.is_fresh,
            clock=_now,
        )
        self.metrics.show_cluster(lambda: self.feed.figures(self.metrics.pool_label))

    async def run(self) -> None:
        """Start, work until a signal comes, stop."""
        ops = Listener(name="ops", address=self.options.ops_listen, handler=operations(self.metrics, self._readiness))
        callers = self._callers()
        try:
            for listener in (ops, *callers):
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
            if Role.REAP in self.options.roles:
                await self.elector.release()
            await ops.stop()

    def _callers(self) -> list[Listener]:
        listeners = []
        if self.options.webhook_listen is not None:
            handler = self.webhook.handler()
            listeners.append(
                Listener(name="webhook", address=self.options.webhook_listen, handler=handler, tls=self.tls)
            )
        address = self.options.claims_listen
        if address is not None:
            idle = IdleApi(
                marks=Marks(self.client, self.in_force.classify),
                callers=callers_for(self.client, address=address, has_tls=self.tls is not None),
                is_dry_run=lambda pool: self.in_force.settings(pool).dry_run,
                metrics=self.metrics,
                clock=_now,
            )
            handler = route({}, templates=idle.routes(), refused=lambda status: None)
            listeners.append(Listener(name="claims", address=address, handler=handler, tls=self.tls))
        return listeners

    def _tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        tasks: dict[str, Coroutine[Any, Any, None]] = {
            f"watch {reflector.name}": reflector.run() for reflector in self.feed.reflectors
        }
        tasks["begin"] = self._begin()
        tasks["follow files"] = self._follow_files()
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
        if Role.REAP in self.options.roles:
            tasks["elect"] = self.elector.run()
            tasks["reap"] = self.reaper.run()
            tasks["write costs"] = self.costs.run()
        return tasks

    def _bound(self, worker: Pod) -> None:
        self.metrics.workers_bound.labels(self.metrics.pool_label(worker.pool or "")).inc()

    def _changed(self, worker: Pod) -> None:
        if Role.REAP in self.options.roles:
            self.costs.changed(worker)

    def _may_write(self) -> bool:
        return self._is_leading() and self.feed.is_fresh()

    def _is_leading(self) -> bool:
        """True while this process leads and was not told to stop."""
        return self.elector.is_leader and not self.stopping.is_set()

    async def _write_cost(self, write: CostWrite) -> Pod:
        return await annotate(self.client, write.pod, cost_annotations(write.value), self.in_force.classify)

    async def _may_prune(self) -> bool:
        """The leader prunes; where no reaper runs, any replica does once half of the limit is used."""
        if Role.REAP in self.options.roles:
            return self.elector.is_leader
        lease = self.in_force.configuration.leader_election.name
        return is_half_full(self.state) and not await is_held(
            self.client, namespace=self.namespace, name=lease, within=PRUNE_INTERVAL
        )

    def _readiness(self) -> Readiness:
        reasons = ["stopping"] if self.stopping.is_set() else self.feed.reasons()
        ledger = self.feed.ledger
        if Role.REAP in self.options.roles and ledger is not None and ledger.missing:
            reasons.append(f"ledger: cannot be read ({ledger.problem}); nothing is reaped")
        return Readiness(reasons=tuple(reasons), collections=self.feed.shown())

    async def _begin(self) -> None:
        state, ledger = self.state, self.feed.ledger
        await self.feed.begin()
        basis = "ledger" if state.ledger is not None else "creation times" if ledger is not None else "created"
        log.info("synced", extra=fields(nodes=len(state.nodes), pods=len(state.pods), ages=basis))
        if ledger is not None and ledger.missing:
            log.warning(
                "the ledger cannot be read; ages start from creation times and are lost at a restart",
                extra=fields(problem=ledger.problem),
            )
        if state.ledger is not None and state.ledger.ignored:
            log.warning("ledger keys make no sense and are left alone", extra=fields(keys=state.ledger.ignored[:5]))

    async def _follow_files(self) -> None:
        """Take a new configuration, or new TLS files, when they change. Bad ones are refused and told once."""
        first = self.options.configuration.configuration
        told: str | None = None
        while True:
            await asyncio.sleep(POLL_INTERVAL.total_seconds())
            match self.options.configuration.poll():
                case Accepted(configuration=new):
                    self.metrics.config_valid.set(1)
                    self.metrics.config_reloads.labels("accepted").inc()
                    self._take(new)
                    log.info("configuration reloaded", extra=fields(needs_restart=_needs_restart(first, new)))
                case Refused(error=error):
                    self.metrics.config_valid.set(0)
                    self.metrics.config_reloads.labels("refused").inc()
                    log.error("configuration refused, the old one stays in force", extra=fields(problem=str(error)))
                case Unchanged():
                    pass
            told = self._follow_tls(told)

    def _take(self, new: Configuration) -> None:
        before = self.in_force.pools
        self.in_force.replace(new)
        self.webhook.pools = self.in_force.pools
        self.costs.forgive()
        if before.pools != self.in_force.pools.pools:
            self.feed.list_pods_again()

    def _follow_tls(self, told: str | None) -> str | None:
        if self.tls is None:
            return None
        try:
            if self.tls.reload():
                log.info("TLS files reloaded")
        except ListenerProblem as problem:
            if str(problem) != told:
                log.error("TLS files refused, the old ones stay in force", extra=fields(problem=str(problem)))
            return str(problem)
        return None


def _needs_restart(old: Configuration, new: Configuration) -> list[str]:
    """Name the settings that are read at the start only and differ now."""
    fixed = ("age", "ledger", "leader_election")
    return [name for name in fixed if getattr(old, name) != getattr(new, name)]


def _tls(options: RunOptions) -> ServerTls | None:
    if options.tls_cert_file is None or options.tls_key_file is None:
        return None
    return ServerTls(
        cert_file=options.tls_cert_file, key_file=options.tls_key_file, client_ca_file=options.client_ca_file
    )


def _on_signals(stopping: asyncio.Event) -> asyncio.Event:
    """Set the event on SIGTERM or SIGINT. A second one ends the process at once, as if nobody listened.

    To be called before anything that takes time: the kernel ignores a SIGTERM for a process 1 that has no handler.
    """
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        stopping.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, stop)
    return stopping


def _now() -> datetime:
    return datetime.now(UTC)
