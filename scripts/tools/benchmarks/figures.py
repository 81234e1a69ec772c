"""What is said of repeated measurements: a median, the range around it, and ratios round by round. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of some rounds, and the lowest and the highest of them."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Summarize one value a round. Raises ValueError where there is none."""
    if not values:
        raise ValueError("no round was measured")
    return Spread(median=median(values), low=min(values), high=max(values))


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Divide round by round: what disturbs a round disturbs both sides, and drops out. Raises ValueError."""
    return [value / under for value, under in zip(values, base, strict=True)]


def shown(values: Sequence[float], digits: int = 2) -> str:
    """Write ``median (low-high)``, the median alone where there is one round or no difference to see."""
    found = spread(values)
    low, high = f"{found.low:,.{digits}f}", f"{found.high:,.{digits}f}"
    middle = f"{found.median:,.{digits}f}"
    return middle if low == high else f"{middle} ({low}-{high})"


def rotated(arms: Sequence[str], turn: int) -> list[str]:
    """Put the arms in another order each round, so that none has the same neighbour, or the same place, for ever."""
    cut = turn % len(arms)
    order = [*arms[cut:], *arms[:cut]]
    return order if turn // len(arms) % 2 == 0 else order[::-1]
