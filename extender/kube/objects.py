"""API objects to values: the only reader of labels, annotations and taints.

Owns the msgspec structs of what we read and the functions that reduce them. Decodes only the fields that a decision
needs: object creation is what a list costs. Never writes and never decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from sys import intern

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from extender.model import (
    FOREVER,
    UNREADABLE_CLAIM,
    Departure,
    Ending,
    IdleBasis,
    Ledger,
    Membership,
    Node,
    Pod,
    PodClaim,
    labels_as_text,
    later,
)
from extender.policy.marks import parse_idle_mark, read_marks
from extender.policy.resources import Resources, quantity

PREFIX = "warmnode.dev/"
IDLE_SINCE = f"{PREFIX}idle-since"
IDLE_SOURCE = f"{PREFIX}idle-source"
"""What warmnode noted for the sources outside: `policy.marks`."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
COST_MARK = f"{PREFIX}deletion-cost-owner"
DISRUPTION_COST = "karpenter.sh/disruption-cost"
DISRUPTION_MARK = f"{PREFIX}disruption-cost-owner"
"""Holds the value that warmnode wrote: where it differs from the cost, somebody else has written since."""
CLAIM = f"{PREFIX}claim"
"""The claim as JSON, see `claim_from`. It stays when the claim expires, and goes when it is released."""
CLAIMED_BY = f"{PREFIX}claimed-by"
"""Label of a claimed pod: who holds it, as a hash. By it a repeated request finds its claim."""
CLAIM_ENDED = f"{PREFIX}claim-ended"
"""When the last claim was released."""
MIRROR = "kubernetes.io/config.mirror"
DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"
NODE_POOL_LABEL = "karpenter.sh/nodepool"
INITIALIZED_LABEL = "karpenter.sh/initialized"
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
KARPENTER_GROUP = "karpenter.sh/"
DISRUPTED_TAINT = "karpenter.sh/disrupted"
DISRUPTION_TAINTS = frozenset({DISRUPTED_TAINT, "karpenter.sh/disruption"})
"""Karpenter v1, and v1beta1 (there with the value ``disrupting``)."""

LEAVING_TAINTS = {
    # k8s.io/api core/v1 well_known_taints.go: somebody says that the machine was shut down and will not come back
    "node.kubernetes.io/out-of-service": Departure.OUT_OF_SERVICE,
    # k8s.io/cloud-provider api/well_known_taints.go: the cloud provider says that the machine is stopped
    "node.cloudprovider.kubernetes.io/shutdown": Departure.SHUT_DOWN,
    # aws/aws-node-termination-handler pkg/node/node.go: two minutes before a spot instance goes; an auto scaling group
    # takes the instance; a maintenance event, whose taint comes with the drain
    "aws-node-termination-handler/spot-itn": Departure.TERMINATION_NOTICE,
    "aws-node-termination-handler/asg-lifecycle-termination": Departure.TERMINATION_NOTICE,
    "aws-node-termination-handler/scheduled-maintenance": Departure.TERMINATION_NOTICE,
    # GoogleCloudPlatform/k8s-node-termination-handler, and GKE's own (taints.go below: gkeNodeTerminationHandlerTaint)
    "cloud.google.com/impending-node-termination": Departure.TERMINATION_NOTICE,
    # learn.microsoft.com/azure/aks/node-auto-drain; the older name is in the release notes of Azure/AKS
    "remediator.kubernetes.azure.com/unschedulable": Departure.TERMINATION_NOTICE,
    "remediator.aks.microsoft.com/unschedulable": Departure.TERMINATION_NOTICE,
    # kubernetes/autoscaler cluster-autoscaler/utils/taints/taints.go: ToBeDeletedTaint, put on before the drain
    "ToBeDeletedByClusterAutoscaler": Departure.CLUSTER_AUTOSCALER,
}
"""Taints by which others say that a node goes now, most certain first."""
ENDING_TAINTS = {
    # the same taints.go: DeletionCandidateTaint, PreferNoSchedule: not needed, and taken after scale-down-unneeded-time
    "DeletionCandidateOfClusterAutoscaler": Ending.DELETION_CANDIDATE,
    # the same node.go: the risk of an interruption is high; none need come
    "aws-node-termination-handler/rebalance-recommendation": Ending.REBALANCE_RECOMMENDED,
}
"""Taints by which others say that a node will go, or may, but not now."""

KUBERNETES_EPOCH = datetime(2014, 6, 6, tzinfo=UTC)
"""The first commit of Kubernetes: no node was seen before it."""

Classify = Callable[[str, Mapping[str, str]], Membership | None]
"""(namespace, labels) -> which pool's worker it is and how it is read, None for a pod of no pool."""


class OwnerReference(Struct, rename="camel", gc=False, frozen=True):
    api_version: str = ""
    kind: str = ""
    uid: str = ""
    controller: bool | None = None


class ObjectMeta(Struct, rename="camel", gc=False, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None


class Condition(Struct, rename="camel", gc=False, frozen=True):
    type: str = ""
    status: str = ""
    last_transition_time: datetime | None = None


class SchedulingGate(Struct, gc=False, frozen=True):
    name: str = ""


class Toleration(Struct, rename="camel", gc=False, frozen=True):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class PodSpec(Struct, rename="camel", gc=False, frozen=True):
    node_name: str | None = None
    scheduling_gates: list[SchedulingGate] | None = None
    tolerations: list[Toleration] | None = None
    priority: int | None = None
    scheduler_name: str = ""


class PodStatus(Struct, rename="camel", gc=False, frozen=True):
    phase: str = ""
    conditions: Sequence[Condition] | None = None
    start_time: datetime | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")


class PodObject(Struct, rename="camel", gc=False, frozen=True):
    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Taint(Struct, rename="camel", gc=False, frozen=True):
    key: str = ""
    effect: str = ""


class NodeSpec(Struct, rename="camel", gc=False, frozen=True):
    unschedulable: bool | None = None
    taints: list[Taint] | None = None


class NodeStatus(Struct, rename="camel", gc=False, frozen=True):
    conditions: list[Condition] | None = None
    allocatable: dict[str, str | int | float] | None = None


class NodeObject(Struct, rename="camel", gc=False, frozen=True):
    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ConfigMapObject(Struct, rename="camel", gc=False, frozen=True):
    metadata: ObjectMeta
    data: dict[str, str] | None = None


def node_from(raw: NodeObject) -> Node:
    """Reduce a Node. One without a creation time (nothing a server sends) counts as created at `FOREVER`: newest."""
    meta = raw.metadata
    labels = meta.labels or {}
    pool, instance_type = labels.get(NODE_POOL_LABEL), labels.get(INSTANCE_TYPE_LABEL)
    taints = {taint.key for taint in raw.spec.taints or ()}
    ready = next((each for each in raw.status.conditions or () if each.type == "Ready"), None)
    is_ready = ready is not None and ready.status == "True"
    return Node(
        name=meta.name,
        uid=meta.uid,
        created=utc(meta.creation_timestamp) or FOREVER,
        deleting=meta.deletion_timestamp is not None,
        disrupted=not taints.isdisjoint(DISRUPTION_TAINTS),
        announced=next((reason for key, reason in LEAVING_TAINTS.items() if key in taints), None),
        announced_ending=next((reason for key, reason in ENDING_TAINTS.items() if key in taints), None),
        unschedulable=bool(raw.spec.unschedulable),
        ready=is_ready,
        not_ready_since=utc(ready.last_transition_time) if ready is not None and not is_ready else None,
        unreachable=ready is not None and ready.status == "Unknown",
        node_claim=_node_claim(meta.owner_references),
        node_pool=intern(pool) if pool else None,
        initialized=labels.get(INITIALIZED_LABEL) == "true",
        do_not_disrupt=(meta.annotations or {}).get(DO_NOT_DISRUPT) == "true",
        instance_type=intern(instance_type) if instance_type else None,
        allocatable=_allocatable(frozenset((raw.status.allocatable or {}).items())),
    )


@lru_cache(maxsize=4096)
def _allocatable(stated: frozenset[tuple[str, str | int | float]]) -> Resources:
    """Read what a node has for pods, one value for all nodes that say the same."""
    return {intern(name): amount for name, text in stated if (amount := quantity(text))}


def pod_from(raw: PodObject, classify: Classify) -> Pod:
    """Reduce a Pod. Strings that many pods share are interned: 100,000 pods stay under 60 MiB."""
    meta, spec, status = raw.metadata, raw.spec, raw.status
    annotations = meta.annotations or {}
    member = classify(meta.namespace, meta.labels or {})
    basis = member.basis if member is not None else IdleBasis.WORKER
    source_mark = annotations.get(IDLE_SOURCE)
    marks = read_marks(annotations.get(IDLE_SINCE), source_mark, basis)
    created = _shared(utc(meta.creation_timestamp)) or FOREVER
    return Pod(
        uid=meta.uid,
        namespace=intern(meta.namespace),
        name=meta.name,
        created=created,
        node=intern(spec.node_name) if spec.node_name else None,
        pool=intern(member.pool) if member is not None else None,
        priority=spec.priority,
        scheduler=intern(spec.scheduler_name),
        ready_since=_since(status.conditions, "Ready"),
        idle_since=marks.idle_since,
        do_not_disrupt_until=_protected_until(annotations.get(DO_NOT_DISRUPT), status.start_time or created),
        gated=bool(spec.scheduling_gates),
        terminating=meta.deletion_timestamp is not None,
        going_until=utc(meta.deletion_timestamp),
        bound=_since(status.conditions, "PodScheduled") if member is not None else None,
        finished=status.phase in ("Succeeded", "Failed"),
        resource_version=meta.resource_version,
        owner=_controlling_owner(meta.owner_references),
        static=MIRROR in annotations,
        deletion_cost=_price(annotations.get(DELETION_COST)),
        cost_mark=_price(annotations.get(COST_MARK)),
        disruption_cost=_price(annotations.get(DISRUPTION_COST)),
        disruption_mark=_price(annotations.get(DISRUPTION_MARK)),
        own_mark=marks.own,
        source_mark=source_mark,
        ip=status.pod_ip if member is not None and member.keeps_ip else None,
        cache_key=member.cache_key if member is not None else None,
        claim=claim_from(annotations[CLAIM]) if CLAIM in annotations else None,
        claim_ended=parse_idle_mark(annotations.get(CLAIM_ENDED)),
        labels=intern(labels_as_text(meta.labels or {})) if member is None else "",
        tolerates_disruption=member is None and any(map(_tolerates_disruption, spec.tolerations or ())),
    )


def _price(stated: str | None) -> str | None:
    """Read a price or its mark: both are the same text as a rule, for all idle workers of a node."""
    return intern(stated) if stated is not None else None


def _tolerates_disruption(toleration: Toleration) -> bool:
    """True where it matches the taint ``karpenter.sh/disrupted:NoSchedule``, by the rules of core/v1/toleration.go."""
    if toleration.effect not in ("", "NoSchedule"):
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", DISRUPTED_TAINT)
    return toleration.operator in ("", "Equal") and toleration.key == DISRUPTED_TAINT and not toleration.value


def ledger_from(raw: ConfigMapObject) -> Ledger:
    """Read the ledger: first seen by node UID, from whole seconds of the epoch.

    A key whose value is no plausible time (before Kubernetes, or past the year 9999) is listed as ignored.
    """
    first_seen: dict[str, datetime] = {}
    ignored: list[str] = []
    data = raw.data or {}
    for uid, text in data.items():
        seen = _epoch_seconds(text)
        if seen is None:
            ignored.append(uid)
        else:
            first_seen[uid] = seen
    return Ledger(
        first_seen=first_seen,
        ignored=tuple(sorted(ignored)),
        resource_version=raw.metadata.resource_version,
        size_bytes=sum(len(key.encode()) + len(value.encode()) for key, value in data.items()),
    )


class ClaimRecord(Struct, frozen=True):
    """The claim annotation. Times are RFC 3339. Keys may be added; none changes its meaning."""

    id: str
    pool: str
    user: str
    claimant: str
    since: str
    expires: str
    renewals: int = 0
    protects: bool = False


_CLAIM = msgspec.json.Decoder(ClaimRecord)
_LONGEST_CLAIM = 8192


def claim_from(text: str | None) -> PodClaim | None:
    """Read the claim annotation, None where it is absent.

    Anything that is no claim reads as `UNREADABLE_CLAIM`: nobody gets the worker, and it is not evicted, until the
    annotation is removed. The other way round a slip of some writer would hand out a worker that somebody uses.
    """
    if text is None:
        return None
    if len(text) > _LONGEST_CLAIM:
        return UNREADABLE_CLAIM
    try:
        record = _CLAIM.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return UNREADABLE_CLAIM
    since, expires = parse_idle_mark(record.since), parse_idle_mark(record.expires)
    if since is None or expires is None:
        return UNREADABLE_CLAIM
    return PodClaim(**{**asdict(record), "since": since, "expires": expires})


_GO_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _protected_until(text: str | None, started: datetime) -> datetime | None:
    """End of ``karpenter.sh/do-not-disrupt``: "true", or since Karpenter 1.12 a duration from the pod's start.

    As in Karpenter a value that is neither protects nothing.
    """
    if text is None or len(text) > 64:
        return None
    if text == "true":
        return FOREVER
    duration = parse_go_duration(text)
    return None if duration is None else later(started, duration)


def parse_go_duration(text: str) -> timedelta | None:
    """Parse what Go's time.ParseDuration takes, such as 1h30m, without a sign. None where it is anything else."""
    if len(text) > 64 or not _GO_DURATION.fullmatch(text):
        return None
    seconds = sum(float(n) * _GO_UNITS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text))
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        return timedelta.max


def _controlling_owner(references: list[OwnerReference] | None) -> str | None:
    """Name the controlling owner as ``Kind.group``, ``Kind`` for the core group; None for a bare pod."""
    for reference in references or ():
        if reference.controller:
            group, slash, _ = reference.api_version.partition("/")
            return intern(f"{reference.kind}.{group}" if slash else reference.kind)
    return None


def _node_claim(references: list[OwnerReference] | None) -> str | None:
    """UID of the NodeClaim that owns a Node: Karpenter names it as an owner, not as the controlling one."""
    for reference in references or ():
        if reference.kind == "NodeClaim" and reference.api_version.startswith(KARPENTER_GROUP):
            return reference.uid
    return None


def _since(conditions: Sequence[Condition] | None, kind: str) -> datetime | None:
    for condition in conditions or ():
        if condition.type == kind:
            return _shared(utc(condition.last_transition_time)) if condition.status == "True" else None
    return None


_times: dict[datetime, datetime] = {}
_MOST_TIMES = 65_536
"""So many are known, which takes 6 MiB at most, then they begin anew: the workers of half a day, where some start each
second."""


def _shared(time: datetime | None) -> datetime | None:
    """Give one value for all times that are equal: they are whole seconds, and workers come in bursts."""
    if time is None:
        return None
    if len(_times) >= _MOST_TIMES:
        _times.clear()
    return _times.setdefault(time, time)


def _epoch_seconds(text: str) -> datetime | None:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        return None
    try:
        seen = datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError):
        return None
    return seen if seen >= KUBERNETES_EPOCH else None


def utc(time: datetime | None) -> datetime | None:
    """Bring a time to UTC. None stays None, and is what a time gives that no UTC calendar has."""
    try:
        return time.astimezone(UTC) if time is not None else None
    except OverflowError:  # the first day of year 1 east of Greenwich, the last of 9999 west of it
        return None
