"""What a diagnosis is made from: one look at a cluster, reduced to what checks need.

Owns the values. A collection that could not be read is None, never empty, and `Evidence.unread` says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from extender.inspect.doctor.pod_fit import Needs
from extender.model import AgeSource, Ledger, Node, NodeClaim, NodePool, Pod, Selector
from extender.policy.brakes import BrakeRecord
from extender.policy.node_pool_budgets import Kept
from extender.policy.scheduler_silence import WebhookRecord


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
    running: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Extender:
    """One entry of ``extenders``. Verbs are empty where they are not set. ``timeout`` None: kube-scheduler's 5 s.

    ``insecure``, ``has_ca``: its ``tlsConfig`` says so, or holds a CA.
    """

    url: str
    prioritize_verb: str = ""
    preempt_verb: str = ""
    filter_verb: str = ""
    bind_verb: str = ""
    weight: int = 0
    node_cache_capable: bool = False
    ignorable: bool = False
    timeout: timedelta | None = None
    managed_resources: tuple[str, ...] = ()
    enable_https: bool = False
    insecure: bool = False
    has_ca: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One profile. ``score_weights`` are the score plugins' weights by name, defaults included.

    ``percentage`` is its own percentageOfNodesToScore, None where the global one counts.
    ``preemption_percentage`` is minCandidateNodesPercentage of DefaultPreemption.
    """

    scheduler_name: str
    score_weights: Mapping[str, int]
    percentage: int | None = None
    preemption_percentage: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """A KubeSchedulerConfiguration. ``source`` says in words where it was found. ``percentage`` 0: kube-scheduler's own
    choice. ``lease`` is the one that it leads by, as namespace/name, None: it does not elect a leader.
    """

    source: str
    api_version: str
    profiles: tuple[Profile, ...]
    extenders: tuple[Extender, ...] = ()
    percentage: int = 0
    lease: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderFacts:
    """What the Lease of the reapers says. ``holder`` empty: nobody leads. ``brakes`` is what the one that leads
    remembers of its pools, None where it does not say."""

    holder: str
    renewed: datetime | None
    duration: timedelta | None = None
    brakes: Mapping[str, BrakeRecord] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """Somebody's clock against the API server's. ``ahead`` is positive where it is fast, good to a second.

    ``is_ours``: of the machine where doctor runs, which need not be one that runs warmnode.
    """

    whose: str
    ahead: timedelta
    is_ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionBudgetFacts:
    """A PodDisruptionBudget. ``selector`` None selects nothing.

    What the disruption controller says of it is None where it has not looked yet: how many evictions it allows now, how
    many of how many pods are healthy, and how many have to be.
    """

    namespace: str
    name: str
    selector: Selector | None
    min_available: str | None = None
    max_unavailable: str | None = None
    allowed: int | None = None
    expected: int | None = None
    healthy: int | None = None
    desired: int | None = None


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


class Sureness(StrEnum):
    """How a version is known: from the program that runs, from its labels, or from the CRDs that are installed."""

    IMAGE = "image"
    LABEL = "label"
    SCHEMA = "schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class KarpenterFacts:
    """Karpenter as far as it shows. ``version`` is (major, minor), None where only ``has_balanced`` is known.

    ``has_balanced``: the NodePool CRD knows the policy Balanced, which came with 1.14; None: not looked at.
    ``feature_gates`` None: no pod was seen, or what it was told stands elsewhere. ``is_running``: a pod was seen.
    """

    version: tuple[int, int] | None = None
    sureness: Sureness | None = None
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
    node_pool: str
    workers: int
    kept: Kept | None
    said: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """What is set for a pool."""

    reap_enabled: bool
    floor: int
    deletion_costs: bool
    dry_run: bool
    shadow: bool = False
    pending_for: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationFacts:
    """Which configuration the checks go by. ``source`` in words; ``problem`` is what is wrong with an installed one."""

    source: str
    problem: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One look at a cluster at ``now``, which is the API server's time where it is known.

    ``scheduler_version`` is kube-scheduler's (major, minor), None where it is not known. ``node_claims`` are by UID.
    """

    now: datetime
    namespace: str
    age: AgeSource
    schedulers: frozenset[str]
    ledger_name: str
    webhook_lease: str
    leader_lease: str
    configuration: ConfigurationFacts
    nodes: tuple[Node, ...] | None = None
    workers: tuple[WorkerFacts, ...] | None = None
    programs: tuple[Program, ...] | None = None
    pools: Mapping[str, PoolFacts] = field(default_factory=dict)
    ledger: Ledger | None = None
    scheduler_configs: tuple[SchedulerConfig, ...] = ()
    scheduler_config_problem: str | None = None
    scheduler_version: tuple[int, int] | None = None
    webhook: WebhookRecord | None = None
    leader: LeaderFacts | None = None
    budgets: tuple[DisruptionBudgetFacts, ...] | None = None
    node_pools: tuple[NodePool, ...] | None = None
    kept_nodes: tuple[KeptNode, ...] | None = None
    node_claims: Mapping[str, NodeClaim] = field(default_factory=dict)
    karpenter: KarpenterFacts = KarpenterFacts()
    access: AccessFacts | None = None
    clocks: tuple[ClockReading, ...] | None = None
    unread: Mapping[Kind, str] = field(default_factory=dict)

    def why_unread(self, *kinds: Kind) -> str | None:
        """Say why the first of these kinds that could not be read was not; None: all were."""
        return next((f"{kind} were not read ({self.unread[kind]})" for kind in kinds if kind in self.unread), None)
