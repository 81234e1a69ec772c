"""Claims on pods: find, read and write them, each write on one version of the pod and no other.

Owns what a claim looks like on the API server. Who may claim, and what a conflict means, is the caller's to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec.structs import asdict

from extender.kube.annotate import POD_TIMEOUT, cost_annotations, patch_metadata, pods_path, read_pod
from extender.kube.api_client import KubeClient
from extender.kube.api_request import Lane
from extender.kube.codec import Codec
from extender.kube.errors import NotFound, Unavailable
from extender.kube.objects import (
    CLAIM,
    CLAIM_ENDED,
    CLAIMED_BY,
    DO_NOT_DISRUPT,
    ClaimRecord,
    Classify,
    PodObject,
    pod_from,
)
from extender.model import Pod, PodClaim
from extender.policy.deletion_cost import NO_CHANGE, Prices
from extender.policy.marks import format_idle_mark


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPod:
    """A pod as the API server has it. ``ip`` is None while it has none: `Pod` leaves it out, few need it."""

    pod: Pod
    ip: str | None


class ClaimStore:
    """Reads and writes claims. ``classify`` names a pod's pool.

    All methods raise `KubeError`; the writing ones `Conflict` where the pod changed since it was read, or another pod
    has its name, and `NotFound` where it is gone.
    """

    def __init__(self, client: KubeClient, classify: Classify) -> None:
        self._client = client.on(Lane.CLAIMS)
        self._classify = classify
        self._codec = Codec(PodObject, lambda raw: _found(raw, classify))

    async def find(self, key: str | None, namespace: str | None) -> list[FoundPod]:
        """List the pods that a claimant's label names, None: that any does. ``namespace`` None: in all.

        Consistent: it holds every claim whose write was answered before. Without a page size, for older API servers
        serve pages from etcd, all pods of the cluster for each.
        """
        selector = CLAIMED_BY if key is None else f"{CLAIMED_BY}={key}"
        return await self._list(namespace, {"labelSelector": selector})

    async def as_of(self, pod: Pod, version: str) -> FoundPod | None:
        """Read a pod as it was at a resourceVersion, None where it was not there. A single key of etcd."""
        found = await self._list(
            pod.namespace,
            {
                "fieldSelector": f"metadata.name={pod.name}",
                "resourceVersion": version,
                "resourceVersionMatch": "Exact",
            },
        )
        return found[0] if found and found[0].pod.uid == pod.uid else None

    async def read(self, namespace: str, name: str) -> FoundPod | None:
        """Read a pod as it is now, None where there is none."""
        try:
            return _found(await read_pod(self._client, namespace, name), self._classify)
        except NotFound:
            return None

    async def hold(self, pod: Pod, claim: PodClaim, key: str, *, cost: Prices = NO_CHANGE) -> FoundPod:
        """Put a claim on the pod in place of one that has expired, or the same one prolonged.

        ``cost`` are the prices to write with it.
        """
        annotations: dict[str, str | None] = {CLAIM: format_claim(claim)}
        if claim.protects:
            annotations[DO_NOT_DISRUPT] = "true"
        elif pod.claim is not None and pod.claim.protects:
            annotations[DO_NOT_DISRUPT] = None
        if pod.claim is not None and pod.claim.id != claim.id:
            annotations[CLAIM_ENDED] = format_idle_mark(pod.claim.expires)
        annotations |= cost_annotations(cost)
        return await self._write(pod, annotations, {CLAIMED_BY: key})

    async def free(self, pod: Pod, ended: datetime | None) -> FoundPod:
        """Remove the claim and what came with it. ``ended`` None: the worker was never used under it."""
        annotations: dict[str, str | None] = {CLAIM: None}
        if ended is not None:
            annotations[CLAIM_ENDED] = format_idle_mark(ended)
        if pod.claim is not None and pod.claim.protects:
            annotations[DO_NOT_DISRUPT] = None
        return await self._write(pod, annotations, {CLAIMED_BY: None})

    async def _write(
        self, pod: Pod, annotations: Mapping[str, str | None], labels: Mapping[str, str | None]
    ) -> FoundPod:
        return _found(await patch_metadata(self._client, pod, annotations, labels), self._classify)

    async def _list(self, namespace: str | None, params: Mapping[str, str]) -> list[FoundPod]:
        path = pods_path(namespace)
        page = self._codec.page(await self._client.get_bytes(path, params=params, timeout=POD_TIMEOUT))
        if page.skipped:
            raise Unavailable(200, "Unreadable", f"{path}: {page.skipped[0]}")
        return page.items


def format_claim(claim: PodClaim) -> str:
    """Write a claim as the annotation has it."""
    times = {"since": format_idle_mark(claim.since), "expires": format_idle_mark(claim.expires)}
    record = ClaimRecord(**{**asdict(claim), **times})
    return msgspec.json.encode(record).decode()


def _found(raw: PodObject, classify: Classify) -> FoundPod:
    return FoundPod(pod=pod_from(raw, classify), ip=raw.status.pod_ip or None)
