"""How replicas that hand out workers of one pool keep out of each other's way, without a word between them.

Owns how many nodes count as equally warm, and in which order one replica goes through what is equally warm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

MOST_NODES = 256
"""So many nodes are looked through in half a millisecond, and ten replicas with ten calls each seldom meet there."""

MOST_LEFT = 128
"""Whoever is forgotten is tried once more: harmless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How many nodes count as equally warm: the oldest ones that have an idle worker.

    One while no race is lost: then age alone decides. Four times as many as counted when a claim was begun that another
    one won: of those that were begun together only the first to lose counts. Half as many after 70 claims without one.
    So of a hundred claims about one loses a race, however many replicas there are.

    ``left`` are the nodes and workers where a race was lost, the latest last.
    """

    nodes: float = 1.0
    left: tuple[str, ...] = ()

    def lost(self, begun: float, *places: str) -> Spread:
        """After a race that another claim won, for a worker on a node, the ``places``. So many counted when it was
        ``begun``.
        """
        others = (each for each in self.left if each not in places)
        return Spread(nodes=min(max(self.nodes, begun * 4), MOST_NODES), left=(*others, *places)[-MOST_LEFT:])

    def won(self) -> Spread:
        """After a claim that went well. Where age alone decides again, what was left is forgotten."""
        nodes = self.nodes * 0.99
        return replace(self, nodes=nodes) if nodes > 1 else Spread()

    def own_order(self, names: Iterable[str], replica: str) -> list[str]:
        """Put what is equally warm in this replica's own order: 1. what was not left, then what was left longest ago;
        2. by a hash of replica and name; 3. by name.

        Replicas that all begin with the same one take it from each other: so each begins at a place of its own. Where
        two have the same favourite all the same, whoever loses leaves it to the other: else they would meet there again
        and again.
        """
        left = {name: position for position, name in enumerate(self.left, 1)}
        return sorted(names, key=lambda name: (left.get(name, 0), _place(replica, name), name))


@lru_cache(maxsize=16_384)
def _place(replica: str, name: str) -> bytes:
    return hashlib.blake2b(name.encode(), salt=b"claims", key=replica.encode()[:64], digest_size=8).digest()
