"""How far the working set of each pool reaches now. Owns what is kept of it between requests; `policy` has the rule.

What changes moves the end: a request costs a look at what has changed, and no walk over the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

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
    """What is known of a pool's set. ``basis``: what must be the same for ``fits``, which are in the order of nodes.

    ``rooms`` are by the ``feasible`` nodes and the pool's workers as of ``revision``. ``trusted`` requests were taken
    to have these feasible nodes without a look at each.
    """

    basis: tuple[object, ...]
    fits: Sequence[int]
    rooms: Reach
    feasible: set[str]
    revision: int
    trusted: int = 0
    told: int = -1


class WorkingSets:
    """Finds the working sets of pools by the live state. ``changed`` is told how many nodes a pool's set has."""

    def __init__(self, state: ClusterState, changed: Callable[[str, int], None] = lambda pool, nodes: None) -> None:
        self._state = state
        self._changed = changed
        self._kept: dict[str, _Kept] = {}  # who asked last comes last

    def reach(self, pool: str, ranking: Ranking, feasible: Collection[str], asks: Asks, slack: float) -> WorkingSet:
        """Find the set for the next worker of a pool, which has these feasible nodes. No node at all: nothing is in it.

        What a node has for pods counts once the order changes, or what is asked for: it stays the same as a rule. Which
        nodes are feasible changes where the pool's workers come and go; what else has changed is found where their
        number or a `SAMPLE` shows it, or `TRUSTED` requests later: until then the slack is a little wrong.
        """
        names, needed = frozenset(feasible), self._state.where.needed(pool)
        basis = needed, ranking.revision, asks
        kept = self._kept.pop(pool, None)
        if kept is None or kept.basis != basis:
            fits = fits_by_place(ranking, self._state.nodes, asks.requests())
            kept = _Kept(basis=basis, fits=fits, rooms=Reach(()), feasible=set(), revision=-1)
        self._kept[pool] = kept
        if len(self._kept) > MOST_POOLS:
            del self._kept[next(iter(self._kept))]
        wanted = wanted_room(needed.workers, slack)
        is_followed = _follow(kept, ranking, needed, names)
        nodes = kept.rooms.nodes(wanted)
        if not is_followed or kept.trusted >= TRUSTED or not _seems_equal(kept, ranking, nodes, names):
            _look_through(kept, ranking, needed, names)
            nodes = kept.rooms.nodes(wanted)
        if nodes != kept.told:
            kept.told = nodes
            self._changed(pool, nodes)
        return WorkingSet(nodes=nodes, feasible=names)


SAMPLE = 16
"""So many places of the set are looked at for each request: another kind of worker, that fits elsewhere, shows. The
last one is among them, so the set has always a node for the worker."""
TRUSTED = 256
"""After so many requests each feasible node is looked at, which takes as long as a request does."""


def _follow(kept: _Kept, ranking: Ranking, needed: NeededRoom, feasible: frozenset[str]) -> bool:
    """Take in where the pool's workers have come and gone, node by node; False where that is too much."""
    changed = needed.changed_since(kept.revision)
    if changed is None or len(changed) * _FEW > len(kept.fits):
        return False
    _take(kept, changed, ranking, needed, feasible)
    kept.revision = needed.revision
    kept.trusted += 1
    return True


def _look_through(kept: _Kept, ranking: Ranking, needed: NeededRoom, feasible: frozenset[str]) -> None:
    """Take in which nodes are feasible: those that differ where they are few, else all."""
    changed = kept.feasible ^ feasible
    kept.trusted = 0
    if kept.revision == needed.revision and len(changed) * _FEW <= len(kept.fits):
        _take(kept, changed, ranking, needed, feasible)
        return
    kept.rooms = Reach(
        free_room(fit, needed.on.get(name, 0)) if name in feasible else 0
        for name, fit in zip(ranking, kept.fits, strict=True)
    )
    kept.feasible, kept.revision = set(feasible), needed.revision


def _take(kept: _Kept, changed: Iterable[str], ranking: Ranking, needed: NeededRoom, feasible: frozenset[str]) -> None:
    """Change what is known of single nodes."""
    places = ranking.places()
    for name in changed:
        is_feasible = name in feasible
        (kept.feasible.add if is_feasible else kept.feasible.discard)(name)
        if name in places:
            place = places[name] - 1
            kept.rooms.put(place, free_room(kept.fits[place], needed.on.get(name, 0)) if is_feasible else 0)


def _seems_equal(kept: _Kept, ranking: Ranking, nodes: int, feasible: frozenset[str]) -> bool:
    """Say whether neither their number nor a place of the set shows that other nodes are feasible than are known."""
    if len(kept.feasible) != len(feasible):
        return False
    for place in range(nodes, 0, -max(1, nodes // SAMPLE)):
        if kept.rooms.has_room(place - 1) != (ranking.name_at(place) in feasible):
            return False
    return True


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
