"""What a check says: a verdict, what was seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
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


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Give the worst verdict, ok where there is none."""
    return max(verdicts, key=_WORSE.__getitem__, default=Verdict.OK)
