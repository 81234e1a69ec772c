"""Leader election on a Lease: whose turn it is, and what the Lease says next. Decides; has no clock and writes nothing.

Why there is one leader at a time: a holder leads until renewDeadline after the moment *before* its last successful
renewal was sent. Another takes the Lease only after it saw the record unchanged for leaseDuration, counted by its own
clock from the moment at which the answer *had come* that first showed it. The second moment is never before the first
and leaseDuration is longer, so the one has ended before the other begins; and a write names the resourceVersion that
was read, so a renewal in between refuses it. Clocks need not agree; their rates may differ by leaseDuration over
renewDeadline. Only other hands can break this: by clearing the holder, or by deleting a Lease that a replica has not
seen lately.

Times named ``_seconds`` are readings of one process's monotonic clock. They mean nothing elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf

LONGEST_TERM = 10
"""A holder's own leaseDuration counts up to this many times ours: a nonsense one must not end the election."""
MAX_TRANSITIONS = 2**31 - 1
RELEASED_DURATION = timedelta(seconds=1)
"""As client-go writes it: other electors, which look at nothing else, need not wait either."""

_FORESEEABLE = timedelta(hours=1)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What a Lease says. ``holder`` is empty where nobody holds it; None is a value that is absent or nonsense."""

    holder: str = ""
    duration: timedelta | None = None
    acquired: datetime | None = None
    renewed: datetime | None = None
    transitions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A record, and when the answer had come that first showed it like this."""

    record: LeaseRecord
    at_seconds: float


def sight(before: Sighting | None, record: LeaseRecord | None, now_seconds: float) -> Sighting | None:
    """Take note of what was read just now; ``record`` None means that there is no Lease.

    A record that did not change keeps its time. The resourceVersion does not count: whoever only edits labels does not
    renew. The term of a holder runs on where its Lease was deleted: it may not know yet.
    """
    if record is None:
        return before if before is not None and before.record.holder else None
    if before is not None and before.record == record:
        return before
    return Sighting(record=record, at_seconds=now_seconds)


def takeable_at_seconds(seen: Sighting | None, *, identity: str, lease_duration: timedelta) -> float:
    """Tell from when on ``identity`` may write itself into the Lease; ``-inf`` is at once.

    At once: no Lease was ever seen, nobody holds it, or we do. Else when the holder's term is over: the longer of our
    ``lease_duration`` and the one that the holder promised.
    """
    if seen is None or seen.record.holder in ("", identity):
        return -inf
    promised = seen.record.duration or lease_duration
    term = max(lease_duration, min(promised, LONGEST_TERM * lease_duration))
    return seen.at_seconds + term.total_seconds()


def next_record(before: LeaseRecord | None, *, identity: str, lease_duration: timedelta, now: datetime) -> LeaseRecord:
    """Write ``identity`` into the record, as a renewal where it is there already. ``before`` None: no Lease yet.

    A renewal keeps ``acquired``; a new holder counts as a transition, the first one of a Lease does not. It always
    differs from ``before``, also where the wall clock stands still or was set back: the change is what others look at.
    """
    renewed = now
    if before is not None and before.renewed is not None and now <= before.renewed < now + _FORESEEABLE:
        renewed = before.renewed + _TICK
    if before is None:
        return LeaseRecord(holder=identity, duration=lease_duration, acquired=now, renewed=renewed)
    if before.holder == identity:
        return replace(before, duration=lease_duration, acquired=before.acquired or now, renewed=renewed)
    return LeaseRecord(
        holder=identity,
        duration=lease_duration,
        acquired=now,
        renewed=renewed,
        transitions=min(before.transitions + 1, MAX_TRANSITIONS),
    )


def released(before: LeaseRecord, *, now: datetime) -> LeaseRecord:
    """Take the holder out of the record; the transitions are counted on by the next one."""
    return replace(before, holder="", duration=RELEASED_DURATION, renewed=now)
