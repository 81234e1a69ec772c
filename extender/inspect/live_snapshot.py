"""Takes a snapshot of the live cluster: one list of nodes, one of pods, the ledger, wherever it is installed, and
Karpenter's objects, where they are there and may be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Generic, TypeVar

import msgspec

from extender.inspect.doctor.evidence import NOT_HERE
from extender.inspect.snapshot import Snapshot, brakes_among
from extender.kube.annotate import pods_path
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

K = TypeVar("K", bound=str)
S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


class Looking(Generic[K]):
    """Lists collections. Where one cannot be listed it is empty, and ``unread`` says why, by kind."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        self.unread: dict[K, str] = {}
        self.last_error: KubeError | None = None

    async def look(self, kind: K, path: str, struct: type[S], trim: Callable[[S], T]) -> tuple[T, ...]:
        try:
            return tuple(await list_objects(self.client, path, struct, trim))
        except KubeError as error:
            self.unread[kind] = NOT_HERE if isinstance(error, NotFound) else str(error)
            self.last_error = error
            return ()


async def take_snapshot(
    client: KubeClient, classify: Classify, *, namespace: str, ledger_name: str, lease_name: str, home: str
) -> tuple[Snapshot, str]:
    """List nodes and pods, read the ledger and the reapers' Lease. Where one may not list all pods, those of ``home``.

    The second value says in words where the ledger was found, or why there is none.

    Raises:
        KubeError: no pods may be listed, or nodes or pods cannot be.
    """
    looking = Looking[str](client)
    pods, only = await _list_pods(client, classify, home)
    try:
        nodes = await list_objects(client, "/api/v1/nodes", NodeObject, node_from)
    except Forbidden as error:
        nodes, looking.unread["Node"] = [], str(error)
    ledger = await find_ledger(client, namespace=namespace, name=ledger_name)
    claims = await looking.look("NodeClaim", NODE_CLAIMS_PATH, NodeClaimObject, node_claim_from)
    node_pools = await looking.look("NodePool", NODE_POOLS_PATH, NodePoolObject, node_pool_from)
    beside = await read_beside(client, namespace=namespace, lease_name=lease_name)
    snapshot = Snapshot(
        nodes=tuple(nodes),
        pods=tuple(pods),
        ledger=ledger.ledger,
        node_claims=claims,
        node_pools=node_pools,
        pod_budgets=beside.pod_budgets,
        taken=server_time(client),
        unread={**looking.unread, **beside.unread},
        brakes=beside.brakes,
        only=only,
    )
    return snapshot, ledger.note


async def _list_pods(client: KubeClient, classify: Classify, home: str) -> tuple[list[Pod], str | None]:
    """List all pods, or those of ``home`` for somebody who may not: then its name is the second value."""
    trim = partial(pod_from, classify=classify)
    try:
        return await list_objects(client, pods_path(None), PodObject, trim), None
    except Forbidden:
        return await list_objects(client, pods_path(home), PodObject, trim), home


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
    looking, brakes = Looking[str](client), None
    pod_budgets = await looking.look("PodDisruptionBudget", POD_BUDGETS_PATH, PodBudgetObject, pod_budget_from)
    try:
        brakes = await _find_brakes(client, namespace, lease_name)
    except KubeError as error:
        looking.unread["Lease"] = str(error)
    return ReadBeside(brakes=brakes, pod_budgets=pod_budgets, unread=looking.unread)


async def _find_brakes(client: KubeClient, namespace: str, name: str) -> Mapping[str, BrakeRecord] | None:
    """Read what the reaper that leads remembers: by the Lease of ``namespace``, else by the one that carries our labels
    in any namespace."""
    lease = await LeaseStore(client, namespace=namespace, name=name).read()
    if lease is not None:
        return brakes_from(lease)
    path, labels = "/apis/coordination.k8s.io/v1/leases", selector_of(LEASE_LABELS)
    return brakes_among(await list_objects(client, path, LeaseObject, stored_lease_of, label_selector=labels))


def selector_of(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


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
            label_selector=selector_of(LEDGER_LABELS),
        )
    except Forbidden as error:
        return FoundLedger(ledger=None, place=here, note=f"no ledger was read ({error})")
    if not found:
        note = f"no ledger in namespace {namespace}, nor an installed one in any other"
        return FoundLedger(ledger=None, place=here, note=note)
    where, what, ledger = min(found, key=lambda entry: entry[:2])
    return FoundLedger(ledger=ledger, place=(where, what), note=f"ledger {where}/{what}")
