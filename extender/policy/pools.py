"""Which pool a pod belongs to, and which cache key it has. Owns selector matching, by the rules of Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from extender.model import CacheKeyRule, Expression, PlacementMode, Pool, Selector

POOL_LABEL = "warmnode.dev/pool"


class PoolsInForce:
    """The configured ``pools``, None where the label names them: each is as ``default`` then."""

    def __init__(self, default: Pool, pools: Sequence[Pool] | None = None) -> None:
        self.pools = pools
        self._by_name = {pool.name: pool for pool in pools or ()}
        self._other = default if pools is None else Pool(name="", busy_victims=default.busy_victims)

    def of(self, name: str) -> Pool:
        """Give what is set for a pool. Where pools are listed, one that is not has no cache key and no shadow."""
        return self._by_name.get(name, self._other)

    def is_shadow(self, pool: str | None) -> bool:
        """Say whether schedulers are not answered for a pool's workers."""
        return pool is not None and self.of(pool).placement is PlacementMode.SHADOW


def cache_key_of(labels: Mapping[str, str], rule: CacheKeyRule | None) -> str | None:
    """Give a worker's cache key, None where its pool has no rule or it has not the label. An empty label is no key."""
    return None if rule is None else labels.get(rule.label) or None


def pool_of(namespace: str, labels: Mapping[str, str], pools: Sequence[Pool] | None) -> str | None:
    """Name the pool of a pod, None for a pod of no pool. The first pool that matches wins: 1. its namespace is listed,
    or none is; 2. the selector.

    ``pools`` None means that no pool is configured: then the label ``warmnode.dev/pool`` names the pool.
    """
    if pools is None:
        return labels.get(POOL_LABEL) or None
    for pool in pools:
        if (not pool.namespaces or namespace in pool.namespaces) and selects(pool.selector, labels):
            return pool.name
    return None


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Match labels against a selector: 1. every label; 2. every expression."""
    return all(labels.get(key) == value for key, value in selector.match_labels) and all(
        _matches(labels, expression) for expression in selector.match_expressions
    )


def _matches(labels: Mapping[str, str], expression: Expression) -> bool:
    present = expression.key in labels
    match expression.operator:
        case "In":
            return present and labels[expression.key] in expression.values
        case "NotIn":  # a pod without the key matches: apimachinery labels.Requirement.Matches
            return not present or labels[expression.key] not in expression.values
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
        case operator:
            assert_never(operator)
