"""The configuration in force, as the values that policies and loops take. Owns that translation and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from extender.policy.deletion_cost import PoolCosts
from extender.policy.departure import EndingRules
from extender.policy.idleness import ReapRules
from extender.policy.pools import PoolsInForce, pool_of
from extender.policy.reaping import PoolReaping, ReapLimits
from extender.settings import Configuration, PoolSettings, to_model_pool


class InForce:
    """Settings as they are now; `replace` puts a new configuration in force for everybody who asks after that.

    A pool that is only known by its label has the defaults. ``dry_run`` is the flag: it goes over the file.
    """

    def __init__(self, configuration: Configuration, *, dry_run: bool = False) -> None:
        self._dry_run = dry_run
        self.replace(configuration)

    def replace(self, configuration: Configuration) -> None:
        """Put a configuration in force."""
        self.configuration = configuration.with_dry_run() if self._dry_run else configuration
        self._settings = {pool.name: pool for pool in self.configuration.pools or ()}
        self.pools = pools_in_force(self.configuration)

    def classify(self, namespace: str, labels: Mapping[str, str]) -> str | None:
        """Name the pool of a pod."""
        return pool_of(namespace, labels, self.pools.pools)

    def settings(self, pool: str) -> PoolSettings:
        """Give a pool's settings."""
        found = self._settings.get(pool)
        if found is None:
            found = self._settings[pool] = self.configuration.pool_defaults_for(pool)
        return found

    def reaping(self, pool: str) -> PoolReaping:
        """Say how a pool is reaped."""
        return reaping_of(self.settings(pool))

    def ending_rules(self) -> EndingRules:
        """Say which nodes are ending."""
        return ending_rules_of(self.configuration)

    def costs(self, pool: str) -> PoolCosts:
        """Say how a pool's deletion costs are written."""
        settings = self.settings(pool)
        cost = settings.deletion_cost
        return PoolCosts(enabled=cost.enabled, settle=cost.settle, dry_run=settings.dry_run)


def pools_in_force(configuration: Configuration) -> PoolsInForce:
    """Reduce the configuration to what the webhook needs of it."""
    pools = None if configuration.pools is None else tuple(to_model_pool(pool) for pool in configuration.pools)
    return PoolsInForce(
        pools=pools,
        busy_victims={pool.name: pool.busy_victims for pool in pools or ()},
        default_busy_victims=configuration.pool_defaults.preempt.busy_victims,
    )


def ending_rules_of(configuration: Configuration) -> EndingRules:
    """Reduce the configuration to which nodes are ending."""
    ending = configuration.ending
    return EndingRules(expiry_horizon=ending.expiry_horizon, drifted=ending.drifted)


def reaping_of(settings: PoolSettings) -> PoolReaping:
    """Reduce a pool's settings to how it is reaped."""
    reap = settings.reap
    return PoolReaping(
        rules=ReapRules(
            enabled=reap.enabled,
            idle_timeout=reap.idle_timeout,
            min_pod_age=reap.min_pod_age,
            scale_in=reap.scale_in,
            evict_owners=frozenset(reap.evict_owners),
        ),
        limits=ReapLimits(
            floor=reap.floor,
            max_per_pass=reap.max_per_pass,
            max_per_node=reap.max_per_node,
            whole_node=reap.whole_node,
        ),
        interval=reap.interval,
        dry_run=settings.dry_run,
    )
