"""Prioritize: which of the feasible nodes a worker goes to. Owns the scores 0..10 of the extender contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import nsmallest
from typing import TypeAlias

from extender.model import Departure, Ending, OrderKey

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


def score_nodes(candidates: Iterable[str], preference: Mapping[str, PreferenceKey]) -> list[tuple[str, int]]:
    """Score the feasible nodes, best first: 10 for the most preferred, then 9, ... 2 for the ninth.

    ``preference`` maps node names to keys and has no leaving node. A candidate that it does not hold is left out, as
    is everything after the ninth: both count as 0. A name given twice is scored once. The order of the input does not
    matter, and no candidate changes the order of two others.
    """
    known = {name for name in candidates if name in preference}
    best = nsmallest(SCORED_NODES, known, key=preference.__getitem__)
    return [(name, MAX_SCORE - position) for position, name in enumerate(best)]
