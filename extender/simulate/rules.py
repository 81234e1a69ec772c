"""The rules that are compared: which of the nodes with room a job goes to.

The age orders ask `policy.scoring` and count with `policy.affinity`, as the webhook does. The other two are what a
stock kube-scheduler does, reduced to slots: all jobs ask for the same share of CPU and of memory, so a node's resources
are always balanced and only its fullness counts. Equals are chosen between at random, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Protocol

from extender.model import Node
from extender.policy.affinity import Affinity, KeyHistory
from extender.policy.ages import order_key
from extender.policy.scoring import Ranking, preference_key, score_nodes

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""When a simulation begins. Nothing depends on it."""


class Order(StrEnum):
    """How nodes are ordered."""

    SPREAD = "spread"
    MOST_ALLOCATED = "most-allocated"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An order, and for the oldest first in how many nodes a job's key decides (1: none)."""

    order: Order
    window: int = 1

    def __str__(self) -> str:
        return f"window:{self.window}" if self.window > 1 else str(self.order)

    @property
    def words(self) -> str:
        """Name the rule for people."""
        match self.order:
            case Order.SPREAD:
                return "default spread"
            case Order.MOST_ALLOCATED:
                return "MostAllocated"
            case Order.OLDEST:
                return f"oldest first, window {self.window}" if self.window > 1 else "oldest first"


RULES = (
    Rule(order=Order.SPREAD),
    Rule(order=Order.MOST_ALLOCATED),
    Rule(order=Order.OLDEST),
    *(Rule(order=Order.OLDEST, window=window) for window in (3, 5, 8)),
)


def parse_rule(text: str) -> Rule:
    """Read ``spread``, ``most-allocated``, ``oldest`` or ``window:N``. ValueError says what to write instead."""
    order, colon, window = text.partition(":")
    if colon and order == "window" and window.isascii() and window.isdigit() and 1 <= int(window) <= 1000:
        return Rule(order=Order.OLDEST, window=int(window))
    if colon or order not in tuple(Order):
        raise ValueError("must be spread, most-allocated, oldest or window:N, with N from 1 to 1000")
    return Rule(order=Order(order))


class Placement(Protocol):
    """A rule at work in one run. Node names are unique; times are in seconds from the beginning."""

    def choose(self, room: Mapping[str, int], key: str) -> str:
        """Choose a node for a job. ``room`` are the nodes with free slots, with their number: at least one node."""
        ...

    def node_ready(self, node: str, now_seconds: float) -> None:
        """A node takes jobs from now on."""
        ...

    def node_gone(self, node: str) -> None:
        """A node is no more."""
        ...

    def placed(self, node: str, key: str, now_seconds: float) -> None:
        """A job begins there."""
        ...

    def restarted(self, running: Iterable[tuple[str, str, float]]) -> None:
        """Lose what is not persisted; ``running`` are the jobs as (node, key, since when)."""
        ...


def placement(rule: Rule, random: Random) -> Placement:
    """Put a rule to work."""
    match rule.order:
        case Order.SPREAD:
            return ByFullness(random, fullest=False)
        case Order.MOST_ALLOCATED:
            return ByFullness(random, fullest=True)
        case Order.OLDEST:
            return OldestFirst(rule.window)


class ByFullness:
    """The emptiest node (LeastAllocated), or the fullest that has room (MostAllocated); equals at random."""

    def __init__(self, random: Random, *, fullest: bool) -> None:
        self._random = random
        self._fullest = fullest

    def choose(self, room: Mapping[str, int], key: str) -> str:
        """See `Placement`."""
        best = min(room.values()) if self._fullest else max(room.values())
        return self._random.choice([node for node, free in room.items() if free == best])

    def node_ready(self, node: str, now_seconds: float) -> None:
        """See `Placement`."""

    def node_gone(self, node: str) -> None:
        """See `Placement`."""

    def placed(self, node: str, key: str, now_seconds: float) -> None:
        """See `Placement`."""

    def restarted(self, running: Iterable[tuple[str, str, float]]) -> None:
        """See `Placement`."""


class OldestFirst:
    """What warmnode answers: the node first in the order of age, or in the window the one that the key knows."""

    def __init__(self, window: int, make_history: Callable[[], KeyHistory] = KeyHistory) -> None:
        self._window = window
        self._make_history = make_history
        self._ranking = Ranking()
        self._unseen: dict[str, Node] = {}
        self._history = make_history()

    def choose(self, room: Mapping[str, int], key: str) -> str:
        """See `Placement`."""
        if not key or self._window == 1:
            return score_nodes(room, self._ranking)[0][0]
        end = self._ranking.end_among(room, self._window)
        return score_nodes(room, self._ranking, Affinity(key=key, end=end, history=self._history))[0][0]

    def node_ready(self, node: str, now_seconds: float) -> None:
        """See `Placement`."""
        made = self._unseen[node] = Node(name=node, uid=node, created=_time(now_seconds))
        self._ranking.put(node, preference_key(order_key(made, None), None, None))

    def node_gone(self, node: str) -> None:
        """See `Placement`."""
        self._unseen.pop(node, None)
        self._ranking.put(node, None)
        self._history.forget_node(node)

    def placed(self, node: str, key: str, now_seconds: float) -> None:
        """See `Placement`."""
        unseen = self._unseen.pop(node, None)
        if unseen is not None:
            self._ranking.put(node, preference_key(order_key(unseen, _time(now_seconds)), None, None))
        if key and self._window > 1:
            self._history.record(node, key, _time(now_seconds))

    def restarted(self, running: Iterable[tuple[str, str, float]]) -> None:
        """See `Placement`. Ages are in the ledger; counts begin with the jobs that run."""
        self._history = self._make_history()
        for node, key, since_seconds in running:
            if key and self._window > 1:
                self._history.record(node, key, _time(since_seconds))


def _time(seconds: float) -> datetime:
    return BEGINNING + timedelta(seconds=seconds)
