"""The observer's ears: watches that are begun anew where they were interrupted.

Owns the threads and the connections. What is heard goes to the observer, and of pods to the crew too.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable

from scripts.tools.controlplane import ApiError, ControlPlane, Json
from scripts.tools.controlplane.watching import Sink, Watch
from scripts.tools.soak.observer import Observer
from scripts.tools.soak.stage import CONFIG_MAPS, LEASE, LEDGER, SYSTEM


class Ears:
    """Call `mend` now and then. ``hear`` gets pods' events too, ``keep_only`` the pods' UIDs after an interruption."""

    def __init__(
        self,
        plane: ControlPlane,
        pods: str,
        observer: Observer,
        *,
        hear: Callable[[str, Json], object],
        keep_only: Callable[[set[str]], object],
    ) -> None:
        self._plane, self._pods, self._observer = plane, pods, observer
        self._keep_only = keep_only
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"

        def pod(at: float, kind: str, item: Json) -> None:
            observer.pod(at, kind, item)
            hear(kind, item)

        self._places: dict[str, tuple[Sink, str]] = {
            pods: (pod, ""),
            "/api/v1/nodes": (observer.node, ""),
            CONFIG_MAPS: (observer.ledger, f"metadata.name={LEDGER}"),
            leases: (observer.lease, f"metadata.name={LEASE}"),
        }
        self._watches: dict[str, Watch] = {}
        self.interruptions = 0

    def open(self) -> None:
        """Begin to hear."""
        for path in self._places:
            self._begin(path)

    def close(self) -> None:
        """Hear nothing more."""
        for each in self._watches.values():
            each.close()

    def mend(self) -> None:
        """Begin anew what was interrupted; what cannot be begun yet is tried at the next call."""
        for path, watch in list(self._watches.items()):
            if watch.failure is None:
                continue
            watch.close()
            try:
                if path == self._pods:
                    items = self._plane.api("GET", path)["items"]
                    uids = {each["metadata"]["uid"] for each in items}
                    self._observer.missed()
                    self._observer.forget_but(uids)
                    self._keep_only(uids)
                self._begin(path)
            except (ApiError, OSError, http.client.HTTPException):
                continue
            self.interruptions += 1

    def _begin(self, path: str) -> None:
        sink, selector = self._places[path]
        watch = Watch(self._plane, path, sink, selector)
        watch.start()
        self._watches[path] = watch
