"""What the reaper that leads remembers of its pools, as a note on its Lease: for `plan`, `explain` and `doctor`.

Owns what the note looks like and how long it may be. It is written with each renewal, and nobody goes by it: a reaper
that begins to lead remembers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from extender.kube.codec import decode_part
from extender.kube.lease import StoredLease, annotations_of
from extender.kube.objects import PREFIX
from extender.policy.brakes import BrakeRecord

BRAKES = f"{PREFIX}brakes"
LIMIT_BYTES = 8 * 1024
"""The Lease is written every two seconds."""


_NOTE = msgspec.json.Decoder(dict[str, BrakeRecord])


def brake_note(brakes: Mapping[str, BrakeRecord]) -> dict[str, str]:
    """Write the note: by pool, paused ones first, then those with the most evictions, as many as there is room for."""
    noted: dict[str, BrakeRecord] = {}
    room = LIMIT_BYTES
    for pool, record in sorted(brakes.items(), key=lambda each: (each[1].paused_until is None, -each[1].evicted)):
        room -= len(msgspec.json.encode({pool: record}))
        if room < 0:
            break
        noted[pool] = record
    return {BRAKES: msgspec.json.encode(noted).decode()}


def brakes_from(lease: StoredLease) -> Mapping[str, BrakeRecord] | None:
    """Read the note. Nobody holds the Lease: nothing is remembered. None: whoever holds it does not say."""
    if not lease.record.holder:
        return {}
    return decode_part(annotations_of(lease).get(BRAKES, "").encode(), _NOTE)
