"""One run's cluster: a control plane of its own with Karpenter, and the scheduler and the warmnode that its arm wants.

Owns what is configured how. Every process ends with `close`, or with this process.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from scripts.tools.benchmarks import machine
from scripts.tools.controlplane import ControlPlane, Json, Options
from scripts.tools.controlplane.launching import Components, Launch
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.experiment.arms import Arm, Scheduling
from scripts.tools.experiment.scene import MODEL_LABEL, POOL, ClusterScene, Placing
from scripts.tools.experiment.workloads import BOOT_SECONDS, FLOOR, IDLE_SECONDS, REAP_SECONDS, Kind, Workload
from scripts.tools.serving import SCHEDULER_CONFIG, scheduler_config

KARPENTER = "1.15.0"
INSTANCE_TYPE = "c-8x-amd64-linux"
SYSTEM = "warmnode"
SETTLE_SECONDS = 5
_NODE_CLASS = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"}


def node_pool(policy: str, consolidate_after: int) -> Json:
    """Return the NodePool: one instance type, one zone, no expiry, and no budget that would hold empty nodes back."""
    chosen = {
        "karpenter.sh/capacity-type": "on-demand",
        "node.kubernetes.io/instance-type": INSTANCE_TYPE,
        "topology.kubernetes.io/zone": "test-zone-a",
    }
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "workers"},
        "spec": {
            "template": {
                "spec": {
                    "nodeClassRef": _NODE_CLASS,
                    "requirements": [{"key": key, "operator": "In", "values": [each]} for key, each in chosen.items()],
                    "expireAfter": "Never",
                }
            },
            "disruption": {
                "consolidationPolicy": policy,
                "consolidateAfter": f"{consolidate_after}s",
                "budgets": [{"nodes": "100%"}],
            },
        },
    }


def most_allocated() -> Json:
    """Return the configuration of a scheduler that packs, as Kubernetes' documentation shows it."""
    strategy = {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]}
    fit = {
        "name": "NodeResourcesFit",
        "args": {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "NodeResourcesFitArgs",
            "scoringStrategy": strategy,
        },
    }
    return {"profiles": [{"schedulerName": str(Scheduling.MOST_ALLOCATED), "pluginConfig": [fit]}]}


def configuration(arm: Arm, namespace: str) -> Json:
    """Return warmnode's configuration file for an arm, in the time scale of the experiment."""
    pool: Json = {
        "name": POOL,
        "namespaces": [namespace],
        "reap": {
            "floor": FLOOR,
            "idleTimeout": f"{IDLE_SECONDS}s",
            "interval": f"{REAP_SECONDS}s",
            "minPodAge": "10s",
        },
        "deletionCost": {"settle": f"{SETTLE_SECONDS}s"},
    }
    if arm.cache_key is not None:
        pool["cacheKey"] = {"label": MODEL_LABEL, **arm.cache_key}
    return {"apiVersion": "warmnode.dev/v1alpha1", "kind": "Configuration", "pools": [pool]}


class Stage:
    """The cluster of one run. Use it as a context manager; `scene` is there once it was entered."""

    scene: ClusterScene

    def __init__(self, arm: Arm, workload: Workload, consolidate_after: int) -> None:
        self._arm, self._workload, self._after = arm, workload, consolidate_after
        self._ends = ExitStack()
        self._ops_ports: dict[str, int] = {}
        options = Options(
            scheduler=arm.scheduling is Scheduling.DEFAULT,
            karpenter=KARPENTER,
            # Nobody looks at leases here; with short ones half of all writes would be theirs.
            kwok_flags=("--node-lease-duration-seconds=200",),
            controller_manager_flags=("--node-monitor-grace-period=300s",),
        )
        self.plane = ControlPlane(options)
        self._warmnode: Components | None = None

    def __enter__(self) -> Self:
        with self._ends:
            self._start()
            self._ends = self._ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def _start(self) -> None:
        plane = self.plane
        self._ends.callback(plane.stop)
        plane.start()
        delay = {"nodeRegistrationDelay": f"{BOOT_SECONDS}s"}
        plane.create(
            {
                "apiVersion": "karpenter.kwok.sh/v1alpha1",
                "kind": "KWOKNodeClass",
                "metadata": {"name": "default"},
                "spec": delay,
            }
        )
        plane.create(node_pool(self._workload.policy, self._after))
        namespace = plane.create_namespace("work")
        claims_port, binary = None, self._arm.binary
        match self._arm.scheduling:
            case Scheduling.MOST_ALLOCATED:
                plane.start_scheduler("packing-scheduler", most_allocated(), binary=binary)
            case Scheduling.WARMNODE:
                webhook_port, claims_port = self._start_warmnode(namespace)
                config = scheduler_config(SCHEDULER_CONFIG, webhook_port)
                plane.start_scheduler("warmnode-scheduler", config, binary=binary)
        placing = Placing(scheduler=str(self._arm.scheduling), slots=self._workload.slots, claims_port=claims_port)
        self.scene = ClusterScene(plane, namespace, placing)
        if self._workload.kind is Kind.DEPLOYMENT:
            self.scene.create_deployment()

    def _start_warmnode(self, namespace: str) -> tuple[int, int]:
        """Return the ports at which it is asked and at which it takes claims."""
        plane = self.plane
        plane.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
        file = plane.directory / "warmnode.json"
        file.write_text(json.dumps(configuration(self._arm, namespace)))
        started = self._warmnode = Components(plane.directory / "logs", plane.api_client.tls)
        self._ends.callback(started.close)
        webhook_port, claims_port, *ops_ports = free_ports(4)
        common = ("--kubeconfig", str(plane.kubeconfig), "--namespace", SYSTEM, "--config", str(file))
        for role, ops_port in zip(("serve", "reap") if self._arm.reaper else ("serve",), ops_ports, strict=False):
            command: tuple[str, ...] = (sys.executable, "-P", "-m", self._arm.program, role, *common)
            if role == "serve":
                command += ("--webhook-listen", f"127.0.0.1:{webhook_port}")
                command += ("--claims-listen", f"127.0.0.1:{claims_port}")
            command += ("--ops-listen", f"127.0.0.1:{ops_port}", "--history-listen", "127.0.0.1:0")
            probe = f"http://127.0.0.1:{ops_port}/readyz"
            started.start(Launch(name=role, command=command, port=ops_port, probe=probe))
            started.await_ready(role)
            self._ops_ports[role] = ops_port
        return webhook_port, claims_port

    def cpu_seconds(self) -> dict[str, float]:
        """Return what each program has used so far."""
        running = dict(self.plane.processes) | (dict(self._warmnode.processes) if self._warmnode else {})
        return {name: machine.usage(each.pid).cpu_seconds for name, each in running.items() if each.exit_code is None}

    def dead(self) -> list[str]:
        """Name the programs that have ended although nobody asked them to."""
        running = dict(self.plane.processes) | (dict(self._warmnode.processes) if self._warmnode else {})
        return [name for name, each in running.items() if each.exit_code is not None]

    def reaper_figures(self) -> dict[str, float]:
        """Return what the reaper counted, empty where none runs."""
        if "reap" not in self._ops_ports:
            return {}
        connection = http.client.HTTPConnection("127.0.0.1", self._ops_ports["reap"], timeout=10)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        return select_figures(text)


def select_figures(text: str) -> dict[str, float]:
    """Select the counters of interest from Prometheus' text, without the zeros."""
    names = ("warmnode_evictions_total", "warmnode_deletion_cost_writes_total", "warmnode_reap_paused")
    found: Mapping[str, float] = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(names)
    }
    return {series: value for series, value in found.items() if value}
