"""The rules for sessions that are compared: where workers are placed, which idle one a session gets, which go first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from extender.model import CacheKeyRule
from extender.policy.defaults import ReapRules
from extender.simulate.rules import Order, Rule


class ClaimOrder(StrEnum):
    """Which idle worker a session gets. By key: in the working set where the key was used most of late."""

    RANDOM = "random"
    LAST_USED = "last-used"
    OLDEST = "oldest"
    KEY = "key"


class ReapOrder(StrEnum):
    """Which idle workers are evicted first."""

    LONGEST_IDLE = "longest-idle"
    NEWEST_NODE = "newest-node"
    WHOLE_NODE = "whole-node"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShape:
    """The workers of a pool: ``start`` is from being placed until they are ready."""

    start: timedelta = timedelta(seconds=5)
    idle_timeout: timedelta = ReapRules().idle_timeout
    floor: int = ReapRules().floor


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRule:
    """How workers are placed, claimed and reaped. ``slack`` is that of the working set, for claims by key."""

    placement: Order
    claims: ClaimOrder
    reaping: ReapOrder
    slack: float = CacheKeyRule(label="").slack

    def __str__(self) -> str:
        return f"{self.placement}+{self.claims}+{self.reaping}"

    @property
    def by_key(self) -> bool:
        """True where a session's key decides anything."""
        return self.claims is ClaimOrder.KEY

    @property
    def words(self) -> str:
        """Name the rule for people."""
        claims = {ClaimOrder.OLDEST: "oldest node", ClaimOrder.KEY: "by key"}.get(self.claims, self.claims)
        return f"{Rule(order=self.placement).words}, {claims}, {self.reaping}".replace("-", " ")


SESSION_RULES = tuple(
    SessionRule(placement=placement, claims=claims, reaping=reaping)
    for placement, claims, reaping in (
        (Order.SPREAD, ClaimOrder.RANDOM, ReapOrder.LONGEST_IDLE),
        (Order.MOST_ALLOCATED, ClaimOrder.LAST_USED, ReapOrder.LONGEST_IDLE),
        (Order.OLDEST, ClaimOrder.OLDEST, ReapOrder.NEWEST_NODE),
        (Order.OLDEST, ClaimOrder.KEY, ReapOrder.NEWEST_NODE),
        (Order.OLDEST, ClaimOrder.KEY, ReapOrder.WHOLE_NODE),
    )
)


def parse_session_rule(text: str) -> SessionRule:
    """Read PLACEMENT+CLAIMS+REAPING. ValueError says what to write instead."""
    parts = text.split("+")
    kinds = (Order, ClaimOrder, ReapOrder)
    if len(parts) != len(kinds) or any(part not in tuple(kind) for part, kind in zip(parts, kinds, strict=True)):
        raise ValueError("must be PLACEMENT+CLAIMS+REAPING: " + "; ".join(", ".join(kind) for kind in kinds))
    return SessionRule(placement=Order(parts[0]), claims=ClaimOrder(parts[1]), reaping=ReapOrder(parts[2]))
