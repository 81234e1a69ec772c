"""The nodes of a run: launched where there is no room, booted, and removed once they were empty for long enough.

Owns what a node does and costs, and the order in which things happen. A discrete-event model: no clock runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from heapq import heappop, heappush
from math import inf

from extender.simulate.cache import BlockCache
from extender.simulate.rules import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShape:
    """The nodes of a pool. ``restart_every`` restarts warmnode so often, None never: key counts begin anew then.

    ``first_nodes`` are there at the beginning. Node-hours are counted until ``watched``, None: to the end.
    """

    slots: int = 8
    boot: timedelta = timedelta(seconds=45)
    consolidate_after: timedelta = timedelta(minutes=5)
    cache_blocks: int = 1000
    miss_seconds: float = 0.0
    restart_every: timedelta | None = None
    first_nodes: int = 0
    watched: timedelta | None = None


class Agenda:
    """What is to happen, in order of time; at one time in the order in which it was noted down."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0

    def at(self, when: float, do: Callable[[float], None]) -> None:
        """Note something down; it is given the time."""
        self._number += 1
        heappush(self._entries, (when, self._number, do))

    def work_until(self, time: float) -> None:
        """Let happen what is due until then."""
        entries = self._entries
        while entries and entries[0][0] <= time:
            now, _, do = heappop(entries)
            do(now)


@dataclass(slots=True, eq=False)
class SimulatedNode:
    """A node. ``taken`` slots of it are; ``emptied`` counts how often the last one was given back."""

    name: str
    launched: float
    cache: BlockCache
    taken: int = 0
    emptied: int = 0


class SimulatedPool:
    """The nodes that are there. ``rule`` places; ``room_came`` is called whenever there is room that was not there."""

    def __init__(self, shape: PoolShape, agenda: Agenda, rule: Placement, room_came: Callable[[float], None]) -> None:
        self._shape = shape
        self._agenda = agenda
        self._rule = rule
        self._room_came = room_came
        self._nodes: dict[str, SimulatedNode] = {}
        self._until = inf if shape.watched is None else shape.watched.total_seconds()
        self.room: dict[str, int] = {}
        self.booting = self.launched = self.peak = 0
        self.node_seconds = 0.0
        for _ in range(shape.first_nodes):
            self._booted(self._new(0.0), 0.0)

    def launch_for(self, waiting: int, now: float) -> None:
        """Launch one more node where more wait than those that boot can take."""
        if waiting > self.booting * self._shape.slots:
            node = self._new(now)
            self._agenda.at(now + self._shape.boot.total_seconds(), partial(self._booted, node))

    def take(self, key: str, now: float) -> SimulatedNode:
        """Take a slot where the rule says. There must be ``room``."""
        name = self._rule.choose(self.room, key)
        if self.room[name] == 1:
            del self.room[name]
        else:
            self.room[name] -= 1
        node = self._nodes[name]
        node.taken += 1
        self._rule.placed(name, key, now)
        return node

    def give_back(self, node: SimulatedNode, now: float) -> None:
        """Give a slot back."""
        node.taken -= 1
        self._rule.ended(node.name)
        self.room[node.name] = self.room.get(node.name, 0) + 1
        self._offer(node, now)

    def close(self, now: float) -> None:
        """Count what the nodes cost that are still there."""
        for node in list(self._nodes.values()):
            self._pay(node, now)

    def _new(self, now: float) -> SimulatedNode:
        self.launched += 1
        self.booting += 1
        name = f"node-{self.launched}"
        node = self._nodes[name] = SimulatedNode(name, now, BlockCache(self._shape.cache_blocks))
        self.peak = max(self.peak, len(self._nodes))
        return node

    def _booted(self, node: SimulatedNode, now: float) -> None:
        self.booting -= 1
        self.room[node.name] = self._shape.slots
        self._rule.node_ready(node.name, self._shape.slots, now)
        self._offer(node, now)

    def _offer(self, node: SimulatedNode, now: float) -> None:
        """Let who waits have the room; remove the node if it is empty then and stays so."""
        self._room_came(now)
        if not node.taken:
            node.emptied += 1
            after = self._shape.consolidate_after.total_seconds()
            self._agenda.at(now + after, partial(self._remove, node, node.emptied))

    def _remove(self, node: SimulatedNode, emptied: int, now: float) -> None:
        if not node.taken and node.emptied == emptied:
            del self.room[node.name]
            self._rule.node_gone(node.name)
            self._pay(node, now)

    def _pay(self, node: SimulatedNode, now: float) -> None:
        del self._nodes[node.name]
        self.node_seconds += max(0.0, min(now, self._until) - node.launched)
