"""Reads a snapshot: any ``List`` in JSON, such as ``kubectl get nodes,pods -A -o json`` prints.

Owns what a snapshot may look like and what is said about one that is no good. Needs no cluster and no permission.
"""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
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

    ``ledger`` is None where the snapshot has none; ``kinds`` counts the objects of every kind that it holds.
    ``unread`` is why a kind could not be read, by kind, where something is known of that. ``brakes`` is what the reaper
    that leads remembers of its pools, None where nobody says.
    """

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    ledger: Ledger | None
    kinds: dict[str, int]
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
    kind: str
    name: str
    raw: Raw

    def read(self, struct: type[S], trim: Callable[[S], T], source: str) -> T:
        """Decode and reduce it. Raises `SnapshotError`."""
        try:
            return trim(msgspec.json.decode(self.raw, type=struct))
        except _UNREADABLE as error:
            raise SnapshotError(source, f"item {self.position} cannot be read: {error}") from error


def items_of(content: bytes, source: str) -> Iterator[Item]:
    """Go through the objects of a List. The kind of what is not Karpenter's, or of a version that is not read, has its
    apiVersion behind it.

    Raises:
        SnapshotError: it is no JSON or no list, or an object in it has no kind that can be read.
    """
    listed = _parse_list(content, source)
    of_list = listed.kind.removesuffix("List")
    for position, raw in enumerate(listed.items or ()):
        try:
            header = msgspec.json.decode(raw, type=_Header)
        except _UNREADABLE as error:
            raise SnapshotError(source, f"item {position} cannot be read: {error}") from error
        kind = header.kind or of_list
        if kind in KARPENTER_KINDS and header.api_version not in ("", KARPENTER_API):
            kind = f"{kind} {header.api_version}"
        yield Item(position=position, kind=kind, name=header.metadata.name, raw=raw)


def parse_snapshot(content: bytes, classify: Classify, *, source: str) -> Snapshot:
    """Read Nodes, Pods, the ledger, the reapers' Lease, NodeClaims, NodePools and PodDisruptionBudgets out of a List.

    Other kinds are counted and left out. Without Nodes it is what somebody has who may list pods of one namespace.

    Raises:
        SnapshotError: it is no JSON, no list, holds neither Node nor Pod, or an object in it cannot be read.
    """
    nodes: list[Node] = []
    pods: list[Pod] = []
    ledgers: list[Ledger] = []
    claims: list[NodeClaim] = []
    node_pools: list[NodePool] = []
    leases: list[StoredLease] = []
    pod_budgets: list[PodBudget] = []
    kinds: dict[str, int] = {}
    server: list[datetime] = []
    kubelets: dict[str, list[datetime]] = defaultdict(list)
    for item in items_of(content, source):
        kind, raw = item.kind, item.raw
        try:
            kinds[kind] = kinds.get(kind, 0) + 1
            server.extend(server_times(raw))
            if kind == "Node":
                nodes.append(node_from(msgspec.json.decode(raw, type=NodeObject)))
                kubelets[item.name].extend(kubelet_times(msgspec.json.decode(raw, type=NodeTimes)))
            elif kind == "Pod":
                pods.append(pod_from(msgspec.json.decode(raw, type=PodObject), classify))
            elif kind == "ConfigMap":
                config_map = msgspec.json.decode(raw, type=ConfigMapObject)
                if is_ledger(config_map):
                    ledgers.append(ledger_from(config_map))
            elif kind == "Lease":
                leases.append(stored_lease_of(msgspec.json.decode(raw, type=LeaseObject)))
            elif kind == "NodeClaim":
                claims.append(node_claim_from(msgspec.json.decode(raw, type=NodeClaimObject)))
            elif kind == "NodePool":
                node_pools.append(node_pool_from(msgspec.json.decode(raw, type=NodePoolObject)))
            elif kind == "PodDisruptionBudget":
                pod_budgets.append(pod_budget_from(msgspec.json.decode(raw, type=PodBudgetObject)))
        except _UNREADABLE as error:
            raise SnapshotError(source, f"item {item.position} cannot be read: {error}") from error
    if not nodes and not pods:
        raise SnapshotError(source, f"no Node and no Pod is in it (it holds {', '.join(sorted(kinds)) or 'nothing'})")
    for pod in pods:
        if pod.ready_since is not None:
            kubelets[pod.node or ""].append(pod.ready_since)
    namespaces = {pod.namespace for pod in pods}
    marks = [pod.idle_since for pod in pods if pod.idle_since is not None]
    taken = when_taken(server, kubelets, marks, has_nodes=bool(nodes))
    return Snapshot(
        nodes=tuple(nodes),
        pods=tuple(pods),
        ledger=ledgers[0] if ledgers else None,
        node_claims=tuple(claims),
        node_pools=tuple(node_pools),
        pod_budgets=tuple(pod_budgets),
        kinds=kinds,
        brakes=brakes_among(leases) if leases else None,
        taken=taken.at,
        doubts=taken.doubts,
        unread={} if nodes else {"Node": NOT_IN_SNAPSHOT},
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
