"""Nodes, pods and a ledger of one test's own, in the control plane that all tests share.

Owns how a test arranges a cluster and waits for what comes of it. Nothing in it sleeps: every wait has a condition and
a deadline. Tests are kept apart by a node label, which every pod selects, and by a namespace, where the ledger is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from scripts.tools.controlplane import ApiError, ControlPlane, Json, wait_for
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.serving import Serve

T = TypeVar("T")

SECONDS = 60.0
HTTP_TIMEOUT = 2.0
"""Seconds in which the scheduler wants an answer. Shipped is an eighth of it; here control planes share a machine."""
LEDGER = "warmnode-first-seen"
POOL_LABEL = "warmnode.dev/pool"
POOL = "ducks"
TOLERATE_ALL = [{"operator": "Exists"}]
FINALIZER = "warmnode.dev/test"


class Ground:
    """What one test works with. ``webhook_port`` is where the session's scheduler calls."""

    def __init__(self, control_plane: ControlPlane, namespace: str, webhook_port: int, folder: Path) -> None:
        self.control_plane = control_plane
        self.namespace = namespace
        self._webhook_port = webhook_port
        self._folder = folder
        self._nodes: dict[str, Json] = {}
        self._serves = 0
        self._ends = ExitStack()

    # -- nodes --------------------------------------------------------------------------------------------------------

    def nodes(self, count: int, *, cpu: str = "2", wait: bool = True) -> list[str]:
        """Create nodes and wait until pods can go there: their names, in the order of creation."""
        names = [f"{self.namespace}-{len(self._nodes) + number}" for number in range(count)]
        for name in names:
            self._nodes[name] = self.control_plane.create_node(name, labels=self.selector, cpu=cpu)
        if wait:
            wait_for(lambda: all(map(self._is_open, names)), SECONDS, f"{names} to take pods")
        return names

    @property
    def selector(self) -> dict[str, str]:
        """The label that the nodes of this test have and its pods select."""
        return {"ground": self.namespace}

    def uid(self, node: str) -> str:
        """UID of a node."""
        return str(self._nodes[node]["metadata"]["uid"])

    def created(self, node: str) -> int:
        """Creation of a node, epoch seconds."""
        return epoch(self._nodes[node]["metadata"]["creationTimestamp"])

    def patch_node(self, node: str, patch: Json) -> None:
        """Merge-patch a node."""
        self.control_plane.api("PATCH", f"/api/v1/nodes/{node}", patch)

    def replace_node(self, node: str) -> None:
        """Put another machine in a node's place, under its name: another UID, and the pods stay bound."""
        self.control_plane.api("DELETE", f"/api/v1/nodes/{node}")
        self._nodes[node] = self.control_plane.create_node(node, labels=self.selector, cpu="2")
        wait_for(lambda: self._is_open(node), SECONDS, f"{node} to take pods")

    def delete_node_slowly(self, node: str) -> None:
        """Delete a node that a finalizer holds: it stays, with a deletionTimestamp."""
        self.patch_node(node, {"metadata": {"finalizers": [FINALIZER]}})
        self.control_plane.api("DELETE", f"/api/v1/nodes/{node}")

    # -- the ledger ---------------------------------------------------------------------------------------------------

    def write_ledger(self, minutes_ago: Mapping[str, float], nonsense: Mapping[str, str] | None = None) -> None:
        """Create the ledger: when each node was first seen, and keys that make no sense."""
        now = time.time()
        data = {self.uid(node): str(int(now - 60 * minutes)) for node, minutes in minutes_ago.items()}
        metadata = {"name": LEDGER, "namespace": self.namespace}
        self.control_plane.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {**data, **(nonsense or {})}}
        )

    @property
    def ledger_path(self) -> str:
        """Path of the ledger on the API server."""
        return f"/api/v1/namespaces/{self.namespace}/configmaps/{LEDGER}"

    def ledger(self) -> dict[str, str]:
        """Data of the ledger as it is now; empty where there is none."""
        found = self.control_plane.api_client.get_or_none(self.ledger_path)
        return dict((found or {}).get("data") or {})

    def wait_for_ledger(self, condition: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """Wait until the ledger is as asked, and give it."""
        return self.wait(lambda: (found := self.ledger()) and condition(found) and found, lambda: f"{self.ledger()}")

    # -- warmnode -----------------------------------------------------------------------------------------------------

    def write_config(self, text: str) -> Path:
        """Write the configuration file, all at once as Kubernetes does; a running `serve` reads it again."""
        file = self._folder / "config.yaml"
        new = file.with_suffix(".new")
        new.write_text(text)
        return new.replace(file)

    def serve(
        self,
        *arguments: str,
        kubeconfig: Path | None = None,
        config: str | None = None,
        own_port: bool = False,
        webhook_port: int | None = None,
        wait_ready: bool = True,
    ) -> Serve:
        """Start a `warmnode serve` that keeps its ledger in this test's namespace; it ends with the test.

        It listens where the scheduler calls, or with ``own_port`` at a free port. ``config`` is YAML.
        """
        if webhook_port is None:
            webhook_port = 0 if own_port else self._webhook_port
        self._serves += 1
        given = ["--namespace", self.namespace, "--log-level", "debug", *arguments]
        if config is not None:
            given += ["--config", str(self.write_config(config))]
        serve = Serve(
            kubeconfig=kubeconfig or self.control_plane.kubeconfig,
            log=self._folder / f"serve-{self._serves}.log",
            arguments=given,
            webhook_port=webhook_port,
        )
        self._ends.callback(serve.close)
        return serve.start(wait_ready=wait_ready)

    # -- pods ---------------------------------------------------------------------------------------------------------

    def create_pod(
        self,
        name: str,
        *,
        pool: str | None = POOL,
        cpu: str = "1",
        node: str | None = None,
        scheduler: str = "warmnode",
        priority_class: str | None = None,
        idle: bool = False,
        ready: bool = True,
        resources: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Json:
        """Create a pod: a worker of ``pool``, or with None of no pool. ``node`` skips the scheduler.

        ``resources`` are requests and limits. A pod that is not ``ready`` does not get Ready in the time of a test.
        """
        wanted = {"requests": {"cpu": cpu, **(resources or {})}, "limits": dict(resources or {})}
        spec: Json = {
            "schedulerName": scheduler,
            "nodeSelector": self.selector,
            "tolerations": TOLERATE_ALL,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "none", "resources": wanted}],
        }
        if node is not None:
            spec["nodeName"] = node
        if priority_class is not None:
            spec["priorityClassName"] = priority_class
        metadata: Json = {"name": name, "namespace": self.namespace, "annotations": {}}
        metadata["labels"] = dict(labels or {})
        if pool is not None:
            metadata["labels"][POOL_LABEL] = pool
        if idle:
            metadata["annotations"]["warmnode.dev/idle-since"] = "2026-01-01T00:00:00Z"
        if not ready:
            metadata["annotations"]["pod-ready.stage.kwok.x-k8s.io/delay"] = "1h"
        return self.control_plane.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def pod(self, name: str) -> Json:
        """A pod as it is now. Raises ApiError 404."""
        return self.control_plane.api("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def pods(self) -> dict[str, Json]:
        """All pods of this test by name."""
        items = self.control_plane.api("GET", f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return {item["metadata"]["name"]: item for item in items}

    def place(self, name: str, **given: Any) -> str:
        """Create a pod and wait until it has a node: the node's name."""
        self.create_pod(name, **given)
        return self.node_of(name)

    def node_of(self, name: str) -> str:
        """Wait until a pod has a node: the node's name."""
        node: str = self.wait(
            lambda: self.pod(name)["spec"].get("nodeName"), lambda: f"{name} placed: {self.pod(name)['status']}"
        )
        return node

    def run(self, name: str, **given: Any) -> Json:
        """Create a pod and wait until it is Ready."""
        self.create_pod(name, **given)
        return self.wait(lambda: is_ready(pod := self.pod(name)) and pod, lambda: f"{name} ready: {self.pod(name)}")

    def delete_pod(self, name: str) -> None:
        """Delete a pod and wait until it is gone."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        self.control_plane.api("DELETE", path, params={"gracePeriodSeconds": 0})
        self.wait(lambda: self.control_plane.api_client.get_or_none(path) is None, f"{name} to be gone")

    def set_ready(self, name: str, ready: bool, at: str) -> None:
        """Write a pod's Ready condition, as a kubelet does."""
        pod = self.pod(name)
        conditions = [each for each in pod["status"]["conditions"] if each["type"] != "Ready"]
        conditions.append({"type": "Ready", "status": str(ready), "lastTransitionTime": at})
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/status"
        self.control_plane.api("PATCH", path, {"status": {"conditions": conditions}})

    # -- waiting and ending -------------------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], T | bool | None], describe: str | Callable[[], str]) -> T:
        """Wait for a condition with the deadline of all tests."""
        return wait_for(condition, SECONDS, describe)  # type: ignore[return-value]

    def close(self) -> None:
        """End what was started, and remove pods and nodes."""
        self._ends.close()
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        self.control_plane.api("DELETE", pods, params={"gracePeriodSeconds": 0})
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(self._remove_node, self._nodes))

    def _remove_node(self, name: str) -> None:
        try:
            self.patch_node(name, {"metadata": {"finalizers": None}})
            self.control_plane.api("DELETE", f"/api/v1/nodes/{name}")
        except ApiError as error:
            if error.status != 404:
                raise

    def _is_open(self, name: str) -> bool:
        node = self.control_plane.api("GET", f"/api/v1/nodes/{name}")
        return is_ready(node) and not node["spec"].get("taints")


def epoch(text: str) -> int:
    """Read an RFC 3339 time of the API server."""
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def settled(serve: Serve, names: Sequence[str], expected: Sequence[str]) -> None:
    """Wait until serve prefers these nodes in this order: what was changed in the cluster has reached it."""
    wait_for(
        lambda: serve.preferred(names, {POOL_LABEL: POOL}) == list(expected),
        SECONDS,
        lambda: f"{expected} preferred, not {serve.preferred(names, {POOL_LABEL: POOL})}",
    )


def decisions(serve: Serve, verb: str) -> list[dict[str, Any]]:
    """What serve logged of its answers to ``verb``, without those that tests asked for themselves."""
    return [line for line in serve.lines(verb) if line["pod"] != "asked"]
