"""Looks at a live cluster once. Lists, and asks what would be allowed; writes nothing.

What may not be read is left out and named; nothing here fails for want of a permission.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from extender.inspect.doctor.evidence import (
    NOT_HERE,
    AccessFacts,
    ClockReading,
    Evidence,
    Kind,
    MissingAccess,
    Program,
)
from extender.inspect.live_snapshot import Looking, selector_of, server_time
from extender.inspect.survey.access_reviews import ServiceAccount, refused, who_am_i
from extender.inspect.survey.karpenter_version import BALANCED, parse_version
from extender.inspect.survey.permissions import PERMISSIONS, Duty, OwnObject, accesses
from extender.inspect.survey.survey_objects import (
    NAME_LABEL,
    SurveyedPod,
    lease_facts,
    pod_facts,
)
from extender.inspect.survey.to_evidence import DoctorOptions, Material, choose_configuration, evidence_from
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
from extender.kube.pod_disruption_budgets import POD_BUDGETS_PATH, PodBudgetObject, pod_budget_from
from extender.settings import Configuration

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


async def gather(client: KubeClient, asked: DoctorOptions) -> Evidence:
    """Look at everything once. Raises `KubeError` where neither nodes nor pods can be listed."""
    looking = _Looking(client)
    look = looking.look
    namespace = asked.namespace or await looking.find_home()
    own = f"/api/v1/namespaces/{namespace}/configmaps"
    config_maps = await look(Kind.CONFIG_MAPS, own, ConfigMapObject, lambda raw: raw)
    chosen = choose_configuration(asked, config_maps, namespace)
    settings, classify = chosen.in_force.configuration, chosen.in_force.classify
    pods = await look(Kind.PODS, "/api/v1/pods", SurveyedPod, lambda raw: pod_facts(raw, classify))
    nodes = await look(Kind.NODES, "/api/v1/nodes", NodeObject, node_from)
    if looking.last_error is not None and {Kind.PODS, Kind.NODES} <= looking.unread.keys():
        raise looking.last_error
    leases = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
    node_leases = await look(Kind.NODE_LEASES, leases.format("kube-node-lease"), LeaseObject, lease_facts)
    material = Material(
        namespace=namespace,
        config_maps=config_maps,
        nodes=nodes,
        pods=[each for each in pods if each is not None],
        leases=await look(Kind.LEASES, leases.format(namespace), LeaseObject, lease_facts),
        budgets=await look(Kind.DISRUPTION_BUDGETS, POD_BUDGETS_PATH, PodBudgetObject, pod_budget_from),
        node_pools=await look(Kind.NODE_POOLS, NODE_POOLS_PATH, NodePoolObject, node_pool_from),
        node_claims=await look(Kind.NODE_CLAIMS, NODE_CLAIMS_PATH, NodeClaimObject, node_claim_from),
        unread=looking.unread,
    )
    await looking.name_other_versions()
    if material.node_pools:
        material.events = await looking.karpenter_events()
    material.has_balanced = await looking.karpenter_schema()
    material.server_version = await looking.server_version()
    access = await looking.review(material.programs, namespace, settings)
    skew = client.clock_skew
    clocks = [] if skew is None else [ClockReading(whose="this machine", ahead=-skew, is_ours=True)]
    names = {settings.webhook.lease_name: "warmnode serve", settings.leader_election.name: "warmnode reap"}
    ours = [(names[lease.name], lease) for lease in material.leases if lease.name in names]
    for whose, lease in (*ours, *((f"node {lease.name}", lease) for lease in node_leases)):
        if lease.ahead is not None:
            clocks.append(ClockReading(whose=whose, ahead=lease.ahead))
    return evidence_from(material, chosen, server_time(client), asked, clocks=clocks, access=access)


class _Looking(Looking[Kind]):
    """Looks at what doctor needs beside collections."""

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
            ("/api/v1/configmaps", selector_of(LEDGER_LABELS)),
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
        if self.unread.get(Kind.NODE_POOLS) != NOT_HERE:
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
        if self.unread.get(Kind.NODE_POOLS) == NOT_HERE:
            return None
        try:
            schema = await self.client.get_bytes(KARPENTER_SCHEMA)
        except KubeError:
            return None
        return BALANCED in schema if b"consolidationPolicy" in schema else None

    async def review(
        self, programs: Collection[Program], namespace: str, configuration: Configuration
    ) -> AccessFacts | None:
        """Ask what the service accounts that run warmnode may; where none is found, what we may."""
        names: dict[str, str] = {
            OwnObject.LEDGER: configuration.ledger.name,
            OwnObject.LEADER_LEASE: configuration.leader_election.name,
            OwnObject.WEBHOOK_LEASE: configuration.webhook.lease_name,
        }
        duties = duties_of(programs)
        me = await who_am_i(self.client)
        try:
            if not duties:
                mine = await self._missing("you", None, {Duty.SERVE, Duty.REAP}, namespace, names)
                who = f"you ({me})" if me else "you"
                return AccessFacts(asked_for=(who,), missing=tuple(mine), is_installed=False)
            missing: list[MissingAccess] = []
            for account, of_account in duties.items():
                asked = None if account.user == me else account
                missing += await self._missing(str(account), asked, of_account, namespace, names)
        except KubeError as error:
            whose = f"permissions of {', '.join(map(str, duties))}: " if duties else ""
            self.unread[Kind.ACCESS_REVIEWS] = f"{whose}{error}"
            return None
        not_asked = tuple(each.name for each in programs if each.service_account is None and _duties(each))
        return AccessFacts(asked_for=tuple(map(str, duties)), not_asked=not_asked, missing=tuple(missing))

    async def _missing(
        self, who: str, account: ServiceAccount | None, duties: set[Duty], namespace: str, names: Mapping[str, str]
    ) -> list[MissingAccess]:
        has_karpenter = self.unread.get(Kind.NODE_POOLS) != NOT_HERE
        permissions = accesses(*sorted(duties))
        wanted = [access for access in permissions if has_karpenter or access.group != "karpenter.sh"]
        no = await refused(self.client, wanted, account=account, namespace=namespace, names=names)
        return [
            MissingAccess(
                who=who,
                duty=next(duty for duty in sorted(duties) if permissions[access] in PERMISSIONS[duty]),
                access=str(access),
                why=permissions[access].why,
                optional=permissions[access].optional,
            )
            for access in sorted(no)
        ]


def duties_of(programs: Iterable[Program]) -> dict[ServiceAccount, set[Duty]]:
    """Say what each service account runs, by the words of its pods' command lines."""
    found: dict[ServiceAccount, set[Duty]] = {}
    for program in programs:
        duties = _duties(program)
        if duties and program.service_account is not None:
            found.setdefault(ServiceAccount(program.namespace, program.service_account), set()).update(duties)
    return found


def _duties(program: Program) -> set[Duty]:
    duties = {duty for duty in (Duty.SERVE, Duty.REAP) if program.runs(duty)}
    listens = any(word.startswith("--claims-listen") for word in program.arguments)
    if Duty.SERVE in duties and (listens or program.environment.get("WARMNODE_CLAIMS_LISTEN", "")):
        duties.add(Duty.CLAIMS)
    return duties
