"""Which collections feed the state: nodes, pods, and the ledger.

Owns the reflectors and what can be said about them: loaded, fresh, or what is in the way. Decides nothing.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping
from datetime import timedelta
from random import Random

from extender.kube.client import KubeClient
from extender.kube.objects import ConfigMapObject, NodeObject, PodObject, ledger_from, node_from, pod_from
from extender.kube.watch import Reflector, WatchObserver
from extender.model import Ledger, Node, Pod
from extender.state import ClusterState
from extender.telemetry import ClusterFigures

NODES = "nodes"
PODS = "pods"
LEDGER = "ledger"
STALE = timedelta(minutes=2)
"""A watch hears a bookmark about each minute; after two minutes of silence it is not to be relied on."""
FRESH = timedelta(seconds=90)
"""For what cannot be taken back: a watch that hears nothing is ended after 75 s at most, and 15 s more."""

Classify = Callable[[str, Mapping[str, str]], str | None]


class ClusterFeed:
    """Keeps a state equal to the cluster. ``ledger`` is (namespace, name), None where ages need no ledger.

    ``classify`` may be replaced; then call `list_pods_again`, for what a pod belongs to is decided when it is read.
    """

    def __init__(
        self,
        client: KubeClient,
        state: ClusterState,
        *,
        classify: Classify,
        ledger: tuple[str, str] | None,
        observer: WatchObserver,
        bound: Callable[[Pod], None] = lambda pod: None,
        changed: Callable[[Pod], None] = lambda pod: None,
    ) -> None:
        self.classify = classify
        self.nodes: Reflector[NodeObject, Node] = Reflector(
            client,
            path="/api/v1/nodes",
            struct=NodeObject,
            trim=node_from,
            sink=_NodeSink(state),
            name=NODES,
            random=Random(),  # noqa: S311 - jitter
            observer=observer,
        )
        self.pods: Reflector[PodObject, Pod] = Reflector(
            client,
            path="/api/v1/pods",
            struct=PodObject,
            trim=lambda raw: pod_from(raw, self.classify),
            sink=_PodSink(state, bound, changed),
            name=PODS,
            random=Random(),  # noqa: S311 - jitter
            observer=observer,
        )
        self.ledger: Reflector[ConfigMapObject, Ledger] | None = None
        if ledger is not None:
            namespace, name = ledger
            self.ledger = Reflector(
                client,
                path=f"/api/v1/namespaces/{namespace}/configmaps",
                field_selector=f"metadata.name={name}",
                struct=ConfigMapObject,
                trim=ledger_from,
                sink=_LedgerSink(state),
                name=LEDGER,
                random=Random(),  # noqa: S311 - jitter
                observer=observer,
            )
        self._state = state

    @property
    def reflectors(
        self,
    ) -> tuple[Reflector[NodeObject, Node] | Reflector[PodObject, Pod] | Reflector[ConfigMapObject, Ledger], ...]:
        """The reflectors, to be run by the caller."""
        return (self.nodes, self.pods) if self.ledger is None else (self.nodes, self.pods, self.ledger)

    async def begin(self) -> None:
        """Wait until everything is loaded, then let the state answer.

        A ledger that may not be read counts as none: the webhook goes by creation order, and a reason says so.
        """
        await self.nodes.synced_event.wait()
        await self.pods.synced_event.wait()
        if self.ledger is not None:
            await self.ledger.settled_event.wait()
        self._state.begin()
        gc.collect()
        gc.freeze()  # what was loaded stays: a full collection over 100,000 pods would take 30 ms of a scheduling cycle

    def list_pods_again(self) -> None:
        """Read all pods once more, with the present ``classify``."""
        self.pods.relist()

    def ages(self) -> dict[str, float | None]:
        """Say how long ago each collection was last heard of, in seconds; None: never."""
        now = asyncio.get_running_loop().time()
        return {r.name: None if r.last_contact is None else now - r.last_contact for r in self.reflectors}

    def is_fresh(self) -> bool:
        """True while what an eviction is decided on is not stale: all is loaded, and no watch was silent for long.

        A ledger that cannot be read makes it false: ages would be guesses.
        """
        ages = self.ages()
        return all(
            reflector.synced and not reflector.missing and (ages[reflector.name] or 0) <= FRESH.total_seconds()
            for reflector in self.reflectors
        )

    def reasons(self) -> list[str]:
        """Say why the state is not to be relied on; empty when it is. The ledger is no reason: see `begin`."""
        reasons = []
        ages = self.ages()
        for reflector in (self.nodes, self.pods):
            age = ages[reflector.name]
            if not reflector.synced:
                problem = f" ({reflector.problem})" if reflector.problem else ""
                reasons.append(f"{reflector.name}: not listed yet{problem}")
            elif age is not None and age > STALE.total_seconds():
                reasons.append(f"{reflector.name}: nothing heard for {age:.0f} s")
        if not reasons and not self._state.synced:
            problem = f" ({self.ledger.problem})" if self.ledger is not None and self.ledger.problem else ""
            reasons.append(f"{LEDGER}: not loaded yet{problem}")
        return reasons

    def shown(self) -> dict[str, dict[str, object]]:
        """Show each collection: synced, age in seconds, problem."""
        ages = self.ages()
        return {
            r.name: {"synced": r.synced, "ageSeconds": _rounded(ages[r.name]), "problem": r.problem}
            for r in self.reflectors
        }

    def figures(self, label_of: Callable[[str], str]) -> ClusterFigures:
        """Count what is known, for a scrape. ``label_of`` bounds the pools that are told apart."""
        nodes = dict.fromkeys(("seen", "unseen", "ending", "leaving"), 0)
        for name, key in self._state.order.items():
            preferred = self._state.preference.get(name)
            if preferred is None:
                nodes["leaving"] += 1
            elif preferred[0]:
                nodes["ending"] += 1
            else:
                nodes["unseen" if key[0] else "seen"] += 1
        workers: dict[str, int] = {}
        for node_name in self._state.nodes:
            for worker in self._state.workers_on(node_name).values():
                label = label_of(worker.pool or "")
                workers[label] = workers.get(label, 0) + 1
        ledger = self._state.ledger
        return ClusterFigures(
            synced=self._state.synced,
            collection_ages=self.ages(),
            nodes=nodes,
            workers=workers,
            pods=len(self._state.pods),
            ledger_entries=len(ledger.first_seen) if ledger is not None else 0,
            ledger_bytes=ledger.size_bytes if ledger is not None else 0,
            ledger_ignored=len(ledger.ignored) if ledger is not None else 0,
        )


class _NodeSink:
    def __init__(self, state: ClusterState) -> None:
        self.replace = state.replace_nodes
        self.upsert = state.upsert_node
        self.delete = state.delete_node


class _PodSink:
    """Feeds pods, and tells of each worker that an event shows changed, or bound for the first time."""

    def __init__(self, state: ClusterState, bound: Callable[[Pod], None], changed: Callable[[Pod], None]) -> None:
        self.replace = state.replace_pods
        self.delete = state.delete_pod
        self._state = state
        self._bound = bound
        self._changed = changed

    def upsert(self, pod: Pod, /) -> None:
        known = self._state.pods.get(pod.uid)
        if pod.pool is not None and pod.node is not None and known is not None and known.node is None:
            self._bound(pod)
        self._state.upsert_pod(pod)
        if pod.pool is not None:
            self._changed(pod)


class _LedgerSink:
    def __init__(self, state: ClusterState) -> None:
        self._state = state

    def replace(self, ledgers: list[Ledger], /) -> None:
        self._state.take_ledger(ledgers[0] if ledgers else None)

    def upsert(self, ledger: Ledger, /) -> None:
        self._state.take_ledger(ledger)

    def delete(self, ledger: Ledger, /) -> None:
        self._state.take_ledger(None)


def _rounded(age: float | None) -> float | None:
    return None if age is None else round(age, 1)
