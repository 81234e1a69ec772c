"""The recorder: what the API server's watches say of nodes and pods, with the time at which they said it.

Owns the making of `NodeRecord` and `PodRecord` out of events. It hears of nothing that the drivers do but through the
API server. Times are taken as an event comes in: the objects' own are whole seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.objects import has_condition, is_ready
from scripts.tools.experiment.record import NodeRecord, PodRecord

TAINT = "karpenter.sh/disrupted"


class Recorder:
    """Notes the first time of everything that happens. ``start`` is the monotonic time that counts as 0.

    Nodes are kept by UID: names are reused. ``heard`` is told of each pod event, after it was noted, as
    (name, record, whether it is gone); it is called in the watch's thread.
    """

    def __init__(self, start: float, heard: Callable[[PodRecord], None]) -> None:
        self._start, self._heard = start, heard
        self._lock = threading.Lock()
        self._nodes: dict[str, NodeRecord] = {}
        self._pods: dict[str, PodRecord] = {}

    def node(self, moment: float, event: str, item: Json) -> None:
        """Note an event of the Node collection."""
        now = moment - self._start
        with self._lock:
            metadata = item["metadata"]
            known = self._nodes.setdefault(metadata["uid"], NodeRecord(name=metadata["name"], added=now))
            if known.ready is None and is_ready(item):
                known.ready = now
            if known.tainted is None and any(each["key"] == TAINT for each in item.get("spec", {}).get("taints") or ()):
                known.tainted = now
            if event == "DELETED" and known.deleted is None:
                known.deleted = now

    def pod(self, moment: float, event: str, item: Json) -> None:
        """Note an event of the Pod collection."""
        now = moment - self._start
        with self._lock:
            metadata = item["metadata"]
            known = self._pods.setdefault(metadata["uid"], PodRecord(name=metadata["name"], added=now))
            if known.bound is None and (node := item["spec"].get("nodeName")):
                known.node, known.bound = node, now
            if known.ready is None and is_ready(item):
                known.ready = now
            if known.deleting is None and "deletionTimestamp" in metadata:
                known.deleting = now
            if known.evicted is None and has_condition(item, "DisruptionTarget"):
                known.evicted = next(
                    str(each.get("reason"))
                    for each in item["status"]["conditions"]
                    if each["type"] == "DisruptionTarget"
                )
            if event == "DELETED" and known.deleted is None:
                known.deleted = now
        self._heard(known)

    def nodes(self) -> list[NodeRecord]:
        """All nodes there ever were, in the order of their creation."""
        with self._lock:
            return sorted(self._nodes.values(), key=lambda each: each.added)

    def pods(self) -> list[PodRecord]:
        """All pods there ever were, in the order of their creation."""
        with self._lock:
            return sorted(self._pods.values(), key=lambda each: (each.added, each.name))
