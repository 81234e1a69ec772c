"""Leases: who leads. Owns how a Lease is read and written; who may write it when is `policy.election`.

Every write names the resourceVersion that was read, so of two that read the same Lease one gets a Conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Annotated

import msgspec

from extender.kube.api_client import KubeClient
from extender.kube.api_request import Lane
from extender.kube.codec import decode_answer, decode_part
from extender.kube.errors import Conflict, Forbidden, NotFound
from extender.policy.election import MAX_TRANSITIONS, LeaseRecord

_NAME_LABEL = "app.kubernetes.io/name"
LEASE_LABELS = {_NAME_LABEL: "warmnode", "app.kubernetes.io/component": "leader-election"}

LEASE_TIMEOUT = timedelta(seconds=10)
"""An object of some hundred bytes: whoever waits longer waits for an API server in trouble, and should say so."""
_MAX_SECONDS = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLease:
    """A Lease as it was read. ``metadata`` is handed back as it is, with the resourceVersion and foreign labels."""

    record: LeaseRecord
    metadata: msgspec.Raw


class LeaseStore:
    """Reads and writes the Lease ``name`` in ``namespace``. ``notes`` are annotations that every write brings up to
    date; None takes one away, and those of others stay.

    Every method raises `KubeError`; an answer that is no Lease is `Unavailable`. Needs the verbs get, create, update.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str,
        labels: Mapping[str, str] | None = None,
        notes: Callable[[], Mapping[str, str | None]] = dict,
    ) -> None:
        self._client = client.on(Lane.LEASE)
        self._notes = notes
        self._labels = LEASE_LABELS if labels is None else labels
        self._namespace = namespace
        self._name = name
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    async def read(self) -> StoredLease | None:
        """Read the Lease as it is now (no cache is asked), None where there is none."""
        try:
            body = await self._client.get_bytes(f"{self._collection}/{self._name}", timeout=LEASE_TIMEOUT)
            return stored_lease_from(body)
        except NotFound:
            return None

    async def create(self, record: LeaseRecord) -> StoredLease:
        """Create the Lease. Raises Conflict where it exists, NotFound where the namespace does not."""
        metadata: dict[str, object] = {"name": self._name, "namespace": self._namespace, "labels": self._labels}
        return await self._write("POST", self._collection, metadata, record)

    async def update(self, record: LeaseRecord, based_on: StoredLease) -> StoredLease:
        """Replace the record. Raises Conflict where the Lease changed since it was read, or is gone."""
        metadata = decode_answer(based_on.metadata, _FIELDS, "a Lease without metadata")
        metadata["annotations"] = annotations_of(based_on)
        try:
            return await self._write("PUT", f"{self._collection}/{self._name}", metadata, record)
        except NotFound as error:  # the API server says Conflict, because of the uid: a PUT may create a Lease
            raise Conflict(409, "Conflict", error.message) from error

    async def _write(self, method: str, path: str, metadata: dict[str, object], record: LeaseRecord) -> StoredLease:
        known = metadata.get("annotations")
        notes = {**(known if isinstance(known, dict) else {}), **self._notes()}
        metadata["annotations"] = {key: value for key, value in notes.items() if value is not None}
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec_of(record),
        }
        content = msgspec.json.encode(body)
        return stored_lease_from(await self._client.send(method, path, content, timeout=LEASE_TIMEOUT))


async def is_held(client: KubeClient, *, namespace: str, name: str, within: timedelta) -> bool:
    """True where somebody holds the Lease and renewed it ``within`` that time by our clock.

    A Lease that does not exist, or may not be read, is held by nobody. Raises other `KubeError`.
    """
    try:
        lease = await LeaseStore(client, namespace=namespace, name=name).read()
    except Forbidden:
        return False
    if lease is None or not lease.record.holder or lease.record.renewed is None:
        return False
    return datetime.now(UTC) - lease.record.renewed < within


class LeaseObject(msgspec.Struct, frozen=True):
    """A Lease, not read yet."""

    metadata: msgspec.Raw
    spec: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))


class _Spec(msgspec.Struct, rename="camel"):
    """Every field may be anything: one that makes no sense must not keep us from reading the others."""

    holder_identity: object = None
    lease_duration_seconds: object = None
    acquire_time: object = None
    renew_time: object = None
    lease_transitions: object = None


class _Metadata(msgspec.Struct):
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None


_LEASE = msgspec.json.Decoder(LeaseObject)
_METADATA = msgspec.json.Decoder(_Metadata)
_FIELDS = msgspec.json.Decoder(dict[str, object])
_SPEC = msgspec.json.Decoder(_Spec)


def stored_lease_from(body: bytes) -> StoredLease:
    """Read a Lease's JSON, see `stored_lease_of`. Raises Unavailable where it is none."""
    return stored_lease_of(decode_answer(body, _LEASE, "not a Lease"))


def stored_lease_of(lease: LeaseObject) -> StoredLease:
    """Read a Lease. What is absent or makes no sense in its spec is None, empty or 0 in the record."""
    spec = decode_part(lease.spec, _SPEC) or _Spec()  # null, or not an object
    seconds = _whole(spec.lease_duration_seconds, _MAX_SECONDS)
    record = LeaseRecord(
        holder=spec.holder_identity if isinstance(spec.holder_identity, str) else "",
        duration=timedelta(seconds=seconds) if seconds else None,
        acquired=_time(spec.acquire_time),
        renewed=_time(spec.renew_time),
        transitions=_whole(spec.lease_transitions, MAX_TRANSITIONS),
    )
    return StoredLease(record=record, metadata=lease.metadata)


def annotations_of(lease: StoredLease) -> dict[str, str]:
    return _metadata_of(lease).annotations or {}


def is_ours(lease: StoredLease) -> bool:
    """True for a Lease with warmnode's name on it: the reapers', or that of `warmnode serve`."""
    return (_metadata_of(lease).labels or {}).get(_NAME_LABEL) == LEASE_LABELS[_NAME_LABEL]


def is_of_reapers(lease: StoredLease) -> bool:
    """True for a Lease that carries the labels of the one that says which reaper leads."""
    return LEASE_LABELS.items() <= (_metadata_of(lease).labels or {}).items()


def _metadata_of(lease: StoredLease) -> _Metadata:
    """Read what is needed of the metadata. What is no metadata at all, as a file may have it, has none of it."""
    return decode_part(lease.metadata, _METADATA) or _Metadata()


def spec_of(record: LeaseRecord) -> dict[str, object]:
    """Give the spec to send. Parts of a second are rounded up: the API knows whole seconds only, and at least one."""
    return {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": None if record.duration is None else ceil(record.duration.total_seconds()),
        "acquireTime": None if record.acquired is None else micro_time(record.acquired),
        "renewTime": None if record.renewed is None else micro_time(record.renewed),
        "leaseTransitions": record.transitions,
    }


def micro_time(value: datetime) -> str:
    """Write a time as Go's MicroTime reads it: UTC, ``Z``, and exactly six digits, which isoformat leaves out at 0."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _whole(value: object, most: int) -> int:
    """Give a number from 0 to ``most``, 0 for everything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else 0


def _time(value: object) -> datetime | None:
    try:
        time: datetime = msgspec.convert(value, Annotated[datetime, msgspec.Meta(tz=True)])
        return time.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):  # the latter next to the years 1 and 9999
        return None
