"""How a test arranges workers and starts `warmnode reap` over them: pods that skip the scheduler, short settings.

Owns the arrangement; it asserts nothing. Tests are kept apart by their namespace, which is the only one of their pool.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.tools.controlplane import ApiError, Json, wait_for
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.serving import Serve
from tests.integration.ground import POOL, POOL_LABEL, SECONDS, TOLERATE_ALL, Ground

COST = "controller.kubernetes.io/pod-deletion-cost"
COST_MARK = "warmnode.dev/deletion-cost-owner"
IDLE = "warmnode.dev/idle-since"
LONG_AGO = "2026-01-01T00:00:00Z"
ELECTION = {"leaseDuration": "3s", "renewDeadline": "2s", "retryPeriod": "500ms"}
REAP = {"floor": 0, "idleTimeout": "1s", "interval": "1s", "minPodAge": "0s"}


class Reapers:
    """Starts and ends `warmnode reap` in one test's namespace, and says what its pods are like."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self.ground = ground
        self.control_plane = ground.control_plane
        self.config_file = folder / "reap.yaml"
        self._folder = folder
        self._started = 0
        self._ends = ExitStack()

    def close(self) -> None:
        """End the processes."""
        self._ends.close()

    # -- the process --------------------------------------------------------------------------------------------------

    def configure(self, *, pool: Json | None = None, top: Json | None = None, **reap: Any) -> None:
        """Write the configuration file: one pool in this namespace; the keywords are ``reap`` settings."""
        content = {
            "apiVersion": "warmnode.dev/v1alpha1",
            "kind": "Configuration",
            "leaderElection": ELECTION,
            "pools": [
                {
                    "name": POOL,
                    "namespaces": [self.ground.namespace],
                    "reap": {**REAP, **reap},
                    "deletionCost": {"settle": "1s"},
                    **(pool or {}),
                }
            ],
            **(top or {}),
        }
        self.config_file.write_text(json.dumps(content))

    def make(
        self,
        *arguments: str,
        kubeconfig: Path | None = None,
        environment: Mapping[str, str] | None = None,
        module: str = "extender",
    ) -> Serve:
        """Make a `warmnode reap` with the configuration file, and do not start it."""
        self._started += 1
        made = Serve(
            kubeconfig=kubeconfig or self.control_plane.kubeconfig,
            log=self._folder / f"reap-{self._started}.log",
            arguments=[
                *("--namespace", self.ground.namespace, "--log-level", "debug"),
                *("--config", str(self.config_file), *arguments),
            ],
            environment=environment,
            role="reap",
            module=module,
        )
        self._ends.callback(made.close)
        return made

    def start(self, *arguments: str, kubeconfig: Path | None = None, **reap: Any) -> Serve:
        """Write the configuration file and start a `warmnode reap`."""
        self.configure(**reap)
        return self.make(*arguments, kubeconfig=kubeconfig).start()

    # -- workers ------------------------------------------------------------------------------------------------------

    def run_workers(self, where: Mapping[str, str], *, busy: Sequence[str] = (), **given: Any) -> None:
        """Create workers (name -> node) and wait until they are Ready. All are idle but the ``busy`` ones."""
        with ThreadPoolExecutor(4) as threads:
            list(
                threads.map(
                    lambda name: self.ground.create_pod(name, node=where[name], idle=name not in busy, **given), where
                )
            )
        self.wait_ready(where)

    def some_workers(self, count: int) -> list[str]:
        """Run idle workers w0, w1, ..., each on a node of its own, the first on the oldest."""
        nodes = self.ground.nodes(count, wait=False)
        self.ground.write_ledger({node: 60 * (count - position) for position, node in enumerate(nodes)})
        names = [f"w{number}" for number in range(count)]
        self.run_workers(dict(zip(names, nodes, strict=True)))
        return names

    def wait_ready(self, names: Mapping[str, str] | Sequence[str]) -> None:
        """Wait until all of these are Ready."""
        self.ground.wait(
            lambda: (pods := self.ground.pods()) and all(name in pods and is_ready(pods[name]) for name in names),
            lambda: f"{list(names)} ready: { {name: pod['status'] for name, pod in self.ground.pods().items()} }",
        )

    def pod_with(self, name: str, node: str, **metadata: Any) -> Json:
        """Create a worker with metadata of its own, on a node; idle unless its annotations say otherwise."""
        namespace = metadata.pop("namespace", self.ground.namespace)
        item = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {POOL_LABEL: POOL},
                "annotations": {IDLE: LONG_AGO},
                **metadata,
            },
            "spec": self.pod_spec(node),
        }
        return self.control_plane.create(item)

    def pod_spec(self, node: str | None) -> Json:
        """What all workers run: nothing, on a node of this test's."""
        return {
            **({"nodeName": node} if node is not None else {}),
            "nodeSelector": self.ground.selector,
            "tolerations": TOLERATE_ALL,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "none", "resources": {"requests": {"cpu": "1"}}}],
        }

    def template(
        self, node: str | None, app: str, *, idle: bool = True, annotations: Mapping[str, str] | None = None
    ) -> Json:
        """Make a pod template of workers."""
        marks = {IDLE: LONG_AGO} if idle else {}
        return {
            "metadata": {"labels": {POOL_LABEL: POOL, "app": app}, "annotations": {**marks, **(annotations or {})}},
            "spec": self.pod_spec(node),
        }

    def deployment(self, name: str, replicas: int, node: str | None = None, **given: Any) -> None:
        """Create a Deployment of workers and wait until they are Ready."""
        self.create(
            "apps/v1",
            "Deployment",
            name,
            {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": self.template(node, name, **given),
            },
        )
        self.ground.wait(
            lambda: sum(map(is_ready, self.of(name).values())) == replicas, lambda: f"{replicas} of {name}"
        )

    def create(self, version: str, kind: str, name: str, spec: Json) -> Json:
        """Create an object of this test's."""
        metadata = {"name": name, "namespace": self.ground.namespace}
        return self.control_plane.create({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})

    def of(self, app: str) -> dict[str, Json]:
        """Pods with the label ``app`` that are not being deleted, by name."""
        return {
            name: pod
            for name, pod in self.ground.pods().items()
            if pod["metadata"]["labels"].get("app") == app and "deletionTimestamp" not in pod["metadata"]
        }

    def annotate(self, name: str, annotations: Mapping[str, str | None]) -> Json:
        """Merge-patch a pod's annotations."""
        path = f"/api/v1/namespaces/{self.ground.namespace}/pods/{name}"
        return self.control_plane.api("PATCH", path, {"metadata": {"annotations": dict(annotations)}})

    def mark_idle(self, *names: str, since: str | None = None) -> None:
        """Mark workers idle, by default since now."""
        for name in names:
            self.annotate(name, {IDLE: since or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")})

    def mark_busy(self, *names: str) -> None:
        """Remove the marks of workers."""
        for name in names:
            self.annotate(name, {IDLE: None})

    # -- what came of it ----------------------------------------------------------------------------------------------

    def names(self) -> set[str]:
        """Names of the pods that are there and are not being deleted."""
        return {name for name, pod in self.ground.pods().items() if "deletionTimestamp" not in pod["metadata"]}

    def wait_names(self, expected: set[str]) -> None:
        """Wait until exactly these pods are left."""
        self.ground.wait(lambda: self.names() == expected, lambda: f"{sorted(expected)}, not {sorted(self.names())}")

    def wait_passes(self, reaper: Serve, more: int = 1) -> None:
        """Wait until so many further passes were finished."""
        before = len(reaper.lines("pass"))
        self.ground.wait(lambda: len(reaper.lines("pass")) >= before + more, lambda: f"passes: {reaper.text()[-2000:]}")

    def skipped(self, reaper: Serve, reason: str) -> float:
        """How many workers stay for a reason, as of the last pass."""
        return reaper.metric("warmnode_reap_skipped", pool=POOL, reason=reason)

    def events(self) -> list[Json]:
        """Our Events in the test's namespace."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self.ground.namespace}/events"
        items = self.control_plane.api("GET", path)["items"]
        return [item for item in items if item.get("reportingController", "").startswith("warmnode.dev/")]

    def costs(self) -> dict[str, str | None]:
        """Deletion cost of each pod."""
        return {
            name: (pod["metadata"].get("annotations") or {}).get(COST)
            for name, pod in self.ground.pods().items()
            if "deletionTimestamp" not in pod["metadata"]
        }

    def remove(self, path: str) -> None:
        """Delete an object if it is there, with what it owns."""
        try:
            self.control_plane.api("DELETE", path, {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise


def wait_evicted(reaper: Serve, *names: str) -> None:
    """Wait until the log says that exactly these were evicted, in this order: it says so after the API server does."""
    wait_for(lambda: evicted(reaper) == list(names), SECONDS, lambda: f"{names} evicted, not {evicted(reaper)}")


def evicted(reaper: Serve) -> list[str]:
    """Names of the evicted, in order, by the log."""
    return [line["pod"] for line in reaper.lines("evicted")]


@contextmanager
def reaping(ground: Ground, folder: Path) -> Iterator[Reapers]:
    """Workers and reapers of a test's own; they end before the ground does."""
    made = Reapers(ground, folder)
    try:
        yield made
    finally:
        made.close()
