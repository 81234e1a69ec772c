"""The working set of a pool: the oldest nodes that have some room, of which a cache key may choose any at little cost.

Owns how far it reaches; `scoring` says in which order its nodes come. Reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable


def wanted_room(workers: int, slack: float) -> float:
    """Say for how many workers the set has free room: one, and a share of those of the pool and of twenty more.

    ``workers`` have a node and are neither terminating nor finished; ``slack`` is the share.
    """
    return 1 + slack * (workers + SMALL_POOL) - _ROUNDING


SMALL_POOL = 20
"""A tenth of ten workers is one, and a key would hardly ever choose. In simulations two more cost a small pool nothing,
and a large one does not feel them."""
_ROUNDING = 1e-6
"""30 x 0.1 is a little more than 3 where numbers are binary, and must not take one more node."""


def free_room(fits: int, on: int) -> int:
    """Say how many more workers a feasible node takes, as far as one can know. One that is not feasible takes none.

    As many as fit on an empty one, without those that are ``on`` it, and at least one. A wrong number is a wrong slack
    and nothing worse.
    """
    return fits - on if fits > on else 1


class Reach:
    """How many nodes are in the set: the shortest prefix that has the wanted free room, all where there is less.

    ``rooms`` are the nodes' free rooms, the most preferred node first. Kept while rooms change, so that a change costs
    as much as the end moves.
    """

    def __init__(self, rooms: Iterable[int]) -> None:
        self._rooms = list(rooms)
        self._nodes = 0
        self._within = 0  # the room of so many nodes

    def put(self, place: int, room: int) -> None:
        """Change the free room of the node at this place, counted from 0."""
        if place < self._nodes:
            self._within += room - self._rooms[place]
        self._rooms[place] = room

    def has_room(self, place: int) -> bool:
        """True where the node at this place, counted from 0, takes one more."""
        return self._rooms[place] > 0

    def nodes(self, wanted: float) -> int:
        """Count the nodes of the set that has so much free room."""
        rooms = self._rooms
        while self._within < wanted and self._nodes < len(rooms):
            self._within += rooms[self._nodes]
            self._nodes += 1
        while self._nodes and self._within - rooms[self._nodes - 1] >= wanted:
            self._nodes -= 1
            self._within -= rooms[self._nodes]
        return self._nodes
