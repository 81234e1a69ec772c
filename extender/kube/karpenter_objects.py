"""Karpenter's objects to values: NodeClaims and NodePools of ``karpenter.sh/v1``, as of Karpenter 1.0 to 1.15.

Owns the msgspec structs of what we read of them. Never writes them and never decides. Values that cannot be read are on
the safe side: a NodeClaim lasts, a NodePool's budget fails closed.
"""

from __future__ import annotations

from datetime import datetime
from sys import intern

from msgspec import Struct

from extender.kube.objects import NODE_POOL_LABEL, Condition, ObjectMeta, parse_go_duration, utc
from extender.model import FOREVER, DisruptionBudget, NodeClaim, NodeClaimCondition, NodePool

KARPENTER_API = "karpenter.sh/v1"
NODE_CLAIMS_PATH = f"/apis/{KARPENTER_API}/nodeclaims"
NODE_POOLS_PATH = f"/apis/{KARPENTER_API}/nodepools"
TERMINATION_TIMESTAMP = "karpenter.sh/nodeclaim-termination-timestamp"
NEVER = "Never"

_CONDITIONS = {str(condition): condition for condition in NodeClaimCondition}


class NodeClaimSpec(Struct, rename="camel", gc=False, frozen=True):
    """Its durations are Karpenter's NillableDuration: a Go duration, or "Never", which reads as None."""

    expire_after: str = NEVER


class NodeClaimStatus(Struct, rename="camel", gc=False, frozen=True):
    conditions: list[Condition] | None = None
    last_pod_event_time: datetime | None = None


class NodeClaimObject(Struct, rename="camel", gc=False, frozen=True):
    metadata: ObjectMeta
    spec: NodeClaimSpec = NodeClaimSpec()
    status: NodeClaimStatus = NodeClaimStatus()


class BudgetObject(Struct, rename="camel", gc=False, frozen=True):
    nodes: str = "10%"
    reasons: list[str] | None = None
    schedule: str | None = None
    duration: str | None = None


class Disruption(Struct, rename="camel", gc=False, frozen=True):
    consolidate_after: str = "0s"
    consolidation_policy: str = "WhenEmptyOrUnderutilized"
    budgets: list[BudgetObject] | None = None


class NodeClaimTemplate(Struct, rename="camel", gc=False, frozen=True):
    spec: NodeClaimSpec = NodeClaimSpec()


class NodePoolSpec(Struct, rename="camel", gc=False, frozen=True):
    disruption: Disruption = Disruption()
    template: NodeClaimTemplate = NodeClaimTemplate()
    replicas: int | None = None


class NodePoolObject(Struct, rename="camel", gc=False, frozen=True):
    metadata: ObjectMeta
    spec: NodePoolSpec = NodePoolSpec()


def node_claim_from(raw: NodeClaimObject) -> NodeClaim:
    """Reduce a NodeClaim. Conditions that are not known here, or not True, are left out.

    So is a DisruptionReason that came with a reboot (pkg/controllers/disruption/repair.go, commitReboot): it stays True
    until a while after the node is back, and nothing leaves.
    """
    meta = raw.metadata
    pool = (meta.labels or {}).get(NODE_POOL_LABEL)
    stated = raw.status.conditions or ()
    true = {_CONDITIONS[each.type]: each for each in stated if each.status == "True" and each.type in _CONDITIONS}
    reboot = next((each for each in stated if each.type == NodeClaimCondition.REBOOTING), None)
    if reboot is not None and not _is_later(true.get(NodeClaimCondition.DISRUPTION_REASON), reboot):
        true.pop(NodeClaimCondition.DISRUPTION_REASON, None)
    initialized = true.get(NodeClaimCondition.INITIALIZED)
    consolidatable = true.get(NodeClaimCondition.CONSOLIDATABLE)
    return NodeClaim(
        name=meta.name,
        uid=meta.uid,
        created=utc(meta.creation_timestamp) or FOREVER,
        node_pool=intern(pool) if pool else None,
        deleting=meta.deletion_timestamp is not None,
        has_deadline=TERMINATION_TIMESTAMP in (meta.annotations or {}),
        conditions=frozenset(true),
        expire_after=parse_go_duration(raw.spec.expire_after),
        quiet_since=utc(raw.status.last_pod_event_time or (initialized.last_transition_time if initialized else None)),
        consolidatable_since=utc(consolidatable.last_transition_time) if consolidatable is not None else None,
    )


def _is_later(condition: Condition | None, other: Condition) -> bool:
    begun, other_begun = condition.last_transition_time if condition is not None else None, other.last_transition_time
    return begun is not None and other_begun is not None and begun > other_begun


def node_pool_from(raw: NodePoolObject) -> NodePool:
    """Reduce a NodePool. Without budgets it has Karpenter's default, 10% for every reason."""
    disruption = raw.spec.disruption
    budgets = (BudgetObject(),) if disruption.budgets is None else disruption.budgets
    return NodePool(
        name=raw.metadata.name,
        uid=raw.metadata.uid,
        replicas=raw.spec.replicas,
        consolidate_after=parse_go_duration(disruption.consolidate_after),
        consolidation_policy=disruption.consolidation_policy,
        expire_after=parse_go_duration(raw.spec.template.spec.expire_after),
        budgets=tuple(
            DisruptionBudget(
                nodes=each.nodes,
                reasons=None if each.reasons is None else frozenset(each.reasons),
                schedule=each.schedule,
                duration=None if each.duration is None else parse_go_duration(each.duration),
            )
            for each in budgets
        ),
    )
