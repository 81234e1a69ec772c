"""Composition root: builds everything a role needs, runs it, and stops it in order.

The only place where parts meet. One event loop; one TaskGroup; every task has a name and none ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from extender import __version__
from extender.feed import ClusterFeed
from extender.kube.client import KubeClient
from extender.kube.lease import is_held
from extender.kube.ledger import LedgerStore
from extender.kube.listing import list_uids
from extender.kube.objects import Classify
from extender.loops.ledger import PRUNE_INTERVAL, is_half_full, keep_ledger, prune_ledger
from extender.model import AgeSource, Pod
from extender.plan.live import take_snapshot
from extender.plan.report import Plan, plan_of
from extender.plan.snapshot import parse_snapshot, read_snapshot_bytes
from extender.policy.pools import pool_of
from extender.settings import Accepted, Configuration, ConfigurationFile, Refused, to_model_pool
from extender.state import ClusterState
from extender.telemetry import ClusterFigures, Metrics, WatchMetrics, fields
from extender.web.ops import Readiness, operations
from extender.web.server import Address, Listener, ListenerProblem, ServerTls
from extender.web.webhook import PoolsInForce, Webhook

log = logging.getLogger("warmnode")

USER_AGENT = f"warmnode/{__version__}"
POLL_INTERVAL = timedelta(seconds=5)
"""How often the configuration file and the TLS files are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """How the API server is reached, and where warmnode's own objects live. None: as kubectl would have it."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What `warmnode serve` is told on its command line."""

    cluster: ClusterOptions
    configuration: ConfigurationFile
    webhook_listen: Address
    ops_listen: Address
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    client_ca_file: Path | None = None


def pools_in_force(configuration: Configuration) -> PoolsInForce:
    """Reduce the configuration to what the webhook needs of it."""
    pools = None if configuration.pools is None else tuple(to_model_pool(pool) for pool in configuration.pools)
    return PoolsInForce(
        pools=pools,
        busy_victims={pool.name: pool.busy_victims for pool in pools or ()},
        default_busy_victims=configuration.pool_defaults.preempt.busy_victims,
    )


async def serve(options: ServeOptions) -> None:
    """Run the webhook until SIGTERM or SIGINT.

    Stops in order: readiness off, the webhook stops listening and finishes its answers, the loops end, the operations
    listener closes last.

    Raises:
        ConfigurationProblem: the API server cannot be addressed.
        ListenerProblem: an address cannot be had, or TLS files do not load.
    """
    configuration = options.configuration.configuration
    pools = pools_in_force(configuration)
    metrics = Metrics(version=__version__)
    state = ClusterState(clock=_now, age=configuration.age)
    webhook = Webhook(state=state, pools=pools, metrics=metrics, called=metrics.webhook_last_call.set_to_current_time)
    tls = _tls(options)
    stopping = _on_signals(asyncio.Event())
    client = await KubeClient.connect(
        kubeconfig=options.cluster.kubeconfig, context=options.cluster.context, user_agent=USER_AGENT
    )
    namespace = options.cluster.namespace or client.namespace

    def bound(worker: Pod) -> None:
        metrics.workers_bound.labels(metrics.pool_label(worker.pool or "")).inc()

    feed = ClusterFeed(
        client,
        state,
        classify=lambda namespace, labels: pool_of(namespace, labels, webhook.pools.pools),
        ledger=(namespace, configuration.ledger.name) if configuration.age is AgeSource.FIRST_SEEN else None,
        observer=WatchMetrics(metrics, logging.getLogger("warmnode.watch")),
        bound=bound,
    )
    metrics.show_cluster(lambda: _figures(state, feed, metrics))

    def readiness() -> Readiness:
        reasons = ["stopping"] if stopping.is_set() else feed.reasons()
        return Readiness(reasons=tuple(reasons), collections=feed.shown())

    listeners = (
        Listener(name="ops", address=options.ops_listen, handler=operations(metrics, readiness)),
        Listener(name="webhook", address=options.webhook_listen, handler=webhook.handler(), tls=tls),
    )
    store = LedgerStore(client, namespace=namespace, name=configuration.ledger.name)

    async def may_prune() -> bool:
        lease = configuration.leader_election.name
        return is_half_full(state) and not await is_held(client, namespace=namespace, name=lease, within=PRUNE_INTERVAL)

    try:
        for listener in listeners:
            await listener.start()
        log.info("started", extra=fields(version=__version__, namespace=namespace, age=configuration.age))
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = [
                group.create_task(reflector.run(), name=f"watch {reflector.name}") for reflector in feed.reflectors
            ]
            tasks.append(group.create_task(_begin(feed, state), name="begin"))
            tasks.append(group.create_task(_follow_files(options, webhook, feed, tls, metrics), name="follow files"))
            if feed.ledger is not None:
                tasks.append(group.create_task(keep_ledger(state, store, metrics), name="keep ledger"))
                prune = prune_ledger(
                    state,
                    store,
                    metrics,
                    list_node_uids=lambda: list_uids(client, "/api/v1/nodes"),
                    may_prune=may_prune,
                )
                tasks.append(group.create_task(prune, name="prune ledger"))
            await stopping.wait()
            log.info("stopping")
            await listeners[1].stop()
            for task in tasks:
                task.cancel()
    finally:
        for listener in reversed(listeners):
            await listener.stop()
        await client.close()
    log.info("stopped")


async def plan_live(options: ClusterOptions, configuration: Configuration) -> Plan:
    """Look at the cluster once and plan.

    Raises:
        ConfigurationProblem: the API server cannot be addressed.
        KubeError: nodes or pods cannot be listed.
    """
    client = await KubeClient.connect(kubeconfig=options.kubeconfig, context=options.context, user_agent=USER_AGENT)
    try:
        live = await take_snapshot(
            client,
            _classifier(configuration),
            namespace=options.namespace or client.namespace,
            ledger_name=configuration.ledger.name,
        )
    finally:
        await client.close()
    return plan_of(live.snapshot, configuration, source=f"the cluster, {live.ledger_note}")


def plan_snapshot(source: str, configuration: Configuration) -> Plan:
    """Plan from a snapshot file, or standard input for ``-``.

    Raises:
        SnapshotError: it cannot be read.
    """
    name = "standard input" if source == "-" else source
    snapshot = parse_snapshot(read_snapshot_bytes(source), _classifier(configuration), source=name)
    return plan_of(snapshot, configuration, source=name)


def _classifier(configuration: Configuration) -> Classify:
    pools = pools_in_force(configuration).pools
    return lambda namespace, labels: pool_of(namespace, labels, pools)


async def _begin(feed: ClusterFeed, state: ClusterState) -> None:
    await feed.begin()
    basis = "ledger" if state.ledger is not None else "creation times" if feed.ledger is not None else "created"
    log.info("synced", extra=fields(nodes=len(state.nodes), pods=len(state.pods), ages=basis))
    if feed.ledger is not None and feed.ledger.missing:
        log.warning(
            "the ledger cannot be read; ages start from creation times and are lost at a restart",
            extra=fields(problem=feed.ledger.problem),
        )
    if state.ledger is not None and state.ledger.ignored:
        log.warning("ledger keys make no sense and are left alone", extra=fields(keys=state.ledger.ignored[:5]))


async def _follow_files(
    options: ServeOptions, webhook: Webhook, feed: ClusterFeed, tls: ServerTls | None, metrics: Metrics
) -> None:
    """Take a new configuration, or new TLS files, when they change. Bad ones are refused and told once."""
    first = options.configuration.configuration
    told: str | None = None
    while True:
        await asyncio.sleep(POLL_INTERVAL.total_seconds())
        match options.configuration.poll():
            case Accepted(configuration=new):
                metrics.config_valid.set(1)
                metrics.config_reloads.labels("accepted").inc()
                before, webhook.pools = webhook.pools, pools_in_force(new)
                log.info("configuration reloaded", extra=fields(needs_restart=_needs_restart(first, new)))
                if before.pools != webhook.pools.pools:
                    feed.list_pods_again()
            case Refused(error=error):
                metrics.config_valid.set(0)
                metrics.config_reloads.labels("refused").inc()
                log.error("configuration refused, the old one stays in force", extra=fields(problem=str(error)))
            case _:
                pass
        if tls is not None:
            try:
                if tls.reload():
                    log.info("TLS files reloaded")
                told = None
            except ListenerProblem as problem:
                if str(problem) != told:
                    log.error("TLS files refused, the old ones stay in force", extra=fields(problem=str(problem)))
                told = str(problem)


def _needs_restart(old: Configuration, new: Configuration) -> list[str]:
    """Name the settings that are read at the start only and differ now."""
    fixed = ("age", "ledger", "leader_election")
    return [name for name in fixed if getattr(old, name) != getattr(new, name)]


def _figures(state: ClusterState, feed: ClusterFeed, metrics: Metrics) -> ClusterFigures:
    nodes = dict.fromkeys(("seen", "unseen", "ending", "leaving"), 0)
    for name, key in state.order.items():
        preferred = state.preference.get(name)
        if preferred is None:
            nodes["leaving"] += 1
        elif preferred[0]:
            nodes["ending"] += 1
        else:
            nodes["unseen" if key[0] else "seen"] += 1
    workers: dict[str, int] = {}
    for node_name in state.nodes:
        for worker in state.workers_on(node_name).values():
            label = metrics.pool_label(worker.pool or "")
            workers[label] = workers.get(label, 0) + 1
    ledger = state.ledger
    return ClusterFigures(
        synced=state.synced,
        collection_ages=feed.ages(),
        nodes=nodes,
        workers=workers,
        pods=len(state.pods),
        ledger_entries=len(ledger.first_seen) if ledger is not None else 0,
        ledger_bytes=ledger.size_bytes if ledger is not None else 0,
        ledger_ignored=len(ledger.ignored) if ledger is not None else 0,
    )


def _tls(options: ServeOptions) -> ServerTls | None:
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
