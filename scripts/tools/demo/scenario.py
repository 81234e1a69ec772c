"""What the demo cluster holds: nodes of different ages, the workers that run there already, the Deployment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from scripts.tools.controlplane.client import Json
from scripts.tools.controlplane.objects import node

POOL = "demo"
WORKERS = "demo"
"""The namespace of the workers, and the name of their pool."""
SYSTEM = "warmnode"
"""The namespace of the ledger."""
DEPLOYMENT = "workers"
DEPLOYMENT_SELECTOR = "app=workers"
NODE_CPU, WORKER_CPU = 8, 2
FIRST, BURST = 8, 14
"""Replicas at first, and in the burst."""
TIDE, FLOOR = 18, 2
"""Bare workers of a burst for which there is room for 10, and how many are kept afterwards: those on a node that had
workers before. All other nodes of the burst may be first seen in one minute, and then a hash orders them."""
NODE_POOL = "burst"
CONFIGURATION = {
    "apiVersion": "warmnode.dev/v1alpha1",
    "kind": "Configuration",
    "poolDefaults": {"reap": {"floor": FLOOR, "idleTimeout": "1s", "interval": "1s", "minPodAge": "0s"}},
}
"""As shipped, but for the floor, and that nobody waits five minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoNode:
    """``age``: since its first worker was Ready, None for a node that never had one. ``running``: workers there."""

    name: str
    age: timedelta | None
    running: int = 0
    cordoned: bool = False


NODES = (
    DemoNode(name="workers-x5qtb", age=None),
    DemoNode(name="workers-c4hd7", age=timedelta(hours=9), running=1),
    DemoNode(name="workers-k3gfd", age=timedelta(minutes=2)),
    DemoNode(name="workers-8fkqz", age=timedelta(days=3), running=1),
    DemoNode(name="workers-9wzr4", age=timedelta(minutes=40), running=1),
    DemoNode(name="workers-t2m9x", age=timedelta(hours=26), running=2, cordoned=True),
    DemoNode(name="workers-l7njs", age=None),
    DemoNode(name="workers-v6p2n", age=timedelta(hours=2), running=1),
)


def node_object(given: DemoNode) -> Json:
    """Make the Node: one that was there before Karpenter."""
    labels = {"node.kubernetes.io/instance-type": "m7i.2xlarge"}
    made = node(given.name, labels=labels, cpu=str(NODE_CPU))
    if given.cordoned:
        made["spec"]["unschedulable"] = True
    return made


def namespace(name: str) -> Json:
    """Make a Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def running_workers(given: DemoNode) -> list[Json]:
    """Make the workers that are on a node before anything else happens: bound to it, as after a restart."""
    template = _worker("before")
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": f"before-{given.name}-{i}", "namespace": WORKERS},
            "spec": {**template["spec"], "nodeName": given.name},
        }
        for i in range(given.running)
    ]


def burst_worker(number: int) -> Json:
    """Make a worker without an owner, as a pool's own controller makes it: the pool scales in by eviction."""
    template = _worker("burst")
    metadata = {**template["metadata"], "name": f"burst-{number:02}", "namespace": WORKERS}
    spec = {**template["spec"], "schedulerName": "warmnode", "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def deployment(scheduler: str) -> Json:
    """Make the Deployment of workers. Nothing but ``schedulerName`` differs between the two runs."""
    template = _worker("workers")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": DEPLOYMENT, "namespace": WORKERS},
        "spec": {
            "replicas": FIRST,
            "selector": {"matchLabels": {"app": "workers"}},
            "template": {**template, "spec": {**template["spec"], "schedulerName": scheduler}},
        },
    }


def ledger(uids: Mapping[str, str], now: datetime) -> Json:
    """Make the ledger: node UID -> epoch seconds. The documented format, and the only way to give a fake node an age.

    Creation times cannot be set: the API server stamps them.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "warmnode-first-seen",
            "namespace": SYSTEM,
            "labels": {"app.kubernetes.io/name": "warmnode", "app.kubernetes.io/component": "ledger"},
        },
        "data": {uids[n.name]: str(int((now - n.age).timestamp())) for n in NODES if n.age is not None},
    }


def _worker(app: str) -> Json:
    requests = {"cpu": str(WORKER_CPU)}
    return {
        "metadata": {"labels": {"app": app, "warmnode.dev/pool": POOL}},
        "spec": {"containers": [{"name": "worker", "image": "worker", "resources": {"requests": requests}}]},
    }
