"""What a check says: a verdict, what was seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial, wraps

from extender.inspect.doctor.evidence import Evidence, Kind


class Verdict(StrEnum):
    """How it stands, worst last but one: ``unknown`` is what could not be looked at, and is no worse than a warning.

    ``warning``: warmnode does its work, and something beside it deserves a look. ``problem``: warmnode does not do
    what it is there for, or something works against it.
    """

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"


_WORSE = {verdict: position for position, verdict in enumerate(Verdict)}


class Check(StrEnum):
    """Every check, in the order of the page: its name, a key of the JSON form, and words for people."""

    words: str

    def __new__(cls, name: str, words: str) -> Check:
        """Make a member: it is its name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.words = words
        return member

    SCHEDULER_CALLS = "schedulerCalls", "the scheduler calls"
    SCHEDULER_EXTENDER = "schedulerExtender", "the scheduler's configuration"
    SCHEDULER_WEIGHT = "schedulerWeight", "the extender's weight"
    SCHEDULER_SAMPLE = "schedulerSample", "nodes that are scored"
    SCHEDULER_NAMES = "schedulerNames", "schedulers of workers"
    CONFIGURATION = "configuration", "warmnode's configuration"
    POOLS = "pools", "pools"
    WAITING_WORKERS = "waitingWorkers", "workers without a node"
    IDLE_MARKS = "idleMarks", "idle marks"
    DELETION_COSTS = "deletionCosts", "deletion costs"
    DISRUPTION_BUDGETS = "disruptionBudgets", "PodDisruptionBudgets"
    LEDGER = "ledger", "the ledger"
    REAPER = "reaper", "the reaper"
    PERMISSIONS = "permissions", "permissions"
    CLOCKS = "clocks", "clocks"
    KARPENTER_GENERATION = "karpenterGeneration", "Karpenter's generation"
    KARPENTER_EXPIRY = "karpenterExpiry", "Karpenter's expireAfter"
    KARPENTER_NODE_POOLS = "karpenterNodePools", "NodePools"
    KARPENTER_NODES = "karpenterNodes", "nodes that stay"
    KARPENTER_PRIORITIES = "karpenterPriorities", "priorities of workers"
    KARPENTER_FEATURE_GATES = "karpenterFeatureGates", "Karpenter's feature gates"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``summary`` is one line; ``details`` are further ones; ``remedy`` is None where all is well
    or nobody can help."""

    verdict: Verdict
    summary: str
    details: tuple[str, ...] = ()
    remedy: str | None = None


ok = partial(Finding, Verdict.OK)
unknown = partial(Finding, Verdict.UNKNOWN)
warning = partial(Finding, Verdict.WARNING)
problem = partial(Finding, Verdict.PROBLEM)


def well(
    evidence: Evidence, summary: str, *rests_on: Kind, details: tuple[str, ...] = (), remedy: str | None = None
) -> Finding:
    """Say ok where everything that this rests on was read, else unknown, with what is missing.

    ``remedy`` is for what is missing.
    """
    missing = evidence.why_unread(*rests_on)
    return ok(summary, details) if missing is None else unknown(f"{summary}; {missing}", details, remedy)


def together(faults: Iterable[Finding], remedy: str | None = None, *, about: str = "") -> Finding:
    """Make one finding of several: the worst is the summary, after what it is ``about``, the others are details.

    Without ``remedy`` that of the worst counts.
    """
    first, *others = sorted(faults, key=lambda each: -_WORSE[each.verdict])
    remedy = None if first.verdict is Verdict.OK else remedy or first.remedy
    return Finding(first.verdict, about + first.summary, tuple(each.summary for each in others), remedy)


def needs(*kinds: Kind) -> Callable[[Judge], Judge]:
    """A check that says nothing where one of these was not read."""

    def wrap(judge: Judge) -> Judge:
        @wraps(judge)
        def judged(evidence: Evidence) -> Finding:
            missing = evidence.why_unread(*kinds)
            return judge(evidence) if missing is None else unknown(missing)

        return judged

    return wrap


Judge = Callable[[Evidence], Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings as of ``now``. ``unread`` are kinds that could not be read, each with the reason."""

    now: datetime
    source: str
    namespace: str
    findings: Mapping[Check, Finding]
    unread: tuple[tuple[str, str], ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return worst(finding.verdict for finding in self.findings.values())


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Give the worst verdict, ok where there is none."""
    return max(verdicts, key=_WORSE.__getitem__, default=Verdict.OK)
