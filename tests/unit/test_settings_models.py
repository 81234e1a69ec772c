"""What the models hold: defaults, inheritance, and which values fit together."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import timedelta

import pytest

from extender import model
from extender.model import AgeSource, BusyVictims, Expression, Pool, ScaleIn
from extender.policy.defaults import HttpProbe, PrometheusSource
from extender.settings import (
    AnnotationSource,
    Configuration,
    PoolSettings,
    SelectorSection,
    SettingsError,
    load_configuration,
    read_configuration,
    to_model_pool,
)

HEAD = "apiVersion: warmnode.dev/v1alpha1\nkind: Configuration\n"


def load(body: str) -> Configuration:
    return load_configuration(HEAD + body, source="config.yaml")


def pools_of(body: str) -> tuple[PoolSettings, ...]:
    pools = load(body).pools
    assert pools is not None
    return pools


def problems_of(body: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(body)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_defaults_are_the_documented_ones_without_a_file() -> None:
    """No file means the defaults of the design, and pools by label."""
    configuration = read_configuration(None)
    defaults = configuration.pool_defaults
    reap = defaults.reap
    assert (configuration.age, configuration.dry_run, configuration.pools) == (AgeSource.FIRST_SEEN, False, None)
    assert (configuration.ending.expiry_horizon, configuration.ending.drifted) == (timedelta(hours=1), False)
    assert (configuration.ledger.name, configuration.leader_election.name) == ("warmnode-first-seen", "warmnode-reaper")
    assert configuration.leader_election.lease_duration == timedelta(seconds=15)
    assert configuration.leader_election.renew_deadline == timedelta(seconds=10)
    assert configuration.leader_election.retry_period == timedelta(seconds=2)
    assert [source.choice for source in defaults.idle.sources] == [AnnotationSource()]
    assert defaults.idle.stale_after == timedelta(seconds=30)
    assert (reap.enabled, reap.floor, reap.idle_timeout) == (True, 1, timedelta(minutes=5))
    assert (reap.interval, reap.min_pod_age) == (timedelta(seconds=30), timedelta(minutes=1))
    assert (reap.max_per_pass, reap.max_per_node, reap.whole_node) == (50, 0, False)
    assert (reap.scale_in, reap.evict_owners) == (ScaleIn.AUTO, ())
    assert (defaults.deletion_cost.enabled, defaults.deletion_cost.settle) == (True, timedelta(seconds=30))
    assert defaults.preempt.busy_victims is BusyVictims.LAST_RESORT
    assert (defaults.claims.enabled, defaults.claims.do_not_disrupt) == (True, False)
    assert (defaults.claims.ttl, defaults.claims.max_ttl) == (timedelta(seconds=60), timedelta(hours=1))
    assert defaults.cache_key is None


def test_empty_pools_are_no_pools_but_null_is_pools_by_label() -> None:
    """`pools: []` says that there are none; null leaves it to the label."""
    assert load("pools: []").pools == ()
    assert load("pools: null").pools is None


def test_settings_are_frozen_once_loaded() -> None:
    """Nobody changes settings in force."""
    with pytest.raises(FrozenInstanceError):
        read_configuration(None).pool_defaults.reap.floor = 3  # type: ignore[misc]


def test_pool_keeps_the_defaults_that_it_does_not_set() -> None:
    """Mappings merge key by key, to any depth; the built-in defaults come last."""
    body = (
        "poolDefaults: {reap: {idleTimeout: 10m, floor: 3}, cacheKey: {label: tenant, window: 7}}\n"
        "pools: [{name: a, reap: {floor: 2}, cacheKey: {window: 2}}, {name: b, cacheKey: null}]"
    )
    a, b = pools_of(body)
    assert (a.reap.floor, a.reap.idle_timeout, a.reap.max_per_pass) == (2, timedelta(minutes=10), 50)
    assert a.cache_key is not None
    assert (a.cache_key.label, a.cache_key.window) == ("tenant", 2)
    assert (b.reap.floor, b.cache_key) == (3, None)


def test_pool_replaces_a_list_as_a_whole() -> None:
    """A list in a pool is not added to that of poolDefaults."""
    body = "poolDefaults: {reap: {evictOwners: [A.x.io, B.x.io]}}\npools: [{name: a, reap: {evictOwners: [C.x.io]}}]"
    assert pools_of(body)[0].reap.evict_owners == ("C.x.io",)


def test_pool_without_selector_selects_its_label() -> None:
    """The label warmnode.dev/pool with the pool's name is the selector that is not written."""
    assert pools_of("pools: [{name: duckdb}]")[0].selector == SelectorSection(
        match_labels={"warmnode.dev/pool": "duckdb"}
    )


@pytest.mark.parametrize(
    ("everywhere", "own", "expected"),
    [("true", "null", True), ("false", "null", False), ("true", "false", False), ("false", "true", True)],
)
def test_pool_dry_run_is_its_own_or_the_global_one(everywhere: str, own: str, expected: bool) -> None:
    """null inherits; true and false differ from the rest."""
    assert pools_of(f"dryRun: {everywhere}\npools: [{{name: a, dryRun: {own}}}]")[0].dry_run is expected


def test_dry_run_flag_wins_over_a_pool_that_switches_it_off() -> None:
    """The flag is a promise about the whole process."""
    dry = load("pools: [{name: a, dryRun: false}]").with_dry_run()
    assert dry.pools is not None
    assert (dry.dry_run, dry.pools[0].dry_run) == (True, True)
    assert read_configuration(None).with_dry_run().pool_defaults_for("a").dry_run


def test_pool_found_by_its_label_has_the_defaults() -> None:
    """A pool that only the label names is the same as one that the file names and does not change."""
    body = "dryRun: true\npoolDefaults: {reap: {floor: 4}, cacheKey: {label: tenant}}\n"
    named = pools_of(body + "pools: [{name: duckdb}]")[0]
    assert load(body).pool_defaults_for("duckdb") == named


def test_pool_found_by_its_label_takes_any_label_value() -> None:
    """A label value that the file would refuse as a name is no reason to fail."""
    assert load("").pool_defaults_for("My_Pool.2").name == "My_Pool.2"


def test_model_pool_has_what_policies_need() -> None:
    """Labels are sorted, values become a set, no namespaces is the empty set."""
    body = """
pools:
  - name: a
    namespaces: [x, y]
    selector:
      matchLabels: {b: "2", a: "1"}
      matchExpressions: [{key: c, operator: In, values: [u, v]}, {key: d, operator: Exists}]
    preempt: {busyVictims: protect}
  - name: b
"""
    a, b = (to_model_pool(pool) for pool in pools_of(body))
    assert a == Pool(
        name="a",
        namespaces=frozenset({"x", "y"}),
        selector=model.Selector(
            match_labels=(("a", "1"), ("b", "2")),
            match_expressions=(
                Expression(key="c", operator="In", values=frozenset({"u", "v"})),
                Expression(key="d", operator="Exists"),
            ),
        ),
        busy_victims=BusyVictims.PROTECT,
    )
    assert (b.namespaces, b.selector.match_labels) == (frozenset(), (("warmnode.dev/pool", "b"),))


def test_idle_source_is_the_one_that_is_written() -> None:
    """Each entry of idle.sources is one source, with the defaults of its kind."""
    body = """
poolDefaults:
  idle:
    sources:
      - annotation: {}
      - http: {port: 8080}
      - prometheus: {url: "http://prometheus.monitoring:9090", query: idle_since}
"""
    annotation, http, prometheus = (source.choice for source in load(body).pool_defaults.idle.sources)
    assert annotation == AnnotationSource()
    assert http == HttpProbe(port=8080, path="/idle", interval=timedelta(seconds=10), timeout=timedelta(seconds=2))
    assert prometheus == PrometheusSource(url="http://prometheus.monitoring:9090", query="idle_since")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("ledger: {name: Bad_Name}", "ledger.name: must be a name such as"),
        ("age: newest", 'age: must be "firstSeen" or "created"'),
        ("leaderElection: {leaseDuration: 10s}", "leaseDuration (10s) must be longer than renewDeadline (10s)"),
        (
            "leaderElection: {renewDeadline: 2400ms}",
            "renewDeadline (2s400ms) must be longer than 1.2 times retryPeriod",
        ),
        ("leaderElection: {retryPeriod: 0s}", "retryPeriod: must be at least 1ms"),
        ("poolDefaults: {claims: {ttl: 2h}}", "ttl (2h) must not be longer than maxTtl (1h)"),
        ("poolDefaults: {claims: {maxTtl: 0s}}", "maxTtl: must be at least 1ms"),
        ("poolDefaults: {reap: {floor: -1}}", "must be greater than or equal to 0 (got -1)"),
        ("poolDefaults: {reap: {floor: 2.0}}", "must be a whole number (got 2.0)"),
        ('poolDefaults: {reap: {floor: "2"}}', 'must be a whole number (got "2")'),
        ("poolDefaults: {reap: {floor: true}}", "must be a whole number (got true)"),
        ("poolDefaults: {reap: {interval: 100ms}}", "interval: must be at least 1s"),
        ("poolDefaults: {reap: {scaleIn: down}}", 'must be "auto", "annotate" or "evict" (got "down")'),
        ("poolDefaults: {reap: {evictOwners: [replicaset]}}", "must be Kind.group as in an ownerReference"),
        ("poolDefaults: {reap: {evictOwners: [DaemonSet.apps]}}", "never evicted; remove it"),
        ("poolDefaults: {reap: {enabled: 1}}", "must be true or false (got 1)"),
        ("poolDefaults: {preempt: {busyVictims: never}}", 'must be "protect", "lastResort" or "ignore"'),
        (
            "poolDefaults: {cacheKey: {label: tenant, window: 0}}",
            "must be auto, or a whole number from 1 to 1000",
        ),
        ("poolDefaults: {cacheKey: {label: tenant, window: true}}", "must be auto, or a whole number"),
        ("poolDefaults: {cacheKey: {label: tenant, window: wide}}", "must be auto, or a whole number"),
        ("poolDefaults: {cacheKey: {label: tenant, slack: 1.5}}", "slack: must be a number from 0 to 1"),
        ("poolDefaults: {cacheKey: {label: tenant, slack: true}}", "slack: must be a number from 0 to 1"),
        ("poolDefaults: {cacheKey: {label: bad label}}", "label: must be a label key"),
        ("poolDefaults: {cacheKey: {window: 2}}", "cacheKey.label: is missing"),
        ("poolDefaults: {idle: {sources: []}}", "sources: must have at least one item"),
        ("poolDefaults: {idle: {sources: [{}]}}", "must have exactly one of annotation, http, prometheus; it has none"),
        ("poolDefaults: {idle: {sources: [{annotation: {}, http: {port: 1}}]}}", "it has annotation and http"),
        ("poolDefaults: {idle: {sources: [{annotation: }]}}", "must be a mapping; write {}"),
        ("poolDefaults: {idle: {sources: [{http: {port: 0}}]}}", "greater than or equal to 1"),
        ("poolDefaults: {idle: {sources: [{http: {port: 65536}}]}}", "less than or equal to 65535"),
        ("poolDefaults: {idle: {sources: [{http: {port: 1, path: idle}}]}}", 'starts with "/"'),
        ("poolDefaults: {idle: {sources: [{http: {port: 1, timeout: 11s}}]}}", "timeout (11s) must not be longer"),
        ("poolDefaults: {idle: {sources: [{http: {port: 1, interval: 30s}}]}}", "staleAfter (30s) must be longer"),
        ("poolDefaults: {idle: {sources: [{prometheus: {url: 'ftp://x', query: q}}]}}", "address of a server"),
        ("poolDefaults: {idle: {sources: [{prometheus: {url: 'http://x:y', query: q}}]}}", "address of a server"),
        ("poolDefaults: {idle: {sources: [{prometheus: {url: 'http://[x', query: q}}]}}", "address of a server"),
        ("poolDefaults: {idle: {sources: [{prometheus: {url: 'http://x?a=b', query: q}}]}}", "without spaces, ? and #"),
        ("poolDefaults: {idle: {sources: [{prometheus: {url: 'http://x/a b', query: q}}]}}", "without spaces, ? and #"),
        ("poolDefaults: {idle: {sources: [{prometheus: {url: 'http://x', query: ' '}}]}}", "must be a PromQL query"),
        ("pools: [{name: A}]", "name: must be lower case letters"),
        (f"pools: [{{name: {'a' * 64}}}]", "at most 63 characters"),
        ("pools: [{}]", "pools[0].name: is missing"),
        ("pools: [{name: a, namespaces: []}]", "namespaces: must have at least one item"),
        ("pools: [{name: a, namespaces: [kube-system]}]", "kube-system keep the cluster alive"),
        ("pools: [{name: a, selector: {}}]", "would make every pod of the cluster a worker"),
        ("pools: [{name: a, selector: {matchLabels: {a: b c}}}]", "must be a label value"),
        (f"pools: [{{name: a, selector: {{matchLabels: {{{'a' * 254}/b: c}}}}}}]", "the key must be a label key"),
        ("pools: [{name: a, selector: {matchExpressions: [{key: a, operator: In}]}}]", "at least one value"),
        ("pools: [{name: a, selector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}}]", "at least one"),
        ("pools: [{name: a, selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]", "left out"),
        ("pools: [{name: a, selector: {matchExpressions: [{key: a, operator: Gt, values: [b]}]}}]", '"DoesNotExist"'),
        ("pools: [{name: a}, {name: b}, {name: a}]", "pools[2].name: is already the name of pools[0]"),
    ],
)
def test_mistake_in_a_value_is_refused_with_its_reason(body: str, problem: str) -> None:
    """Each rule about a value, or about values together, is reported by one line that says what would be right."""
    lines = problems_of(body)
    assert len(lines) == 1, lines
    assert problem in lines[0]


@pytest.mark.parametrize(
    "body",
    [
        "leaderElection: {renewDeadline: 2401ms}",
        "poolDefaults: {claims: {ttl: 1h}}",
        "poolDefaults: {reap: {floor: 0, idleTimeout: 0s, minPodAge: 0s, maxPerPass: 0}}",
        "poolDefaults: {cacheKey: {label: example.com/tenant, window: 1}}",
        "poolDefaults: {idle: {sources: [{http: {port: 1, interval: 29s, timeout: 29s}}]}}",
        "pools: [{name: a, namespaces: [x], selector: {}}]",
        "pools: [{name: a, selector: {matchExpressions: [{key: a, operator: DoesNotExist}]}}]",
        "pools: [{name: a, selector: {matchLabels: {a: ''}}}]",
    ],
)
def test_value_at_the_edge_of_a_rule_is_accepted(body: str) -> None:
    """Limits are limits: what just keeps them is right."""
    assert load(body)
