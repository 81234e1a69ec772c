"""Cache keys: whose cache a node has.

Owns the counts of placed workers by node and key, how they fade, and their bound; `scoring.key_first` is the rule that
uses them. Reads no clock. A count is only ever a preference: forgetting one costs warmth and nothing else.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from msgspec import Struct

HALF_LIFE = timedelta(hours=1)
"""A worker counts half as much an hour after it was placed. In simulations that made 1 to 7 of 100 reads more hits than
counts that never fade; half an hour and two hours did as well (docs/simulate.md)."""

KEYS_PER_NODE = 64
"""More keys than a node's cache is likely to hold. What is least used of a node's keys is forgotten beyond this."""

MOST_NODES = 500
"""So many nodes of a key are looked at for a worker: a popular one ran on thousands, and an answer must not walk them.
"""

_PARTS = 1_000_000
"""Sums of the same workers in another order differ by less than one part, and must not decide between two nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """One key on one node: so many ``workers`` with it were placed there, each halved for every `HALF_LIFE` since."""

    key: str
    workers: float


class KeyHistory:
    """How many workers with each key were placed on each node of late, by node name. At most ``keys_per_node`` a node.

    ``forgotten`` counts the keys that were given up for others.

    Kept is the binary logarithm of what the fading sum would be at the epoch. It grows only when a worker is placed,
    and which of two is greater is the same at any time: so a choice between nodes needs no clock.
    """

    def __init__(self, *, keys_per_node: int = KEYS_PER_NODE, half_life: timedelta = HALF_LIFE) -> None:
        self._keys_per_node = keys_per_node
        self._half_life_seconds = half_life.total_seconds()
        self._nodes: dict[str, dict[str, float]] = {}
        self._nodes_of: dict[str, list[str]] = {}  # by key, most used first
        self.forgotten = 0

    def record(self, node: str, key: str, at: datetime) -> None:
        """Count a worker with this key, placed on this node at this time.

        A new key beyond the bound makes another one forgotten: 1. the least used of late; 2. the smaller name.
        """
        keys = self._nodes.setdefault(node, {})
        placed = at.timestamp() / self._half_life_seconds
        known = keys.get(key)
        if known is None:
            if len(keys) >= self._keys_per_node:
                least = min(keys, key=lambda each: (keys[each], each))
                self._drop(least, node)
                del keys[least]
                self.forgotten += 1
            keys[key] = placed
        else:
            self._drop(key, node)
            keys[key] = max(known, placed) + math.log2(1 + 2 ** -abs(known - placed))
        insort(self._nodes_of.setdefault(key, []), node, key=self._place(key))

    def use(self, node: str, key: str) -> float:
        """Say how much this key was used on this node, to be compared with other nodes only; -inf: never."""
        keys = self._nodes.get(node)
        used = keys.get(key) if keys is not None else None
        return -math.inf if used is None else round(used * _PARTS)

    def by_use(self, key: str, among: Container[str]) -> Iterator[tuple[float, str]]:
        """Give those nodes where this key ran, with its `use` there, the most used first: of at most `MOST_NODES`."""
        found, nodes = islice(self._nodes_of.get(key, ()), MOST_NODES), self._nodes
        return ((round(nodes[node][key] * _PARTS), node) for node in found if node in among)

    def uses(self, node: str, now: datetime) -> list[KeyUse]:
        """List a node's keys as of ``now``: 1. most used of late first; 2. by name."""
        at = now.timestamp() / self._half_life_seconds
        keys = sorted(self._nodes.get(node, {}).items(), key=lambda each: (-round(each[1] * _PARTS), each[0]))
        return [KeyUse(key=key, workers=2 ** min(used - at, 64)) for key, used in keys]

    def workers(self, nodes: Iterable[str], key: str, now: datetime) -> list[float]:
        """Say how many workers with this key were placed on each of these nodes, as of ``now``: see `KeyUse`.

        In hundredths: it is for people to read.
        """
        at, known, nothing = now.timestamp() / self._half_life_seconds, self._nodes, dict[str, float]()
        logs = [known.get(node, nothing).get(key, -math.inf) - at for node in nodes]
        return [int(100 * 2 ** (log if log < 64 else 64) + 0.5) / 100 for log in logs]

    def forget_node(self, node: str) -> None:
        """Forget a node that is gone, and its cache with it."""
        for key in self._nodes.get(node, {}):
            self._drop(key, node)
        self._nodes.pop(node, None)

    def keep_only(self, nodes: Collection[str]) -> None:
        """Forget all nodes but these."""
        for name in [name for name in self._nodes if name not in nodes]:
            self.forget_node(name)

    def _place(self, key: str) -> Callable[[str], tuple[float, str]]:
        return lambda node: (-self.use(node, key), node)

    def _drop(self, key: str, node: str) -> None:
        nodes, place = self._nodes_of[key], self._place(key)
        del nodes[bisect_left(nodes, place(node), key=place)]
        if not nodes:
            del self._nodes_of[key]

    def __len__(self) -> int:
        """Count what is remembered: pairs of a node and a key."""
        return sum(map(len, self._nodes.values()))


class Affinity(Struct, frozen=True, kw_only=True, gc=False):
    """A worker's key, what is known of it, and among how many of the nodes it decides, which are the most preferred."""

    key: str
    reach: int
    history: KeyHistory

    def workers(self, nodes: Iterable[str], now: datetime) -> list[float]:
        """Say how many workers with the key were placed on each of these nodes, as of ``now``: see `KeyUse`."""
        return self.history.workers(nodes, self.key, now)
