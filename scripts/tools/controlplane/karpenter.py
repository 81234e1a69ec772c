"""Karpenter on fake nodes: one instance type, NodePools, and what has become of NodeClaims.

Owns the objects that the KWOK build of Karpenter is driven with. With a single instance type of a single price nothing
but order decides which node goes. Protocol and names: karpenter.sh/v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.tools.controlplane.client import Json
from scripts.tools.controlplane.cluster import ControlPlane, Options

INSTANCE_TYPES = Path(__file__).parent / "instance-types.json"
"""One type of 4 CPUs, of which 3900m can be requested."""
WORKER_CPU = "1900m"
"""Two workers fill a node."""

NODE_CLAIMS = "/apis/karpenter.sh/v1/nodeclaims"
NODE_POOLS = "/apis/karpenter.sh/v1/nodepools"
NODE_POOL_LABEL = "karpenter.sh/nodepool"
NODE_CLASS = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass"}


def karpenter_options(version: str, *, gates: str = "", instance_types: Path = INSTANCE_TYPES, **given: Any) -> Options:
    """Return options for a control plane with Karpenter, which decides as soon as pods stop coming.

    ``gates`` are its feature gates, as FEATURE_GATES takes them.
    """
    environment = {
        "INSTANCE_TYPES_FILE_PATH": str(instance_types),
        "BATCH_IDLE_DURATION": "300ms",
        "BATCH_MAX_DURATION": "1s",
    } | ({"FEATURE_GATES": gates} if gates else {})
    return Options(karpenter=version, karpenter_environment=tuple(environment.items()), **given)


def create_node_class(control_plane: ControlPlane, name: str = "default", *, delay: str | None = None) -> None:
    """Create a KWOKNodeClass; its nodes appear ``delay`` after their NodeClaims."""
    spec = {} if delay is None else {"nodeRegistrationDelay": delay}
    version = "karpenter.kwok.sh/v1alpha1"
    control_plane.create({"apiVersion": version, "kind": "KWOKNodeClass", "metadata": {"name": name}, "spec": spec})


def create_node_pool(
    control_plane: ControlPlane,
    name: str,
    *,
    policy: str = "WhenEmpty",
    consolidate_after: str | None = "10s",
    expire_after: str = "Never",
    termination_grace_period: str | None = None,
    budgets: list[Json] | None = None,
    node_class: str = "default",
) -> Json:
    """Create a NodePool. Without ``budgets`` nothing limits Karpenter but the default, 10% at once.

    On a slow machine ``consolidate_after`` of 0s lets Karpenter take a node in the moment before its pod is bound.
    None: the NodePool says nothing of disruption, which Karpenter takes from 1.15 on.
    """
    disruption: Json = {"consolidationPolicy": policy, "consolidateAfter": consolidate_after}
    if budgets is not None:
        disruption["budgets"] = budgets
    if consolidate_after is None:
        disruption = {}
    spec: Json = {
        "nodeClassRef": {**NODE_CLASS, "name": node_class},
        "requirements": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}],
        "expireAfter": expire_after,
    }
    if termination_grace_period is not None:
        spec["terminationGracePeriod"] = termination_grace_period
    metadata = {"name": name}
    return control_plane.create(
        {
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodePool",
            "metadata": metadata,
            "spec": {**({"disruption": disruption} if disruption else {}), "template": {"spec": spec}},
        }
    )


def drift(control_plane: ControlPlane, node_pool: str) -> None:
    """Edit a NodePool's template, so that all of its NodeClaims drift."""
    edit = {"spec": {"template": {"metadata": {"annotations": {"example.com/edited": "true"}}}}}
    control_plane.api("PATCH", f"{NODE_POOLS}/{node_pool}", edit)


def node_claims(control_plane: ControlPlane, node_pool: str) -> dict[str, Json]:
    """NodeClaims of a NodePool, by the name of their Node, or their own name while there is none."""
    found = control_plane.api("GET", NODE_CLAIMS, params={"labelSelector": f"{NODE_POOL_LABEL}={node_pool}"})["items"]
    return {claim.get("status", {}).get("nodeName") or claim["metadata"]["name"]: claim for claim in found}


def nodes(control_plane: ControlPlane, node_pool: str) -> dict[str, Json]:
    """Nodes of a NodePool by name."""
    found = control_plane.api("GET", "/api/v1/nodes", params={"labelSelector": f"{NODE_POOL_LABEL}={node_pool}"})
    return {node["metadata"]["name"]: node for node in found["items"]}


def delete_node_claim(control_plane: ControlPlane, node: str, node_pool: str) -> None:
    """Delete the NodeClaim of a node, as an interruption or a person does."""
    claim = node_claims(control_plane, node_pool)[node]["metadata"]["name"]
    control_plane.api("DELETE", f"{NODE_CLAIMS}/{claim}")


def disown_node_claims(control_plane: ControlPlane, node_pool: str) -> None:
    """Take the NodePool out of its NodeClaims' owners.

    Kubernetes' garbage collector does so for a deletion that orphans, if it knows of Karpenter's kinds by
    then, which takes it half a minute; if not, it deletes them a moment later.
    """
    for claim in node_claims(control_plane, node_pool).values():
        path = f"{NODE_CLAIMS}/{claim['metadata']['name']}"
        control_plane.api("PATCH", path, {"metadata": {"ownerReferences": None}})


def worker(
    name: str,
    *,
    namespace: str,
    pool: str,
    node_pool: str,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    tolerate_all: bool = False,
    cpu: str = WORKER_CPU,
) -> Json:
    """Return a worker of warmnode's pool ``pool`` for nodes of ``node_pool``."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"warmnode.dev/pool": pool, **(labels or {})},
            "annotations": dict(annotations or {}),
        },
        "spec": worker_spec(node_pool, tolerate_all=tolerate_all, cpu=cpu),
    }


def worker_spec(node_pool: str, *, tolerate_all: bool = False, cpu: str = WORKER_CPU) -> Json:
    """Return the spec of a worker, for templates too."""
    return {
        "schedulerName": "warmnode",
        "nodeSelector": {NODE_POOL_LABEL: node_pool},
        "tolerations": [{"operator": "Exists"}] if tolerate_all else [],
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "none", "resources": {"requests": {"cpu": cpu}}}],
    }
