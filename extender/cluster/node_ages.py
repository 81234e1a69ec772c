"""When each node was first seen: what workers show, what the ledger has, what is guessed without one. Reads no time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime

from extender.model import Ledger, Node, Pod
from extender.policy import ages, ledger_merge


class NodeAges:
    """First-seen times by node UID: the earliest of what was observed here and what is recorded.

    ``ledger`` is what is recorded, None where there is none. Guesses count while no ledger was read, and are never
    recorded.
    """

    def __init__(self, is_clock_off: Callable[[], bool] = lambda: False) -> None:
        self._is_clock_off = is_clock_off
        self._observed: dict[str, datetime] = {}
        self._guessed: dict[str, datetime] = {}
        self.ledger: Ledger | None = None

    def first_seen(self, node: Node) -> datetime | None:
        """Say when a node was first seen: the earliest of what was observed and what is recorded. None: not yet."""
        observed = self._observed.get(node.uid)
        recorded = (self.ledger.first_seen if self.ledger is not None else self._guessed).get(node.uid)
        if observed is None or recorded is None:
            return recorded if observed is None else observed
        return min(observed, recorded)

    def unrecorded(self) -> dict[str, datetime]:
        """Select the observations that the ledger lacks, by node UID. Keys that make no sense there are let be."""
        if self.ledger is None:
            return dict(self._observed)
        missing = ledger_merge.missing_from(self.ledger.first_seen, self._observed)
        return {uid: seen for uid, seen in missing.items() if uid not in self.ledger.ignored}

    def observe(self, node: Node, workers: Iterable[Pod], now: datetime) -> bool:
        """Move the node's first-seen time earlier where a worker on it shows that. True where it does.

        With a clock that is off nothing is learned: what is recorded too early stays so for ever, and a later event of
        the node shows it too.
        """
        shown = [seen for worker in workers if (seen := ages.observed_first_seen(node, worker, now)) is not None]
        earliest, known = min(shown, default=None), self._observed.get(node.uid)
        if earliest is None or (known is not None and known <= earliest) or self._is_clock_off():
            return False
        self._observed[node.uid] = earliest
        return True

    def keep_only(self, uids: Collection[str]) -> None:
        """Forget what was observed of all nodes but these."""
        self._observed = {uid: seen for uid, seen in self._observed.items() if uid in uids}

    def forget(self, node: Node) -> None:
        """Forget what was observed of a node that is gone."""
        self._observed.pop(node.uid, None)

    def take_ledger(self, ledger: Ledger | None, live: Collection[str]) -> None:
        """Take the ledger as it is recorded now, None where there is none. ``live`` are the UIDs of the nodes.

        What was observed or recorded of live nodes stays known: a ledger that is deleted or emptied meanwhile changes
        no order, and what it lacks is written again.
        """
        if self.ledger is not None:
            lost = ledger_merge.missing_from(ledger.first_seen if ledger is not None else {}, self.ledger.first_seen)
            self._observed = ledger_merge.merge_earliest(
                self._observed, {uid: lost[uid] for uid in live if uid in lost}
            )
        if ledger is None:
            self._observed = ledger_merge.merge_earliest(self._observed, self._guessed)
        self._guessed = {}
        self.ledger = ledger

    def seed(self, seeds: Mapping[str, datetime], *, as_guesses: bool) -> None:
        """Begin without a ledger. Guesses are recorded once it is known that there is none, and forgotten where it is.

        Recorded times move earlier only, so a guess would stay.
        """
        if as_guesses:
            self._guessed = dict(seeds)
        else:
            self._observed = ledger_merge.merge_earliest(self._observed, seeds)
