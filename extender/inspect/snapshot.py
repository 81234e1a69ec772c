"""Reads a snapshot: any ``List`` in JSON, such as ``kubectl get nodes,pods -A -o json`` prints.

Owns what a snapshot may look like and what is said about one that is no good. Needs no cluster and no permission.
"""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from textwrap import shorten
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from extender.inspect.snapshot_time import NodeTimes, kubelet_times, server_times, when_taken
from extender.inspect.text import printable
from extender.kube.karpenter_objects import (
    KARPENTER_API,
    NodeClaimObject,
    NodePoolObject,
    node_claim_from,
    node_pool_from,
)
from extender.kube.lease import LeaseObject, StoredLease, is_of_reapers, stored_lease_of
from extender.kube.ledger_store import COMPONENT_LABEL, LEDGER_LABELS
from extender.kube.objects import Classify, ConfigMapObject, NodeObject, PodObject, ledger_from, node_from, pod_from
from extender.kube.pod_disruption_budgets import PodBudgetObject, pod_budget_from
from extender.kube.reaper_notes import brakes_from
from extender.model import FOREVER, Ledger, Node, NodeClaim, NodePool, Pod, PodBudget
from extender.policy.brakes import BrakeRecord

S = TypeVar("S", bound=Struct)
T = TypeVar("T")

KARPENTER_KINDS = frozenset({"NodeClaim", "NodePool"})
NOT_IN_SNAPSHOT = "not in the snapshot"
REMEDY = "make one with: kubectl get nodes,pods -A -o json > snapshot.json"

_UNREADABLE = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)
"""What a decoder raises: no JSON or another type, no UTF-8, a time outside of the calendar, nested too deeply."""


class SnapshotError(Exception):
    """A snapshot that cannot be read. The message is one line with the remedy, whatever the snapshot holds."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(printable(f"{source}: {shorten(problem, 300)}; {REMEDY}"))


class _HeaderMeta(Struct, frozen=True):
    name: str = ""


class _Header(Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""
    metadata: _HeaderMeta = _HeaderMeta()


class _List(Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""
    items: list[Raw] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at a cluster. ``taken`` is the newest time in it that can be believed, None where it holds no time.

    ``ledger`` is None where the snapshot has none. ``unread`` is why a kind could not be read, by kind, where something
    is known of that. ``brakes`` is what the reaper that leads remembers of its pools, None where nobody says.
    """

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    ledger: Ledger | None
    taken: datetime | None
    node_claims: tuple[NodeClaim, ...] = ()
    node_pools: tuple[NodePool, ...] = ()
    pod_budgets: tuple[PodBudget, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    """What speaks against ``taken``."""
    brakes: Mapping[str, BrakeRecord] | None = None
    only: str | None = None
    """The one namespace whose pods could be read, None where all could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object of a snapshot, not decoded yet. ``name`` is its metadata's."""

    position: int
    name: str
    raw: Raw


class SnapshotObjects:
    """The objects of a List by kind. The kind of what is not Karpenter's, or of a version that is not read, has its
    apiVersion behind it.

    Raises:
        SnapshotError: it is no JSON or no list, or an object in it has no kind that can be read.
    """

    def __init__(self, content: bytes, source: str) -> None:
        self._source = source
        self.of_kind: dict[str, list[Item]] = {}
        listed = _parse_list(content, source)
        of_list = listed.kind.removesuffix("List")
        for position, raw in enumerate(listed.items or ()):
            with self._reading(position):
                header = msgspec.json.decode(raw, type=_Header)
            kind = header.kind or of_list
            if kind in KARPENTER_KINDS and header.api_version not in ("", KARPENTER_API):
                kind = f"{kind} {header.api_version}"
            self.of_kind.setdefault(kind, []).append(Item(position=position, name=header.metadata.name, raw=raw))

    def read(self, kind: str, struct: type[S], trim: Callable[[S], T]) -> list[T]:
        """Decode and reduce the objects of a kind. Raises `SnapshotError`."""
        found = []
        for item in self.of_kind.get(kind, ()):
            with self._reading(item.position):
                found.append(trim(msgspec.json.decode(item.raw, type=struct)))
        return found

    @contextmanager
    def _reading(self, position: int) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            raise SnapshotError(self._source, f"item {position} cannot be read: {error}") from error


def parse_snapshot(content: bytes, classify: Classify, *, source: str) -> Snapshot:
    """Read Nodes, Pods, the ledger, the reapers' Lease, NodeClaims, NodePools and PodDisruptionBudgets out of a List.

    Other kinds are left out. Without Nodes it is what somebody has who may list pods of one namespace.

    Raises:
        SnapshotError: it is no JSON, no list, holds neither Node nor Pod, or an object in it cannot be read.
    """
    return snapshot_of(SnapshotObjects(content, source), classify, source=source)


def snapshot_of(objects: SnapshotObjects, classify: Classify, *, source: str) -> Snapshot:
    """Make a snapshot of objects. Raises `SnapshotError` where there is neither Node nor Pod, or one cannot be read."""
    nodes = objects.read("Node", NodeObject, node_from)
    pods = objects.read("Pod", PodObject, lambda raw: pod_from(raw, classify))
    if not nodes and not pods:
        held = ", ".join(sorted(objects.of_kind)) or "nothing"
        raise SnapshotError(source, f"no Node and no Pod is in it (it holds {held})")
    config_maps = objects.read("ConfigMap", ConfigMapObject, lambda raw: raw)
    leases = objects.read("Lease", LeaseObject, stored_lease_of)
    server = [time for items in objects.of_kind.values() for item in items for time in server_times(item.raw)]
    kubelets: dict[str, list[datetime]] = defaultdict(list)
    for name, times in objects.read("Node", NodeTimes, lambda raw: (raw.metadata.name, list(kubelet_times(raw)))):
        kubelets[name].extend(times)
    for pod in pods:
        if pod.ready_since is not None:
            kubelets[pod.node or ""].append(pod.ready_since)
    marks = [pod.idle_since for pod in pods if pod.idle_since is not None]
    taken = when_taken(server, kubelets, marks, has_nodes=bool(nodes))
    namespaces = {pod.namespace for pod in pods}
    return Snapshot(
        nodes=tuple(nodes),
        pods=tuple(pods),
        ledger=next((ledger_from(each) for each in config_maps if is_ledger(each)), None),
        node_claims=tuple(objects.read("NodeClaim", NodeClaimObject, node_claim_from)),
        node_pools=tuple(objects.read("NodePool", NodePoolObject, node_pool_from)),
        pod_budgets=tuple(objects.read("PodDisruptionBudget", PodBudgetObject, pod_budget_from)),
        brakes=brakes_among(leases) if leases else None,
        taken=taken.at,
        doubts=taken.doubts,
        unread=dict.fromkeys({"Node", "PodDisruptionBudget"} - objects.of_kind.keys(), NOT_IN_SNAPSHOT),
        only=namespaces.pop() if not nodes and len(namespaces) == 1 else None,
    )


def is_ledger(config_map: ConfigMapObject) -> bool:
    """True for a ConfigMap that carries the ledger's labels."""
    return (config_map.metadata.labels or {}).get(COMPONENT_LABEL) == LEDGER_LABELS[COMPONENT_LABEL]


def brakes_among(leases: Iterable[StoredLease]) -> Mapping[str, BrakeRecord] | None:
    """Give what the reaper that leads remembers, by the Lease with the reapers' labels that was renewed last.

    Nothing is remembered where there is none.
    """
    ours = [lease for lease in leases if is_of_reapers(lease) and lease.record.renewed is not None]
    return brakes_from(max(ours, key=lambda lease: lease.record.renewed or FOREVER)) if ours else {}


def _parse_list(content: bytes, source: str) -> _List:
    try:
        text = _utf_8(content).strip()
        if not text:
            raise SnapshotError(source, "it is empty (did kubectl fail?)")
        if not text.startswith(b"{"):
            raise SnapshotError(source, "it is no JSON object (written without -o json?)")
        listed = msgspec.json.decode(text, type=_List)
    except msgspec.ValidationError as error:
        raise SnapshotError(source, f"it is not a Kubernetes list: {error}") from error
    except _UNREADABLE as error:
        more = " (more than one document?)" if "trailing" in str(error) else ""
        raise SnapshotError(source, f"it is not JSON: {error}{more}") from error
    if listed.items is None and not listed.kind.endswith("List"):
        raise SnapshotError(source, f"it is {f'a {listed.kind}' if listed.kind else 'an object'}, not a list")
    return listed


def _utf_8(content: bytes) -> bytes:
    """Take off a byte order mark. PowerShell writes one, and UTF-16 after it."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16").encode()
    return content.removeprefix(codecs.BOM_UTF8)
