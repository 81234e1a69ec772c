"""Prioritize: which of the feasible nodes a worker goes to. Owns the scores 0..10 of the extender contract."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import islice
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

    def __getitem__(self, name: str) -> PreferenceKey:
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        return (name for _, name in self._ordered)

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, name: str, key: PreferenceKey | None) -> None:
        """Set a node's key, None takes the node out."""
        known = self._keys.get(name)
        if known == key:
            return
        if known is not None:
            del self._ordered[bisect_left(self._ordered, (known, name))]
            del self._keys[name]
        if key is not None:
            insort(self._ordered, (key, name))
            self._keys[name] = key

    def place(self, name: str) -> int:
        """Say at which place a node is that is ranked, counted from 1."""
        return bisect_left(self._ordered, (self._keys[name], name)) + 1

    def clear(self) -> None:
        """Take every node out."""
        self._keys.clear()
        self._ordered.clear()

    def first(self, candidates: Collection[str], count: int) -> list[str]:
        """Find the most preferred of the candidates, at most ``count``, each once; those not ranked are left out.

        Many candidates: walk the order until enough of them were met. Few, who may all be at its end: compare them.
        """
        if len(candidates) * _FEW < len(self._ordered):
            return nsmallest(count, self._keys.keys() & candidates, key=self._keys.__getitem__)
        wanted = set(candidates)
        return list(islice((name for _, name in self._ordered if name in wanted), count))


_FEW = 4
"""Comparing a candidate costs about four times what it costs to walk past a node."""


def key_first(ordered: Sequence[str], preference: Mapping[str, PreferenceKey], affinity: Affinity) -> list[str]:
    """Reorder the first ``window`` of these nodes, which are given most preferred first; all others stay as they are.

    Inside the window: 1. staying before ending nodes, which a key must not fill; 2. where workers with this key were
    placed most of late; 3. by preference, which ends with the UID. So a node outside never comes before one inside,
    outside age alone decides, and a key that ran nowhere changes nothing.
    """
    inside = sorted(
        ordered[: affinity.window], key=lambda name: (preference[name][0], -affinity.use(name), preference[name])
    )
    return [*inside, *ordered[affinity.window :]]


def score_nodes(
    candidates: Collection[str], ranking: Ranking, affinity: Affinity | None = None
) -> list[tuple[str, int]]:
    """Score the feasible nodes, best first: 10 for the most preferred, then 9, ... 2 for the ninth.

    With ``affinity`` the first ``window`` candidates are ordered by the worker's key (`key_first`), None is by age
    alone. A candidate that is not ranked (leaving, or not known here) is left out, as is everything after the ninth:
    both count as 0. A name given twice is scored once. The order of the input does not matter, and without ``affinity``
    no candidate changes the order of two others.
    """
    if affinity is None:
        best = ranking.first(candidates, SCORED_NODES)
    else:
        best = key_first(ranking.first(candidates, max(SCORED_NODES, affinity.window)), ranking, affinity)
    return [(name, MAX_SCORE - position) for position, name in enumerate(best[:SCORED_NODES])]
