"""Which collections feed the state: nodes, pods, the ledger, and Karpenter's objects where there are any.

Owns the reflectors and what can be said about them: loaded, fresh, or what is in the way. Decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from random import Random
from typing import TypeAlias, TypeVar

from msgspec import Struct

from extender.cluster.state import ClusterState
from extender.kube.karpenter_objects import (
    NODE_CLAIMS_PATH,
    NODE_POOLS_PATH,
    NodeClaimObject,
    NodePoolObject,
    node_claim_from,
    node_pool_from,
)
from extender.kube.objects import Classify, ConfigMapObject, NodeObject, PodObject, ledger_from, node_from, pod_from
from extender.kube.watch import CallingSink, ListWatchClient, Reflector, Sink, WatchObserver
from extender.model import Departure, Ending, Ledger, Node, NodeClaim, NodePool, Pod
from extender.telemetry import Figure, Metrics

S = TypeVar("S", bound=Struct)
T = TypeVar("T")

NODES = "nodes"
PODS = "pods"
LEDGER = "ledger"
NODE_CLAIMS = "nodeclaims"
NODE_POOLS = "nodepools"
OPTIONAL = frozenset({NODE_CLAIMS, NODE_POOLS})
"""Karpenter's: absent without it, or forbidden. Without them less is known about leaving nodes, and nothing waits."""
PATIENCE = timedelta(seconds=5)
"""How long the first answer waits for an optional collection that is neither there nor missing: a broken one."""
STALE = timedelta(minutes=2)
"""A watch hears a bookmark about each minute; after two minutes of silence it is not to be relied on."""
FRESH = timedelta(seconds=90)
"""For what cannot be taken back: a watch that hears nothing is ended after 75 s at most, and 15 s more."""
CAUGHT_UP = timedelta(seconds=1)
"""After a watch is opened, for what has happened before: it is sent at once."""

Required: TypeAlias = Reflector[NodeObject, Node] | Reflector[PodObject, Pod] | Reflector[ConfigMapObject, Ledger]
Optional: TypeAlias = Reflector[NodeClaimObject, NodeClaim] | Reflector[NodePoolObject, NodePool]


class ClusterFeed:
    """Keeps a state equal to the cluster. ``ledger`` is (namespace, name), None where ages need no ledger.

    ``classify`` may be replaced; then call `list_pods_again`, for what a pod belongs to is decided when it is read.
    """

    def __init__(
        self,
        client: ListWatchClient,
        state: ClusterState,
        *,
        classify: Classify,
        ledger: tuple[str, str] | None,
        observer: WatchObserver,
        bound: Callable[[Pod], None] = lambda pod: None,
        changed: Callable[[Pod], None] = lambda pod: None,
    ) -> None:
        self.classify = classify

        def follow(
            name: str, path: str, struct: type[S], trim: Callable[[S], T], sink: Sink[T], *, field_selector: str = ""
        ) -> Reflector[S, T]:
            return Reflector(
                client,
                path=path,
                field_selector=field_selector,
                struct=struct,
                trim=trim,
                sink=sink,
                name=name,
                random=Random(),  # noqa: S311 - jitter
                observer=observer,
                forgets_missing=name in OPTIONAL,
                forgets_after=STALE if name == NODE_CLAIMS else None,
            )

        objects = state.objects
        nodes = CallingSink(state.replace_nodes, state.upsert_node, state.delete_node)
        claims = CallingSink(state.replace_node_claims, state.upsert_node_claim, state.delete_node_claim)
        node_pools = CallingSink(objects.replace_node_pools, objects.put_node_pool, objects.take_node_pool)
        pods = _PodSink(state, bound, changed)
        self.nodes = follow(NODES, "/api/v1/nodes", NodeObject, node_from, nodes)
        self.pods = follow(PODS, "/api/v1/pods", PodObject, lambda raw: pod_from(raw, self.classify), pods)
        self.ledger: Reflector[ConfigMapObject, Ledger] | None = None
        if ledger is not None:
            path, selector = f"/api/v1/namespaces/{ledger[0]}/configmaps", f"metadata.name={ledger[1]}"
            sink: CallingSink[Ledger] = CallingSink(
                lambda ledgers: state.take_ledger(ledgers[0] if ledgers else None),
                state.take_ledger,
                lambda ledger: state.take_ledger(None),
            )
            self.ledger = follow(LEDGER, path, ConfigMapObject, ledger_from, sink, field_selector=selector)
        self.node_claims = follow(NODE_CLAIMS, NODE_CLAIMS_PATH, NodeClaimObject, node_claim_from, claims)
        self.node_pools = follow(NODE_POOLS, NODE_POOLS_PATH, NodePoolObject, node_pool_from, node_pools)
        self._state = state

    @property
    def required(self) -> tuple[Required, ...]:
        """The reflectors without which nothing is decided. (The ledger may be missing: see `begin`.)"""
        return (self.nodes, self.pods) if self.ledger is None else (self.nodes, self.pods, self.ledger)

    @property
    def optional(self) -> tuple[Optional, ...]:
        """The reflectors of Karpenter's objects: whatever happens to them, everything else goes on."""
        return (self.node_claims, self.node_pools)

    @property
    def reflectors(self) -> tuple[Required | Optional, ...]:
        """All reflectors, to be run by the caller."""
        return (*self.required, *self.optional)

    async def begin(self) -> None:
        """Wait until everything is loaded, then let the state answer.

        A ledger that may not be read counts as none: the webhook goes by creation order, and a reason says so. What is
        optional is waited for until it is there or missing, and at most for five seconds in all.
        """
        await self.nodes.synced_event.wait()
        await self.pods.synced_event.wait()
        if self.ledger is not None:
            await self.ledger.settled_event.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE.total_seconds()):
                for reflector in self.optional:
                    await reflector.settled_event.wait()
        self._state.begin(may_have_ledger=self.ledger is not None and not self.ledger.synced)

    def list_pods_again(self) -> None:
        """Read all pods once more, with the present ``classify``."""
        self.pods.relist()

    def ages(self) -> dict[str, float | None]:
        """Say how long ago each collection was last heard of, in seconds; None: never, or optional and missing."""
        now = asyncio.get_running_loop().time()
        return {
            r.name: None if r.last_contact is None or (r.missing and r.name in OPTIONAL) else now - r.last_contact
            for r in self.reflectors
        }

    def is_fresh(self) -> bool:
        """True while what an eviction is decided on is not stale: all is loaded, all watches are open, none is silent.

        While a watch is broken, others may take work or go, and the floor would be kept with workers that are no more.
        A ledger that cannot be read makes it false: ages would be guesses. Karpenter's objects do not count. NodePools
        can only keep workers from being evicted; NodeClaims say that a node is leaving, where no floor is kept, and are
        forgotten when they cannot be read for two minutes.
        """
        now = asyncio.get_running_loop().time()
        return all(
            reflector.synced
            and reflector.following_since is not None
            and now - reflector.following_since >= CAUGHT_UP.total_seconds()
            and now - (reflector.last_contact or 0) <= FRESH.total_seconds()
            for reflector in self.required
        )

    def reasons(self) -> list[str]:
        """Say why the state is not to be relied on; empty when it is. Neither ledger nor optional ones are a reason."""
        reasons = []
        ages = self.ages()
        for reflector in (self.nodes, self.pods):
            age = ages[reflector.name]
            if not reflector.synced:
                reasons.append(f"{reflector.name}: not listed yet{_because(reflector.problem)}")
            elif age is not None and age > STALE.total_seconds():
                reasons.append(f"{reflector.name}: nothing heard for {age:.0f} s{_because(reflector.problem)}")
        if not reasons and not self._state.synced:
            reasons.append(f"{LEDGER}: not loaded yet{_because(self.ledger.problem if self.ledger else None)}")
        return reasons

    def shown(self) -> dict[str, dict[str, object]]:
        """Show each collection: synced, age in seconds, if a watch is open, problem, if readiness does not need it."""
        ages = self.ages()
        return {
            r.name: {
                "synced": r.synced and not (r.missing and r.name in OPTIONAL),
                "ageSeconds": _rounded(ages[r.name]),
                "following": r.following_since is not None,
                "problem": r.problem,
                "optional": r.name in OPTIONAL,
            }
            for r in self.reflectors
        }

    def figures(self, metrics: Metrics, now: datetime) -> Iterator[Figure]:
        """Count what is known, for a scrape."""
        nodes = dict.fromkeys(("seen", "unseen", "ending", "leaving"), 0)
        leaving, ending = Counter[str](), Counter[str]()
        preference = self._state.ranking.as_of(now)
        for name, key in self._state.order.items():
            preferred = preference.get(name)
            if preferred is None:
                nodes["leaving"] += 1
                leaving[self._state.departure(name) or ""] += 1
            elif preferred[0]:
                nodes["ending"] += 1
                ending[self._state.ranking.ending(name, now) or ""] += 1
            else:
                nodes["unseen" if key[0] else "seen"] += 1
        ledger = self._state.ages.ledger or Ledger(first_seen={})
        for metric, counts in (
            (metrics.collection_age, {name: age for name, age in self.ages().items() if age is not None}),
            (metrics.collection_missing, {r.name: r.missing for r in self.reflectors}),
            (metrics.nodes, nodes),
            (metrics.leaving_nodes, {reason: leaving[reason] for reason in Departure}),
            (metrics.ending_nodes, {reason: ending[reason] for reason in Ending}),
            (metrics.workers, self._state.where.placed),
        ):
            for label, count in counts.items():
                yield Figure(metric, (label,), count)
        keys = self._state.keys
        for metric, value in (
            (metrics.synced, self._state.synced),
            (metrics.pods, len(self._state.pods)),
            (metrics.ledger_entries, len(ledger.first_seen)),
            (metrics.ledger_bytes, ledger.size_bytes),
            (metrics.ledger_ignored, len(ledger.ignored)),
            (metrics.cache_keys, len(keys.history)),
            (metrics.cache_keys_forgotten, keys.history.forgotten),
            (metrics.cache_key_changes, keys.changes),
        ):
            yield Figure(metric, (), value)


class _PodSink:
    """Feeds pods, and tells of each worker that an event shows changed, or bound for the first time."""

    def __init__(self, state: ClusterState, bound: Callable[[Pod], None], changed: Callable[[Pod], None]) -> None:
        self.delete = state.delete_pod
        self._state = state
        self._bound = bound
        self._changed = changed

    def replace(self, pods: list[Pod], /) -> None:
        before = self._state.pods
        self._state.replace_pods(pods)
        for pod in pods:
            self._tell_bound(pod, before.get(pod.uid))

    def upsert(self, pod: Pod, /) -> None:
        self._tell_bound(pod, self._state.pods.get(pod.uid))
        if self._state.take_event(pod) and pod.pool is not None:
            self._changed(pod)

    def _tell_bound(self, pod: Pod, known: Pod | None) -> None:
        if pod.pool is not None and pod.node is not None and known is not None and known.node is None:
            self._bound(pod)


def _because(problem: str | None) -> str:
    return f" ({problem})" if problem else ""


def _rounded(age: float | None) -> float | None:
    return None if age is None else round(age, 1)
