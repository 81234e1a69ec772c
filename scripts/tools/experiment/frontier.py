"""Warmth at equal cost: one arm's points held against another arm's curve. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float]
"""(node-seconds, share of hits)."""


def at_equal_cost(base: Sequence[Point], points: Sequence[Point]) -> list[float]:
    """Return by how much each point's hits are above the base's at the same node-seconds.

    The base's curve is the straight line between its neighbouring points, by node-seconds. A point outside of its range
    is left out: nothing is known there.
    """
    curve = sorted(base)
    differences = []
    for cost, hits in points:
        for (left, low), (right, high) in pairwise(curve):
            if left <= cost <= right and left < right:
                differences.append(hits - (low + (high - low) * (cost - left) / (right - left)))
                break
    return differences
