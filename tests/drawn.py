"""What a live view has to draw, worked out from what the API server has, and by nothing of ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from scripts.tools.controlplane.objects import is_ready

Drawn: TypeAlias = list[list[Any]]
"""Each node by UID with the workers on it, each with its UID and state."""


def drawn_of(nodes: Iterable[Any], workers: Iterable[Any]) -> Drawn:
    """Every node, also one without workers. A worker that has ended is on none."""
    cells: dict[str, list[list[str]]] = {node["metadata"]["name"]: [] for node in nodes}
    for pod in workers:
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        if (node := pod["spec"].get("nodeName")) in cells:
            cells[node].append([pod["metadata"]["uid"], _state_of(pod)])
    return in_order([node["metadata"]["uid"], cells[node["metadata"]["name"]]] for node in nodes)


def in_order(drawn: Iterable[list[Any]]) -> Drawn:
    """Sort it, so that two can be compared."""
    return sorted([uid, sorted(cells)] for uid, cells in drawn)


def _state_of(pod: Any) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "going"
    if not is_ready(pod):
        return "starting"
    return "idle" if "warmnode.dev/idle-since" in pod["metadata"].get("annotations", {}) else "busy"
