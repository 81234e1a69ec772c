"""Evictions: ask the API server to let one pod go, and say what came of it.

Owns the request, its preconditions, and the reading of refusals. Every eviction names the pod's uid and
resourceVersion: whatever changed on the pod since it was judged makes it fail. Nothing is ever force-deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import msgspec

from extender.kube.annotate import POD_TIMEOUT, pod_path, read_pod
from extender.kube.api_client import KubeClient
from extender.kube.codec import check_answer
from extender.kube.errors import Blocked, Conflict, Forbidden, KubeError, NotFound, Throttled
from extender.kube.objects import Classify, pod_from
from extender.kube.pod_disruption_budgets import read_pod_budget
from extender.model import Pod, Selector


class EvictionOutcome(StrEnum):
    """What came of one eviction. All are outcomes; none is an error of ours.

    ``forbidden`` (403) and ``refused`` (other 4xx) say no to this pod, ``failed`` is an API server in trouble.
    """

    EVICTED = "evicted"
    GONE = "gone"
    CHANGED = "changed"
    BLOCKED = "blocked"
    SEVERAL_BUDGETS = "severalBudgets"
    THROTTLED = "throttled"
    FORBIDDEN = "forbidden"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionResult:
    """The outcome, one line about it, the budget that blocked it (None: not told), and the pause that is asked for."""

    outcome: EvictionOutcome
    detail: str = ""
    budget: str | None = None
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshPod:
    """A pod as the API server has it now, and its labels, which the state does not keep."""

    pod: Pod
    labels: dict[str, str]


@dataclass(slots=True, eq=False)
class Evictor:
    client: KubeClient
    classify: Classify

    async def read(self, pod: Pod) -> FreshPod | None:
        """Read a pod anew, None where it is gone or another pod has its name. Raises other `KubeError`."""
        try:
            raw = await read_pod(self.client, pod.namespace, pod.name)
        except NotFound:
            return None
        if raw.metadata.uid != pod.uid:
            return None
        return FreshPod(pod=pod_from(raw, self.classify), labels=raw.metadata.labels or {})

    async def evict(self, pod: Pod) -> EvictionResult:
        """Evict this version of the pod, and no other. Never raises `KubeError`."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid, "resourceVersion": pod.resource_version}},
        }
        try:
            path = f"{pod_path(pod.namespace, pod.name)}/eviction"
            check_answer(await self.client.send("POST", path, msgspec.json.encode(body), timeout=POD_TIMEOUT))
        except KubeError as error:
            return result_of(error)
        return EvictionResult(outcome=EvictionOutcome.EVICTED)

    async def budget_selector(self, namespace: str, name: str) -> Selector | None:
        """Read which pods a PodDisruptionBudget covers, None where it is gone or cannot be read."""
        try:
            return (await read_pod_budget(self.client, namespace, name)).selector
        except KubeError:
            return None


_BUDGET_NAME = re.compile(r"The disruption budget (\S+) ")  # registry/core/pod/storage/eviction.go


def result_of(error: KubeError) -> EvictionResult:
    """Say what an error of the API server means for an eviction, or for the look right before it."""
    detail = str(error)
    match error:
        case NotFound():
            return EvictionResult(outcome=EvictionOutcome.GONE)
        case Conflict():
            return EvictionResult(outcome=EvictionOutcome.CHANGED, detail=detail)
        case Blocked():
            found = _BUDGET_NAME.search(error.message)
            return EvictionResult(
                outcome=EvictionOutcome.BLOCKED,
                detail=detail,
                budget=found.group(1) if found else None,
                retry_after=error.retry_after,
            )
        case Throttled():
            return EvictionResult(outcome=EvictionOutcome.THROTTLED, detail=detail, retry_after=error.retry_after)
        case Forbidden() if error.is_about_the_object:
            return EvictionResult(outcome=EvictionOutcome.FORBIDDEN, detail=detail)
        case _ if "more than one PodDisruptionBudget" in error.message:
            return EvictionResult(outcome=EvictionOutcome.SEVERAL_BUDGETS, detail=detail)
        case _ if error.is_about_the_object:
            return EvictionResult(outcome=EvictionOutcome.REFUSED, detail=detail)
        case _:
            return EvictionResult(outcome=EvictionOutcome.FAILED, detail=detail, retry_after=error.retry_after)
