"""What Karpenter said last of a node: its Events. The only trace of what it keeps in memory, and for people only.

Owns the structs and the choice. Karpenter repeats one at most every 2 to 15 minutes, so they are no ground to act on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

from extender.kube.objects import ObjectMeta, utc

EVENTS_PATH = "/api/v1/events"
REASONS = ("DisruptionBlocked", "Unconsolidatable")
"""pkg/events/reason.go: why it does not take a node, and why it does not consolidate one."""
LONGEST = 300


class InvolvedObject(Struct, gc=False, frozen=True):
    kind: str = ""
    name: str = ""


class EventObject(Struct, rename="camel", gc=False, frozen=True):
    metadata: ObjectMeta
    involved_object: InvolvedObject = InvolvedObject()
    reason: str = ""
    message: str = ""
    last_timestamp: datetime | None = None


def last_words(events: Iterable[EventObject]) -> dict[str, str]:
    """Give what was said last of each node, by its name, cut to one line."""
    found: dict[str, tuple[datetime, str]] = {}
    for event in events:
        if event.involved_object.kind != "Node" or event.reason not in REASONS:
            continue
        said_at = utc(event.last_timestamp or event.metadata.creation_timestamp) or datetime.min.replace(tzinfo=UTC)
        said = (said_at, " ".join(event.message.split())[:LONGEST])
        name = event.involved_object.name
        found[name] = max(found.get(name, said), said)
    return {name: text for name, (_, text) in found.items()}
