"""Who wrote what on an object, as the API server notes it in ``metadata.managedFields``.

Owns the structs. They are large, so no watch reads them: whoever asks reads one object. A removal leaves no trace.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import Raw, Struct

from extender.kube.annotate import pod_path
from extender.kube.api_client import KubeClient
from extender.kube.codec import decode_answer, decode_part
from extender.kube.objects import DELETION_COST, ObjectMeta
from extender.model import Pod
from extender.policy.deletion_cost import KARPENTERS_NAME


class ManagedFields(Struct, rename="camel", gc=False, frozen=True):
    manager: str = ""
    time: datetime | None = None
    fields_v1: Raw = msgspec.field(name="fieldsV1", default_factory=lambda: Raw(b"{}"))


class SignedMeta(ObjectMeta, rename="camel", gc=False, frozen=True):
    managed_fields: Raw = msgspec.field(default_factory=lambda: Raw(b"[]"))


class SignedObject(Struct, gc=False, frozen=True):
    metadata: SignedMeta


_MANAGED_FIELDS = msgspec.json.Decoder(list[ManagedFields])
_SIGNED = msgspec.json.Decoder(SignedObject)


def managed_fields(raw: Raw) -> list[ManagedFields]:
    """Read who wrote which fields and when, by the API server's clock; empty where that was left out."""
    return decode_part(raw, _MANAGED_FIELDS) or []


def writer_of(annotation: str, raw: Raw) -> str | None:
    """Name the manager that wrote an annotation, None where nobody is named."""
    field = f'"f:{annotation}"'.encode()
    return next((entry.manager for entry in managed_fields(raw) if field in bytes(entry.fields_v1)), None)


async def is_priced_by_karpenter(client: KubeClient, pod: Pod) -> bool:
    """Read whether Karpenter itself wrote the deletion cost that stands on a pod. Raises `KubeError`."""
    body = await client.get_bytes(pod_path(pod.namespace, pod.name))
    meta = decode_answer(body, _SIGNED, "no pod").metadata
    return meta.uid == pod.uid and writer_of(DELETION_COST, meta.managed_fields) == KARPENTERS_NAME
