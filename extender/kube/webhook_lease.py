"""The Lease in which `warmnode serve` says that it runs, and when a scheduler last called any replica.

Owns what it looks like: ``renewTime`` is when a replica last wrote, ``holderIdentity`` which one, and annotations hold
the last call, the last TLS handshake that failed, when the certificate ends, and the version. Nobody leads by it.
"""

from __future__ import annotations

from collections.abc import Mapping

from extender.kube.api_client import KubeClient
from extender.kube.lease import LeaseStore, StoredLease, annotations_of, micro_time
from extender.kube.objects import PREFIX
from extender.policy.election import LeaseRecord
from extender.policy.marks import parse_idle_mark
from extender.policy.scheduler_silence import HandshakeFailure, Refusal, WebhookRecord

LABELS = {"app.kubernetes.io/name": "warmnode", "app.kubernetes.io/component": "webhook"}
LAST_CALL = f"{PREFIX}last-call"
LAST_REFUSAL = f"{PREFIX}last-handshake-failure"
CERTIFICATE_ENDS = f"{PREFIX}certificate-ends"
VERSION = f"{PREFIX}version"


class WebhookLease:
    """Reads and writes the Lease ``name`` in ``namespace``. Raises as `LeaseStore`; needs get, create and update."""

    def __init__(self, client: KubeClient, *, namespace: str, name: str) -> None:
        self._notes: Mapping[str, str | None] = {}
        self._store = LeaseStore(client, namespace=namespace, name=name, labels=LABELS, notes=lambda: self._notes)

    async def read(self) -> StoredLease | None:
        """Read it as it is now, None where there is none: `webhook_record_from` says what it holds."""
        return await self._store.read()

    async def write(self, record: WebhookRecord, based_on: StoredLease | None) -> StoredLease:
        """Write it, or create it where ``based_on`` is None. Raises Conflict where others wrote since."""
        spec = LeaseRecord(holder=record.holder, renewed=record.written)
        refusal = record.last_refusal
        self._notes = {
            VERSION: record.version,
            LAST_CALL: None if record.last_call is None else micro_time(record.last_call),
            LAST_REFUSAL: None if refusal is None else f"{micro_time(refusal.at)} {refusal.failure}",
            CERTIFICATE_ENDS: None if record.certificate_ends is None else micro_time(record.certificate_ends),
        }
        return await (self._store.create(spec) if based_on is None else self._store.update(spec, based_on))


def webhook_record_from(lease: StoredLease) -> WebhookRecord:
    annotations = annotations_of(lease)
    return WebhookRecord(
        holder=lease.record.holder,
        version=annotations.get(VERSION, ""),
        written=lease.record.renewed,
        last_call=parse_idle_mark(annotations.get(LAST_CALL)),
        last_refusal=_refusal_from(annotations.get(LAST_REFUSAL, "")),
        certificate_ends=parse_idle_mark(annotations.get(CERTIFICATE_ENDS)),
    )


def _refusal_from(text: str) -> Refusal | None:
    """Read "time reason". None where it is neither; a reason of a later version is any other."""
    time, _, reason = text.partition(" ")
    at = parse_idle_mark(time)
    known = reason in tuple(HandshakeFailure)
    return None if at is None else Refusal(at, HandshakeFailure(reason) if known else HandshakeFailure.OTHER)
