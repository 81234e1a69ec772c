"""A control plane with a real Karpenter, and one `warmnode run` over it, for scenes that are played side by side.

Owns the arrangement. Karpenter's delays are fixed (it looks every 10 s and waits 15 s before it acts), so scenes that
each take a minute share them: every scene has NodePools and a pool of its own, named after it.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from extender.kube.objects import DISRUPTION_COST
from scripts.tools.controlplane import ApiError, Component, ControlPlane, Json
from scripts.tools.controlplane.karpenter import create_node_class, karpenter_options, node_claims, nodes, worker
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.serving import SCHEDULER_CONFIG, Serve, scheduler_config
from tests.integration.ground import HTTP_TIMEOUT, LEDGER, epoch
from tests.integration.reapers import COST, ELECTION, IDLE, LONG_AGO

T = TypeVar("T")

SECONDS = 300.0
REAP = {"floor": 0, "idleTimeout": "1s", "interval": "1s", "minPodAge": "0s"}


class Stage:
    """Everything that scenes share. Use it as a context manager."""

    def __init__(
        self,
        version: str,
        folder: Path,
        pools: Mapping[str, Json],
        *,
        costs: Mapping[str, str] | None = None,
        gates: str = "",
    ) -> None:
        """``pools`` has the ``reap`` settings of each pool that differ from ours; ``gates`` are Karpenter's.

        ``costs`` has the ``disruptionCost`` of pools that differ.
        """
        self.version = version
        self.gates = gates
        self.control_plane = ControlPlane(karpenter_options(version, gates=gates))
        self.namespace = ""
        self._folder = folder
        self._pools = pools
        self._costs = costs or {}
        self._scenes: dict[Callable[[Stage], Any], Future[Any]] = {}
        self._is_over = False
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        with self._ends:
            self.control_plane.start()
            self._ends.callback(self.control_plane.stop)
            self.namespace = self.control_plane.create_namespace("karpenter")
            create_node_class(self.control_plane)
            create_node_class(self.control_plane, "slow", delay="2m")
            (port,) = free_ports(1)
            config = scheduler_config(SCHEDULER_CONFIG, port, http_timeout=f"{HTTP_TIMEOUT}s")
            self.control_plane.start_scheduler("warmnode", config)
            self.warmnode = Serve(
                kubeconfig=self.control_plane.kubeconfig,
                log=self._folder / "warmnode.log",
                arguments=[
                    "--namespace",
                    self.namespace,
                    "--config",
                    str(self.configuration()),
                    "--log-level",
                    "debug",
                ],
                webhook_port=port,
                role="run",
            )
            self._ends.callback(self.warmnode.close)
            self.warmnode.start()
            self._ends = self._ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        self._ends.close()

    def configuration(self, **top: Any) -> Path:
        """Write a configuration file with the stage's pools."""
        file = self._folder / f"config-{len(list(self._folder.iterdir()))}.yaml"
        pools = [
            {
                "name": name,
                "selector": {"matchLabels": {"warmnode.dev/pool": name}},
                "reap": {**REAP, **reap},
                "deletionCost": {"settle": "1s", "disruptionCost": self._costs.get(name, "auto")},
            }
            for name, reap in self._pools.items()
        ]
        content = {"apiVersion": "warmnode.dev/v1alpha1", "kind": "Configuration", "leaderElection": ELECTION}
        file.write_text(json.dumps({**content, "pools": pools, **top}))
        return file

    # -- scenes -------------------------------------------------------------------------------------------------------

    def raise_curtain(self, scenes: Iterable[Callable[[Stage], Any]]) -> None:
        """Begin to play these, all at once."""
        scenes = list(scenes)
        threads = ThreadPoolExecutor(len(scenes))
        self._ends.callback(threads.shutdown, wait=True, cancel_futures=True)
        self._scenes = {scene: threads.submit(scene, self) for scene in scenes}

    def outcome(self, scene: Callable[[Stage], T]) -> T:
        """Wait until a scene is over: what it returned."""
        found: T = self._scenes[scene].result()
        return found

    def wait(self, condition: Callable[[], T | bool | None], describe: str | Callable[[], str]) -> T:
        """Wait for a condition. Scenes are many and the machine is small, so it is looked at twice a second."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and not self._is_over:
            if found := condition():
                return found  # type: ignore[return-value]
            time.sleep(0.5)
        raise TimeoutError(describe if isinstance(describe, str) else describe())

    # -- workers ------------------------------------------------------------------------------------------------------

    def create_worker(self, name: str, pool: str, node_pool: str | None = None, **given: Any) -> None:
        """Create a bare worker for the nodes of a NodePool, by default the one that is named as the pool."""
        self.control_plane.create(
            worker(name, namespace=self.namespace, pool=pool, node_pool=node_pool or pool, **given)
        )

    def grow(self, pool: str, count: int, *, prefix: str, **given: Any) -> dict[str, str]:
        """Create bare workers and wait until they run: name to node."""
        names = [f"{prefix}-{number}" for number in range(count)]
        for name in names:
            self.create_worker(name, pool, **given)
        return {name: node for name, node in self.wait_running(pool, names).items() if name in names}

    def wait_running(self, pool: str, names: Sequence[str] | int) -> dict[str, str]:
        """Wait until these workers of a pool, or so many, are Ready: name to node of all of them."""

        def placed() -> dict[str, str] | None:
            ready = {name: pod["spec"]["nodeName"] for name, pod in self.pods(pool).items() if is_ready(pod)}
            is_enough = len(ready) == names if isinstance(names, int) else ready.keys() >= set(names)
            return ready if is_enough else None

        return self.wait(placed, lambda: f"{names} of {pool} to run: {self.show(pool)}")

    def pods(self, pool: str) -> dict[str, Json]:
        """Workers of a pool that are not being deleted, by name."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        found = self.control_plane.api("GET", path, params={"labelSelector": f"warmnode.dev/pool={pool}"})["items"]
        return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def pod_path(self, name: str) -> str:
        """Path of a pod."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{name}"

    def node_of(self, name: str) -> str:
        """Wait until a pod has a node: its name."""
        node: str = self.wait(
            lambda: self.control_plane.api("GET", self.pod_path(name))["spec"].get("nodeName"), f"{name} placed"
        )
        return node

    def delete_pod(self, name: str) -> None:
        """Delete a pod and wait until it is gone."""
        path = self.pod_path(name)
        self.control_plane.api("DELETE", path, params={"gracePeriodSeconds": 0})
        self.wait(lambda: self.control_plane.api_client.get_or_none(path) is None, f"{name} to be gone")

    def annotate(self, names: Iterable[str], annotations: Mapping[str, str | None]) -> None:
        """Merge-patch annotations of pods."""
        for name in names:
            self.control_plane.api("PATCH", self.pod_path(name), {"metadata": {"annotations": dict(annotations)}})

    def mark_idle(self, names: Iterable[str]) -> None:
        """Mark workers idle, for long."""
        self.annotate(names, {IDLE: LONG_AGO})

    def costs(self, pool: str) -> dict[str, int]:
        """Deletion costs of a pool's workers, of those that have one."""
        return self._numbers(pool, COST)

    def prices(self, pool: str) -> dict[str, int]:
        """What a pool's workers are worth to Karpenter alone, of those that have such a price."""
        return self._numbers(pool, DISRUPTION_COST)

    def _numbers(self, pool: str, key: str) -> dict[str, int]:
        found = {name: (pod["metadata"].get("annotations") or {}).get(key) for name, pod in self.pods(pool).items()}
        return {name: int(number) for name, number in found.items() if number is not None}

    # -- nodes --------------------------------------------------------------------------------------------------------

    def make_older(self, *names: str) -> None:
        """Let the ledger say that these nodes were seen hours ago, the first one before the others."""
        uids = [self.control_plane.api("GET", f"/api/v1/nodes/{name}")["metadata"]["uid"] for name in names]
        now = int(time.time())
        data = {uid: str(now - 3600 * (len(uids) - position)) for position, uid in enumerate(uids)}
        path = f"/api/v1/namespaces/{self.namespace}/configmaps"
        metadata = {"name": LEDGER, "namespace": self.namespace}

        def written() -> bool:
            try:
                self.control_plane.api("PATCH", f"{path}/{LEDGER}", {"data": data})
            except ApiError as error:
                if error.status != 404:
                    raise
                return False  # warmnode writes it as soon as it has seen a worker
            return True

        self.wait(written, f"{metadata} to be there")
        self.wait(lambda: self.preferred(*names) == list(names), lambda: f"{names}: {self.preferred(*names)}")

    def preferred(self, *names: str) -> list[str]:
        """Ask warmnode for its order of these nodes; those that get no score are left out."""
        return self.warmnode.preferred(names, {"warmnode.dev/pool": next(iter(self._pools))})

    def nodes(self, node_pool: str) -> list[str]:
        """Nodes of a NodePool in the order of their creation."""
        found = nodes(self.control_plane, node_pool)
        return sorted(found, key=lambda name: (epoch(found[name]["metadata"]["creationTimestamp"]), name))

    def claim(self, node: str, node_pool: str) -> Json:
        """NodeClaim of a node."""
        return node_claims(self.control_plane, node_pool)[node]

    def touched(self, node_pool: str) -> list[str]:
        """Nodes of a NodePool that Karpenter has tainted or is deleting."""
        found = nodes(self.control_plane, node_pool)
        taints = {name: [taint["key"] for taint in node["spec"].get("taints") or ()] for name, node in found.items()}
        return [
            name
            for name, node in found.items()
            if "deletionTimestamp" in node["metadata"] or "karpenter.sh/disrupted" in taints[name]
        ]

    def disrupted(self, node_pool: str) -> dict[str, int]:
        """Count by Karpenter itself of the NodeClaims that it has disrupted, by reason."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.control_plane.processes[Component.KARPENTER].port or 0
        )
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = {}
        for line in text.splitlines():
            if line.startswith("karpenter_nodeclaims_disrupted_total{") and f'nodepool="{node_pool}"' in line:
                reason = line.partition('reason="')[2].partition('"')[0]
                found[reason] = int(float(line.rpartition(" ")[2]))
        return found

    # -- what warmnode says -------------------------------------------------------------------------------------------

    def evicted(self, pool: str) -> list[str]:
        """Names of the evicted workers of a pool, in order, by the log."""
        return [line["pod"] for line in self.warmnode.lines("evicted") if line["pool"] == pool]

    def stays(self, pool: str, reason: str) -> float:
        """How many idle workers of a pool stay for a reason."""
        return self.warmnode.metric("warmnode_reap_skipped", pool=pool, reason=reason)

    def show(self, pool: str) -> str:
        """What a failure shows of a pool: who runs where, the nodes, and what was said of workers of that name."""
        pods = {name: (pod["spec"].get("nodeName"), is_ready(pod)) for name, pod in self.pods(pool).items()}
        said = [
            f"{each['involvedObject']['name']}: {each['reason']}: {each['message']}"
            for each in self.control_plane.api("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
            if each["involvedObject"]["name"].startswith(pool)
        ]
        found = {"pods": pods, "nodes": list(nodes(self.control_plane, pool)), "evicted": self.evicted(pool)}
        return json.dumps(found | {"said": said[-30:]}, indent=1)
