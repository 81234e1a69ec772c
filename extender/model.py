"""The values that everything else is written in: nodes, pods, pools and what is known about them.

Owns the vocabulary. Does no I/O, reads no clock and no JSON: `kube.objects` makes these values from API objects, and
`policy` decides on them. Times are aware UTC datetimes; identity is a UID, never a name alone.

What is kept by the thousand (nodes, pods, their claims) is a struct with ``gc=False``: the garbage collector does not
look through it, so its fields hold nothing that could lead back to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Literal, TypeAlias

from msgspec import Struct

OrderKey: TypeAlias = tuple[int, int, int, str]
"""(0 seen | 1 not seen yet, minute or second of the epoch, slot, UID): smaller is older. From `policy.ages`."""

FOREVER = datetime.max.replace(tzinfo=UTC)


def later(time: datetime, by: timedelta) -> datetime:
    """Add, up to the end of time."""
    try:
        return time + by
    except OverflowError:
        return FOREVER


class Departure(StrEnum):
    """Why a node is *leaving*: certain and soon. It scores nothing and nothing is claimed there.

    The last four are taints of others than Karpenter: `kube.objects.LEAVING_TAINTS`.
    """

    NODE_DELETING = "nodeDeleting"
    DISRUPTED = "disrupted"
    CORDONED = "cordoned"
    NODE_CLAIM_DELETING = "nodeClaimDeleting"
    INSTANCE_TERMINATING = "instanceTerminating"
    DISRUPTION_REASON = "disruptionReason"
    TERMINATION_TIMESTAMP = "terminationTimestamp"
    OUT_OF_SERVICE = "outOfService"
    SHUT_DOWN = "shutDown"
    TERMINATION_NOTICE = "terminationNotice"
    CLUSTER_AUTOSCALER = "clusterAutoscaler"


class Ending(StrEnum):
    """Why a node is *ending*: known to go, but not soon. It is ranked after all others and never refused.

    One that is not heard of, or reboots, may come back: nobody is claimed there meanwhile.
    """

    WORKERS_TERMINATING = "workersTerminating"
    EXPIRES_SOON = "expiresSoon"
    DRIFTED = "drifted"
    NOT_HEARD_OF = "notHeardOf"
    REBOOTING = "rebooting"
    DELETION_CANDIDATE = "deletionCandidate"
    REBALANCE_RECOMMENDED = "rebalanceRecommended"


class NodeClaimCondition(StrEnum):
    """Conditions of a NodeClaim that decisions need. Karpenter removes Consolidatable instead of setting it False."""

    INITIALIZED = "Initialized"
    CONSOLIDATABLE = "Consolidatable"
    DRIFTED = "Drifted"
    DISRUPTION_REASON = "DisruptionReason"
    INSTANCE_TERMINATING = "InstanceTerminating"
    REBOOTING = "Rebooting"


class AgeSource(StrEnum):
    """Which time is a node's age: the first Ready worker on it, or the Node object's creation."""

    FIRST_SEEN = "firstSeen"
    CREATED = "created"


class BusyVictims(StrEnum):
    """What preemption does with busy workers: never, only when nothing else is left, or as if they were idle."""

    PROTECT = "protect"
    LAST_RESORT = "lastResort"
    IGNORE = "ignore"


class PlacementMode(StrEnum):
    """Whether schedulers are answered for a pool's workers.

    shadow: they are answered what they are for a pod of no pool; what would have been answered is remembered.
    """

    ACTIVE = "active"
    SHADOW = "shadow"


class ScaleIn(StrEnum):
    """What may be done about idle workers.

    auto: evict pods without a controlling owner and those of evictOwners, write deletion costs for the rest.
    annotate: never evict, write deletion costs only. evict: any owner but DaemonSets and static pods.
    """

    AUTO = "auto"
    ANNOTATE = "annotate"
    EVICT = "evict"


class IdleBasis(StrEnum):
    """Whose word makes a pool's worker idle.

    worker: its own mark. sources: what warmnode's leader was told by the sources outside, and wrote down as a mark of
    warmnode's. both: its own mark, and the sources agree.
    """

    WORKER = "worker"
    SOURCES = "sources"
    BOTH = "both"


class SkipReason(StrEnum):
    """Why a worker was not evicted, or cannot be claimed. The log field, the metric label and the explanation."""

    BUSY = "busy"
    CLAIMED = "claimed"
    TERMINATING = "terminating"
    NOT_READY = "notReady"
    LEAVING_NODE = "leavingNode"
    NODE_NOT_HEARD_OF = "nodeNotHeardOf"
    NODE_REBOOTING = "nodeRebooting"
    OLD_MACHINE = "oldMachine"
    SYSTEM_NAMESPACE = "systemNamespace"
    DAEMON_SET = "daemonSet"
    STATIC_POD = "staticPod"
    DISABLED = "disabled"
    ANNOTATE_ONLY = "annotateOnly"
    OWNER_RECREATES = "ownerRecreates"
    DO_NOT_DISRUPT = "doNotDisrupt"
    IDLE_TOO_SHORT = "idleTooShort"
    TOO_YOUNG = "tooYoung"
    FLOOR = "floor"
    NODE_KEEPS_OTHERS = "nodeKeepsOthers"
    STATIC_NODE_POOL = "staticNodePool"
    NEVER_CONSOLIDATED = "neverConsolidated"
    NODE_DO_NOT_DISRUPT = "nodeDoNotDisrupt"
    NODE_POOL_UNKNOWN = "nodePoolUnknown"
    NO_NODE_CLAIM = "noNodeClaim"
    NODE_NOT_INITIALIZED = "nodeNotInitialized"
    OTHER_POD_DO_NOT_DISRUPT = "otherPodDoNotDisrupt"
    OTHER_POD_BUDGET = "otherPodBudget"
    EMPTY_BUDGET = "emptyBudget"
    MAX_PER_PASS = "maxPerPass"  # noqa: S105
    MAX_PER_NODE = "maxPerNode"
    CLOCK_OFF = "clockOff"
    PENDING_WORKERS = "pendingWorkers"
    POOL_PAUSED = "poolPaused"
    BUDGET_BLOCKED = "budgetBlocked"
    BACKING_OFF = "backingOff"


class Node(Struct, frozen=True, kw_only=True, gc=False):
    """A Node object, reduced to what a decision about its age or its departure needs.

    ``disrupted`` is Karpenter's disruption taint (v1 or v1beta1), ``unschedulable`` a cordon. ``announced`` and
    ``announced_ending`` are what taints of others say of its departure. ``not_ready_since`` is since when Ready is
    False, or Unknown (``unreachable``); None where it is True, or nobody says. ``node_claim`` is the UID of the
    NodeClaim that owns it, ``node_pool`` the name of its NodePool: None where Karpenter does not manage it.
    ``initialized``: Karpenter has let pods in. ``do_not_disrupt``: ``karpenter.sh/do-not-disrupt`` is "true" on it.
    ``instance_type`` is the cloud's word for the machine, None where no label says it.
    ``allocatable`` is what it has for pods, empty where it does not say: `policy.resources`.
    """

    name: str
    uid: str
    created: datetime
    deleting: bool = False
    disrupted: bool = False
    unschedulable: bool = False
    ready: bool = True
    not_ready_since: datetime | None = None
    unreachable: bool = False
    announced: Departure | None = None
    announced_ending: Ending | None = None
    node_claim: str | None = None
    node_pool: str | None = None
    initialized: bool = False
    do_not_disrupt: bool = False
    instance_type: str | None = None
    allocatable: Mapping[str, Decimal] = {}


class NodeClaim(Struct, frozen=True, kw_only=True, gc=False):
    """Karpenter's claim on one machine, reduced.

    ``conditions`` are those that are True. ``expire_after`` counts from ``created``, None: never.
    ``has_deadline``: by ``karpenter.sh/nodeclaim-termination-timestamp`` its pods will be deleted by force.
    ``quiet_since`` is from when its consolidateAfter counts: the last pod that came or went, as Karpenter noted it,
    else its initialization; ``consolidatable_since`` when the condition Consolidatable became True. None: it says not.
    """

    name: str
    uid: str
    created: datetime
    node_pool: str | None = None
    deleting: bool = False
    has_deadline: bool = False
    conditions: frozenset[NodeClaimCondition] = frozenset()
    expire_after: timedelta | None = None
    quiet_since: datetime | None = None
    consolidatable_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionBudget:
    """One budget of a NodePool: how many ``nodes`` ("10%" or "3") may be disrupted at once.

    ``reasons`` it applies to, None: all. It is active for ``duration`` after each hit of the cron ``schedule`` in UTC;
    where both are None always. A value that could not be read is kept as None or as it is, and fails closed.
    """

    nodes: str = "10%"
    reasons: frozenset[str] | None = None
    schedule: str | None = None
    duration: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePool:
    """A NodePool, reduced. ``replicas`` is set on static ones, whose nodes are not consolidated.

    ``consolidate_after`` None: never. ``consolidation_policy`` is Karpenter's word, such as ``WhenEmpty``.
    ``expire_after`` is what new NodeClaims get, None: never.
    """

    name: str
    uid: str
    replicas: int | None = None
    consolidate_after: timedelta | None = timedelta(0)
    consolidation_policy: str = "WhenEmptyOrUnderutilized"
    expire_after: timedelta | None = None
    budgets: tuple[DisruptionBudget, ...] = (DisruptionBudget(),)


class PodClaim(Struct, frozen=True, kw_only=True, gc=False):
    """A caller's hold on a worker, as it stands on the pod.

    It is ``claimant``'s, a name that ``user`` chose, in ``pool``; ``id`` names it to them. It began at ``since`` and
    ends at ``expires``; ``renewals`` counts how often that was moved. ``protects`` is true where
    ``karpenter.sh/do-not-disrupt`` was put on the pod with it, to be removed with it.
    """

    id: str
    pool: str
    user: str
    claimant: str
    since: datetime
    expires: datetime
    renewals: int = 0
    protects: bool = False


UNREADABLE_CLAIM = PodClaim(id="", pool="", user="", claimant="", since=FOREVER, expires=FOREVER)
"""A claim that cannot be read: nobody's, and for ever. Somebody may hold the worker."""


class Pod(Struct, frozen=True, kw_only=True, gc=False):
    """A pod, reduced. ``pool`` is None for a pod that is no worker, ``node`` is None while it is unscheduled.

    ``ready_since`` is the Ready condition's last transition, None while not Ready. ``idle_since`` is since when the
    marks on the pod say idle, as its pool reads them; None means busy, and so do marks that are absent or cannot be
    parsed. ``own_mark`` is the mark that the worker, or whoever speaks for it, has set; ``source_mark`` what warmnode
    noted beside it for the sources outside, as it stands (`policy.marks`). ``do_not_disrupt_until`` is the end of
    ``karpenter.sh/do-not-disrupt`` (`FOREVER` for "true"). ``priority`` is None where admission set none.
    ``gated`` pods have a scheduling gate: no scheduler looks at them until somebody removes it.
    ``going_until`` is when the grace of a ``terminating`` pod is over, None where that is not known yet. ``bound`` is
    when a worker got its node, by the API server's clock, None where nobody says. ``old_machine`` is true for one that
    ran on an earlier machine of its node's name and not yet on this one (`policy.ages.is_of_old_machine`).
    ``finished`` pods (Succeeded, Failed) hold no room and are no workers. ``owner`` is the controlling owner as
    ``Kind.group``, None for a bare pod; ``static`` a mirror of a static pod. ``deletion_cost`` is the annotation as it
    stands, ``cost_mark`` the value that warmnode wrote last: they are equal where nobody else wrote since; so are
    ``disruption_cost`` and ``disruption_mark``, for Karpenter alone. ``ip`` is
    kept for workers that are asked over HTTP only. ``cache_key`` says whose cache it uses, None where its pool has no
    cache key or the pod has not the label. ``claim`` is the last claim that was not released, which may have expired;
    ``claim_ended`` is when one was released. ``labels`` and ``tolerates_disruption`` are kept for pods of no pool only:
    the labels as one text (`labels_as_text`), and whether Karpenter's disruption taint does not move it.
    """

    uid: str
    namespace: str
    name: str
    created: datetime
    node: str | None = None
    pool: str | None = None
    priority: int | None = None
    scheduler: str = "default-scheduler"
    ready_since: datetime | None = None
    idle_since: datetime | None = None
    do_not_disrupt_until: datetime | None = None
    gated: bool = False
    terminating: bool = False
    going_until: datetime | None = None
    bound: datetime | None = None
    old_machine: bool = False
    finished: bool = False
    resource_version: str = ""
    owner: str | None = None
    static: bool = False
    deletion_cost: str | None = None
    cost_mark: str | None = None
    disruption_cost: str | None = None
    disruption_mark: str | None = None
    own_mark: datetime | None = None
    source_mark: str | None = None
    ip: str | None = None
    cache_key: str | None = None
    claim: PodClaim | None = None
    claim_ended: datetime | None = None
    labels: str = ""
    tolerates_disruption: bool = False


def labels_as_text(labels: Mapping[str, str]) -> str:
    """Write labels as one text, which pods of one template share. Neither names nor values hold ``=`` or ``,``."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def labels_from_text(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",")) if text else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What reading a worker takes: its pool, how the marks on it count, whether its address is kept, its cache key."""

    pool: str
    basis: IdleBasis = IdleBasis.WORKER
    keeps_ip: bool = False
    cache_key: str | None = None


Operator: TypeAlias = Literal["In", "NotIn", "Exists", "DoesNotExist"]
"""Those of a ``LabelSelectorRequirement``: no API server takes another one in a label selector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One ``matchExpressions`` term. ``values`` is empty for Exists and DoesNotExist."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A label selector: every label and every expression must match. Empty: everything matches."""

    match_labels: tuple[tuple[str, str], ...] = ()
    match_expressions: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodBudget:
    """A PodDisruptionBudget: how many of the pods that ``selector`` selects (None: none) may be evicted now.

    ``unhealthy_may_go``: pods that are not Ready may be evicted whatever it allows. ``min_available`` and
    ``max_unavailable`` are what it asks for. What the disruption controller has counted is None where it has not looked
    yet: how many pods are ``healthy`` of those that are ``expected``, and how many are ``desired`` to be.
    """

    namespace: str
    name: str
    selector: Selector | None
    allowed: int = 0
    unhealthy_may_go: bool = False
    min_available: str | None = None
    max_unavailable: str | None = None
    expected: int | None = None
    healthy: int | None = None
    desired: int | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKeyRule:
    """The label that says whose cache a worker uses, and among how many candidates, by age, that decides.

    ``window`` None: in the pool's working set, with this ``slack`` (`policy.working_set`).
    """

    label: str
    window: int | None = None
    slack: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A set of workers: pods in ``namespaces`` (empty: all) that ``selector`` matches.

    ``cache_key`` says how its cache keys are found and used, None: age alone decides.
    """

    name: str
    namespaces: frozenset[str] = frozenset()
    selector: Selector = Selector()
    busy_victims: BusyVictims
    cache_key: CacheKeyRule | None = None
    placement: PlacementMode = PlacementMode.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """One candidate of a preemption: the pods that would be evicted, most important first, by UID."""

    pod_uids: tuple[str, ...] = ()
    pdb_violations: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """First-seen times by node UID, and the keys of the ConfigMap that make no sense (kept, never overwritten)."""

    first_seen: Mapping[str, datetime]
    ignored: tuple[str, ...] = ()
    resource_version: str = ""
    size_bytes: int = 0
