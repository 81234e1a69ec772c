"""PodDisruptionBudgets to values, and a look at one or all of them.

Owns what is read of them to know which nodes they hold. Whether an eviction is granted only the API server says.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from extender.kube.annotate import POD_TIMEOUT
from extender.kube.api_client import KubeClient
from extender.kube.codec import decode_answer
from extender.kube.listing import list_objects
from extender.kube.objects import ObjectMeta
from extender.model import Expression, Operator, PodBudget, Selector

POD_BUDGETS_PATH = "/apis/policy/v1/poddisruptionbudgets"
ALWAYS_ALLOW = "AlwaysAllow"


class _Requirement(Struct):
    key: str
    operator: Operator
    values: list[str] | None = None


class LabelSelectorObject(Struct, rename="camel"):
    """A label selector as it stands in objects."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[_Requirement] | None = None

    def value(self) -> Selector:
        return Selector(
            match_labels=tuple((self.match_labels or {}).items()),
            match_expressions=tuple(
                Expression(key=each.key, operator=each.operator, values=frozenset(each.values or ()))
                for each in self.match_expressions or ()
            ),
        )


class PodBudgetSpec(Struct, rename="camel", gc=False, frozen=True):
    selector: LabelSelectorObject | None = None
    unhealthy_pod_eviction_policy: str = ""
    min_available: int | str | None = None
    max_unavailable: int | str | None = None


class PodBudgetStatus(Struct, rename="camel", gc=False, frozen=True):
    disruptions_allowed: int = 0
    expected_pods: int | None = None
    current_healthy: int | None = None
    desired_healthy: int | None = None


class PodBudgetObject(Struct, rename="camel", gc=False, frozen=True):
    metadata: ObjectMeta
    spec: PodBudgetSpec = PodBudgetSpec()
    status: PodBudgetStatus = PodBudgetStatus()


def pod_budget_from(raw: PodBudgetObject) -> PodBudget:
    """Reduce a PodDisruptionBudget. One without a status allows none, as Karpenter reads it too."""
    spec, status = raw.spec, raw.status
    return PodBudget(
        namespace=raw.metadata.namespace,
        name=raw.metadata.name,
        selector=spec.selector.value() if spec.selector is not None else None,
        allowed=status.disruptions_allowed,
        unhealthy_may_go=spec.unhealthy_pod_eviction_policy == ALWAYS_ALLOW,
        min_available=None if spec.min_available is None else str(spec.min_available),
        max_unavailable=None if spec.max_unavailable is None else str(spec.max_unavailable),
        expected=status.expected_pods,
        healthy=status.current_healthy,
        desired=status.desired_healthy,
    )


_POD_BUDGET = msgspec.json.Decoder(PodBudgetObject)


async def read_pod_budget(client: KubeClient, namespace: str, name: str) -> PodBudget:
    path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/{name}"
    body = await client.get_bytes(path, timeout=POD_TIMEOUT)
    return pod_budget_from(decode_answer(body, _POD_BUDGET, "no PodDisruptionBudget"))


async def list_pod_budgets(client: KubeClient) -> list[PodBudget]:
    return await list_objects(client, POD_BUDGETS_PATH, PodBudgetObject, pod_budget_from)
