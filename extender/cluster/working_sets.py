"""How far the working set of each pool reaches now. Owns what is kept of it between requests; `policy` has the rule.

Kept while nothing that it follows from has changed: a request then costs a comparison and no walk over the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from extender.cluster.pod_index import NeededRoom
from extender.cluster.state import ClusterState
from extender.model import Node
from extender.policy.resources import Resources, fitting
from extender.policy.scoring import PreferenceKey, Ranking
from extender.policy.working_set import capacities, working_set_size

MOST_POOLS = 1_000
"""So many pools are kept; then it begins anew, for who names pools by a label may name a million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingSet:
    """Nodes up to the one with the preference key ``end``, so many; ``feasible`` are those of the request."""

    end: PreferenceKey
    nodes: int
    feasible: frozenset[str]


class WorkingSets:
    """Finds the working sets of pools by the live state. ``changed`` is told how many nodes a pool's set has."""

    def __init__(self, state: ClusterState, changed: Callable[[str, int], None] = lambda pool, nodes: None) -> None:
        self._state = state
        self._changed = changed
        self._kept: dict[str, tuple[tuple[object, ...], WorkingSet]] = {}
        self._fits: dict[str, tuple[tuple[object, ...], list[str], list[int]]] = {}

    def reach(
        self, pool: str, ranking: Ranking, feasible: Collection[str], requests: Resources, slack: float
    ) -> WorkingSet:
        """Find the set for the next worker of a pool, which has these feasible nodes. No node at all: nothing is in it.

        What a node has for pods counts once the order changes, or what is asked for: it stays the same as a rule.
        """
        names = frozenset(feasible)
        needed, order = self._state.where.needed(pool), ranking.revision
        basis = (needed, needed.revision, order, slack, requests, hash(names), len(names))
        known = self._kept.get(pool)
        if known is not None and known[0] == basis:
            return known[1]
        fits = self._fits.get(pool)
        if fits is None or fits[0] != (order, requests):
            fits = self._fits[pool] = (order, requests), *nodes_and_fits(ranking, self._state.nodes, requests)
        found = working_set(ranking, needed, names, fits[1:], slack)
        if len(self._kept) >= MOST_POOLS:
            self._kept.clear()
            self._fits.clear()
        self._kept[pool] = (basis, found)
        self._changed(pool, found.nodes)
        return found


def nodes_and_fits(ranking: Ranking, nodes: Mapping[str, Node], requests: Resources) -> tuple[list[str], list[int]]:
    """Give the nodes in the order of preference, and how many pods with these requests fit on each when empty."""
    known: dict[int, int] = {}  # by the identity of what nodes of one type share
    names, fits = list(ranking), []
    for name in names:
        allocatable = nodes[name].allocatable
        if id(allocatable) not in known:
            known[id(allocatable)] = fitting(allocatable, requests)
        fits.append(known[id(allocatable)])
    return names, fits


def working_set(
    ranking: Ranking, needed: NeededRoom, feasible: frozenset[str], nodes: tuple[list[str], list[int]], slack: float
) -> WorkingSet:
    """Find the set for the next worker of a pool, from the beginning. ``nodes`` are those of `nodes_and_fits`."""
    size = working_set_size(capacities(*nodes, needed.on, feasible), needed.workers, slack)
    return WorkingSet(end=ranking.end(size), nodes=size, feasible=feasible)


def end_for_claims(ranking: Ranking, needed: NeededRoom, slack: float) -> PreferenceKey:
    """Find how far the set for the next claim reaches: workers are there, so a node holds as many as are on it."""
    return ranking.end(working_set_size((needed.on[name] for name in ranking), needed.at_work, slack))
