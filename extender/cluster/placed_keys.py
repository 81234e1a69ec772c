"""Which cache keys were placed on which node since this process began: counts workers as they are seen there,
by the rules of `policy.affinity`."""

from __future__ import annotations

from datetime import datetime
from math import inf

from extender.cluster.object_store import ClusterObjects
from extender.model import Pod
from extender.policy.affinity import KeyHistory


class PlacedKeys:
    """Fills a `KeyHistory` from the pods. ``changes`` counts workers whose key became another one on their node."""

    def __init__(self, objects: ClusterObjects) -> None:
        self._objects = objects
        self._begun = False
        self.history = KeyHistory()
        self.changes = 0

    def begin(self, now: datetime) -> None:
        """Count the workers that are there, and from now on those that come."""
        self.history = KeyHistory()
        self._begun = True
        for pod in self._objects.pods.values():
            self.count(pod, None, now)

    def count(self, pod: Pod, known: Pod | None, now: datetime) -> None:
        """Count a worker on its node: when it is first seen there, and again when its key changes.

        Not before everything is loaded, and not on a node that is not known: its workers are counted when it comes.
        """
        if pod.cache_key is None or pod.node is None or pod.node not in self._objects.nodes or not self._begun:
            return
        if pod.old_machine:
            return
        if known is not None and known.node == pod.node and known.cache_key is not None:
            if known.cache_key == pod.cache_key and not known.old_machine:
                return
            self.changes += known.cache_key != pod.cache_key
        self.history.record(pod.node, pod.cache_key, min(pod.created, now) if known is None else now)

    def count_on(self, node_name: str, now: datetime) -> None:
        """Count the workers on a node that has come."""
        for worker in self._objects.where.workers_on(node_name).values():
            self.count(worker, None, now)

    def use(self, worker: Pod) -> float:
        """Say how much a placed worker's cache key was used on its node, see `KeyHistory.use`; -inf: it has none."""
        if worker.cache_key is None or worker.node is None:
            return -inf
        return self.history.use(worker.node, worker.cache_key)
