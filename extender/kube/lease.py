"""Leases: who leads. Owns what is read of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from extender.kube.client import KubeClient
from extender.kube.errors import Forbidden, NotFound


class _LeaseSpec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    renew_time: datetime | None = None


class _Lease(msgspec.Struct):
    spec: _LeaseSpec = msgspec.field(default_factory=_LeaseSpec)


async def is_held(client: KubeClient, *, namespace: str, name: str, within: timedelta) -> bool:
    """True where somebody holds the Lease and renewed it ``within`` that time by our clock.

    A Lease that does not exist, or may not be read, is held by nobody. Raises other `KubeError`.
    """
    try:
        body = await client.get_bytes(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}")
    except (NotFound, Forbidden):
        return False
    spec = msgspec.json.decode(body, type=_Lease).spec
    return bool(spec.holder_identity) and spec.renew_time is not None and datetime.now(UTC) - spec.renew_time < within
