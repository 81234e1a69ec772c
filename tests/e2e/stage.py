"""What the end-to-end tests stand on: fake nodes with a past, workers, and the two ways to install.

Owns names and arrangement; it asserts nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.objects import is_ready, node
from scripts.tools.manifests.rendering import MANIFESTS, NAMESPACE, Variant, write_kustomization
from tests.e2e.kubectl import SECONDS, Cluster

T = TypeVar("T")

WORKERS = "warmnode-e2e-workers"
POOL = "ducks"
LEDGER = "warmnode-first-seen"
IDLE = "warmnode.dev/idle-since"
LONG_AGO = "2026-01-01T00:00:00Z"
FAKE = {"warmnode-e2e": "fake"}
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
TOLERATION = {"key": "kwok.x-k8s.io/node", "operator": "Exists"}
REAL_ONLY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "warmnode-e2e", "operator": "DoesNotExist"}]}]
        }
    }
}
IMAGE = "ghcr.io/warmnode/warmnode"
SCHEDULER_IMAGE = "registry.k8s.io/kube-scheduler"
PLAIN = Variant()
OLDEST, MIDDLE, NEWEST = FAKES = ("warmnode-e2e-oldest", "warmnode-e2e-middle", "warmnode-e2e-newest")
AGES_MINUTES = {OLDEST: 300, MIDDLE: 200, NEWEST: 100}
CONFIGURATION: Json = {
    "poolDefaults": {
        "reap": {"floor": 1, "idleTimeout": "5s", "interval": "5s", "minPodAge": "0s"},
        "deletionCost": {"settle": "1s"},
    },
    "pools": [{"name": POOL, "namespaces": [WORKERS], "selector": {"matchLabels": {"app": POOL}}}],
}


class Stage:
    """The arrangement of one module of tests."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.tag = os.environ["WARMNODE_E2E_IMAGE_TAG"]
        self.scheduler_tag = os.environ["WARMNODE_E2E_SCHEDULER_TAG"]
        self.began = datetime.now(UTC)
        self._kustomizations = 0

    def build(self) -> None:
        """Make the nodes, the namespaces and a ledger that knows when the nodes were first seen."""
        for name in FAKES:  # created in the wrong order: what counts is first sight
            self.cluster.api.create(node(name, labels=FAKE, cpu="2500m", taints=[TAINT]))
        for name in (WORKERS, NAMESPACE):
            self.cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        seen = {self._uid(name): str(int(time.time()) - 60 * minutes) for name, minutes in AGES_MINUTES.items()}
        metadata = {"name": LEDGER, "namespace": NAMESPACE}
        self.cluster.api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": seen})
        self.wait(lambda: all(self._is_open(name) for name in FAKES), f"{FAKES} to take pods")
        account = f"/api/v1/namespaces/{WORKERS}/serviceaccounts/default"
        self.wait(lambda: self.cluster.get(account), "the workers' service account")

    def close(self) -> None:
        """Remove nodes and namespaces, and wait until they are gone."""
        paths = [f"/api/v1/nodes/{name}" for name in FAKES]
        paths += [f"/api/v1/namespaces/{name}" for name in (WORKERS, NAMESPACE)]
        for path in paths:
            self.cluster.delete(path)
        self.wait(lambda: not any(map(self.cluster.get, paths)), lambda: f"{[p for p in paths if self.cluster.get(p)]}")

    # -- installing ---------------------------------------------------------------------------------------------------

    def kustomization(self, *, dry_run: bool, variant: Variant = PLAIN) -> Path:
        """Write the kustomization of a user: the base, components, images of this cluster, a configuration."""
        self._kustomizations += 1
        folder = self.folder / f"kustomization-{self._kustomizations}"
        folder.mkdir()
        write_kustomization(variant, folder, images={IMAGE: self.tag, SCHEDULER_IMAGE: self.scheduler_tag})
        file = folder / "kustomization.yaml"
        content = yaml.safe_load(file.read_text())
        shipped: Json = yaml.safe_load((MANIFESTS / "base" / "warmnode.yaml").read_text())
        (folder / "warmnode.yaml").write_text(yaml.safe_dump({**shipped, **CONFIGURATION, "dryRun": dry_run}))
        content["configMapGenerator"] = [
            {
                "name": "warmnode",
                "namespace": NAMESPACE,
                "behavior": "merge",
                "files": ["warmnode.yaml"],
                "options": {"disableNameSuffixHash": True},
            }
        ]
        file.write_text(yaml.safe_dump(content))
        return folder

    def values(self) -> Path:
        """Write the chart's values of a user."""
        file = self.folder / "values.json"
        values = {
            "image": {"tag": self.tag},
            "kubeScheduler": {"image": {"tag": self.scheduler_tag}},
            "config": {**CONFIGURATION, "dryRun": False},
        }
        file.write_text(json.dumps(values))
        return file

    def rollout(self, *deployments: str) -> None:
        """Wait until Deployments of warmnode's namespace are rolled out; when they are not, say what the pods say."""
        for name in deployments:
            try:
                self.cluster.kubectl(
                    *("rollout", "status", "--namespace", NAMESPACE, f"deployment/{name}", f"--timeout={SECONDS:.0f}s")
                )
            except AssertionError as error:
                pods = self.cluster.kubectl("describe", "pods", "--namespace", NAMESPACE)
                raise AssertionError(f"{error}\n{pods[-6000:]}") from error

    # -- workers ------------------------------------------------------------------------------------------------------

    def worker(
        self, name: str, *, node: str | None = None, idle: bool = False, real: bool = False, cpu: str = "1"
    ) -> Json:
        """Create a bare worker: on a fake node, or with ``real`` a process that tells when it gets SIGTERM."""
        annotations = {IDLE: LONG_AGO} if idle else {}
        spec = self.real_spec() if real else self.fake_spec(cpu)
        if node is not None:
            spec["nodeName"] = node
        metadata = {"name": name, "namespace": WORKERS, "labels": {"app": POOL}, "annotations": annotations}
        return self.cluster.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def fake_spec(self, cpu: str = "1") -> Json:
        """What a worker on a fake node is made of. A node has two CPUs."""
        return {
            "schedulerName": "warmnode",
            "nodeSelector": FAKE,
            "tolerations": [TOLERATION],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "none", "resources": {"requests": {"cpu": cpu}}}],
        }

    def real_spec(self) -> Json:
        """What a worker with a process is made of: the image of warmnode is the only one that is sure to be there."""
        program = (
            "import signal, sys, time\n"
            "def end(*_):\n"
            "    print('SIGTERM', flush=True)\n"
            "    time.sleep(1)\n"
            "    sys.exit(0)\n"
            "signal.signal(signal.SIGTERM, end)\n"
            "print('working', flush=True)\n"
            "while True: time.sleep(60)\n"
        )
        return {
            "schedulerName": "warmnode",
            "affinity": REAL_ONLY,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 10,
            "containers": [
                {"name": "main", "image": f"{IMAGE}:{self.tag}", "command": ["/usr/bin/python3", "-c", program]}
            ],
        }

    def pods(self, namespace: str = WORKERS) -> dict[str, Json]:
        """Pods that are not being deleted, by name."""
        items = self.cluster.items(f"/api/v1/namespaces/{namespace}/pods")
        return {item["metadata"]["name"]: item for item in items if "deletionTimestamp" not in item["metadata"]}

    def node_of(self, name: str) -> str:
        """Wait until a worker has a node: the node's name."""
        path = f"/api/v1/namespaces/{WORKERS}/pods/{name}"
        node: str = self.wait(
            lambda: ((self.cluster.get(path) or {}).get("spec") or {}).get("nodeName"),
            lambda: f"{name} placed: {self.cluster.get(path)}",
        )
        return node

    def wait_ready(self, names: Iterable[str]) -> None:
        """Wait until these workers are Ready."""
        wanted = list(names)
        self.wait(
            lambda: (pods := self.pods()) and all(name in pods and is_ready(pods[name]) for name in wanted),
            lambda: f"{wanted} ready: { {name: pod['status'] for name, pod in self.pods().items()} }",
        )

    def remove_workers(self) -> None:
        """Delete all workers and wait until they are gone."""
        self.cluster.delete(f"/apis/apps/v1/namespaces/{WORKERS}/deployments")
        self.cluster.delete(f"/apis/apps/v1/namespaces/{WORKERS}/replicasets")
        self.cluster.delete(f"/api/v1/namespaces/{WORKERS}/pods")
        path = f"/api/v1/namespaces/{WORKERS}/pods"
        self.wait(lambda: not self.cluster.items(path), lambda: f"{list(self.pods())} to be gone")

    # -- looking ------------------------------------------------------------------------------------------------------

    def log(self, component: str, container: str = "warmnode") -> list[Mapping[str, Any]]:
        """The log lines of all replicas of a component."""
        lines: list[Mapping[str, Any]] = []
        for name in self.replicas(component):
            text = self.cluster.kubectl("logs", "--namespace", NAMESPACE, name, "--container", container)
            lines += [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return lines

    def replicas(self, component: str) -> dict[str, Json]:
        """Pods of a component of warmnode, by name."""
        pods = self.pods(NAMESPACE)
        label = "app.kubernetes.io/component"
        return {name: pod for name, pod in pods.items() if pod["metadata"]["labels"].get(label) == component}

    def lease_holder(self, name: str) -> str:
        """Who holds a Lease of warmnode's namespace; empty: nobody."""
        return str(self.lease(name).get("holderIdentity") or "")

    def lease(self, name: str) -> Json:
        """What a Lease of warmnode's namespace says; empty where there is none."""
        lease = self.cluster.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{name}")
        spec: Json = (lease or {}).get("spec") or {}
        return spec

    def ours(self) -> list[str]:
        """Everything in the cluster that is of warmnode, but the stage itself."""
        kinds = {
            "/apis/rbac.authorization.k8s.io/v1": ("clusterroles", "clusterrolebindings", "roles", "rolebindings"),
            "/apis/scheduling.k8s.io/v1": ("priorityclasses",),
            "/apis/apps/v1": ("deployments", "replicasets"),
            "/apis/batch/v1": ("jobs",),
            "/apis/policy/v1": ("poddisruptionbudgets",),
            "/apis/networking.k8s.io/v1": ("networkpolicies",),
            "/apis/coordination.k8s.io/v1": ("leases",),
            "/api/v1": ("pods", "services", "serviceaccounts", "secrets", "configmaps"),
        }
        found = []
        for group, plurals in kinds.items():
            for plural in plurals:
                for item in self.cluster.items(f"{group}/{plural}"):
                    metadata = item["metadata"]
                    name = f"{plural} {metadata.get('namespace', '')}/{metadata['name']}"
                    if metadata["name"].startswith("warmnode") and metadata.get("namespace") != "kube-node-lease":
                        found.append(name)
                    annotations = metadata.get("annotations") or {}
                    found += [f"{name}: {key}" for key in annotations if is_ours(key)]
        return found

    def wait(self, condition: Callable[[], T | None], describe: str | Callable[[], str]) -> T:
        """Wait for a condition."""
        return self.cluster.wait(condition, describe)

    def _uid(self, name: str) -> str:
        found = self.cluster.get(f"/api/v1/nodes/{name}")
        return str(found["metadata"]["uid"]) if found else ""

    def _is_open(self, name: str) -> bool:
        found = self.cluster.get(f"/api/v1/nodes/{name}") or {}
        return is_ready(found) and [each["key"] for each in found["spec"]["taints"]] == [TAINT["key"]]


def is_ours(annotation: str) -> bool:
    """True for what warmnode writes on pods."""
    return annotation.startswith("warmnode.dev/") or annotation == "controller.kubernetes.io/pod-deletion-cost"
