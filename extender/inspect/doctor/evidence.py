"""What a diagnosis is made from: one look at a cluster, reduced to what checks need.

Owns the values. A collection that could not be read is empty, and `Evidence.unread` says why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from extender.inspect.doctor.scheduler_config import SchedulerConfig
from extender.model import Ledger, Node, NodeClaim, NodePool, Pod, PodBudget
from extender.policy.brakes import BrakeRecord
from extender.policy.election import LeaseRecord
from extender.policy.node_pool_budgets import Kept
from extender.policy.resources import Resources
from extender.policy.scheduler_silence import WebhookRecord
from extender.settings import Configuration, PoolSettings
from extender.settings.in_force import InForce

NOT_HERE = "not in this cluster"
"""What `Evidence.unread` says of a kind that the API server does not know."""


class Kind(StrEnum):
    """What is looked at. The values are shown where one cannot be."""

    NODES = "nodes"
    PODS = "pods"
    CONFIG_MAPS = "configmaps"
    SETTINGS = "warmnode's settings"
    LEASES = "leases"
    DISRUPTION_BUDGETS = "poddisruptionbudgets"
    NODE_POOLS = "nodepools.karpenter.sh"
    NODE_CLAIMS = "nodeclaims.karpenter.sh"
    NODE_EVENTS = "events of nodes"
    NODE_LEASES = "leases of nodes"
    ACCESS_REVIEWS = "access reviews"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a pod needs of a node: what kube-scheduler holds against nodes, as far as its spec says it.

    ``tolerations``, ``affinity`` and ``spread`` are as they stand, empty where there is none.
    """

    requests: Resources = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: frozenset[bytes] = frozenset()
    affinity: bytes = b""
    spread: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """A worker, with what the rest of warmnode does not keep of a pod.

    ``idle_mark`` is the annotation as it stands, None where there is none; ``scheduled`` when it got its node;
    ``resources`` the names that its containers request; ``cost_writer`` who wrote a deletion cost that is not ours.
    ``unscheduled_message`` is what its scheduler says of why it has no node. ``needs`` is known of workers that wait
    for a node or are idle.
    ``is_seen``: some scheduler has looked at it, and says that it has a node or why it has none.
    """

    pod: Pod
    labels: Mapping[str, str] = field(default_factory=dict)
    idle_mark: str | None = None
    scheduled: datetime | None = None
    is_seen: bool = True
    resources: frozenset[str] = frozenset()
    cost_writer: str | None = None
    unscheduled_message: str | None = None
    needs: Needs | None = None

    def __str__(self) -> str:
        return f"{self.pod.namespace}/{self.pod.name}"


def by_pool(workers: Iterable[WorkerFacts]) -> dict[str, list[WorkerFacts]]:
    """Group workers, pools by name."""
    grouped: dict[str, list[WorkerFacts]] = defaultdict(list)
    for each in workers:
        grouped[each.pod.pool or ""].append(each)
    return dict(sorted(grouped.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A container of a pod with warmnode's or Karpenter's label ``app.kubernetes.io/name``. ``name`` is the pod's.

    ``service_account`` is whose token is mounted into the container, which need not be the pod's; None: not known.
    A variable of ``environment`` is None where its value stands in another object.
    """

    namespace: str
    name: str
    program: str
    service_account: str | None = "default"
    image: str = ""
    version_label: str = ""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)

    def runs(self, role: str) -> bool:
        """True for a warmnode that has this role: ``run`` has all of them."""
        return self.program == "warmnode" and not {role, "run"}.isdisjoint(self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """Somebody's clock against the API server's. ``ahead`` is positive where it is fast, good to a second.

    ``is_ours``: of the machine where doctor runs, which need not be one that runs warmnode.
    """

    whose: str
    ahead: timedelta
    is_ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingAccess:
    """A request that the API server would refuse. ``who`` is a service account, or "you"."""

    who: str
    duty: str
    access: str
    why: str
    optional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessFacts:
    """What was reviewed: for whom, and what is missing. ``is_installed``: these are the ones that run warmnode.

    ``not_asked`` are pods that run warmnode too, as somebody who is not known.
    """

    asked_for: tuple[str, ...]
    not_asked: tuple[str, ...] = ()
    missing: tuple[MissingAccess, ...] = ()
    is_installed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class KarpenterFacts:
    """Karpenter as far as it shows. ``version`` is (major, minor), None where only ``has_balanced`` is known; ``where``
    says in words where it stands.

    ``has_balanced``: the NodePool CRD knows the policy Balanced, which came with 1.14; None: not looked at.
    ``feature_gates`` None: no pod was seen, or what it was told stands elsewhere. ``is_running``: a pod was seen.
    """

    version: tuple[int, int] | None = None
    where: str = ""
    has_balanced: bool | None = None
    feature_gates: Mapping[str, bool] | None = None
    is_running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptNode:
    """A node that Karpenter would not take: with workers, or empty (``workers`` 0) although it could have been taken.

    ``kept`` None: nothing is known to keep it. ``said`` is what Karpenter said last of it, None where it said nothing.
    """

    name: str
    workers: int
    kept: Kept | None
    said: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenConfiguration:
    """Which configuration the checks go by. ``source`` in words; ``is_default``: none was found.

    ``problem`` is what is wrong with an installed one, in whose place the defaults stand.
    """

    in_force: InForce
    source: str
    problem: str | None = None
    is_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One look at a cluster at ``now``, which is the API server's time where it is known.

    ``scheduler_version`` is kube-scheduler's (major, minor), None where it is not known. ``node_claims`` are by UID.
    ``leader`` is the Lease of the reapers, and ``brakes`` what the one that leads remembers of its pools, None where it
    does not say. ``access`` and ``clocks`` None: nobody was asked.
    """

    now: datetime
    namespace: str
    configuration: ChosenConfiguration
    nodes: Sequence[Node] = ()
    workers: Sequence[WorkerFacts] = ()
    programs: Sequence[Program] = ()
    ledger: Ledger | None = None
    scheduler_configs: Sequence[SchedulerConfig] = ()
    scheduler_config_problem: str | None = None
    scheduler_version: tuple[int, int] | None = None
    webhook: WebhookRecord | None = None
    leader: LeaseRecord | None = None
    brakes: Mapping[str, BrakeRecord] | None = None
    budgets: Sequence[PodBudget] = ()
    node_pools: Sequence[NodePool] = ()
    kept_nodes: Sequence[KeptNode] = ()
    node_claims: Mapping[str, NodeClaim] = field(default_factory=dict)
    karpenter: KarpenterFacts = KarpenterFacts()
    access: AccessFacts | None = None
    clocks: Sequence[ClockReading] | None = None
    unread: Mapping[Kind, str] = field(default_factory=dict)

    @property
    def settings(self) -> Configuration:
        return self.configuration.in_force.configuration

    @property
    def schedulers(self) -> frozenset[str]:
        return frozenset(self.settings.webhook.schedulers)

    @property
    def last_call(self) -> datetime | None:
        """When a scheduler last called, None where that is not known."""
        return None if self.webhook is None else self.webhook.last_call

    def of_pool(self, name: str | None) -> PoolSettings:
        return self.configuration.in_force.settings(name or "")

    def why_unread(self, *kinds: Kind) -> str | None:
        """Say why the first of these kinds that could not be read was not; None: all were."""
        return next((f"{kind} were not read ({self.unread[kind]})" for kind in kinds if kind in self.unread), None)
