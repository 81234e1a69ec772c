"""The cluster that is measured on: many Node objects, how long ago each was first seen, and the pods.

Owns names, ages and sizes. Node ages are whole minutes and all different, so that every server that sorts by age has
the same order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import TypeVar

from scripts.tools.controlplane import ControlPlane, Json

T = TypeVar("T")
LEDGER = "warmnode-first-seen"
POOL_LABEL = "warmnode.dev/pool"
NAMESPACE = "default"
TENANT_LABEL = "tenant"
_THREADS = 8
_POD = Path(__file__).parent / "pod.json"
_READY = datetime(2026, 11, 1, 8, tzinfo=UTC)
_CREATED_WITHIN_SECONDS = 36_000
_STRIDE = 7919  # a prime: workers that are made one after the other were not created so


def node_name(number: int) -> str:
    """Name a node as a cloud does."""
    return f"ip-10-{number // 65536}-{number // 256 % 256}-{number % 256}.eu-west-1.compute.internal"


def first_seen(names: Sequence[str], now: float) -> dict[str, int]:
    """Give each node an age: minutes apart, and without any relation to its name. Epoch seconds."""
    shuffled = Random(1).sample(list(names), len(names))  # noqa: S311 - the same in every run
    minute = int(now) // 60
    return {name: (minute - 1 - age) * 60 for age, name in enumerate(shuffled)}


def ledger(ages: Mapping[str, int], uids: Mapping[str, str]) -> Json:
    """Return the ledger ConfigMap. Both mappings are by node name."""
    metadata = {
        "name": LEDGER,
        "namespace": NAMESPACE,
        "labels": {"app.kubernetes.io/name": "warmnode", "app.kubernetes.io/component": "ledger"},
    }
    data = {uids[name]: str(seen) for name, seen in ages.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@cache
def _recorded() -> str:
    return _POD.read_text()


def pod_as_sent(*, worker: bool = True) -> Json:
    """Return the pod of an extender request, recorded from kube-scheduler 1.36.3: 5.6 KB without managedFields."""
    pod: Json = json.loads(_recorded())
    if not worker:
        del pod["metadata"]["labels"][POOL_LABEL]
    return pod


def new_pod(name: str, **spec: object) -> Json:
    """Return a worker to be created: the recorded one, with ``spec`` laid over its own."""
    pod = pod_as_sent()
    metadata = {key: pod["metadata"][key] for key in ("labels", "annotations")}
    metadata |= {"name": name, "namespace": NAMESPACE}
    kept = {key: value for key, value in pod["spec"].items() if key not in ("priority", "preemptionPolicy")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**kept, **spec}}


def pod_name(number: int) -> str:
    """Name a worker."""
    return f"duckdb-worker-6f9c7d5b8f-{number:06}"


def running_pod(number: int, node: str, tenant: str | None = None) -> Json:
    """Return a worker as the API server stores it while it runs, without managedFields: about 8 KB.

    They were created in the course of ten hours: were it at once, all nodes of a cache key would be equally warm. Pods
    share what is the same in all: change nothing inside.
    """
    pod = _running()
    created = _stamp(_READY - timedelta(seconds=1 + number * _STRIDE % _CREATED_WITHIN_SECONDS))
    metadata = {**pod["metadata"], "name": pod_name(number), "namespace": NAMESPACE, "creationTimestamp": created}
    if tenant is not None:
        metadata["labels"] = {**metadata["labels"], TENANT_LABEL: tenant}
    return {**pod, "metadata": metadata, "spec": {**pod["spec"], "nodeName": node}}


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def _running() -> Json:
    pod = pod_as_sent()
    for key in ("uid", "resourceVersion", "name"):
        pod["metadata"].pop(key, None)
    at = _stamp(_READY)
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    pod["status"] = {
        "phase": "Running",
        "qosClass": "Burstable",
        "hostIP": "10.0.0.1",
        "podIP": "10.1.0.1",
        "startTime": at,
        "conditions": [
            {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": at} for kind in kinds
        ],
        **{
            statuses: [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": f"{container['image']}@sha256:{'0123456789abcdef' * 4}",
                    "containerID": f"containerd://{'0123456789abcdef' * 4}",
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "lastState": {},
                    "state": {"running": {"startedAt": at}},
                }
                for container in pod["spec"][containers]
            ]
            for statuses, containers in (
                ("containerStatuses", "containers"),
                ("initContainerStatuses", "initContainers"),
            )
        },
    }
    return pod


def each(call: Callable[[T], object], items: Iterable[T]) -> None:
    """Call for every item, eight at a time: how the API server gets thousands of objects soon."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(call, items):
            pass


def create_running(plane: ControlPlane, pod: Json) -> None:
    """Create a pod that runs: the API server takes its status by itself only."""
    plane.create({"apiVersion": "v1", "kind": "Pod", **{key: pod[key] for key in ("metadata", "spec")}})
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}"
    plane.api("PATCH", f"{path}/status", {"status": pod["status"]})


def make_nodes(plane: ControlPlane, count: int, *, cpu: str = "16", memory: str = "64Gi") -> dict[str, int]:
    """Create nodes and the ledger with their ages; return when each was first seen, by name. They stay as they are."""
    names = [node_name(number) for number in range(count)]
    uids: dict[str, str] = {}

    def create(name: str) -> None:
        uids[name] = plane.create_node(name, cpu=cpu, memory=memory)["metadata"]["uid"]

    each(create, names)
    ages = first_seen(names, time.time())
    plane.create(ledger(ages, uids))
    return ages
