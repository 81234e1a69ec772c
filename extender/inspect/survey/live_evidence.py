"""Looks at a live cluster once. Lists, and asks what would be allowed; writes nothing.

What may not be read is left out and named; nothing here fails for want of a permission.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from extender.inspect.doctor.evidence import (
    AccessFacts,
    ClockReading,
    Evidence,
    Kind,
    MissingAccess,
    Program,
    SchedulerConfig,
)
from extender.inspect.doctor.karpenter import NO_KARPENTER
from extender.inspect.survey.access_reviews import ServiceAccount, refused, who_am_i
from extender.inspect.survey.karpenter_version import BALANCED, parse_version
from extender.inspect.survey.kept_nodes import kept_nodes_of
from extender.inspect.survey.permissions import PERMISSIONS, ApiVerb, Duty, OwnObject, Permission, accesses
from extender.inspect.survey.survey_objects import (
    NAME_LABEL,
    PodDisruptionBudgetObject,
    PodFacts,
    SurveyedPod,
    lease_facts,
    pod_facts,
)
from extender.inspect.survey.to_evidence import Material, choose_configuration, clocks_of, evidence_from
from extender.kube.api_client import KubeClient
from extender.kube.codec import decode_answer
from extender.kube.errors import KubeError, NotFound
from extender.kube.karpenter_events import EVENTS_PATH, REASONS, EventObject
from extender.kube.karpenter_objects import (
    NODE_CLAIMS_PATH,
    NODE_POOLS_PATH,
    NodeClaimObject,
    NodePoolObject,
    node_claim_from,
    node_pool_from,
)
from extender.kube.lease import LeaseObject
from extender.kube.ledger_store import LEDGER_LABELS
from extender.kube.listing import list_objects
from extender.kube.objects import ConfigMapObject, NodeObject, ObjectMeta, node_from
from extender.settings import Configuration
from extender.settings.in_force import InForce

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

KARPENTER_GROUP = "/apis/karpenter.sh"
KARPENTER_SCHEMA = "/openapi/v3/apis/karpenter.sh/v1"
"""Whoever may log in may read it, unlike CustomResourceDefinitions."""


class _Named(msgspec.Struct):
    metadata: ObjectMeta


class _GroupVersion(msgspec.Struct, rename="camel"):
    group_version: str = ""


class _Group(msgspec.Struct):
    versions: list[_GroupVersion] = []


class _Version(msgspec.Struct):
    major: str = ""
    minor: str = ""


_GROUP = msgspec.json.Decoder(_Group)
_VERSION = msgspec.json.Decoder(_Version)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """What the command line says. None: find it out."""

    namespace: str | None = None
    configuration: Configuration | None = None
    configuration_source: str | None = None
    scheduler_configs: tuple[SchedulerConfig, ...] | None = None


async def gather(client: KubeClient, asked: DoctorOptions) -> Evidence:
    """Look at everything once. Raises `KubeError` where neither nodes nor pods can be listed."""
    looking = _Looking(client)
    namespace = asked.namespace or await looking.find_home()
    material = Material(namespace=namespace, unread=looking.unread)
    own = f"/api/v1/namespaces/{namespace}/configmaps"
    material.config_maps = await looking.look(Kind.CONFIG_MAPS, own, ConfigMapObject, lambda raw: raw)
    chosen = choose_configuration(
        asked.configuration, asked.configuration_source, material.config_maps or (), namespace
    )
    classify = InForce(chosen.configuration).classify

    def facts_of(raw: SurveyedPod) -> PodFacts | None:
        return pod_facts(raw, classify)

    pods = await looking.look(Kind.PODS, "/api/v1/pods", SurveyedPod, facts_of)
    material.pods = None if pods is None else [each for each in pods if each is not None]
    material.nodes = await looking.look(Kind.NODES, "/api/v1/nodes", NodeObject, node_from)
    if material.pods is None and material.nodes is None and looking.last_error is not None:
        raise looking.last_error
    leases = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
    material.leases = await looking.look(Kind.LEASES, leases.format(namespace), LeaseObject, lease_facts)
    material.node_leases = await looking.look(
        Kind.NODE_LEASES, leases.format("kube-node-lease"), LeaseObject, lease_facts
    )
    material.budgets = await looking.look(
        Kind.DISRUPTION_BUDGETS, "/apis/policy/v1/poddisruptionbudgets", PodDisruptionBudgetObject, lambda raw: raw
    )
    material.node_pools = await looking.look(Kind.NODE_POOLS, NODE_POOLS_PATH, NodePoolObject, node_pool_from)
    material.node_claims = await looking.look(Kind.NODE_CLAIMS, NODE_CLAIMS_PATH, NodeClaimObject, node_claim_from)
    await looking.name_other_versions()
    if material.node_pools:
        material.events = await looking.karpenter_events()
    material.has_balanced = await looking.karpenter_schema()
    material.server_version = await looking.server_version()
    programs = [program for each in material.pods or () for program in each.programs]
    access = await looking.review(programs, namespace, chosen.configuration)
    skew = client.clock_skew
    mine = [] if skew is None else [ClockReading(whose="this machine", ahead=-skew, is_ours=True)]
    clocks = (*mine, *clocks_of(material, chosen.configuration))
    now = datetime.now(UTC) + (skew or timedelta(0))
    return evidence_from(
        material,
        chosen,
        now,
        kept_nodes=kept_nodes_of(material, now),
        scheduler_configs=asked.scheduler_configs,
        clocks=clocks,
        access=access,
    )


class _Looking:
    """Lists, and remembers what could not be listed."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        self.unread: dict[Kind, str] = {}
        self.last_error: KubeError | None = None

    async def look(self, kind: Kind, path: str, struct: type[S], trim: Callable[[S], T]) -> list[T] | None:
        """List a collection, None where it cannot be."""
        try:
            return await list_objects(self.client, path, struct, trim)
        except KubeError as error:
            self.unread[kind] = NO_KARPENTER if isinstance(error, NotFound) else str(error)
            self.last_error = error
            return None

    async def karpenter_events(self) -> list[EventObject]:
        """List what Karpenter said of nodes. It only adds to what is found, so nothing is missing without it."""
        found: list[EventObject] = []
        for reason in REASONS:
            selector = f"involvedObject.kind=Node,reason={reason}"
            try:
                found += await list_objects(
                    self.client, EVENTS_PATH, EventObject, lambda raw: raw, field_selector=selector
                )
            except KubeError as error:
                self.unread[Kind.NODE_EVENTS] = str(error)
        return found

    async def find_home(self) -> str:
        """Find the namespace where warmnode is installed: by its pods, else by its ledger, its Leases, or any other
        ConfigMap with its name, else our own."""
        selectors = (
            ("/api/v1/pods", f"{NAME_LABEL}=warmnode"),
            ("/api/v1/configmaps", ",".join(f"{key}={value}" for key, value in LEDGER_LABELS.items())),
            ("/apis/coordination.k8s.io/v1/leases", f"{NAME_LABEL}=warmnode"),
            ("/api/v1/configmaps", f"{NAME_LABEL}=warmnode"),
        )
        for path, selector in selectors:
            try:
                found = await list_objects(
                    self.client, path, _Named, lambda raw: raw.metadata.namespace, label_selector=selector
                )
            except KubeError:
                continue
            if found:
                return self.client.namespace if self.client.namespace in found else min(found)
        return self.client.namespace

    async def name_other_versions(self) -> None:
        """Where NodePools are not served as v1: say whether Karpenter is absent, or of a version that is not read."""
        if self.unread.get(Kind.NODE_POOLS) != NO_KARPENTER:
            return
        try:
            body = await self.client.get_bytes(KARPENTER_GROUP)
            served = [each.group_version for each in decode_answer(body, _GROUP, "no list of API versions").versions]
            self.unread[Kind.NODE_POOLS] = f"served as {', '.join(served) or 'no version'}, and karpenter.sh/v1 is read"
        except NotFound:
            return
        except KubeError as error:
            self.unread[Kind.NODE_POOLS] = f"whether there is a Karpenter is not known: {error}"

    async def server_version(self) -> tuple[int, int] | None:
        """Ask for the API server's version: a scheduler is of the same minor. None where nobody says."""
        try:
            version = decode_answer(await self.client.get_bytes("/version"), _VERSION, "no version")
        except KubeError:
            return None
        return parse_version(f"{version.major}.{version.minor.rstrip('+')}")

    async def karpenter_schema(self) -> bool | None:
        """Say whether NodePools know the policy Balanced, None where they are not there or nobody says."""
        if self.unread.get(Kind.NODE_POOLS) == NO_KARPENTER:
            return None
        try:
            schema = await self.client.get_bytes(KARPENTER_SCHEMA)
        except KubeError:
            return None
        return BALANCED in schema if b"consolidationPolicy" in schema else None

    async def review(
        self, programs: Collection[Program], namespace: str, configuration: Configuration
    ) -> AccessFacts | None:
        """Ask what the service accounts that run warmnode may; where none is found, or nobody may ask, what we may."""
        names = {
            OwnObject.LEDGER: configuration.ledger.name,
            OwnObject.LEADER_LEASE: configuration.leader_election.name,
            OwnObject.WEBHOOK_LEASE: configuration.webhook.lease_name,
        }
        duties = duties_of(programs)
        try:
            me = await who_am_i(self.client)
            missing: list[MissingAccess] = []
            for account, of_account in duties.items():
                asked = None if account.user == me else account
                missing += await self._missing(str(account), asked, of_account, namespace, names)
            if duties:
                not_asked = tuple(each.name for each in programs if each.service_account is None and _duties(each))
                return AccessFacts(asked_for=tuple(map(str, duties)), not_asked=not_asked, missing=tuple(missing))
        except KubeError as error:
            self.unread[Kind.ACCESS_REVIEWS] = f"permissions of {', '.join(map(str, duties))}: {error}"
            return None
        try:
            mine = await self._missing("you", None, {Duty.SERVE, Duty.REAP}, namespace, names)
        except KubeError as error:
            self.unread[Kind.ACCESS_REVIEWS] = str(error)
            return None
        who = f"you ({me})" if me else "you"
        return AccessFacts(asked_for=(who,), missing=tuple(mine), is_installed=False)

    async def _missing(
        self,
        who: str,
        account: ServiceAccount | None,
        duties: Iterable[Duty],
        namespace: str,
        names: dict[OwnObject, str],
    ) -> list[MissingAccess]:
        wanted = self._wanted(duties)
        no = await refused(
            self.client, wanted, account=account, namespace=namespace, names={str(k): v for k, v in names.items()}
        )
        return [
            MissingAccess(
                who=who,
                duty=str(_duty_of(wanted[access], duties)),
                access=str(access),
                why=wanted[access].why,
                optional=wanted[access].optional,
            )
            for access in sorted(no)
        ]

    def _wanted(self, duties: Iterable[Duty]) -> dict[ApiVerb, Permission]:
        has_karpenter = self.unread.get(Kind.NODE_POOLS) != NO_KARPENTER
        return {
            access: permission
            for access, permission in accesses(*sorted(duties)).items()
            if has_karpenter or access.group != "karpenter.sh"
        }


def duties_of(programs: Iterable[Program]) -> dict[ServiceAccount, set[Duty]]:
    """Say what each service account runs, by the words of its pods' command lines."""
    found: dict[ServiceAccount, set[Duty]] = {}
    for program in programs:
        duties = _duties(program)
        if duties and program.service_account is not None:
            found.setdefault(ServiceAccount(program.namespace, program.service_account), set()).update(duties)
    return found


def _duties(program: Program) -> set[Duty]:
    duties: set[Duty] = set()
    words = program.arguments
    if program.program != "warmnode":
        return duties
    if "serve" in words or "run" in words:
        duties.add(Duty.SERVE)
        listens = any(word.startswith("--claims-listen") for word in words)
        if listens or program.environment.get("WARMNODE_CLAIMS_LISTEN", ""):
            duties.add(Duty.CLAIMS)
    if "reap" in words or "run" in words:
        duties.add(Duty.REAP)
    return duties


def _duty_of(permission: Permission, duties: Iterable[Duty]) -> Duty:
    return next(duty for duty in sorted(duties) if permission in PERMISSIONS[duty])
