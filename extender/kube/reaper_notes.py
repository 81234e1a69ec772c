"""What the reaper that leads remembers of its pools, as a note on its Lease: for `plan`, `explain` and `doctor`.

Owns what the note looks like and how long it may be. It is written with each renewal, and nobody goes by it: a reaper
that begins to lead remembers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec

from extender.kube.codec import decode_part
from extender.kube.lease import StoredLease, annotations_of
from extender.kube.objects import PREFIX
from extender.policy.brakes import BrakeRecord

BRAKES = f"{PREFIX}brakes"
LIMIT_BYTES = 8 * 1024
"""The Lease is written every two seconds."""


_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Record(msgspec.Struct, rename="camel", omit_defaults=True):
    evicted: int
    since: _Time
    paused_until: _Time | None = None


_NOTE = msgspec.json.Decoder(dict[str, _Record])


def brake_note(brakes: Mapping[str, BrakeRecord]) -> dict[str, str]:
    """Write the note: by pool, paused ones first, then those with the most evictions, as many as there is room for."""
    noted: dict[str, _Record] = {}
    room = LIMIT_BYTES
    for pool, record in sorted(brakes.items(), key=lambda each: (each[1].paused_until is None, -each[1].evicted)):
        noted[pool] = _Record(record.evicted, record.since, record.paused_until)
        room -= len(msgspec.json.encode({pool: noted[pool]}))
        if room < 0:
            del noted[pool]
            break
    return {BRAKES: msgspec.json.encode(noted).decode()}


def brakes_from(lease: StoredLease) -> Mapping[str, BrakeRecord] | None:
    """Read the note. Nobody holds the Lease: nothing is remembered. None: whoever holds it does not say."""
    if not lease.record.holder:
        return {}
    noted = decode_part(annotations_of(lease).get(BRAKES, "").encode(), _NOTE)
    if noted is None:
        return None
    return {
        pool: BrakeRecord(evicted=each.evicted, since=each.since, paused_until=each.paused_until)
        for pool, each in noted.items()
    }
