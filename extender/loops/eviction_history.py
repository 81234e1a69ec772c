"""Remembers what came of each worker that a pass wanted to evict. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from extender.cluster.history import DecisionHistory
from extender.model import Pod
from extender.policy.decisions import EvictionDecision
from extender.policy.idleness import idle_since


@dataclass(slots=True, eq=False)
class EvictionHistory:
    """Puts the victims of passes into a history. One that stays is told once, for as long as the reason is the same."""

    history: DecisionHistory
    _told: dict[str, dict[str, str]] = field(default_factory=dict, init=False)

    def passed(self, pool: str, victims: Sequence[Pod], outcomes: Mapping[str, str]) -> None:
        """Take note of a pass: its victims, in order, and what came of each, by UID."""
        before = self._told.pop(pool, {})
        now = {victim.uid: outcomes[victim.uid] for victim in victims if victim.uid in outcomes}
        if now:  # else nothing is kept of a pool: their names may be anybody's
            self._told[pool] = now
        for victim in victims:
            outcome = now.get(victim.uid)
            if outcome is not None and outcome != before.get(victim.uid):
                self.history.add(
                    EvictionDecision(
                        at=self.history.now(),
                        namespace=victim.namespace,
                        pod=victim.name,
                        uid=victim.uid,
                        pool=pool,
                        node=victim.node,
                        outcome=outcome,
                        idle_since=idle_since(victim),
                    )
                )
