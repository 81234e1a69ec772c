"""What is new of workers and nodes, as lines of a recording. Owns what of an object is noted; does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec

from extender.inspect.record.recording import (
    RecordedNode,
    RecordedWorker,
    Recording,
    RecordingLine,
    open_spans_closed,
    written_amounts,
)
from extender.model import Node, Pod


class Notes:
    """Turns what is seen into lines: ``write`` gets one for each thing that has changed. ``now`` is the server's time.

    ``before`` is what a file holds already, of an earlier run: what is open there and is not there any more ended while
    nobody watched.
    """

    def __init__(self, before: Recording, write: Callable[[RecordingLine], None], now: Callable[[], datetime]) -> None:
        self._until = before.until
        self._workers = {uid: each for uid, each in before.workers.items() if each.ended is None}
        self._nodes = {uid: each for uid, each in before.nodes.items() if each.gone is None}
        self._write = write
        self._now = now
        self.seen_workers = len(before.workers)

    @property
    def running_workers(self) -> int:
        """How many workers are there."""
        return len(self._workers)

    @property
    def running_nodes(self) -> int:
        """How many nodes are there."""
        return len(self._nodes)

    def list_workers(self, pods: Iterable[tuple[Pod, dict[str, str]]]) -> None:
        """Take a complete list of pods with their requests. Pods of no pool are passed by."""
        found = {pod.uid: (pod, requests) for pod, requests in pods}
        ended = self._until or self._now()
        for worker in [each for uid, each in self._workers.items() if uid not in found]:
            self._end(worker, ended, about=True)
        for pod, requests in found.values():
            self.worker(pod, requests)

    def worker(self, pod: Pod, requests: dict[str, str]) -> None:
        """Take a worker as it is now."""
        known = self._workers.get(pod.uid)
        if pod.pool is None or (known is None and pod.finished):
            return
        self.seen_workers += known is None
        idle = () if known is None else known.idle
        if pod.idle_since is None:
            idle = open_spans_closed(idle, self._now())
        elif not idle or idle[-1][1] is not None:
            idle = (*idle, (pod.idle_since, None))
        bound = pod.bound if known is None else known.bound
        if known is not None and known.node is None and pod.node is not None:
            bound = self._now()  # as exact as its end: what is on the pod has whole seconds
        started = pod.ready_since if known is None or known.started is None else known.started
        worker = RecordedWorker(
            uid=pod.uid,
            namespace=pod.namespace,
            name=pod.name,
            pool=pod.pool,
            created=pod.created,
            scheduler=pod.scheduler,
            key=pod.cache_key,
            node=pod.node,
            bound=bound if pod.node is None else bound or self._now(),
            started=started,
            requests=requests,
            idle=idle,
        )
        if pod.finished:
            self._end(worker, self._now())
        elif worker != known:
            self._workers[pod.uid] = worker
            self._write(worker)

    def worker_gone(self, pod: Pod) -> None:
        """Take a worker's end."""
        known = self._workers.get(pod.uid)
        if known is not None:
            self._end(known, self._now())

    def list_nodes(self, nodes: Iterable[Node]) -> None:
        """Take a complete list of nodes."""
        found = {node.uid: node for node in nodes}
        gone = self._until or self._now()
        for known in [each for uid, each in self._nodes.items() if uid not in found]:
            self._node_ended(known, gone, about=True)
        for node in found.values():
            self.node(node)

    def node(self, node: Node) -> None:
        """Take a node as it is now."""
        made = RecordedNode(
            uid=node.uid,
            name=node.name,
            created=node.created,
            instance_type=node.instance_type,
            node_pool=node.node_pool,
            allocatable=written_amounts(node.allocatable),
        )
        if made != self._nodes.get(node.uid):
            self._nodes[node.uid] = made
            self._write(made)

    def node_gone(self, node: Node) -> None:
        """Take a node's end."""
        known = self._nodes.get(node.uid)
        if known is not None:
            self._node_ended(known, self._now())

    def _end(self, worker: RecordedWorker, at: datetime, *, about: bool = False) -> None:
        self._workers.pop(worker.uid, None)
        idle = open_spans_closed(worker.idle, at)
        self._write(msgspec.structs.replace(worker, ended=at, ended_about=about, idle=idle))

    def _node_ended(self, node: RecordedNode, at: datetime, *, about: bool = False) -> None:
        self._nodes.pop(node.uid, None)
        self._write(msgspec.structs.replace(node, gone=at, gone_about=about))

    def still_watching(self, at: datetime) -> None:
        """Take note that all until now was seen: what a later list lacks ended after this."""
        self._until = at
