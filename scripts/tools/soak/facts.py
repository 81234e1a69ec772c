"""What was observed, as values: the record that invariants are asked of. Times are seconds since the start.

Owns the facts and the record that collects them. Knows nothing of how they were observed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias, TypeVar


class Rule(StrEnum):
    """What must hold: an invariant's name in reports, and what a fault excuses."""

    ACCEPTED_WORK = "acceptedWork"
    ONE_CLAIMANT = "oneClaimant"
    FLOOR = "floor"
    BOUND_IN_TIME = "boundInTime"
    AGES = "ages"
    FOREIGN = "foreign"
    CONVERGED = "converged"
    FLAT = "flat"
    ALIVE = "alive"
    OWNED = "owned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A worker was evicted through the eviction API, as the API server had it at that moment.

    ``idle`` and ``claimed`` are what stood on it. ``left`` workers can be claimed without it, ``lately`` could be
    within the last seconds; ``is_leaving``: its node takes no new work, so the floor does not count it. ``is_owned``:
    it is one of a Deployment's.
    """

    at: float
    pod: str
    idle: bool
    claimed: bool
    left: int
    lately: int
    is_leaving: bool
    is_owned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A claimant was told of a worker at ``at``, and may use it until ``until``: it gave it back, or it ran out."""

    at: float
    until: float
    claimant: str
    pod: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A pod that fits got its node. ``waited``: since it was there, and since the one before it was bound."""

    at: float
    pod: str
    scheduler: str
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Starved:
    """This machine let a thread that wanted nothing but to wake up wait for so many seconds."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeMoved:
    """The ledger says another first-seen time of a node, in epoch seconds; ``earliest`` is what it ever was before."""

    at: float
    uid: str
    earliest: int
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignChanged:
    """Something that is not warmnode's is not as its owner left it."""

    at: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderChanged:
    """The Lease of the reapers names another holder."""

    at: float
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A fault began and ended; ``end`` None: not yet. ``excuses``: what need not hold meanwhile, and a while after."""

    at: float
    end: float | None
    fault: str
    excuses: frozenset[Rule] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one process holds: one life of a program has one ``pid``."""

    at: float
    program: str
    pid: int
    resident_mib: float
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """A program ended by itself, or wrote a traceback."""

    at: float
    program: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """After the last fault and the last job, something was still not as it should be."""

    at: float
    what: str


Fact: TypeAlias = (
    Taken | Told | Bound | Starved | AgeMoved | ForeignChanged | LeaderChanged | Span | Sample | Mishap | Unsettled
)
F = TypeVar("F", bound=Fact)


@dataclass(slots=True)
class Record:
    """All facts of a run, each kind by time. `add` may be called from any thread."""

    _facts: dict[type, list[Fact]] = field(default_factory=dict)

    def add(self, *facts: Fact) -> None:
        """Keep facts."""
        for each in facts:
            self._facts.setdefault(type(each), []).append(each)

    def end(self, span: Span, at: float) -> None:
        """Know when a fault ended."""
        spans = self._facts[Span]
        spans[spans.index(span)] = replace(span, end=at)

    def of(self, kind: type[F]) -> Iterator[F]:
        """Go through the facts of one kind, as they were when this was called."""
        return iter(list(self._facts.get(kind, ())))  # type: ignore[arg-type]
