"""The Lease in which `warmnode serve` says that it runs, and when a scheduler last called any replica.

Owns what it looks like: ``renewTime`` is when a replica last wrote, ``holderIdentity`` which one, and annotations hold
the last call and the version. Nobody leads by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from extender.kube.client import KubeClient
from extender.kube.lease import LeaseStore, StoredLease, micro_time
from extender.kube.objects import PREFIX
from extender.policy.election import LeaseRecord
from extender.policy.marks import parse_idle_mark

LABELS = {"app.kubernetes.io/name": "warmnode", "app.kubernetes.io/component": "webhook"}
LAST_CALL = f"{PREFIX}last-call"
VERSION = f"{PREFIX}version"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRecord:
    """What the Lease says. ``written`` is by the clock of ``holder``, ``last_call`` by that of the replica called.

    None: absent, or no time. Never called: ``last_call`` None.
    """

    holder: str
    version: str
    written: datetime | None
    last_call: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWebhookRecord:
    """A record as it was read, and the Lease that it stands in."""

    record: WebhookRecord
    lease: StoredLease


class _Metadata(msgspec.Struct):
    annotations: dict[str, str] | None = None


class WebhookLease:
    """Reads and writes the Lease ``name`` in ``namespace``. Raises as `LeaseStore`; needs get, create and update."""

    def __init__(self, client: KubeClient, *, namespace: str, name: str) -> None:
        self._store = LeaseStore(client, namespace=namespace, name=name, labels=LABELS)

    async def read(self) -> StoredWebhookRecord | None:
        """Read it as it is now, None where there is none."""
        lease = await self._store.read()
        return None if lease is None else stored_record_from(lease)

    async def write(self, record: WebhookRecord, based_on: StoredWebhookRecord | None) -> StoredWebhookRecord:
        """Write it, or create it where ``based_on`` is None. Raises Conflict where others wrote since."""
        spec = LeaseRecord(holder=record.holder, renewed=record.written)
        annotations = {VERSION: record.version}
        if record.last_call is not None:
            annotations[LAST_CALL] = micro_time(record.last_call)
        if based_on is None:
            return stored_record_from(await self._store.create(spec, annotations))
        metadata = msgspec.json.decode(based_on.lease.metadata, type=dict[str, object])
        known = msgspec.json.decode(based_on.lease.metadata, type=_Metadata).annotations or {}
        known.pop(LAST_CALL, None)
        metadata["annotations"] = known | annotations
        base = StoredLease(record=based_on.lease.record, metadata=msgspec.Raw(msgspec.json.encode(metadata)))
        return stored_record_from(await self._store.update(spec, base))


def stored_record_from(lease: StoredLease) -> StoredWebhookRecord:
    """Read the record out of a Lease."""
    annotations = msgspec.json.decode(lease.metadata, type=_Metadata).annotations or {}
    record = WebhookRecord(
        holder=lease.record.holder,
        version=annotations.get(VERSION, ""),
        written=lease.record.renewed,
        last_call=parse_idle_mark(annotations.get(LAST_CALL)),
    )
    return StoredWebhookRecord(record=record, lease=lease)
