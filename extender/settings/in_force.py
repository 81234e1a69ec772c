"""The configuration in force, as the values that policies and loops take. Owns that translation and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from extender.model import Membership
from extender.policy.claims import PoolClaims
from extender.policy.defaults import HttpProbe, PrometheusSource
from extender.policy.pools import PoolsInForce, cache_key_of, pool_of
from extender.policy.sources import PrometheusQuery, Source, SourceRules
from extender.settings import Configuration, PoolSettings, to_cache_key_rule, to_model_pool
from extender.settings.idle_section import AnnotationSource, IdleSettings

SHARED_KEYS = 10_000
"""So many cache keys are one value for all pods that have them; then it begins anew, for labels may be hostile."""

SHARED_POOLS = 1_000
"""So many pools that are known by their label have settings at hand; then that begins anew."""


class InForce:
    """Settings as they are now; `replace` puts a new configuration in force for everybody who asks after that.

    A pool that is only known by its label has the defaults. ``dry_run`` is the flag: it goes over the file.
    """

    def __init__(self, configuration: Configuration, *, dry_run: bool = False) -> None:
        self._dry_run = dry_run
        self.replace(configuration)

    def replace(self, configuration: Configuration) -> None:
        self.configuration = configuration.with_dry_run() if self._dry_run else configuration
        self._settings = {pool.name: pool for pool in self.configuration.pools or ()}
        self._listed = frozenset(self._settings)
        self.pools = pools_in_force(self.configuration)
        self._defaults: dict[str, PoolSettings] = {}
        self._sources: dict[str, SourceRules] = {}
        self._members: dict[tuple[str, str | None], Membership] = {}
        self.unlisted_claims = self._pool_claims(self.configuration.pool_defaults_for(""))
        """What goes for claims in a pool that is not listed, or no more: the defaults, whatever its name is."""
        self.asks_anybody = any(source_rules(each, dry_run=False).outside for each in self._idle_settings())
        """A pool has, or one that is known by its label would have, a source outside."""

    @property
    def reading(self) -> tuple[object, ...]:
        """What the reading of a pod depends on: while this is the same, no pod has to be read again."""
        members = (member_of("", source_rules(each, dry_run=False)) for each in self._idle_settings())
        return self.pools.pools, self.pools.of("").cache_key, *members

    def classify(self, namespace: str, labels: Mapping[str, str]) -> Membership | None:
        """Say which pool a pod belongs to, how its marks count there, and which cache key it has."""
        pool = pool_of(namespace, labels, self.pools.pools)
        if pool is None:
            return None
        key = cache_key_of(labels, self.pools.of(pool).cache_key)
        member = self._members.get((pool, key))
        if member is None:
            if len(self._members) >= SHARED_KEYS:
                self._members.clear()
            member = self._members[pool, key] = replace(member_of(pool, self.sources(pool)), cache_key=key)
        return member

    def settings(self, pool: str) -> PoolSettings:
        found = self._settings.get(pool) or self._defaults.get(pool)
        if found is None:
            if len(self._defaults) >= SHARED_POOLS:
                self._defaults.clear()
                self._sources.clear()
            found = self._defaults[pool] = self.configuration.pool_defaults_for(pool)
        return found

    def listed(self) -> frozenset[str]:
        return self._listed

    def sources(self, pool: str) -> SourceRules:
        """Say how a pool's workers are known to be idle."""
        rules = self._sources.get(pool)
        if rules is None:
            settings = self.settings(pool)
            rules = self._sources[pool] = source_rules(settings.idle, dry_run=settings.dry_run)
        return rules

    def claims(self, pool: str) -> PoolClaims | None:
        """Say how a pool is claimed, None where pools are listed and this is none of them. Remembers no name."""
        if self.configuration.pools is None:
            return self.unlisted_claims
        return self._pool_claims(self._settings[pool]) if pool in self._listed else None

    def _pool_claims(self, settings: PoolSettings) -> PoolClaims:
        namespaces = settings.namespaces or ()
        return PoolClaims(
            rules=settings.claims,
            costs=settings.deletion_cost,
            dry_run=settings.dry_run,
            cache_key=to_cache_key_rule(settings.cache_key),
            namespace=namespaces[0] if len(namespaces) == 1 else None,
            is_by_label=self.configuration.pools is None,
            floor=settings.reap.floor,
        )

    def _idle_settings(self) -> list[IdleSettings]:
        pools = self.configuration.pools
        return [self.configuration.pool_defaults.idle] if pools is None else [pool.idle for pool in pools]


def pools_in_force(configuration: Configuration) -> PoolsInForce:
    """Reduce the configuration to what the webhook needs of it."""
    default = to_model_pool(configuration.pool_defaults_for(""))
    listed = None if configuration.pools is None else tuple(map(to_model_pool, configuration.pools))
    return PoolsInForce(default, listed)


def source_rules(settings: IdleSettings, *, dry_run: bool) -> SourceRules:
    """Reduce a pool's settings to how its workers are known to be idle. A source that is listed twice is asked once."""
    outside: dict[Source, None] = {}
    annotation = False
    for source in settings.sources:
        match source.choice:
            case AnnotationSource():
                annotation = True
            case HttpProbe() as probe:
                outside[probe] = None
            case PrometheusSource() as prometheus:
                outside[PrometheusQuery(**asdict(prometheus), max_age=settings.stale_after)] = None
    return SourceRules(annotation=annotation, outside=tuple(outside), stale_after=settings.stale_after, dry_run=dry_run)


def member_of(pool: str, rules: SourceRules) -> Membership:
    """Say how a worker of a pool is read."""
    keeps_ip = any(isinstance(source, HttpProbe) for source in rules.outside)
    return Membership(pool=pool, basis=rules.basis, keeps_ip=keeps_ip)
