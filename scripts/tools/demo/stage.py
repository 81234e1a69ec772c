"""The demo cluster: real processes, and what is asked of them.

Prints nothing. What it returns was read from the API server or from `warmnode plan`, not assumed.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.controlplane.client import Json, wait_for
from scripts.tools.controlplane.cluster import ControlPlane
from scripts.tools.controlplane.karpenter import karpenter_options
from scripts.tools.controlplane.launching import Components, Launch
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.controlplane.workspace import TEMPORARY_PREFIX, remove_stale
from scripts.tools.demo import scenario
from scripts.tools.demo.findings import PlannedNode, Room
from scripts.tools.live_page import LivePage
from scripts.tools.serving import scheduler_config

T = TypeVar("T")

WAIT_SECONDS = 60.0
SCHEDULER_CONFIG = ROOT / "manifests" / "base" / "kube-scheduler-config.yaml"
KARPENTER = "1.14.3"
INSTANCE_TYPES = Path(__file__).parent / "demo-instance-types.json"
"""One type, on which as many workers fit as on the nodes that are there."""
NODES = "/api/v1/nodes"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{scenario.WORKERS}/deployments"
SCORED = 'warmnode_webhook_requests_total{outcome="scored",verb="prioritize"}'
PODS = f"/api/v1/namespaces/{scenario.WORKERS}/pods"


class DemoFailed(Exception):
    """Something did not go as the demo expects. The message is for people."""


class Stage:
    """One control plane with a second scheduler and warmnode. `close` leaves no process and no file, at any moment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._control_plane: ControlPlane | None = None
        self._warmnode: Components | None = None
        self._live_page: LivePage | None = None
        self.webhook_port = 0
        self.ops_port = 0

    @classmethod
    def new(cls) -> Stage:
        """Take a new folder, and remove those of demos and tests that were killed."""
        for stale in Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*"):
            if stale.stat().st_uid == os.getuid():
                remove_stale(stale)
        return cls(Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX)))

    def close(self) -> None:
        """End every process and remove the folder. May be called more than once."""
        try:
            if self._live_page is not None:
                self._live_page.close()
            if self._warmnode is not None:
                self._warmnode.close()
            if self._control_plane is not None:
                self._control_plane.stop()
        finally:
            # A process whose start was interrupted is killed by the kernel, and may write until it is gone.
            wait_for(self._is_removed, 5, f"{self._folder} to be removed")

    def start(self, note: Callable[[str], None]) -> None:
        """Find or build the programs (``note`` is told of progress) and start the control plane."""
        options = karpenter_options(KARPENTER, instance_types=INSTANCE_TYPES)
        find_or_build([*options.binaries(), "kubectl"], os.environ, note)
        self._control_plane = ControlPlane(options, directory=self._folder)
        self._control_plane.start()

    @property
    def cluster(self) -> ControlPlane:
        """The control plane, once it was started."""
        if self._control_plane is None:
            raise DemoFailed("the control plane was not started")
        return self._control_plane

    def components(self) -> str:
        """Name what runs, with the version of the API server."""
        version = self.cluster.api("GET", "/version")["gitVersion"]
        return f"Kubernetes {version}: {', '.join(self.cluster.processes)}"

    def populate(self) -> dict[str, Room]:
        """Create the nodes, give them their ages, and start the workers that ran before. Returns the room there is."""
        cluster = self.cluster
        created = [cluster.create(scenario.node_object(each)) for each in scenario.NODES]
        uids = {each["metadata"]["name"]: each["metadata"]["uid"] for each in created}
        cluster.create(scenario.namespace(scenario.SYSTEM))
        cluster.create(scenario.namespace(scenario.WORKERS))
        account = f"/api/v1/namespaces/{scenario.WORKERS}/serviceaccounts/default"
        wait_for(
            lambda: cluster.api_client.get_or_none(account), WAIT_SECONDS, f"{account}, without which there are no pods"
        )
        cluster.create(scenario.ledger(uids, datetime.now(UTC)))
        for each in scenario.NODES:
            for pod in scenario.running_workers(each):
                cluster.create(pod)
        wait_for(self._is_settled, WAIT_SECONDS, "the nodes and the workers on them to be Ready")
        return self._rooms()

    def start_warmnode(self) -> None:
        """Start `warmnode run`, and a second kube-scheduler with the configuration that the manifests ship."""
        self.webhook_port, self.ops_port = free_ports(2)
        self._warmnode = Components(self._folder / "logs", self.cluster.api_client.tls)
        command = (
            *(sys.executable, "-m", "extender", "run", "--config", str(self._configuration())),
            *("--kubeconfig", str(self.cluster.kubeconfig), "--namespace", scenario.SYSTEM),
            *("--webhook-listen", f"127.0.0.1:{self.webhook_port}", "--ops-listen", f"127.0.0.1:{self.ops_port}"),
            *("--history-listen", "127.0.0.1:0"),
        )
        probe = f"http://127.0.0.1:{self.ops_port}/readyz"
        self._warmnode.start(Launch(name="warmnode", command=command, port=self.webhook_port, probe=probe))
        self.cluster.start_scheduler("warmnode-scheduler", scheduler_config(SCHEDULER_CONFIG, self.webhook_port))
        self._warmnode.await_ready("warmnode")

    def start_page(self) -> str:
        """Start `warmnode page`: the address to open."""
        self._live_page = LivePage(
            self.cluster.kubeconfig, self._folder / "page.log", "--config", str(self._configuration())
        )
        return self._live_page.__enter__().url

    def _configuration(self) -> Path:
        file = self._folder / "warmnode.json"
        file.write_text(json.dumps(scenario.CONFIGURATION))
        return file

    def plan(self) -> list[PlannedNode]:
        """Run `warmnode plan --output json` against the cluster."""
        command = [sys.executable, "-m", "extender", "plan", "--output", "json"]
        environment = {**os.environ, "WARMNODE_KUBECONFIG": str(self.cluster.kubeconfig)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise DemoFailed(f"warmnode plan ended with code {done.returncode}: {done.stderr.strip()}")
        nodes = json.loads(done.stdout)["nodes"]
        return [PlannedNode(name=each["name"], rank=each["rank"], why=each["why"]) for each in nodes]

    def deploy(self, scheduler: str) -> dict[str, int]:
        """Create the Deployment for a scheduler. Returns how many of its workers each node has."""
        self.cluster.create(scenario.deployment(scheduler))
        return self._placed(scenario.FIRST)

    def scale(self, replicas: int) -> dict[str, int]:
        """Scale the Deployment. Returns as `deploy`."""
        self.cluster.api("PATCH", f"{DEPLOYMENTS}/{scenario.DEPLOYMENT}", {"spec": {"replicas": replicas}})
        return self._placed(replicas)

    def remove(self) -> None:
        """Delete the Deployment and wait until its workers are gone."""
        background = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        self.cluster.api("DELETE", f"{DEPLOYMENTS}/{scenario.DEPLOYMENT}", background)
        wait_for(lambda: not self._workers(), WAIT_SECONDS, "the Deployment's workers to be gone")

    def times_asked(self) -> float:
        """Count the workers that the scheduler asked about, by warmnode's own metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ops_port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(SCORED))

    def kubectl(self) -> Path:
        """Say where kubectl is: on PATH, or among the programs that were built."""
        return find_or_build(["kubectl"], os.environ, lambda line: None)["kubectl"]

    def workers(self, app: str) -> dict[str, int]:
        """Count the workers of one label that are on each node and stay."""
        pods = self._list(PODS, labelSelector=f"app={app}")
        return dict(
            Counter(
                pod["spec"]["nodeName"] for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
            )
        )

    def nodes(self) -> set[str]:
        """Name the nodes."""
        return {each["metadata"]["name"] for each in self._list(NODES)}

    def wait(self, condition: Callable[[], T | bool | None], describe: str) -> T:
        """Wait for something of the cluster. Twice as long as for the rest: Karpenter takes its time."""
        return wait_for(condition, 2 * WAIT_SECONDS, describe)  # type: ignore[return-value]

    def _placed(self, replicas: int) -> dict[str, int]:
        def placed() -> list[Json] | None:
            pods = self._workers()
            return pods if len(pods) == replicas and all(map(is_ready, pods)) else None

        def found() -> str:
            ready = sum(map(is_ready, self._workers()))
            return f"{replicas} workers to be placed and Ready; {ready} are"

        return dict(Counter(pod["spec"]["nodeName"] for pod in wait_for(placed, WAIT_SECONDS, found)))

    def _workers(self) -> list[Json]:
        return self._list(PODS, labelSelector=scenario.DEPLOYMENT_SELECTOR)

    def _list(self, path: str, **parameters: str) -> list[Json]:
        items: list[Json] = self.cluster.api("GET", path, params=parameters)["items"]
        return items

    def _is_settled(self) -> bool:
        nodes, pods = self._list(NODES), self._list(PODS)
        taints = [taint["key"] for each in nodes for taint in each["spec"].get("taints", ())]
        return all(map(is_ready, (*nodes, *pods))) and "node.kubernetes.io/not-ready" not in taints

    def _rooms(self) -> dict[str, Room]:
        running = Counter(pod["spec"]["nodeName"] for pod in self._list(PODS))
        fits = {
            each["metadata"]["name"]: int(each["status"]["allocatable"]["cpu"]) // scenario.WORKER_CPU
            for each in self._list(NODES)
        }
        return {name: Room(running=running[name], free=slots - running[name]) for name, slots in fits.items()}

    def _is_removed(self) -> bool:
        shutil.rmtree(self._folder, ignore_errors=True)
        return not self._folder.exists()
