"""Prioritize: which of the feasible nodes a worker goes to. Owns the scores 0..10 of the extender contract.

The order comes from `ages` and `departure`, and inside the working set from `affinity`."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Container, Iterator, Mapping
from heapq import nsmallest
from itertools import islice
from math import inf
from operator import itemgetter
from typing import TypeAlias

from extender.model import Departure, Ending, OrderKey
from extender.policy.affinity import Affinity

PreferenceKey: TypeAlias = tuple[int, int, int, int, str]
"""(0 staying | 1 ending, then the order key): smaller is preferred."""

MAX_SCORE = 10
SCORED_NODES = 9
"""Ten, nine, ... two. The rest counts as 0 and is left out: the scheduler decodes every host in its serial cycle, and
from 1.35 a host that is not in the answer also loses every tie against one that is."""


def preference_key(key: OrderKey, departure: Departure | None, ending: Ending | None) -> PreferenceKey | None:
    """Rank a node for placement: 1. staying before ending; 2. order key. None for a leaving node: it scores nothing."""
    if departure is not None:
        return None
    return (0 if ending is None else 1, *key)


class Ranking(Mapping[str, PreferenceKey]):
    """Nodes by name with their preference keys, iterated most preferred first. Has no leaving node.

    Kept sorted while nodes come and go, so that the best of thousands of candidates are found without sorting them.
    """

    def __init__(self, keys: Mapping[str, PreferenceKey] | None = None) -> None:
        self._keys = dict(keys or {})
        self._ordered = sorted((key, name) for name, key in self._keys.items())
        self.revision = 0
        """Another number after each change."""
        self.staying = sum(map(stays, self._keys.values()))
        """So many nodes are not ending. They are the most preferred ones."""
        self._kept_places: tuple[int, Mapping[str, int]] = (-1, {})

    def __getitem__(self, name: str) -> PreferenceKey:
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places())

    def __len__(self) -> int:
        return len(self._keys)

    def last_place(self, candidates: Collection[str], count: int) -> int:
        """Say at which place the last of the ``count`` most preferred candidates is, 0: none of them is ranked."""
        first = self.first(candidates, count)
        return self.places()[first[-1]] if first else 0

    def put(self, name: str, key: PreferenceKey | None) -> None:
        """Set a node's key, None takes the node out."""
        known = self._keys.get(name)
        if known == key:
            return
        self.revision += 1
        self.staying += stays(key) - stays(known)
        if known is not None:
            del self._ordered[bisect_left(self._ordered, (known, name))]
            del self._keys[name]
        if key is not None:
            insort(self._ordered, (key, name))
            self._keys[name] = key

    def clear(self) -> None:
        """Take every node out."""
        self.revision += 1
        self.staying = 0
        self._keys.clear()
        self._ordered.clear()

    def first(self, candidates: Collection[str], count: int) -> list[str]:
        """Find the most preferred of the candidates, at most ``count``, each once; those not ranked are left out.

        Walk the order until enough of them were met. Few candidates may all be at its end, as old nodes are full: if
        enough are not met soon, compare their places.
        """
        places, are_few = self.places(), len(candidates) * _FEW < len(self._ordered)
        wanted = candidates if isinstance(candidates, frozenset) else set(candidates)
        walk = islice(places, len(places) // _SOON) if are_few else places
        found = list(islice(filter(wanted.__contains__, walk), count))
        if are_few and len(found) < count:
            nearest = nsmallest(count, filter(None, map(places.get, wanted)))
            found = list(map(self.name_at, nearest))
        return found

    def name_at(self, place: int) -> str:
        """Name the node at a place, counted from 1."""
        return self._ordered[place - 1][1]

    def places(self) -> Mapping[str, int]:
        """Give the nodes in order, each with its place from 1: looked up by each request, made anew after a change."""
        if self._kept_places[0] != self.revision:
            places = {name: place for place, (_, name) in enumerate(self._ordered, 1)}
            self._kept_places = self.revision, places
        return self._kept_places[1]


def stays(key: PreferenceKey | None) -> bool:
    """True for the key of a node that is not ending. A leaving node has none."""
    return key is not None and not key[0]


_NAME = itemgetter(1)

_FEW = 7
"""Looking a candidate's place up costs about seven times what it costs to walk past a node."""
_SOON = 10
"""So large a part of the order is walked before."""


def key_first(candidates: Container[str], ranking: Ranking, affinity: Affinity) -> Iterator[str]:
    """Give the nodes to which a worker's key takes it, best first: 1. where it was placed most of late; 2. preference.

    They are candidates within ``affinity.reach``. Not one is ending, which a key must not fill, and none is there where
    the key never ran: such nodes follow by preference alone.
    """
    last, places = min(affinity.reach, ranking.staying), ranking.places()
    equals: list[tuple[int, str]] = []
    use_of_equals = inf
    for use, name in affinity.history.by_use(affinity.key, candidates):
        if use != use_of_equals:
            yield from map(_NAME, sorted(equals))
            equals.clear()
            use_of_equals = use
        if (place := places.get(name, last + 1)) <= last:
            equals.append((place, name))
    yield from map(_NAME, sorted(equals))


def score_nodes(
    candidates: Collection[str], ranking: Ranking, affinity: Affinity | None = None
) -> list[tuple[str, int]]:
    """Score the feasible nodes, best first: 10 for the most preferred, then 9, ... 2 for the ninth.

    1. With ``affinity`` those that the worker's key chooses (`key_first`). 2. All others by preference. So of two nodes
    where the key ran equally often the older one comes first, and none behind ``affinity.reach`` before one inside. A
    candidate that is not ranked (leaving, or not known here) is left out, as is everything after the ninth: both count
    as 0. A name given twice is scored once. The order of the input does not matter, and without ``affinity`` no
    candidate changes the order of two others.
    """
    best: list[str] = []
    if affinity is not None:
        wanted = candidates if isinstance(candidates, frozenset) else set(candidates)
        best = list(islice(key_first(wanted, ranking, affinity), SCORED_NODES))
    if len(best) < SCORED_NODES:
        best = list(dict.fromkeys([*best, *ranking.first(candidates, SCORED_NODES)]))
    return [(name, MAX_SCORE - position) for position, name in enumerate(best[:SCORED_NODES])]
