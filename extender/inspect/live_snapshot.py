"""Takes a snapshot of the live cluster: one list of nodes, one of pods, the ledger, wherever it is installed, and
Karpenter's objects, where they are there and may be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import quote

import msgspec

from extender.inspect.snapshot import Snapshot, brakes_among
from extender.kube.api_client import KubeClient
from extender.kube.errors import Forbidden, KubeError, NotFound
from extender.kube.karpenter_objects import (
    NODE_CLAIMS_PATH,
    NODE_POOLS_PATH,
    NodeClaimObject,
    NodePoolObject,
    node_claim_from,
    node_pool_from,
)
from extender.kube.lease import LEASE_LABELS, LeaseObject, LeaseStore, stored_lease_of
from extender.kube.ledger_store import LEDGER_LABELS, LedgerStore
from extender.kube.listing import list_objects
from extender.kube.objects import Classify, ConfigMapObject, NodeObject, PodObject, ledger_from, node_from, pod_from
from extender.kube.pod_disruption_budgets import POD_BUDGETS_PATH, PodBudgetObject, pod_budget_from
from extender.kube.reaper_notes import brakes_from
from extender.model import Ledger, Pod, PodBudget
from extender.policy.brakes import BrakeRecord

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSnapshot:
    """A snapshot and, in words, where its ledger was found or why there is none."""

    snapshot: Snapshot
    ledger_note: str


async def take_snapshot(
    client: KubeClient, classify: Classify, *, namespace: str, ledger_name: str, lease_name: str, home: str
) -> LiveSnapshot:
    """List nodes and pods, read the ledger and the reapers' Lease. Where one may not list all pods, those of ``home``.

    Raises:
        KubeError: no pods may be listed, or nodes or pods cannot be.
    """
    unread: dict[str, str] = {}
    pods, only = await _list_pods(client, classify, home)
    try:
        nodes = await list_objects(client, "/api/v1/nodes", NodeObject, node_from)
    except Forbidden as error:
        nodes, unread["Node"] = [], str(error)
    ledger = await find_ledger(client, namespace=namespace, name=ledger_name)
    claims = await _list_optional(client, NODE_CLAIMS_PATH, NodeClaimObject, node_claim_from, "NodeClaim", unread)
    node_pools = await _list_optional(client, NODE_POOLS_PATH, NodePoolObject, node_pool_from, "NodePool", unread)
    beside = await read_beside(client, namespace=namespace, lease_name=lease_name)
    unread.update(beside.unread)
    counts = {
        "Node": len(nodes),
        "Pod": len(pods),
        "NodeClaim": len(claims),
        "NodePool": len(node_pools),
        "PodDisruptionBudget": len(beside.pod_budgets),
    }
    return LiveSnapshot(
        snapshot=Snapshot(
            nodes=tuple(nodes),
            pods=tuple(pods),
            ledger=ledger.ledger,
            node_claims=tuple(claims),
            node_pools=tuple(node_pools),
            pod_budgets=beside.pod_budgets,
            kinds={kind: count for kind, count in counts.items() if kind not in unread},
            taken=server_time(client),
            unread=unread,
            brakes=beside.brakes,
            only=only,
        ),
        ledger_note=ledger.note,
    )


async def _list_pods(client: KubeClient, classify: Classify, home: str) -> tuple[list[Pod], str | None]:
    """List all pods, or those of ``home`` for somebody who may not: then its name is the second value."""
    for namespace in (None, home):
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods" if namespace else "/api/v1/pods"
        try:
            return await list_objects(client, path, PodObject, lambda raw: pod_from(raw, classify)), namespace
        except Forbidden as error:
            refused = error
    raise refused


def server_time(client: KubeClient) -> datetime:
    """Say how late it is by the API server's clock, as far as it has answered."""
    return datetime.now(UTC) + (client.clock_skew or timedelta(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBeside:
    """What a judgement goes by beside nodes and pods. ``unread`` is why a kind could not be read, by kind."""

    brakes: Mapping[str, BrakeRecord] | None
    pod_budgets: tuple[PodBudget, ...]
    unread: Mapping[str, str]


async def read_beside(client: KubeClient, *, namespace: str, lease_name: str) -> ReadBeside:
    """Read the reapers' Lease and PodDisruptionBudgets, as far as they are there and may be read."""
    unread: dict[str, str] = {}
    brakes = await _find_brakes(client, namespace, lease_name, unread)
    pod_budgets = await _list_optional(
        client, POD_BUDGETS_PATH, PodBudgetObject, pod_budget_from, "PodDisruptionBudget", unread
    )
    return ReadBeside(brakes=brakes, pod_budgets=tuple(pod_budgets), unread=unread)


async def _list_optional(
    client: KubeClient, path: str, struct: type[S], trim: Callable[[S], T], kind: str, unread: dict[str, str]
) -> list[T]:
    """List a collection that need not be there. Why it could not be read goes into ``unread``."""
    try:
        return await list_objects(client, path, struct, trim)
    except KubeError as error:
        unread[kind] = "not in this cluster" if isinstance(error, NotFound) else str(error)
        return []


async def _find_brakes(
    client: KubeClient, namespace: str, name: str, unread: dict[str, str]
) -> Mapping[str, BrakeRecord] | None:
    """Read what the reaper that leads remembers: by the Lease of ``namespace``, else by the one that carries our labels
    in any namespace."""
    try:
        lease = await LeaseStore(client, namespace=namespace, name=name).read()
        if lease is not None:
            return brakes_from(lease)
        return brakes_among(
            await list_objects(
                client,
                "/apis/coordination.k8s.io/v1/leases",
                LeaseObject,
                stored_lease_of,
                label_selector=",".join(f"{key}={value}" for key, value in LEASE_LABELS.items()),
            )
        )
    except KubeError as error:
        unread["Lease"] = str(error)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLedger:
    """A ledger, its namespace and name, and in words where it was found. ``ledger`` None: the note says why."""

    ledger: Ledger | None
    place: tuple[str, str]
    note: str


async def find_ledger(client: KubeClient, *, namespace: str, name: str) -> FoundLedger:
    """Read the ledger of ``namespace``, else the one that carries our labels in any namespace."""
    here = (namespace, name)
    try:
        ledger = await LedgerStore(client, namespace=namespace, name=name).read()
        if ledger is not None:
            return FoundLedger(ledger=ledger, place=here, note=f"ledger {namespace}/{name}")
        found = await list_objects(
            client,
            "/api/v1/configmaps",
            ConfigMapObject,
            lambda raw: (raw.metadata.namespace, raw.metadata.name, ledger_from(raw)),
            label_selector=",".join(f"{key}={value}" for key, value in LEDGER_LABELS.items()),
        )
    except Forbidden as error:
        return FoundLedger(ledger=None, place=here, note=f"no ledger was read ({error})")
    if not found:
        note = f"no ledger in namespace {namespace}, nor an installed one in any other"
        return FoundLedger(ledger=None, place=here, note=note)
    where, what, ledger = min(found, key=lambda entry: entry[:2])
    return FoundLedger(ledger=ledger, place=(where, what), note=f"ledger {where}/{what}")
