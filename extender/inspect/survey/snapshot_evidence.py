"""Takes a snapshot for a cluster: any List in JSON. What it lacks is named, and so is what only a cluster can tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from extender.inspect.doctor.evidence import Evidence, Kind
from extender.inspect.doctor.karpenter import NO_KARPENTER
from extender.inspect.plan import EPOCH
from extender.inspect.snapshot import NOT_IN_SNAPSHOT, Item, items_of, parse_snapshot
from extender.inspect.survey.karpenter_version import BALANCED
from extender.inspect.survey.kept_nodes import kept_nodes_of
from extender.inspect.survey.live_evidence import DoctorOptions
from extender.inspect.survey.survey_objects import (
    NAME_LABEL,
    LeaseFacts,
    PodDisruptionBudgetObject,
    PodFacts,
    SurveyedPod,
    lease_facts,
    pod_facts,
)
from extender.inspect.survey.to_evidence import Material, choose_configuration, evidence_from, is_ledger
from extender.kube.karpenter_events import EventObject
from extender.kube.karpenter_objects import NodeClaimObject, NodePoolObject, node_claim_from, node_pool_from
from extender.kube.lease import LeaseObject, is_ours
from extender.kube.objects import ConfigMapObject, NodeObject, node_from
from extender.settings.in_force import InForce

T = TypeVar("T")

CRD = "CustomResourceDefinition"
NODE_POOLS_CRD = "nodepools.karpenter.sh"
REMEDY = (
    "kubectl get nodes,pods,configmaps,leases,poddisruptionbudgets,nodepools,nodeclaims -A -o json, without the last "
    "two where there is no Karpenter"
)
_KINDS = {
    Kind.CONFIG_MAPS: "ConfigMap",
    Kind.LEASES: "Lease",
    Kind.DISRUPTION_BUDGETS: "PodDisruptionBudget",
    Kind.NODE_POOLS: "NodePool",
    Kind.NODE_CLAIMS: "NodeClaim",
    Kind.NODES: "Node",
    Kind.PODS: "Pod",
}


def evidence_of_snapshot(content: bytes, asked: DoctorOptions, *, source: str) -> Evidence:
    """Read a snapshot.

    Raises:
        SnapshotError: it is no list, holds neither Node nor Pod, or an object in it cannot be read.
    """
    of_kind: dict[str, list[Item]] = defaultdict(list)
    for item in items_of(content, source):
        of_kind[item.kind].append(item)

    def read(kind: str, struct: type[Any], trim: Callable[[Any], T]) -> list[T]:
        return [item.read(struct, trim, source) for item in of_kind[kind]]

    config_maps = read("ConfigMap", ConfigMapObject, lambda raw: raw)
    leases = read("Lease", LeaseObject, lease_facts)
    programs = read("Pod", SurveyedPod, lambda raw: pod_facts(raw, _no_pool))
    namespace = asked.namespace or _home(programs, config_maps, leases)
    own = [each for each in config_maps if each.metadata.namespace == namespace]
    chosen = choose_configuration(asked.configuration, asked.configuration_source, own, namespace)
    classify = InForce(chosen.configuration).classify
    now = parse_snapshot(content, classify, source=source).taken or EPOCH
    pods = read("Pod", SurveyedPod, lambda raw: pod_facts(raw, classify))
    material = Material(
        namespace=namespace,
        nodes=read("Node", NodeObject, node_from) or None,
        pods=[each for each in pods if each is not None],
        config_maps=own,
        leases=[lease for lease in leases if lease.namespace == namespace],
        budgets=read("PodDisruptionBudget", PodDisruptionBudgetObject, lambda raw: raw),
        node_pools=read("NodePool", NodePoolObject, node_pool_from),
        node_claims=read("NodeClaim", NodeClaimObject, node_claim_from),
        events=read("Event", EventObject, lambda raw: raw),
        has_balanced=next((BALANCED in bytes(crd.raw) for crd in of_kind[CRD] if crd.name == NODE_POOLS_CRD), None),
        unread={kind: NOT_IN_SNAPSHOT for kind, name in _KINDS.items() if not of_kind[name]},
    )
    material.unread[Kind.ACCESS_REVIEWS] = "only a cluster can tell"
    other_versions = sorted(kind for kind in of_kind if kind.startswith("NodePool karpenter.sh/"))
    if not of_kind["NodePool"]:
        material.node_pools = None
        shows_karpenter = any(node.node_pool for node in material.nodes or ()) or not (
            of_kind["Pod"] and of_kind["Node"]
        )
        if other_versions:
            material.unread[Kind.NODE_POOLS] = f"it has {', '.join(other_versions)}, and karpenter.sh/v1 is read"
        elif not shows_karpenter:
            material.unread[Kind.NODE_POOLS] = material.unread[Kind.NODE_CLAIMS] = NO_KARPENTER
    return evidence_from(
        material, chosen, now, scheduler_configs=asked.scheduler_configs, kept_nodes=kept_nodes_of(material, now)
    )


def _no_pool(namespace: str, labels: Mapping[str, str]) -> None:
    return None


def _home(pods: list[PodFacts | None], config_maps: list[ConfigMapObject], leases: list[LeaseFacts]) -> str:
    """Find warmnode's namespace: by its pods, else its ledger, its Leases, or any other ConfigMap with its name.

    ``default`` where there is none of them.
    """
    of_pods = [
        program.namespace
        for each in pods
        if each is not None
        for program in each.programs
        if program.program == "warmnode"
    ]
    of_ledgers = [each.metadata.namespace for each in config_maps if is_ledger(each)]
    of_leases = [lease.namespace for lease in leases if is_ours(lease.stored)]
    named = [each for each in config_maps if (each.metadata.labels or {}).get(NAME_LABEL) == "warmnode"]
    of_others = [each.metadata.namespace for each in named]
    return min(of_pods or of_ledgers or of_leases or of_others, default="default")
