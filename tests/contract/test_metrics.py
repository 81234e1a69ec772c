"""Every metric by name, type and labels: dashboards and alerts are built on them, so a change here breaks somebody."""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from extender.kube.errors import Unavailable
from extender.kube.watch_reports import UndecodableObject
from extender.telemetry import Figure, Metrics, WatchMetrics
from tests.builders import a_figure_of_each
from tests.listening import synced_state, webhook_over

INTERFACE: dict[str, tuple[str, set[str]]] = {
    "warmnode_webhook_requests": ("counter", {"verb", "outcome"}),
    "warmnode_webhook_duration_seconds": ("histogram", {"verb"}),
    "warmnode_webhook_last_call_timestamp_seconds": ("gauge", set()),
    "warmnode_webhook_not_called": ("gauge", set()),
    "warmnode_webhook_lease_writes": ("counter", {"outcome"}),
    "warmnode_tls_handshake_failures": ("counter", {"listener", "reason"}),
    "warmnode_connections_refused": ("counter", {"listener"}),
    "warmnode_tls_certificate_expiry_timestamp_seconds": ("gauge", {"listener"}),
    "warmnode_workers_bound": ("counter", {"pool"}),
    "warmnode_api_server_silent": ("gauge", set()),
    "warmnode_shadow_placements": ("counter", {"pool", "verdict"}),
    "warmnode_shadow_spared_nodes": ("gauge", {"pool"}),
    "warmnode_history_decisions": ("gauge", set()),
    "warmnode_history_bytes": ("gauge", set()),
    "warmnode_watch_lists": ("counter", {"collection"}),
    "warmnode_watch_failures": ("counter", {"collection", "error"}),
    "warmnode_watch_events": ("counter", {"collection"}),
    "warmnode_watch_undecodable": ("counter", {"collection"}),
    "warmnode_ledger_writes": ("counter", {"outcome"}),
    "warmnode_ledger_pruned": ("counter", set()),
    "warmnode_idle_requests": ("counter", {"verb", "outcome"}),
    "warmnode_claim_requests": ("counter", {"verb", "outcome"}),
    "warmnode_claim_duration_seconds": ("histogram", {"verb"}),
    "warmnode_claim_lost_races": ("counter", set()),
    "warmnode_claims_expired": ("counter", {"pool"}),
    "warmnode_clock_ahead_seconds": ("gauge", set()),
    "warmnode_leader": ("gauge", set()),
    "warmnode_leader_changes": ("counter", {"change"}),
    "warmnode_loop_crashes": ("counter", {"loop"}),
    "warmnode_reap_passes": ("counter", {"outcome"}),
    "warmnode_reap_last_success_timestamp_seconds": ("gauge", {"pool"}),
    "warmnode_reap_skipped": ("gauge", {"pool", "reason"}),
    "warmnode_reap_paused": ("gauge", {"pool"}),
    "warmnode_stuck_nodes": ("gauge", {"reason"}),
    "warmnode_reap_unplaced_workers": ("gauge", {"pool"}),
    "warmnode_evictions": ("counter", {"pool", "outcome"}),
    "warmnode_pool_workers": ("gauge", {"pool", "state"}),
    "warmnode_pool_claimable_workers": ("gauge", {"pool"}),
    "warmnode_pool_floor_workers": ("gauge", {"pool"}),
    "warmnode_pool_wanted_workers": ("gauge", {"pool"}),
    "warmnode_claims_waiting": ("gauge", {"pool"}),
    "warmnode_idle_source_answers": ("counter", {"source", "said"}),
    "warmnode_idle_source_workers": ("gauge", {"pool", "source", "said"}),
    "warmnode_idle_mark_writes": ("counter", {"pool", "outcome"}),
    "warmnode_deletion_cost_writes": ("counter", {"pool", "outcome"}),
    "warmnode_deletion_cost_foreign": ("gauge", {"pool"}),
    "warmnode_deletion_cost_contested": ("gauge", {"pool"}),
    "warmnode_config_reloads": ("counter", {"outcome"}),
    "warmnode_config_valid": ("gauge", set()),
    "warmnode_build_info": ("gauge", {"version"}),
    "warmnode_synced": ("gauge", set()),
    "warmnode_collection_age_seconds": ("gauge", {"collection"}),
    "warmnode_collection_missing": ("gauge", {"collection"}),
    "warmnode_nodes": ("gauge", {"state"}),
    "warmnode_leaving_nodes": ("gauge", {"reason"}),
    "warmnode_ending_nodes": ("gauge", {"reason"}),
    "warmnode_workers": ("gauge", {"pool"}),
    "warmnode_pods": ("gauge", set()),
    "warmnode_ledger_entries": ("gauge", set()),
    "warmnode_ledger_bytes": ("gauge", set()),
    "warmnode_ledger_ignored_entries": ("gauge", set()),
    "warmnode_cache_keys": ("gauge", set()),
    "warmnode_cache_keys_forgotten": ("counter", set()),
    "warmnode_cache_key_changes": ("counter", set()),
    "warmnode_working_set_nodes": ("gauge", {"pool"}),
}
"""Counters are scraped with ``_total`` after the name, histograms with ``_bucket``, ``_count`` and ``_sum``."""

OUTCOMES = {
    "prioritize": {
        *{"scored", "shadow", "neutral", "unknownNodes", "notSynced", "clockOff", "badRequest", "notFound", "crashed"},
    },
    "preempt": {
        *{"scored", "shadow", "neutral", "unknownNodes", "notSynced", "clockOff", "badRequest", "notFound", "crashed"},
        *{"chosen", "vetoed", "noWorker", "unknownNode", "unknownPod", "unknownPriority", "noVictims"},
    },
    "none": {"badRequest", "notFound"},
}
PARTS_OF_A_HISTOGRAM = {"le"}


def exposed(metrics: Metrics) -> dict[str, tuple[str, set[str]]]:
    """Name to type and labels, as a Prometheus server would read them."""
    found: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        labels = {label for sample in family.samples for label in sample.labels}
        found[family.name] = (family.type, labels - PARTS_OF_A_HISTOGRAM)
    return found


def in_use() -> Metrics:
    """Metrics of which every labelled one has a sample."""
    metrics = Metrics(version="1.2.3")
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase) and each._labelnames:
            each.labels(*("x" for _ in each._labelnames))
    metrics.show(lambda: a_figure_of_each(metrics))
    return metrics


def test_the_metrics_are_exactly_these() -> None:
    """A new metric is added here, an old one is not renamed."""
    assert exposed(in_use()) == INTERFACE


def test_every_metric_has_a_help_text_and_a_base_unit() -> None:
    """Seconds and bytes, never milliseconds; a sentence of help."""
    for family in text_string_to_metric_families(in_use().exposition().decode()):
        assert family.documentation.endswith("."), family.name
        assert not family.name.endswith(("_ms", "_milliseconds", "_minutes", "_kib"))


def test_the_outcomes_of_webhook_calls_are_exactly_these() -> None:
    """All are there from the start with 0: a rate over a counter that appears late misses its first increase."""
    metrics = Metrics()
    webhook_over(synced_state(), metrics=metrics)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            if sample.name == "warmnode_webhook_requests_total":
                assert sample.value == 0
                found.setdefault(sample.labels["verb"], set()).add(sample.labels["outcome"])
    assert found == OUTCOMES


def test_what_a_watch_reports_is_counted_by_collection() -> None:
    """Lists, events, failures by class, and objects that cannot be read."""
    metrics = Metrics()
    watch = WatchMetrics(metrics)
    watch.listed("nodes", 3, 0.1)
    watch.event("nodes")
    watch.watch_failed("pods", Unavailable(0, "Timeout", "nothing came"))
    watch.undecodable("pods", UndecodableObject("default/a", "uid", ValueError("bad")))
    value = metrics.registry.get_sample_value
    assert value("warmnode_watch_lists_total", {"collection": "nodes"}) == 1
    assert value("warmnode_watch_events_total", {"collection": "nodes"}) == 1
    assert value("warmnode_watch_failures_total", {"collection": "pods", "error": "Unavailable"}) == 1
    assert value("warmnode_watch_undecodable_total", {"collection": "pods"}) == 1


def test_pools_beyond_the_hundredth_share_one_series() -> None:
    """Pool names come from anybody's pod labels: they must not be able to fill the server that scrapes us."""
    metrics = Metrics()
    labels = [metrics.pool_label(f"pool-{number}") for number in range(1000)]
    assert len(set(labels)) == 101
    assert labels[-1] == "(others)"
    assert metrics.pool_label("pool-7") == "pool-7"


def test_pools_that_share_a_series_are_added_up() -> None:
    """Of the 101st pool on: how many workers they have together; of times the oldest is shown."""
    metrics = Metrics()
    for number in range(100):
        metrics.pool_label(f"pool-{number}")
    metrics.show(
        lambda: [
            *(Figure(metrics.pool_workers, (pool, "idle"), idle) for pool, idle in (("a", 500), ("b", 1))),
            *(Figure(metrics.reap_paused, (pool,), paused) for pool, paused in (("a", 1), ("b", 0))),
            *(Figure(metrics.reap_last_success, (pool,), time) for pool, time in (("a", 60.0), ("b", 30.0))),
        ]
    )
    value = metrics.registry.get_sample_value
    assert value("warmnode_pool_workers", {"pool": "(others)", "state": "idle"}) == 501
    assert value("warmnode_reap_paused", {"pool": "(others)"}) == 1
    assert value("warmnode_reap_last_success_timestamp_seconds", {"pool": "(others)"}) == 30
