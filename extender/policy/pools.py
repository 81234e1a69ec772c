"""Which pool a pod belongs to. Owns selector matching, by the rules of Kubernetes label selectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from extender.model import Expression, Pool

POOL_LABEL = "warmnode.dev/pool"


def pool_of(namespace: str, labels: Mapping[str, str], pools: Sequence[Pool] | None) -> str | None:
    """Name the pool of a pod, None for a pod of no pool. The first pool that matches wins.

    ``pools`` None means that no pool is configured: then the label ``warmnode.dev/pool`` names the pool.
    """
    if pools is None:
        return labels.get(POOL_LABEL) or None
    for pool in pools:
        if is_member(namespace, labels, pool):
            return pool.name
    return None


def is_member(namespace: str, labels: Mapping[str, str], pool: Pool) -> bool:
    """Match a pod against a pool: 1. namespace listed, or none listed; 2. every label; 3. every expression."""
    return (
        (not pool.namespaces or namespace in pool.namespaces)
        and all(labels.get(key) == value for key, value in pool.match_labels)
        and all(_matches(labels, expression) for expression in pool.match_expressions)
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
            raise ValueError(f"unknown operator {operator!r}")
