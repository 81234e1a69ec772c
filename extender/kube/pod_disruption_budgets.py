"""PodDisruptionBudgets to values, and one look at all of them.

Owns what is read of them to know which nodes they hold. Whether an eviction is granted only the API server says.
"""

from __future__ import annotations

from msgspec import Struct

from extender.kube.api_client import KubeClient
from extender.kube.eviction import LabelSelectorObject
from extender.kube.listing import list_objects
from extender.kube.objects import ObjectMeta
from extender.model import PodBudget

POD_BUDGETS_PATH = "/apis/policy/v1/poddisruptionbudgets"
ALWAYS_ALLOW = "AlwaysAllow"


class PodBudgetSpec(Struct, rename="camel", gc=False, frozen=True):
    selector: LabelSelectorObject | None = None
    unhealthy_pod_eviction_policy: str = ""


class PodBudgetStatus(Struct, rename="camel", gc=False, frozen=True):
    disruptions_allowed: int = 0


class PodBudgetObject(Struct, rename="camel", gc=False, frozen=True):
    metadata: ObjectMeta
    spec: PodBudgetSpec = PodBudgetSpec()
    status: PodBudgetStatus = PodBudgetStatus()


def pod_budget_from(raw: PodBudgetObject) -> PodBudget:
    """Reduce a PodDisruptionBudget. One without a status allows none, as Karpenter reads it too."""
    return PodBudget(
        namespace=raw.metadata.namespace,
        name=raw.metadata.name,
        selector=raw.spec.selector.value() if raw.spec.selector is not None else None,
        allowed=raw.status.disruptions_allowed,
        unhealthy_may_go=raw.spec.unhealthy_pod_eviction_policy == ALWAYS_ALLOW,
    )


async def list_pod_budgets(client: KubeClient) -> list[PodBudget]:
    """List all of them. Raises `KubeError`."""
    return await list_objects(client, POD_BUDGETS_PATH, PodBudgetObject, pod_budget_from)
