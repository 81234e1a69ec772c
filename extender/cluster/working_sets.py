"""How far the working set of each pool reaches now. Owns what is kept of it between requests; `policy` has the rule.

What changes moves the end: a request costs a look at what has changed, and no walk over the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from cachetools import LRUCache
from msgspec import Struct

from extender.cluster.pod_index import NeededRoom
from extender.cluster.state import ClusterState
from extender.model import Node
from extender.policy.resources import Resources, fitting
from extender.policy.scoring import Ranking
from extender.policy.working_set import Reach, free_room, wanted_room

MOST_POOLS = 64
"""So many pools are kept, those that were asked for last: who names pools by a label may name a million, and one of
5,000 nodes takes a third of a MiB."""
_FEW = 8
"""To change one node costs about eight times what it costs to walk past one."""


class Asks(Protocol):
    """What a worker asks for: compared with that of the last one, and summed up where it is not equal."""

    def requests(self) -> Resources:
        """Sum it up."""
        ...


class WorkingSet(Struct, frozen=True, kw_only=True, gc=False):
    """So many of the most preferred ``nodes``; ``feasible`` are those of the request."""

    nodes: int
    feasible: frozenset[str]


@dataclass(slots=True, kw_only=True)
class _Kept:
    """What is known of a pool's set. ``basis``: what must be the same for ``fits``, which are in the order of nodes."""

    basis: tuple[object, ...]
    fits: list[int]
    reach: Reach
    feasible: frozenset[str]
    revision: int
    told: int = -1


class WorkingSets:
    """Finds the working sets of pools by the live state. ``changed`` is told how many nodes a pool's set has."""

    def __init__(self, state: ClusterState, changed: Callable[[str, int], None] = lambda pool, nodes: None) -> None:
        self._state = state
        self._changed = changed
        self._kept: LRUCache[str, _Kept] = LRUCache(MOST_POOLS)

    def reach(self, pool: str, ranking: Ranking, feasible: Collection[str], asks: Asks, slack: float) -> WorkingSet:
        """Find the set for the next worker of a pool, which has these feasible nodes. No node at all: nothing is in it.

        What a node has for pods counts once the order changes, or what is asked for: it stays the same as a rule.
        """
        names, needed = frozenset(feasible), self._state.where.needed(pool)
        kept = self._kept.get(pool)
        if kept is None or kept.basis != (needed, ranking.revision, asks):
            fits = fits_by_place(ranking, self._state.nodes, asks.requests())
            basis = needed, ranking.revision, asks
            kept = _Kept(basis=basis, fits=fits, reach=Reach(()), feasible=frozenset(), revision=-1)
            self._kept[pool] = kept
        if hash(names) == hash(kept.feasible):  # equal, as good as surely: 64 bits, and nobody knows their seed
            names = kept.feasible  # whose names stay in memory, so that those of the request need not
        if names is not kept.feasible or needed.revision != kept.revision:
            _follow(kept, ranking, needed, names)
        nodes = kept.reach.nodes(wanted_room(needed.workers, slack))
        if nodes != kept.told:
            kept.told = nodes
            self._changed(pool, nodes)
        return WorkingSet(nodes=nodes, feasible=names)


def _follow(kept: _Kept, ranking: Ranking, needed: NeededRoom, feasible: frozenset[str]) -> None:
    """Take in what has changed: node by node where that is little, else all of it."""
    changed = needed.changed_since(kept.revision)
    if changed is not None and feasible is not kept.feasible:
        changed |= feasible ^ kept.feasible
    fits, on, places = kept.fits, needed.on, ranking.places()
    if changed is None or len(changed) * _FEW > len(fits):
        kept.reach = Reach(
            free_room(fit, on.get(name, 0)) if name in feasible else 0 for name, fit in zip(ranking, fits, strict=True)
        )
    else:
        for name in changed:
            if name in places:
                place = places[name] - 1
                kept.reach.put(place, free_room(fits[place], on.get(name, 0)) if name in feasible else 0)
    kept.feasible, kept.revision = feasible, needed.revision


def fits_by_place(ranking: Ranking, nodes: Mapping[str, Node], requests: Resources) -> list[int]:
    """Say how many pods with these requests fit on each node when it is empty, the most preferred node first."""
    known: dict[int, int] = {}  # by the identity of what nodes of one type share
    fits = []
    for name in ranking:
        allocatable = nodes[name].allocatable
        if id(allocatable) not in known:
            known[id(allocatable)] = fitting(allocatable, requests)
        fits.append(known[id(allocatable)])
    return fits


def reach_for_claims(ranking: Ranking, needed: NeededRoom, slack: float) -> int:
    """Count the nodes of the set for the next claim: idle workers are free room, and those at work the pool's."""
    idle = needed.idle
    return Reach(idle[name] for name in ranking).nodes(wanted_room(needed.at_work, slack))
