"""PodDisruptionBudgets and what is matched against them: what is read of objects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.kube.objects import PodObject, pod_from
from extender.kube.pod_disruption_budgets import PodBudgetObject, pod_budget_from
from extender.model import Expression, PodBudget, Selector, labels_as_text, labels_from_text
from tests.builders import by_label


def read(raw: Any) -> PodBudget:
    return pod_budget_from(msgspec.json.decode(msgspec.json.encode(raw), type=PodBudgetObject))


def test_budget_is_read() -> None:
    expression = {"key": "tier", "operator": "In", "values": ["a"]}
    selector = {"matchLabels": {"app": "agent"}, "matchExpressions": [expression]}
    raw = {
        "metadata": {"namespace": "work", "name": "guard"},
        "spec": {"selector": selector, "minAvailable": "100%", "unhealthyPodEvictionPolicy": "AlwaysAllow"},
        "status": {"disruptionsAllowed": 2},
    }
    wanted = Selector(
        match_labels=(("app", "agent"),),
        match_expressions=(Expression(key="tier", operator="In", values=frozenset({"a"})),),
    )
    found = PodBudget(namespace="work", name="guard", selector=wanted, allowed=2, min_available="100%")
    assert read(raw) == replace(found, unhealthy_may_go=True)


def test_budget_that_nobody_has_looked_at_yet_allows_none() -> None:
    """The disruption controller has not written its status."""
    assert read({"metadata": {"namespace": "work", "name": "new"}, "spec": {}}) == PodBudget(
        namespace="work", name="new", selector=None, allowed=0
    )


def pod(*tolerations: dict[str, str], labels: dict[str, str] | None = None) -> Any:
    raw = {"metadata": {"name": "p", "labels": labels or {}}, "spec": {"tolerations": tolerations}}
    return pod_from(msgspec.json.decode(msgspec.json.encode(raw), type=PodObject), by_label)


TAINT = "karpenter.sh/disrupted"


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": TAINT, "operator": "Exists"}, True),
        ({"key": TAINT}, True),
        ({"key": TAINT, "operator": "Equal", "value": "x"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"operator": "Equal"}, False),
    ],
)
def test_which_tolerations_let_a_pod_stay_on_a_disrupted_node(toleration: dict[str, str], expected: bool) -> None:
    """Karpenter's taint has the effect NoSchedule and no value. Such a pod is not evicted."""
    assert pod({"key": "other", "operator": "Exists"}, toleration).tolerates_disruption is expected
    assert pod().tolerates_disruption is False


def test_labels_are_kept_for_pods_of_no_pool_only() -> None:
    """Workers are many, and no node is held by them for ever."""
    assert pod(labels={"b": "2", "a": "1"}).labels == "a=1,b=2"
    worker = pod({"operator": "Exists"}, labels={"warmnode.dev/pool": "ducks"})
    assert (worker.labels, worker.tolerates_disruption) == ("", False)


@given(
    st.dictionaries(st.from_regex(r"[a-z./-]{1,20}", fullmatch=True), st.from_regex(r"[\w.-]{0,20}", fullmatch=True))
)
def test_labels_come_back_from_their_text(labels: dict[str, str]) -> None:
    assert labels_from_text(labels_as_text(labels)) == labels
