"""Removes what warmnode has written: annotations and labels on pods, the ledger, the Leases. What others wrote stays.

Owns what "ours" means on the API server. Can be run again after it failed half-way.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from extender.kube.annotate import PRICES, patch_metadata, pods_path, read_pod
from extender.kube.api_client import KubeClient
from extender.kube.codec import check_answer
from extender.kube.errors import Conflict, NotFound
from extender.kube.listing import list_objects
from extender.kube.objects import CLAIMED_BY, DO_NOT_DISRUPT, PREFIX, PodObject, pod_from
from extender.model import Pod
from extender.policy.deletion_cost import CostState, Price, cost_state

ATTEMPTS = 5


async def clean_up(
    client: KubeClient, *, namespace: str, ledger: str, leases: tuple[str, ...], dry_run: bool
) -> list[str]:
    """Remove all of it and say what was removed, one line each. Raises `KubeError` where something stays."""
    removed: list[str] = []
    for ours in await list_objects(client, pods_path(None), PodObject, _ours_on):
        if ours:
            keys = ", ".join(sorted((*ours.annotations, *ours.labels)))
            removed.append(f"pod {ours.pod.namespace}/{ours.pod.name}: {keys}")
            if not dry_run:
                await _strip(client, ours)
    owned = {f"ConfigMap {namespace}/{ledger}": f"/api/v1/namespaces/{namespace}/configmaps/{ledger}"}
    for name in leases:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        owned[f"Lease {namespace}/{name}"] = path
    for what, path in owned.items():
        try:
            check_answer(await client.get_bytes(path))
            if not dry_run:
                check_answer(await client.send("DELETE", path, b"{}"))
        except NotFound:
            continue
        removed.append(what)
    return removed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ours:
    pod: Pod
    annotations: tuple[str, ...]
    labels: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.annotations or self.labels)


def _ours_on(raw: PodObject) -> _Ours:
    """Find what is ours on a pod: annotations of our prefix, a cost that we wrote, what came with a claim.

    The label ``warmnode.dev/pool`` is its user's.
    """
    pod = pod_from(raw, lambda namespace, labels: None)
    ours = [key for key in raw.metadata.annotations or {} if key.startswith(PREFIX)]
    ours.extend(PRICES[price][0] for price in Price if cost_state(pod, price) is CostState.OURS)
    if pod.claim is not None and pod.claim.protects:
        ours.append(DO_NOT_DISRUPT)
    labels = (CLAIMED_BY,) if CLAIMED_BY in (raw.metadata.labels or {}) else ()
    return _Ours(pod=pod, annotations=tuple(dict.fromkeys(ours)), labels=labels)


async def _strip(client: KubeClient, ours: _Ours) -> None:
    """Remove what is ours; where the pod changed meanwhile, it is judged anew."""
    pod = ours.pod
    with suppress(NotFound):
        for _ in range(ATTEMPTS):
            if ours.pod.uid != pod.uid or not ours:
                return
            try:
                await patch_metadata(client, ours.pod, dict.fromkeys(ours.annotations), dict.fromkeys(ours.labels))
                return
            except Conflict:
                ours = _ours_on(await read_pod(client, pod.namespace, pod.name))
        raise Conflict(409, "Conflict", f"pod {pod.namespace}/{pod.name} changes all the time")
