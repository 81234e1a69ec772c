"""Kubernetes objects that a fake cluster is made of. Builds dicts, sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scripts.tools.controlplane.client import Json


def node(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    cpu: str = "8",
    memory: str = "32Gi",
    pods: int = 110,
    taints: Sequence[Json] = (),
) -> Json:
    """Return a Node for KWOK. ``cpu`` and ``memory`` are quantities, ``taints`` are as in its spec."""
    room = {"cpu": cpu, "memory": memory, "pods": str(pods)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **(labels or {})},
            "annotations": {"kwok.x-k8s.io/node": "fake", **(annotations or {})},
        },
        "spec": {"taints": list(taints)},
        "status": {"allocatable": room, "capacity": room},
    }


def is_ready(item: Json) -> bool:
    """Return whether a Node or a Pod has the condition Ready with status True."""
    return has_condition(item, "Ready")


def has_condition(item: Json, kind: str) -> bool:
    """Return whether ``status.conditions`` has one of this type with status True."""
    conditions = item.get("status", {}).get("conditions") or []
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)
