"""The rules that are compared: which of the nodes with room a job goes to.

The age orders ask `policy.scoring` and `policy.working_set` and count with `policy.affinity`, as the webhook does. The
others are what a stock kube-scheduler does, reduced to slots: all jobs ask for the same share of CPU and of memory, so
a node's resources are always balanced and only its fullness counts. Between equals it chooses at random up to 1.34;
from 1.35 on, without an extender, it takes the first in its list of nodes, which is the oldest until it restarts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Protocol

from extender.model import CacheKeyRule, Node
from extender.policy.affinity import Affinity, KeyHistory
from extender.policy.ages import order_key
from extender.policy.scoring import Ranking, preference_key, score_nodes
from extender.policy.working_set import Reach, wanted_room

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""When a simulation begins. Nothing depends on it."""


class Order(StrEnum):
    """How nodes are ordered."""

    SPREAD = "spread"
    MOST_ALLOCATED = "most-allocated"
    MOST_ALLOCATED_LISTED = "most-allocated-listed"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An order. For the oldest first: in how many nodes a job's key decides, 1: none.

    With a ``slack`` it does so in the working set, and the window says nothing.
    """

    order: Order
    window: int = 1
    slack: float | None = None

    @property
    def by_key(self) -> bool:
        """True where a job's key decides anything."""
        return self.slack is not None or self.window > 1

    def __str__(self) -> str:
        if self.slack is not None:
            return f"set:{self.slack:g}"
        return f"window:{self.window}" if self.window > 1 else str(self.order)

    @property
    def words(self) -> str:
        """Name the rule for people."""
        match self.order:
            case Order.SPREAD:
                return "default spread"
            case Order.MOST_ALLOCATED:
                return "MostAllocated"
            case Order.MOST_ALLOCATED_LISTED:
                return "MostAllocated, ties as listed"
            case Order.OLDEST if self.slack is not None:
                return f"working set, slack {self.slack:g}"
            case Order.OLDEST:
                return f"oldest first, window {self.window}" if self.window > 1 else "oldest first"


RULES = (
    Rule(order=Order.SPREAD),
    Rule(order=Order.MOST_ALLOCATED),
    Rule(order=Order.OLDEST),
    Rule(order=Order.OLDEST, slack=CacheKeyRule(label="").slack),
)

_RULES_IN_WORDS = (
    "must be spread, most-allocated, most-allocated-listed, oldest, set:SLACK from 0 to 1, or window:N from 1 to 1000"
)


def parse_rule(text: str) -> Rule:
    """Read an order, ``set:SLACK`` or ``window:N``. ValueError says what to write instead."""
    order, colon, number = text.partition(":")
    if order == "window" and re.fullmatch("[0-9]{1,4}", number) and 1 <= int(number) <= 1000:
        return Rule(order=Order.OLDEST, window=int(number))
    if order == "set" and re.fullmatch(r"[0-9]?\.?[0-9]{1,9}", number) and float(number) <= 1:
        return Rule(order=Order.OLDEST, slack=float(number))
    if colon or order not in tuple(Order):
        raise ValueError(_RULES_IN_WORDS)
    return Rule(order=Order(order))


class Placement(Protocol):
    """A rule at work in one run. Node names are unique; times are in seconds from the beginning."""

    def choose(self, room: Mapping[str, int], key: str) -> str:
        """Choose a node for a job. ``room`` are the nodes with free slots, with their number: at least one node."""
        ...

    def node_ready(self, node: str, slots: int, now_seconds: float) -> None:
        """A node takes jobs from now on, so many at once."""
        ...

    def node_gone(self, node: str) -> None:
        """A node is no more."""
        ...

    def placed(self, node: str, key: str, now_seconds: float) -> None:
        """A job begins there."""
        ...

    def ended(self, node: str) -> None:
        """A job there has ended."""
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
        case Order.MOST_ALLOCATED_LISTED:
            return ByFullness(None, fullest=True)
        case Order.OLDEST:
            return OldestFirst(rule)


class ByFullness:
    """The emptiest node (LeastAllocated), or the fullest that has room (MostAllocated).

    Equals at random; without ``random`` the one that took jobs first.
    """

    def __init__(self, random: Random | None, *, fullest: bool) -> None:
        self._random = random
        self._fullest = fullest
        self._listed: dict[str, int] = {}
        self._ready = 0

    def choose(self, room: Mapping[str, int], key: str) -> str:
        best = min(room.values()) if self._fullest else max(room.values())
        equals = [node for node, free in room.items() if free == best]
        return self._random.choice(equals) if self._random is not None else min(equals, key=self._listed.__getitem__)

    def node_ready(self, node: str, slots: int, now_seconds: float) -> None:
        self._ready += 1
        self._listed[node] = self._ready

    def node_gone(self, node: str) -> None:
        del self._listed[node]

    def ended(self, node: str) -> None: ...
    def placed(self, node: str, key: str, now_seconds: float) -> None: ...
    def restarted(self, running: Iterable[tuple[str, str, float]]) -> None: ...


class OldestFirst:
    """What warmnode answers: by age, and with a key the node that knows it, in the working set or in a window."""

    def __init__(self, rule: Rule, make_history: Callable[[], KeyHistory] = KeyHistory) -> None:
        self._rule = rule
        self._make_history = make_history
        self.ranking = Ranking()
        self._unseen: dict[str, Node] = {}
        self.history = make_history()
        self._free: dict[str, int] = {}
        self._running = 0
        self._reach = Reach(())
        self._reach_of = -1  # revision of the ranking

    def choose(self, room: Mapping[str, int], key: str) -> str:
        if not key or not self._rule.by_key:
            return score_nodes(room, self.ranking)[0][0]
        affinity = Affinity(key=key, reach=self._reached(room), history=self.history)
        return score_nodes(room, self.ranking, affinity)[0][0]

    def _reached(self, room: Mapping[str, int]) -> int:
        if self._rule.slack is None:
            return self.ranking.last_place(room, self._rule.window)
        if self._reach_of != self.ranking.revision:
            self._reach_of, self._reach = self.ranking.revision, Reach(map(self._free.__getitem__, self.ranking))
        return self._reach.nodes(wanted_room(self._running, self._rule.slack))

    def _count(self, node: str, change: int) -> None:
        self._running += change
        self._free[node] -= change
        if self._reach_of == self.ranking.revision:
            self._reach.put(self.ranking.places()[node] - 1, self._free[node])

    def node_ready(self, node: str, slots: int, now_seconds: float) -> None:
        self._free[node] = slots
        made = self._unseen[node] = Node(name=node, uid=node, created=as_time(now_seconds))
        self.ranking.put(node, preference_key(order_key(made, None), None, None))

    def node_gone(self, node: str) -> None:
        self._unseen.pop(node, None)
        self.ranking.put(node, None)
        self.history.forget_node(node)
        del self._free[node]

    def placed(self, node: str, key: str, now_seconds: float) -> None:
        self._count(node, 1)
        unseen = self._unseen.pop(node, None)
        if unseen is not None:
            self.ranking.put(node, preference_key(order_key(unseen, as_time(now_seconds)), None, None))
        if key and self._rule.by_key:
            self.history.record(node, key, as_time(now_seconds))

    def ended(self, node: str) -> None:
        self._count(node, -1)

    def restarted(self, running: Iterable[tuple[str, str, float]]) -> None:
        """Ages are in the ledger; counts begin with the jobs that run."""
        self.history = self._make_history()
        for node, key, since_seconds in running:
            if key and self._rule.by_key:
                self.history.record(node, key, as_time(since_seconds))


def as_time(seconds: float) -> datetime:
    """Give the time, so many seconds after the beginning."""
    return BEGINNING + timedelta(seconds=seconds)
