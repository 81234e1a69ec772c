"""What the drivers do to the cluster: the pods, their idle marks, the Deployment's size. Requests only, no decisions.

`Scene` is what a driver needs; `ClusterScene` does it to a real cluster.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Protocol

from scripts.tools.controlplane import ApiError, ControlPlane, Json

POOL = "workers"
POOL_LABEL = "warmnode.dev/pool"
TENANT_LABEL = "tenant"
IDLE = "warmnode.dev/idle-since"
CPU = "1900m"
"""Four fit on a node of 8 CPUs, of which Karpenter's KWOK provider reserves some."""


class Scene(Protocol):
    """What drivers ask for."""

    def create_pod(self, name: str, tenant: int | None = None) -> None:
        """Create a bare worker."""

    def delete_pod(self, name: str) -> None:
        """Delete a pod; one that is gone is no error."""

    def mark_idle(self, name: str) -> None:
        """Say that a worker is idle since now."""

    def remove_mark(self, name: str) -> bool:
        """Say that a worker is about to get work: whether it may accept it."""

    def preferred(self, nodes: Iterable[str]) -> str | None:
        """Ask `warmnode serve` which of these nodes comes first: None where it will not say, or all are leaving."""

    def scale(self, replicas: int) -> None:
        """Set the Deployment's size."""


class ClusterScene:
    """One namespace of one control plane. ``webhook_port`` is of `warmnode serve`, None where it does not run."""

    def __init__(self, plane: ControlPlane, namespace: str, scheduler: str, webhook_port: int | None) -> None:
        self._plane, self._scheduler, self._webhook_port = plane, scheduler, webhook_port
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"

    @property
    def pods(self) -> str:
        """The path of the pods."""
        return self._pods

    def create_pod(self, name: str, tenant: int | None = None) -> None:
        metadata = {"name": name, "labels": self._labels(tenant)}
        self._plane.api("POST", self._pods, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, **self._spec()})

    def delete_pod(self, name: str) -> None:
        self._tolerant("DELETE", f"{self._pods}/{name}", None)

    def mark_idle(self, name: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._tolerant("PATCH", f"{self._pods}/{name}", {"metadata": {"annotations": {IDLE: now}}})

    def remove_mark(self, name: str) -> bool:
        pod = self._tolerant("PATCH", f"{self._pods}/{name}", {"metadata": {"annotations": {IDLE: None}}})
        return pod is not None and "deletionTimestamp" not in pod["metadata"]

    def create_deployment(self) -> None:
        """Create the Deployment, with no replicas."""
        labels = self._labels(None)
        spec = {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, **self._spec()},
        }
        item = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": POOL}, "spec": spec}
        self._plane.api("POST", self._deployments, item)

    def scale(self, replicas: int) -> None:
        self._plane.api("PATCH", f"{self._deployments}/{POOL}", {"spec": {"replicas": replicas}})

    def preferred(self, nodes: Iterable[str]) -> str | None:
        pod = {"metadata": {"name": "asked", "namespace": "default", "labels": {POOL_LABEL: POOL}}}
        body = json.dumps({"Pod": pod, "Nodes": None, "NodeNames": sorted(nodes)})
        connection = http.client.HTTPConnection("127.0.0.1", self._webhook_port, timeout=5)
        try:
            connection.request("POST", "/prioritize", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            scores = json.loads(response.read()) if response.status == 200 else []
        finally:
            connection.close()
        best = max(scores, key=lambda each: each["Score"], default=None)
        return None if best is None else str(best["Host"])

    def _tolerant(self, method: str, path: str, body: Json | None) -> Json | None:
        try:
            return self._plane.api(method, path, body)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    @staticmethod
    def _labels(tenant: int | None) -> dict[str, str]:
        labels = {POOL_LABEL: POOL}
        return labels if tenant is None else {**labels, TENANT_LABEL: f"tenant-{tenant}"}

    def _spec(self) -> Json:
        container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": CPU, "memory": "1Gi"}}}
        return {
            "spec": {
                "schedulerName": self._scheduler,
                "terminationGracePeriodSeconds": 0,
                "containers": [container],
            }
        }
