"""What the drivers do to the cluster: the pods, their idle marks, the Deployment's size. Requests only, no decisions.

`Scene` is what a driver needs; `ClusterScene` does it to a real cluster.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from scripts.tools.controlplane import ApiError, ControlPlane, ControlPlaneError, Json

POOL = "workers"
POOL_LABEL = "warmnode.dev/pool"
MODEL_LABEL = "model"
IDLE = "warmnode.dev/idle-since"
NODE_MILLICPU = 7_600
"""For workers, on a node of 8 CPUs: Karpenter's KWOK provider reserves some."""
CLAIM_TTL = "5m"


def worker_cpu(slots: int) -> str:
    """Return what a worker asks for where so many fit on a node."""
    return f"{NODE_MILLICPU // slots}m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What the claim API answered."""

    id: str
    pod: str


class Scene(Protocol):
    """What drivers ask for."""

    def create_pod(self, name: str, model: int | None = None) -> None:
        """Create a bare worker."""

    def delete_pod(self, name: str) -> None:
        """Delete a pod; one that is gone is no error."""

    def mark_idle(self, name: str) -> None:
        """Say that a worker is idle since now."""

    def remove_mark(self, name: str) -> bool:
        """Say that a worker is about to get work: whether it may accept it."""

    def claim(self, claimant: str, model: int) -> Claimed | None:
        """Claim the idle worker that `warmnode serve` has for this model: None where it has none."""

    def release(self, claim: str) -> None:
        """Give a claim back; one that is over is no error."""

    def scale(self, replicas: int) -> None:
        """Set the Deployment's size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Who places the workers, so many to a node, and where `warmnode serve` takes claims, None where nobody claims."""

    scheduler: str
    slots: int
    claims_port: int | None = None


class ClusterScene:
    """One namespace of one control plane."""

    def __init__(self, plane: ControlPlane, namespace: str, placing: Placing) -> None:
        self._plane, self._placing = plane, placing
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"

    @property
    def pods(self) -> str:
        """The path of the pods."""
        return self._pods

    def create_pod(self, name: str, model: int | None = None) -> None:
        metadata = {"name": name, "labels": self._labels(model)}
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

    def claim(self, claimant: str, model: int) -> Claimed | None:
        body = {"claimant": claimant, "ttl": CLAIM_TTL, "cacheKey": _key(model)}
        status, answer = self._ask_claims("POST", f"/v1/pools/{POOL}/claims", body)
        if status in (404, 503):  # none is idle, or it changes just now
            return None
        if status not in (200, 201):
            raise ControlPlaneError(f"a claim was answered with {status}: {answer}")
        return Claimed(id=answer["id"], pod=answer["pod"])

    def release(self, claim: str) -> None:
        status, answer = self._ask_claims("DELETE", f"/v1/pools/{POOL}/claims/{claim}", None)
        if status not in (204, 404):
            raise ControlPlaneError(f"a release was answered with {status}: {answer}")

    def _ask_claims(self, method: str, path: str, body: Json | None) -> tuple[int, Json]:
        connection = http.client.HTTPConnection("127.0.0.1", self._placing.claims_port, timeout=15)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"{}")
        finally:
            connection.close()

    def _tolerant(self, method: str, path: str, body: Json | None) -> Json | None:
        try:
            return self._plane.api(method, path, body)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    @staticmethod
    def _labels(model: int | None) -> dict[str, str]:
        labels = {POOL_LABEL: POOL}
        return labels if model is None else {**labels, MODEL_LABEL: _key(model)}

    def _spec(self) -> Json:
        requests = {"cpu": worker_cpu(self._placing.slots), "memory": "1Gi"}
        container = {"name": "main", "image": "none", "resources": {"requests": requests}}
        return {
            "spec": {
                "schedulerName": self._placing.scheduler,
                "terminationGracePeriodSeconds": 0,
                "containers": [container],
            }
        }


def _key(model: int) -> str:
    return f"model-{model}"
