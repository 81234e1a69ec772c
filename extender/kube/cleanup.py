"""Removes what warmnode has written: annotations on pods, the ledger, the Leases. What others wrote stays.

Owns what "ours" means on the API server. Can be run again after it failed half-way.
"""

from __future__ import annotations

import msgspec

from extender.kube.annotate import annotate, cost_annotations
from extender.kube.client import KubeClient
from extender.kube.errors import Conflict, NotFound
from extender.kube.listing import list_objects
from extender.kube.objects import PREFIX, PodObject, pod_from
from extender.model import Pod
from extender.policy.deletion_cost import CostState, cost_state

ATTEMPTS = 5


async def clean_up(
    client: KubeClient, *, namespace: str, ledger: str, leases: tuple[str, ...], dry_run: bool
) -> list[str]:
    """Remove all of it and say what was removed, one line each. Raises `KubeError` where something stays."""
    removed: list[str] = []
    for pod, ours in await list_objects(client, "/api/v1/pods", PodObject, _ours_on):
        if ours:
            removed.append(f"pod {pod.namespace}/{pod.name}: {', '.join(sorted(ours))}")
            if not dry_run:
                await _strip(client, pod, ours)
    owned = {f"ConfigMap {namespace}/{ledger}": f"/api/v1/namespaces/{namespace}/configmaps/{ledger}"}
    for name in leases:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        owned[f"Lease {namespace}/{name}"] = path
    for what, path in owned.items():
        try:
            await client.get_bytes(path)
            if not dry_run:
                await client.send("DELETE", path, b"{}")
        except NotFound:
            continue
        removed.append(what)
    return removed


def _ours_on(raw: PodObject) -> tuple[Pod, dict[str, None]]:
    """Give a pod and the annotations on it that are ours: every one of our prefix, and a cost that we wrote."""
    pod = pod_from(raw, lambda namespace, labels: None)
    ours = [key for key in raw.metadata.annotations or {} if key.startswith(PREFIX)]
    if cost_state(pod) is CostState.OURS:
        ours.extend(cost_annotations(None))
    return pod, dict.fromkeys(ours)


async def _strip(client: KubeClient, pod: Pod, ours: dict[str, None]) -> None:
    """Remove annotations; where the pod changed meanwhile, what is ours is judged anew."""
    for _ in range(ATTEMPTS):
        try:
            await annotate(client, pod, ours, lambda namespace, labels: None)
            return
        except NotFound:
            return
        except Conflict:
            try:
                body = await client.get_bytes(f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}")
            except NotFound:
                return
            fresh, ours = _ours_on(msgspec.json.decode(body, type=PodObject))
            if fresh.uid != pod.uid or not ours:
                return
            pod = fresh
    raise Conflict(409, "Conflict", f"pod {pod.namespace}/{pod.name} changes all the time")
