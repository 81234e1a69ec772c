"""Metrics. A leaf: everything may use it, it knows nothing of what it is told.

Owns every metric name. A metric name is an interface: `tests/contract/test_metrics.py` holds them.
Labels come from enums and pool names only, never from nodes or pods.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from extender.logs import fields

log = logging.getLogger("warmnode.watch")

LATENCY_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds. A kube-scheduler waits for the answer in its serial cycle: tenths of a millisecond count."""
CLAIM_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds. A claim waits for the API server several times."""

POOLS_SHOWN = 100
"""Pools named by a label are as many as users like; beyond this many they are one series, ``(others)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A metric that is never set, but collected. ``together`` joins the values of pools that share one series."""

    name: str
    text: str
    labels: tuple[str, ...]
    together: Callable[[list[float]], float] = sum
    is_counter: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of a collected metric. A pool goes by its name: which label that is, is decided when it is shown."""

    metric: Collected
    labels: tuple[str, ...]
    value: float


class Metrics:
    """Every metric of warmnode. Counters are bound where they are used."""

    def __init__(self, *, version: str = "") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside every counter: nobody reads it
        self.registry = CollectorRegistry()
        self._collected_metrics: list[Collected] = []
        self._figures: list[Callable[[], Iterable[Figure]]] = []
        self.webhook_requests = self._counter(
            "warmnode_webhook_requests", "Webhook calls by verb and outcome.", "verb", "outcome"
        )
        self.webhook_seconds = self._histogram(
            "warmnode_webhook_duration_seconds",
            "Time from the request's head to the answer.",
            "verb",
            buckets=LATENCY_BUCKETS,
        )
        self.webhook_last_call = self._gauge(
            "warmnode_webhook_last_call_timestamp_seconds",
            "When the scheduler last called, epoch seconds; 0 means never.",
        )
        self.webhook_not_called = self._gauge(
            "warmnode_webhook_not_called",
            "1 while workers are bound by a scheduler that should call us, and no replica was called for 15 minutes.",
        )
        self.webhook_lease_writes = self._counter(
            "warmnode_webhook_lease_writes", "Writes of the Lease that says when a scheduler last called.", "outcome"
        )
        self.handshake_failures = self._counter(
            "warmnode_tls_handshake_failures",
            "TLS connections that did not come about, by who would not go on and why.",
            *("listener", "reason"),
        )
        self.connections_refused = self._counter(
            "warmnode_connections_refused", "Connections that were closed because a listener had no place.", "listener"
        )
        self.certificate_expiry = self._gauge(
            "warmnode_tls_certificate_expiry_timestamp_seconds",
            "When the certificate that a listener shows ends, epoch seconds.",
            "listener",
        )
        self.idle_requests = self._counter(
            "warmnode_idle_requests", "Calls of workers that say idle (PUT) or busy (DELETE).", "verb", "outcome"
        )
        self.claim_requests = self._counter("warmnode_claim_requests", "Calls of the claim API.", "verb", "outcome")
        self.claim_seconds = self._histogram(
            "warmnode_claim_duration_seconds",
            "Time from the request's head to the answer.",
            "verb",
            buckets=CLAIM_BUCKETS,
        )
        self.claim_lost_races = self._counter(
            "warmnode_claim_lost_races", "Writes of claims that the API server refused because the pod had changed."
        )
        self.claims_expired = self._counter(
            "warmnode_claims_expired", "Claims that nobody renewed or released, tidied away.", "pool"
        )
        self.workers_bound = self._counter(
            "warmnode_workers_bound", "Workers seen to be bound to a node, by pool.", "pool"
        )
        self.api_server_silent = self._gauge(
            "warmnode_api_server_silent",
            "1 while the API server answers nothing that is asked of it; /readyz has the reason.",
        )
        self.shadow_placements = self._counter(
            "warmnode_shadow_placements",
            "Workers bound with placement: shadow, by where they would have gone.",
            *("pool", "verdict"),
        )
        self.shadow_spared_nodes = self._gauge(
            "warmnode_shadow_spared_nodes",
            "How many nodes fewer would have workers of a pool with placement: shadow; an estimate.",
            "pool",
        )
        self.history_decisions = self._gauge(
            "warmnode_history_decisions", "Decisions that `warmnode explain` can be told of."
        )
        self.history_bytes = self._gauge("warmnode_history_bytes", "Memory that these decisions take.")
        self.watch_lists = self._counter("warmnode_watch_lists", "Complete lists of a collection.", "collection")
        self.watch_failures = self._counter(
            "warmnode_watch_failures", "Lists and watches that failed, by error class.", "collection", "error"
        )
        self.watch_events = self._counter("warmnode_watch_events", "Watch events taken.", "collection")
        self.watch_undecodable = self._counter(
            "warmnode_watch_undecodable", "Objects that could not be read and were left out.", "collection"
        )
        self.ledger_writes = self._counter("warmnode_ledger_writes", "Writes of the ledger by outcome.", "outcome")
        self.ledger_pruned = self._counter("warmnode_ledger_pruned", "Entries pruned from the ledger.")
        self.clock_ahead = self._gauge(
            "warmnode_clock_ahead_seconds",
            "How far the clock here is ahead of the API server's; beyond 6 either way nothing is evicted or claimed.",
        )
        self.leader = self._gauge("warmnode_leader", "1 while this process leads the reapers.")
        self.leader_changes = self._counter("warmnode_leader_changes", "Leadership won and lost.", "change")
        self.loop_crashes = self._counter("warmnode_loop_crashes", "Looks that a bug ended, by the loop.", "loop")
        self.reap_passes = self._counter("warmnode_reap_passes", "Passes of the reaper by outcome.", "outcome")
        for loop in ("costs", "claims", "sources"):  # from 0, as the next one: an alert needs the increase
            self.loop_crashes.labels(loop)
        self.reap_passes.labels("crashed")
        self.reap_last_success = self._collected(
            "warmnode_reap_last_success_timestamp_seconds",
            "When a pass last looked at the cluster and finished, epoch seconds.",
            "pool",
            together=min,
        )
        self.reap_skips = self._collected(
            "warmnode_reap_skipped", "Idle workers that stay, by reason, as of the last pass.", "pool", "reason"
        )
        self.stuck_nodes = self._collected(
            "warmnode_stuck_nodes",
            "Empty nodes that Karpenter could have taken and has not, by what is known of why, as of the last pass.",
            "reason",
        )
        self.reap_paused = self._collected(
            "warmnode_reap_paused", "1 while a pool is not reaped because evicted workers came back.", "pool"
        )
        self.reap_unplaced = self._collected(
            "warmnode_reap_unplaced_workers",
            "Workers without a node that no longer hold up the reaping of their pool, as of the last pass.",
            "pool",
        )
        self.working_set_nodes = self._gauge(
            "warmnode_working_set_nodes", "Nodes among which a cache key chooses, as of the last such worker.", "pool"
        )
        self.evictions = self._counter("warmnode_evictions", "Evictions by outcome.", "pool", "outcome")
        self.pool_workers = self._collected(
            "warmnode_pool_workers", "Placed workers, idle, busy and claimed, as of the last pass.", "pool", "state"
        )
        self.pool_claimable = self._collected(
            "warmnode_pool_claimable_workers", "Workers that the floor counts, as of the last pass.", "pool"
        )
        self.pool_wanted = self._collected(
            "warmnode_pool_wanted_workers",
            "Workers that a pool should have: busy, claimed, one for each claim that waits here, and spare ones.",
            "pool",
        )
        self.claims_waiting = self._collected(
            "warmnode_claims_waiting", "Calls that wait here until a worker is idle.", "pool"
        )
        self.pool_floor = self._collected("warmnode_pool_floor_workers", "Claimable workers to keep.", "pool")
        self.source_answers = self._counter(
            "warmnode_idle_source_answers", "Answers of idle sources outside, by what they said.", "source", "said"
        )
        self.source_workers = self._collected(
            "warmnode_idle_source_workers",
            "Workers of pools with idle sources outside, by what each source, and all together, say of them now.",
            "pool",
            "source",
            "said",
        )
        self.mark_writes = self._counter(
            "warmnode_idle_mark_writes", "Writes of idle marks for sources outside, by outcome.", "pool", "outcome"
        )
        self.cost_writes = self._counter(
            "warmnode_deletion_cost_writes", "Writes of the deletion cost by outcome.", "pool", "outcome"
        )
        self.cost_foreign = self._collected(
            "warmnode_deletion_cost_foreign", "Workers whose deletion cost somebody else wrote.", "pool"
        )
        self.cost_contested = self._collected(
            "warmnode_deletion_cost_contested",
            "1 while a pool's deletion costs are left alone because another writer overwrites them.",
            "pool",
        )
        self.config_reloads = self._counter("warmnode_config_reloads", "Configuration reloads by outcome.", "outcome")
        self.config_valid = self._gauge(
            "warmnode_config_valid",
            "1 while the configuration file is the one in force, 0 while a bad new version is refused.",
        )
        self.config_valid.set(1)
        build = self._gauge("warmnode_build_info", "Always 1; the label tells the version.", "version")
        build.labels(version).set(1)
        self.synced = self._collected("warmnode_synced", "1 once nodes, pods and ledger were loaded.")
        self.collection_age = self._collected(
            "warmnode_collection_age_seconds",
            "Time since the API server was last heard about a collection.",
            "collection",
        )
        self.collection_missing = self._collected(
            "warmnode_collection_missing",
            "1 while a collection does not exist or may not be read; Karpenter's are optional.",
            "collection",
        )
        self.leaving_nodes = self._collected("warmnode_leaving_nodes", "Leaving nodes by reason.", "reason")
        self.ending_nodes = self._collected("warmnode_ending_nodes", "Ending nodes by reason.", "reason")
        self.nodes = self._collected("warmnode_nodes", "Nodes by what is known of their age.", "state")
        self.workers = self._collected("warmnode_workers", "Workers that are placed on a node, by pool.", "pool")
        self.pods = self._collected("warmnode_pods", "Pods known.")
        self.ledger_entries = self._collected("warmnode_ledger_entries", "Nodes in the ledger.")
        self.ledger_bytes = self._collected(
            "warmnode_ledger_bytes", "Size of the ledger's data; a ConfigMap holds 1 MiB."
        )
        self.ledger_ignored = self._collected("warmnode_ledger_ignored_entries", "Ledger keys that make no sense.")
        self.cache_keys = self._collected("warmnode_cache_keys", "Cache keys remembered, summed over nodes.")
        self.cache_keys_forgotten = self._collected(
            "warmnode_cache_keys_forgotten", "Cache keys forgotten because a node has too many.", is_counter=True
        )
        self.cache_key_changes = self._collected(
            "warmnode_cache_key_changes", "Changes of the cache key of a placed worker.", is_counter=True
        )
        self._pools: set[str] = set()
        self.registry.register(_Collector(self._collected_metrics, self._figures, self.pool_label))

    def pool_label(self, pool: str) -> str:
        """Label of a pool, ``(others)`` from the 101st on: pool names may come from anybody's pod labels."""
        if pool not in self._pools:
            if len(self._pools) >= POOLS_SHOWN:
                return "(others)"
            self._pools.add(pool)
        return pool

    def show(self, figures: Callable[[], Iterable[Figure]]) -> None:
        """Show figures as they are at each scrape: what has gone since is not shown any more."""
        self._figures.append(figures)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _collected(
        self,
        name: str,
        text: str,
        *labels: str,
        together: Callable[[list[float]], float] = sum,
        is_counter: bool = False,
    ) -> Collected:
        metric = Collected(name=name, text=text, labels=labels, together=together, is_counter=is_counter)
        self._collected_metrics.append(metric)
        return metric

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)


_ROUTINE = frozenset({"Silent", "barren"})
"""What a collection without changes goes through all the time: its watch gets no bookmark, is ended and begun anew."""


_WITHOUT = {
    404: "not in this cluster, goes on without it and looks again every half minute",
    403: "may not be read, goes on without it and tries again every half minute",
}


class WatchMetrics:
    """Tells the metrics and the log what the reflectors do: a `kube.watch.WatchObserver`."""

    def __init__(self, metrics: Metrics, *, optional: Collection[str] = ()) -> None:
        """``optional`` are collections that a cluster need not have."""
        self._metrics = metrics
        self._optional = optional
        self._events = cache(metrics.watch_events.labels)
        self._listed: set[str] = set()

    def listed(self, name: str, count: int, seconds: float) -> None:
        first = name not in self._listed
        self._listed.add(name)
        self._metrics.watch_lists.labels(name).inc()
        level = logging.INFO if first else logging.DEBUG
        log.log(level, "listed", extra=fields(collection=name, count=count, seconds=round(seconds, 3)))

    def relisted(self, name: str, reason: str) -> None:
        level = logging.DEBUG if reason in _ROUTINE else logging.INFO
        log.log(level, "listed again", extra=fields(collection=name, reason=reason))

    def watch_failed(self, name: str, error: Exception) -> None:
        self._metrics.watch_failures.labels(name, type(error).__name__).inc()
        status = getattr(error, "status", 0)
        if name in self._optional and status in (403, 404):
            level = logging.INFO if status == 404 else logging.WARNING
            log.log(level, _WITHOUT[status], extra=fields(collection=name, problem=str(error)))
            return
        is_routine = getattr(error, "reason", "") in _ROUTINE
        level = logging.DEBUG if is_routine else logging.WARNING
        log.log(level, "watch failed", extra=fields(collection=name, error=str(error)))

    def undecodable(self, name: str, error: Exception) -> None:
        self._metrics.watch_undecodable.labels(name).inc()
        log.warning("object cannot be read", extra=fields(collection=name, error=str(error)))

    def event(self, name: str) -> None:
        self._events(name).inc()


class _Collector(Collector):
    """Asks for all figures at every scrape, which costs less than gauges that are kept up to date."""

    def __init__(
        self,
        metrics: Iterable[Collected],
        figures: Iterable[Callable[[], Iterable[Figure]]],
        pool_label: Callable[[str], str],
    ) -> None:
        self._metrics = metrics
        self._figures = figures
        self._pool_label = pool_label

    def collect(self) -> Iterable[Metric]:
        found: dict[str, dict[tuple[str, ...], list[float]]] = {}
        for figure in chain.from_iterable(each() for each in self._figures):
            labels = figure.labels
            if figure.metric.labels[:1] == ("pool",):
                labels = (self._pool_label(labels[0]), *labels[1:])
            found.setdefault(figure.metric.name, {}).setdefault(labels, []).append(figure.value)
        for metric in self._metrics:
            family = (CounterMetricFamily if metric.is_counter else GaugeMetricFamily)(
                metric.name, metric.text, labels=metric.labels
            )
            for labels, values in found.get(metric.name, {}).items():
                family.add_metric(labels, metric.together(values))
            yield family

    def describe(self) -> Iterator[Metric]:
        return iter(())
