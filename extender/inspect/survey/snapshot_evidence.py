"""Takes a snapshot for a cluster: any List in JSON. What it lacks is named, and so is what only a cluster can tell."""

from __future__ import annotations

from extender.inspect.doctor.evidence import NOT_HERE, Evidence, Kind
from extender.inspect.plan import EPOCH
from extender.inspect.snapshot import NOT_IN_SNAPSHOT, SnapshotObjects, is_ledger, snapshot_of
from extender.inspect.survey.karpenter_version import BALANCED
from extender.inspect.survey.survey_objects import (
    NAME_LABEL,
    LeaseFacts,
    SurveyedPod,
    lease_facts,
    pod_facts,
)
from extender.inspect.survey.to_evidence import DoctorOptions, Material, choose_configuration, evidence_from
from extender.kube.karpenter_events import EventObject
from extender.kube.karpenter_objects import NodeClaimObject, NodePoolObject, node_claim_from, node_pool_from
from extender.kube.lease import LeaseObject, is_ours
from extender.kube.objects import ConfigMapObject, NodeObject, ObjectMeta, node_from
from extender.kube.pod_disruption_budgets import PodBudgetObject, pod_budget_from

NODE_POOLS_CRD = "nodepools.karpenter.sh"
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
    objects = SnapshotObjects(content, source)
    of_kind, read = objects.of_kind, objects.read
    config_maps = read("ConfigMap", ConfigMapObject, lambda raw: raw)
    leases = read("Lease", LeaseObject, lease_facts)
    pods = read("Pod", SurveyedPod, lambda raw: raw)
    namespace = asked.namespace or _home(pods, config_maps, leases)
    own = [each for each in config_maps if each.metadata.namespace == namespace]
    chosen = choose_configuration(asked, own, namespace)
    classify = chosen.in_force.classify
    unread = {kind: NOT_IN_SNAPSHOT for kind, name in _KINDS.items() if name not in of_kind}
    unread[Kind.ACCESS_REVIEWS] = "only a cluster can tell"
    crds = of_kind.get("CustomResourceDefinition", ())
    material = Material(
        namespace=namespace,
        nodes=read("Node", NodeObject, node_from),
        pods=[facts for raw in pods if (facts := pod_facts(raw, classify)) is not None],
        config_maps=own,
        leases=[lease for lease in leases if lease.namespace == namespace],
        budgets=read("PodDisruptionBudget", PodBudgetObject, pod_budget_from),
        node_pools=read("NodePool", NodePoolObject, node_pool_from),
        node_claims=read("NodeClaim", NodeClaimObject, node_claim_from),
        events=read("Event", EventObject, lambda raw: raw),
        has_balanced=next((BALANCED in bytes(crd.raw) for crd in crds if crd.name == NODE_POOLS_CRD), None),
        unread=unread,
    )
    if Kind.NODE_POOLS in unread:
        if other_versions := sorted(kind for kind in of_kind if kind.startswith("NodePool karpenter.sh/")):
            unread[Kind.NODE_POOLS] = f"it has {', '.join(other_versions)}, and karpenter.sh/v1 is read"
        elif {"Pod", "Node"} <= of_kind.keys() and not any(node.node_pool for node in material.nodes):
            unread[Kind.NODE_POOLS] = unread[Kind.NODE_CLAIMS] = NOT_HERE
    now = snapshot_of(objects, classify, source=source).taken or EPOCH
    return evidence_from(material, chosen, now, asked)


def _home(pods: list[SurveyedPod], config_maps: list[ConfigMapObject], leases: list[LeaseFacts]) -> str:
    """Find warmnode's namespace: by its pods, else its ledger, its Leases, or any other ConfigMap with its name.

    ``default`` where there is none of them.
    """
    of_pods = [each.metadata.namespace for each in pods if _is_ours(each.metadata)]
    of_ledgers = [each.metadata.namespace for each in config_maps if is_ledger(each)]
    of_leases = [lease.namespace for lease in leases if is_ours(lease.stored)]
    of_others = [each.metadata.namespace for each in config_maps if _is_ours(each.metadata)]
    return min(of_pods or of_ledgers or of_leases or of_others, default="default")


def _is_ours(meta: ObjectMeta) -> bool:
    return (meta.labels or {}).get(NAME_LABEL) == "warmnode"
