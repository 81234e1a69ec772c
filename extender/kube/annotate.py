"""One pod on the API server: read as it is now, and annotated by a patch that names the version it is based on.

Owns the requests. A pod that changed since it was judged is not written; what to do then is the caller's to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import quote

import msgspec

from extender.kube.api_client import KubeClient
from extender.kube.codec import decode_answer
from extender.kube.objects import (
    COST_MARK,
    DELETION_COST,
    DISRUPTION_COST,
    DISRUPTION_MARK,
    IDLE_SINCE,
    IDLE_SOURCE,
    Classify,
    PodObject,
    pod_from,
)
from extender.model import Pod
from extender.policy.deletion_cost import Price, Prices
from extender.policy.marks import CONFIRMED, MARKED, format_idle_mark

POD_TIMEOUT = timedelta(seconds=10)
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
"""Of maps it makes what a merge patch makes, and costs the API server less."""


async def annotate(client: KubeClient, pod: Pod, annotations: Mapping[str, str | None], classify: Classify) -> Pod:
    """Set annotations, None removes one, on exactly this version of the pod; give the pod as it is then.

    Raises:
        Conflict: the pod changed since, or another pod has its name.
        NotFound: it is gone.
        KubeError: the API server refused or was not there.
    """
    return pod_from(await patch_metadata(client, pod, annotations), classify)


def pods_path(namespace: str | None) -> str:
    """Give the path of a namespace's pods, None: of all pods."""
    return "/api/v1/pods" if namespace is None else f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"


def pod_path(namespace: str, name: str) -> str:
    return f"{pods_path(namespace)}/{quote(name, safe='')}"


async def read_pod(client: KubeClient, namespace: str, name: str) -> PodObject:
    """Read the pod of this name: what the API server's store holds, not what a cache remembers.

    Raises `NotFound` where there is none, and other `KubeError`.
    """
    return decode_pod(await client.get_bytes(pod_path(namespace, name), timeout=POD_TIMEOUT))


_POD = msgspec.json.Decoder(PodObject)


def decode_pod(body: bytes) -> PodObject:
    """Give the pod in a successful answer. Raises as `decode_answer`."""
    return decode_answer(body, _POD, "no pod")


async def patch_metadata(
    client: KubeClient,
    pod: Pod,
    annotations: Mapping[str, str | None],
    labels: Mapping[str, str | None] | None = None,
) -> PodObject:
    """Set annotations and labels, and give the pod as it is then. Otherwise as `annotate`."""
    metadata = {
        "uid": pod.uid,
        "resourceVersion": pod.resource_version,
        "annotations": dict(annotations),
        **({"labels": dict(labels)} if labels else {}),
    }
    answer = await client.send(
        "PATCH",
        pod_path(pod.namespace, pod.name),
        msgspec.json.encode({"metadata": metadata}),
        content_type=STRATEGIC_PATCH,
        timeout=POD_TIMEOUT,
    )
    return decode_pod(answer)


PRICES = {Price.DELETION: (DELETION_COST, COST_MARK), Price.DISRUPTION: (DISRUPTION_COST, DISRUPTION_MARK)}
"""The annotation of each price, and the mark that says that it is ours."""


def cost_annotations(values: Prices) -> dict[str, str | None]:
    """Give the annotations of these prices and their marks, None to remove both."""
    return {key: None if value is None else str(value) for price, value in values.items() for key in PRICES[price]}


def mark_annotations(since: datetime | None, *, whole: bool) -> dict[str, str | None]:
    """Give the note for the sources outside, and with ``whole`` the idle mark itself. ``since`` None removes them."""
    if since is None:
        return {IDLE_SINCE: None, IDLE_SOURCE: None} if whole else {IDLE_SOURCE: None}
    text = format_idle_mark(since)
    return {IDLE_SINCE: text, IDLE_SOURCE: f"{MARKED}{text}"} if whole else {IDLE_SOURCE: f"{CONFIRMED}{text}"}
