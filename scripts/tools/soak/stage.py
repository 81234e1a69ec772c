"""The cluster of a soak: a control plane, nodes, a scheduler, and the replicas of warmnode behind their gates.

Owns what is started how, and where everything is. Every process ends with `close`, or with this process.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from scripts.tools.controlplane import ControlPlane, Json, Options
from scripts.tools.controlplane.certificates import KeyPair
from scripts.tools.controlplane.karpenter import create_node_class, create_node_pool, karpenter_options
from scripts.tools.controlplane.launching import Components, Launch
from scripts.tools.controlplane.processes import Process, free_ports
from scripts.tools.manifests.rendering import read_objects
from scripts.tools.serving import SCHEDULER_CONFIG, scheduler_config
from scripts.tools.shifted import SetClock
from scripts.tools.soak.defects import DEFECT, DEFECTS
from scripts.tools.soak.gate import Gate
from scripts.tools.soak.invariants import WORKERS_SCHEDULER
from scripts.tools.soak.observer import COST, FLEET, FOREIGN, FOREIGN_KEY, POOL

SYSTEM, LEDGER, LEASE = "warmnode", "warmnode-first-seen", "warmnode-reaper"
TENANT_LABEL = "tenant"
FLOOR, MOST_PER_PASS = 12, 15
IDLE_SECONDS, PASS_SECONDS = 10, 2
NODE_CPU, WORKER_CPU, FLEET_CPU = "8", "500m", "20m"
SCHEDULER = "warmnode-scheduler"
NODE_POOL = "soak"
POOL_PERMISSIONS = "components/claims/pool/rolebinding.yaml"
CONFIG_MAPS = f"/api/v1/namespaces/{SYSTEM}/configmaps"
LEDGER_PATH = f"{CONFIG_MAPS}/{LEDGER}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One process of warmnode, and the way to it and from it. ``claims_port`` is None for a reaper."""

    name: str
    gate: Gate
    clock: SetClock
    ops_port: int
    claims_port: int | None = None
    webhook_port: int | None = None

    def get(self, path: str, timeout: float = 3.0) -> tuple[int, str]:
        """GET from its operations listener. Raises OSError where nothing answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ops_port, timeout=timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Ask /readyz."""
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def leads(self) -> bool:
        """Ask whether it leads the reapers."""
        try:
            return "\nwarmnode_leader 1.0" in self.get("/metrics")[1]
        except OSError:
            return False

    def preferred(self, nodes: list[str]) -> list[str]:
        """Ask a serve for its best nodes, best first. Raises OSError where it does not answer 200."""
        pod = {"metadata": {"name": "asked", "namespace": "default", "labels": {"warmnode.dev/pool": POOL}}}
        body = json.dumps({"Pod": pod, "Nodes": None, "NodeNames": nodes})
        connection = http.client.HTTPConnection("127.0.0.1", self.webhook_port, timeout=5)
        try:
            connection.request("POST", "/prioritize", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        if response.status != 200:
            raise OSError(f"status {response.status}")
        return [each["Host"] for each in sorted(json.loads(content), key=lambda each: -each["Score"])]


def configuration(namespace: str, *, spare: int) -> Json:
    """Return warmnode's configuration: short times, so that much happens in minutes. ``spare``: of the Deployment."""
    reap = {
        "floor": FLOOR,
        "idleTimeout": f"{IDLE_SECONDS}s",
        "interval": f"{PASS_SECONDS}s",
        "minPodAge": "5s",
        "maxPerPass": MOST_PER_PASS,
    }
    pool = {
        "name": POOL,
        "namespaces": [namespace],
        "selector": {"matchLabels": {"warmnode.dev/pool": POOL}},
        "reap": reap,
        "deletionCost": {"settle": "3s"},
        "cacheKey": {"label": TENANT_LABEL},
    }
    fleet = {
        "name": FLEET,
        "namespaces": [namespace],
        "selector": {"matchLabels": {"warmnode.dev/pool": FLEET}},
        "reap": {**reap, "floor": 1},
        "deletionCost": {"settle": "3s"},
        "claims": {"spare": spare},
    }
    return {
        "apiVersion": "warmnode.dev/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaseDuration": "6s", "renewDeadline": "4s", "retryPeriod": "1s"},
        "pools": [pool, fleet],
    }


class Stage:
    """Use it as a context manager. ``defect`` is built into every replica, None for none.

    ``nodes`` are there from the beginning and stay; with ``karpenter``, its version, further ones come and go.
    ``spare``: how many idle workers the Deployment is to have ready.
    """

    def __init__(self, *, nodes: int, spare: int, karpenter: str | None = None, defect: str | None = None) -> None:
        self._ends = ExitStack()
        self.spare = spare
        self._defect = defect
        self._launches: dict[str, Launch] = {}
        self._starting: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        flags: dict[str, Any] = {
            "apiserver_flags": ("--etcd-compaction-interval=30s",),  # after a restart, watches begin too early: 410
            "kwok_flags": ("--node-lease-duration-seconds=12",),  # so long it waits for nodes of one that was killed
            "controller_manager_flags": ("--node-monitor-grace-period=300s",),
        }
        self.has_karpenter = karpenter is not None
        self.plane = ControlPlane(Options(**flags) if karpenter is None else karpenter_options(karpenter, **flags))
        self.node_names = [f"node-{number:03}" for number in range(nodes)]
        self.replicas: dict[str, Replica] = {}
        self.namespace = ""

    def __enter__(self) -> Self:
        with self._ends:
            self._start()
            self._ends = self._ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    @property
    def serves(self) -> list[Replica]:
        """The replicas of serve."""
        return [each for each in self.replicas.values() if each.claims_port is not None]

    @property
    def reaps(self) -> list[Replica]:
        """The replicas of reap."""
        return [each for each in self.replicas.values() if each.claims_port is None]

    @property
    def config_file(self) -> Path:
        """The configuration file that all replicas read."""
        return self.plane.directory / "warmnode.yaml"

    @property
    def programs(self) -> dict[str, Process]:
        """All processes by name."""
        return {**self.plane.processes, **self._warmnode.processes}

    def write_config(self, text: str | None = None) -> None:
        """Replace the configuration file, at one stroke; None: the good one."""
        new = self.config_file.with_suffix(".new")
        new.write_text(yaml.safe_dump(configuration(self.namespace, spare=self.spare)) if text is None else text)
        new.replace(self.config_file)

    def start_again(self, name: str) -> None:
        """Start a program that has ended, unless somebody else did. Waits for one of the control plane to be ready."""
        with self._starting[name]:
            if self.programs[name].exit_code is None:
                return
            if name in self._launches:
                self._warmnode.start(self._launches[name])
            else:
                self.plane.restart(name)

    def create_ledger(self) -> None:
        """Create the ledger as somebody else would: with a key of his own."""
        metadata = {"name": LEDGER, "namespace": SYSTEM}
        data = {FOREIGN_KEY: "keep me"}
        self.plane.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def log(self, name: str) -> Path:
        """The log of a program."""
        return self.programs[name].log

    def _start(self) -> None:
        plane = self.plane
        self._ends.callback(plane.stop)
        plane.start()
        self.namespace = plane.create_namespace("work")
        plane.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
        if self.has_karpenter:
            create_node_class(plane)
            create_node_pool(plane, NODE_POOL, consolidate_after="5s", budgets=[{"nodes": "100%"}])
        self._grant()
        self.create_ledger()
        self.write_config()
        self._warmnode = Components(plane.directory / "logs", plane.api_client.tls)
        self._ends.callback(self._warmnode.close)
        for name in self.node_names:
            plane.create_node(name, cpu=NODE_CPU)
        ports = iter(free_ports(8))
        for number in range(2):
            self._add(f"serve-{number}", next(ports), claims_port=next(ports), webhook_port=next(ports))
        for number in range(2):
            self._add(f"reap-{number}", next(ports))
        for name in self.replicas:
            self._warmnode.await_ready(name)
        webhook = self.replicas["serve-0"].webhook_port
        assert webhook is not None
        config = scheduler_config(SCHEDULER_CONFIG, webhook)
        if self._defect is not None and DEFECTS[self._defect].is_slow:
            config["extenders"][0]["httpTimeout"] = "5s"
        plane.start_scheduler(SCHEDULER, config)
        plane.create(_deployment(self.namespace))

    def _grant(self) -> None:
        """Give the replicas the permissions that users install, and no more."""
        own = ("base/serve-identity.yaml", "base/reap-identity.yaml", "components/claims/rbac.yaml")
        for file, namespace in [*((each, SYSTEM) for each in own), (POOL_PERMISSIONS, self.namespace)]:
            for item in read_objects(file):
                if item["apiVersion"].startswith("rbac."):
                    if not item["kind"].startswith("Cluster"):
                        item["metadata"]["namespace"] = namespace
                    self.plane.create(item)

    def _add(
        self, name: str, ops_port: int, *, claims_port: int | None = None, webhook_port: int | None = None
    ) -> None:
        folder = self.plane.directory
        role = name.partition("-")[0]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{SYSTEM}")
        client = _key_pair(self.plane.kubeconfig_for(f"system:serviceaccount:{SYSTEM}:warmnode-{role}", groups))
        gate = self._ends.enter_context(Gate(self.plane, folder / f"gate-{name}", client))
        clock = SetClock(folder / f"ahead-{name}")
        self.replicas[name] = Replica(
            name=name, gate=gate, clock=clock, ops_port=ops_port, claims_port=claims_port, webhook_port=webhook_port
        )
        listen: tuple[str, ...] = ("--ops-listen", f"127.0.0.1:{ops_port}", "--history-listen", "127.0.0.1:0")
        if claims_port is not None:
            listen += ("--webhook-listen", f"127.0.0.1:{webhook_port}", "--claims-listen", f"127.0.0.1:{claims_port}")
        common = ("--kubeconfig", str(gate.write_kubeconfig(name)), "--namespace", SYSTEM)
        command = (sys.executable, "-P", "-m", "scripts.tools.soak.starting", role, *common, *listen)
        launch = Launch(
            name=name,
            command=(*command, "--config", str(self.config_file)),
            port=ops_port,
            probe=f"http://127.0.0.1:{ops_port}/readyz",
            environment={**clock.environment, **({DEFECT: self._defect} if self._defect else {})},
        )
        self._launches[name] = launch
        self._warmnode.start(launch)

    @property
    def pods(self) -> str:
        """The path of the pods."""
        return f"/api/v1/namespaces/{self.namespace}/pods"

    @property
    def deployment(self) -> str:
        """The path of the Deployment."""
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{FLEET}"


def worker_pod(name: str, tenant: int, *, is_foreign: bool) -> Json:
    """Return a worker. With ``is_foreign`` it has a note and a deletion cost of somebody else."""
    metadata: Json = {
        "name": name,
        "labels": {"warmnode.dev/pool": POOL, TENANT_LABEL: f"tenant-{tenant}"},
        "annotations": {FOREIGN: name, COST: "7"} if is_foreign else {},
    }
    return _pod(metadata, WORKERS_SCHEDULER, WORKER_CPU)


def plain_pod(name: str, scheduler: str) -> Json:
    """Return a pod of no pool."""
    return _pod({"name": name}, scheduler, "10m")


def _deployment(namespace: str) -> Json:
    labels = {"warmnode.dev/pool": FLEET}
    worker = _pod({"labels": labels}, WORKERS_SCHEDULER, FLEET_CPU)
    template = {"metadata": worker["metadata"], "spec": worker["spec"]}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": FLEET, "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def _pod(metadata: Json, scheduler: str, cpu: str) -> Json:
    requests = {"requests": {"cpu": cpu, "memory": "64Mi"}}
    spec = {
        "schedulerName": scheduler,
        "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "main", "image": "none", "resources": requests}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _key_pair(kubeconfig: Path) -> KeyPair:
    user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
    return KeyPair(certificate=Path(user["client-certificate"]), key=Path(user["client-key"]))
