"""API objects to what `warmnode doctor` needs of them, beyond what the rest of warmnode keeps.

Owns the structs of those fields. Reads only, decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
from msgspec import Raw, Struct

from extender.inspect.doctor.evidence import Needs, Program, WorkerFacts
from extender.kube.codec import decode_answer
from extender.kube.lease import LeaseObject, StoredLease, stored_lease_of
from extender.kube.managed_fields import SignedMeta, managed_fields, writer_of
from extender.kube.objects import (
    DELETION_COST,
    IDLE_SINCE,
    Classify,
    Condition,
    PodObject,
    PodSpec,
    PodStatus,
    pod_from,
    utc,
)
from extender.model import Pod
from extender.policy.deletion_cost import CostState, cost_state
from extender.policy.resources import Resources, quantity, requests_in_all

NAME_LABEL = "app.kubernetes.io/name"
VERSION_LABEL = "app.kubernetes.io/version"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a place, no secret
TOKEN_SUFFIX = "-token"  # noqa: S105
PROGRAMS = frozenset({"warmnode", "karpenter"})


class EnvVar(Struct, rename="camel", gc=False, frozen=True):
    name: str = ""
    value: str | None = None
    value_from: dict[str, object] | None = None


class ResourceRequirements(Struct, gc=False, frozen=True):
    requests: dict[str, object] | None = None
    limits: dict[str, object] | None = None


class VolumeMount(Struct, rename="camel", gc=False, frozen=True):
    name: str = ""
    mount_path: str = ""


class SecretSource(Struct, rename="camel", gc=False, frozen=True):
    secret_name: str = ""


class Volume(Struct, gc=False, frozen=True):
    name: str = ""
    secret: SecretSource | None = None


class Container(Struct, rename="camel", gc=False, frozen=True):
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[EnvVar] | None = None
    resources: ResourceRequirements | None = None
    restart_policy: str | None = None
    volume_mounts: list[VolumeMount] | None = None


_META = msgspec.json.Decoder(SignedMeta)


class SurveyedPodSpec(PodSpec, rename="camel", gc=False, frozen=True):
    service_account_name: str = "default"
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    node_selector: dict[str, str] | None = None
    affinity: Raw = msgspec.field(default_factory=Raw)
    topology_spread_constraints: Raw = msgspec.field(default_factory=Raw)


class SurveyedCondition(Condition, rename="camel", gc=False, frozen=True):
    message: str = ""


class SurveyedStatus(PodStatus, rename="camel", gc=False, frozen=True):
    conditions: Sequence[SurveyedCondition] | None = None


class SurveyedPod(PodObject, rename="camel", gc=False, frozen=True):
    metadata: SignedMeta
    spec: SurveyedPodSpec = SurveyedPodSpec()
    status: SurveyedStatus = SurveyedStatus()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """A pod that matters here: a worker, one that runs programs, by container, or one that may hold its node."""

    pod: Pod
    worker: WorkerFacts | None
    programs: tuple[Program, ...] = ()


def pod_facts(raw: SurveyedPod, classify: Classify) -> PodFacts | None:
    """Reduce a pod; None for one that has ended, or that is no worker, no program and holds no node."""
    pod, programs = pod_from(raw, classify), tuple(programs_of(raw))
    if pod.finished or (pod.pool is None and pod.node is None and not programs):
        return None
    return PodFacts(pod=pod, worker=None if pod.pool is None else _worker(raw, pod), programs=programs)


def _worker(raw: SurveyedPod, pod: Pod) -> WorkerFacts:
    told = next((each for each in raw.status.conditions or () if each.type == "PodScheduled"), None)
    is_scheduled = told is not None and told.status == "True"
    is_foreign = cost_state(pod) in (CostState.FOREIGN, CostState.OVERWRITTEN)
    return WorkerFacts(
        pod=pod,
        labels=raw.metadata.labels or {},
        idle_mark=(raw.metadata.annotations or {}).get(IDLE_SINCE),
        scheduled=utc(told.last_transition_time) if told is not None and is_scheduled else None,
        is_seen=told is not None,
        resources=frozenset(_resources(raw.spec)),
        unscheduled_message=told.message or None if told is not None and not is_scheduled else None,
        needs=_needs(raw.spec) if pod.node is None or pod.idle_since is not None else None,
        cost_writer=writer_of(DELETION_COST, raw.metadata.managed_fields) if is_foreign else None,
    )


def programs_of(raw: SurveyedPod) -> Iterator[Program]:
    """Read the containers of a pod of ours or Karpenter's."""
    labels = raw.metadata.labels or {}
    containers = (*(raw.spec.init_containers or ()), *(raw.spec.containers or ()))
    for container in containers if labels.get(NAME_LABEL) in PROGRAMS else ():
        yield Program(
            namespace=raw.metadata.namespace,
            name=raw.metadata.name,
            program=labels[NAME_LABEL],
            service_account=_service_account(container, raw.spec),
            image=container.image,
            version_label=labels.get(VERSION_LABEL, ""),
            arguments=(*(container.command or ()), *(container.args or ())),
            environment={var.name: None if var.value_from else var.value or "" for var in container.env or ()},
        )


def _service_account(container: Container, spec: SurveyedPodSpec) -> str | None:
    """Say whose token a container has: that of the pod's account, unless a Secret is mounted in its place.

    Such a Secret is called after its account, as the shipped ``warmnode-serve-token`` is; to read which one it is for
    would take the permission to read Secrets. None for one that is called otherwise.
    """
    secrets = {volume.name: volume.secret.secret_name for volume in spec.volumes or () if volume.secret is not None}
    for mount in container.volume_mounts or ():
        if mount.mount_path.rstrip("/") == TOKEN_PATH and mount.name in secrets:
            account = secrets[mount.name].removesuffix(TOKEN_SUFFIX)
            return account if account != secrets[mount.name] else None
    return spec.service_account_name


def _needs(spec: SurveyedPodSpec) -> Needs:
    """Say what kube-scheduler holds against nodes."""
    return Needs(
        requests=requests_in_all(
            map(_requested, spec.containers or ()),
            ((_requested(each), each.restart_policy == "Always") for each in spec.init_containers or ()),
        ),
        node_selector=spec.node_selector or {},
        tolerations=frozenset(map(msgspec.json.encode, spec.tolerations or ())),
        affinity=_stated(spec.affinity),
        spread=_stated(spec.topology_spread_constraints),
    )


def _requested(container: Container) -> Resources:
    resources = container.resources
    given = resources.requests if resources is not None else None
    return {name: quantity(text) for name, text in (given or {}).items()}


def _stated(raw: Raw) -> bytes:
    text = bytes(raw)
    return b"" if text in (b"null", b"{}", b"[]") else text


def _resources(spec: SurveyedPodSpec) -> set[str]:
    """Name what a scheduler looks at for managedResources: requests and limits of (init) containers."""
    found: set[str] = set()
    for container in (*(spec.init_containers or ()), *(spec.containers or ())):
        if container.resources is not None:
            found |= (container.resources.requests or {}).keys() | (container.resources.limits or {}).keys()
    return found


# -- Leases -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFacts:
    """A Lease, and how far its writer's clock is ``ahead`` of the API server's, None where nothing tells."""

    namespace: str
    name: str
    stored: StoredLease
    ahead: timedelta | None


def lease_facts(raw: LeaseObject) -> LeaseFacts:
    """Reduce a Lease. A renewal has one time from each of the two clocks; what differs by a second is one time."""
    meta, stored = decode_answer(raw.metadata, _META, "a Lease without metadata"), stored_lease_of(raw)
    renewals = (each for each in managed_fields(meta.managed_fields) if b'"f:renewTime"' in bytes(each.fields_v1))
    taken = utc(max((each.time for each in renewals if each.time is not None), default=None))
    ahead, renewed = None, stored.record.renewed
    if taken is not None and renewed is not None:
        ahead = renewed.replace(microsecond=0) - taken
        ahead = ahead if abs(ahead) > timedelta(seconds=1) else timedelta(0)
    return LeaseFacts(namespace=meta.namespace, name=meta.name, stored=stored, ahead=ahead)
