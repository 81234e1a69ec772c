"""The order of the nodes: by age, and by preference for placement, which changes with time too. Reads no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from extender.clock import MOST_OFF
from extender.cluster.node_ages import NodeAges
from extender.cluster.object_store import ClusterObjects
from extender.model import FOREVER, AgeSource, Ending, Node, OrderKey
from extender.policy.ages import order_key
from extender.policy.defaults import EndingRules
from extender.policy.departure import departure_of, ending_of, turns_at
from extender.policy.scoring import Ranking, preference_key, stays

PAST = datetime.min.replace(tzinfo=UTC)


class NodeRanking:
    """Keeps each node's keys. Whoever changes something of a node, or of the pods on it, calls `rank`; `tell_changed`
    where it makes no difference to that.

    ``by_age`` has every node, `as_of` only those that are not leaving.
    """

    def __init__(
        self, objects: ClusterObjects, ages: NodeAges, *, age: AgeSource, ending_rules: EndingRules | None
    ) -> None:
        self._objects = objects
        self._ages = ages
        self._age = age
        self._ending_rules = ending_rules or EndingRules()
        self._by_age: dict[str, OrderKey] = {}
        self._ranking = Ranking()
        self._ranked_at = PAST  # the latest time by which a node was ranked
        self._turns: dict[str, datetime] = {}  # when a node's rank next changes by the time alone
        self._next_turn = FOREVER  # none does before that
        self._followers: list[set[str]] = []

    @property
    def by_age(self) -> Mapping[str, OrderKey]:
        """Order keys of all nodes by name: exact after every event."""
        return self._by_age

    def as_of(self, now: datetime) -> Ranking:
        """Rank anew what has turned by the time, and give the nodes that are not leaving, most preferred first.

        It is the live one: take it for each decision, and use it at once.
        """
        if now >= self._next_turn:
            self._rank_turned(now)
        elif now + MOST_OFF < self._ranked_at:
            self._ranked_at = now
            self.rank_all(now)  # the clock was set back, and what had turned by it has not
        return self._ranking

    def stays(self, node_name: str) -> bool:
        """True for a node that was neither leaving nor ending when it was ranked last."""
        return stays(self._ranking.get(node_name))

    def ending(self, node_name: str, now: datetime) -> Ending | None:
        """Say why a node is ending, None where it is not, or is not known."""
        node = self._objects.nodes.get(node_name)
        if node is None:
            return None
        workers = self._objects.where.workers_on(node_name).values()
        return ending_of(node, workers, self._objects.claim_of(node), self._ending_rules, now)

    @contextmanager
    def changes(self) -> Iterator[set[str]]:
        """Give a set to which the names of nodes are added that change from now on, or whose workers do."""
        changed: set[str] = set()
        self._followers.append(changed)
        try:
            yield changed
        finally:
            self._followers = [each for each in self._followers if each is not changed]

    def tell_changed(self, node_names: Iterable[str]) -> None:
        """Name nodes that have changed, or whose workers have, to whoever follows `changes`."""
        for changed in self._followers:
            changed.update(node_names)

    def rank(self, node: Node, now: datetime) -> None:
        """Rank a node that has changed, or whose workers or NodeClaim have."""
        key = order_key(node, self._ages.first_seen(node), self._age)
        self._by_age[node.name] = key
        self.tell_changed([node.name])
        self._ranked_at = max(self._ranked_at, now)
        claim, workers = self._objects.claim_of(node), self._objects.where.workers_on(node.name).values()
        turn = turns_at(node, workers, claim, self._ending_rules, now)
        if turn == FOREVER:
            self._turns.pop(node.name, None)
        else:
            self._turns[node.name] = turn
            self._next_turn = min(self._next_turn, turn)
        ending = ending_of(node, workers, claim, self._ending_rules, now)
        self._ranking.put(node.name, preference_key(key, departure_of(node, claim), ending))

    def rank_all(self, now: datetime) -> None:
        """Rank all nodes."""
        for node in self._objects.nodes.values():
            self.rank(node, now)

    def go_by(self, ending_rules: EndingRules, now: datetime) -> None:
        """Take new rules for which nodes are ending."""
        if ending_rules != self._ending_rules:
            self._ending_rules = ending_rules
            self.rank_all(now)

    def forget(self, node_name: str) -> None:
        """Forget a node that is gone."""
        self._by_age.pop(node_name, None)
        self._ranking.put(node_name, None)
        self._turns.pop(node_name, None)
        self.tell_changed([node_name])

    def clear(self) -> None:
        """Forget all nodes: they are ranked one by one again."""
        self.tell_changed(self._by_age)
        self._by_age.clear()
        self._ranking.clear()
        self._turns.clear()

    def _rank_turned(self, now: datetime) -> None:
        """Rank the nodes again whose time has come, and find out when the next one's does."""
        self._next_turn = FOREVER
        for name in [name for name, turn in self._turns.items() if turn <= now]:
            self.rank(self._objects.nodes[name], now)
        self._next_turn = min(self._turns.values(), default=FOREVER)
