"""Whose pod it is: selectors and namespaces, by the rules of Kubernetes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.kube.pod_disruption_budgets import LabelSelectorObject
from extender.model import BusyVictims, Expression, Operator, Pool, Selector
from extender.policy.pools import pool_of, selects

VALUES = st.sampled_from("abc")
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), VALUES)
EXPRESSIONS = st.builds(
    Expression,
    key=st.sampled_from(["app", "tier"]),
    operator=st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
    values=st.frozensets(VALUES, min_size=1),
)
SELECTORS = st.builds(
    Selector,
    match_labels=LABELS.map(lambda labels: tuple(labels.items())),
    match_expressions=st.lists(EXPRESSIONS, max_size=3).map(tuple),
)
OPPOSITES: dict[Operator, Operator] = {"In": "NotIn", "Exists": "DoesNotExist"}


@pytest.mark.parametrize(
    ("operator", "matching"),
    [("In", ["a"]), ("NotIn", ["b", None]), ("Exists", ["a", "b"]), ("DoesNotExist", [None])],
)
def test_an_expression_matches_as_in_kubernetes(operator: Operator, matching: list[str | None]) -> None:
    """A pod without the label matches NotIn too: apimachinery labels.Requirement.Matches."""
    values = frozenset("a" if operator in ("In", "NotIn") else "")
    selector = Selector(match_expressions=(Expression(key="app", operator=operator, values=values),))
    found = [
        value for value in ("a", "b", None) if selects(selector, {"tier": "a"} | ({"app": value} if value else {}))
    ]
    assert found == matching


@given(
    labels=LABELS,
    key=st.sampled_from(["app", "tier"]),
    values=st.frozensets(VALUES),
    operator=st.sampled_from(["In", "Exists"]),
)
def test_an_operator_and_its_opposite_divide_all_pods(
    labels: dict[str, str], key: str, values: frozenset[str], operator: Operator
) -> None:
    """Each pod matches one of the two."""
    both = [
        selects(Selector(match_expressions=(Expression(key=key, operator=each, values=values),)), labels)
        for each in (operator, OPPOSITES[operator])
    ]
    assert sorted(both) == [False, True]


@given(labels=LABELS, selector=SELECTORS, more=SELECTORS)
def test_a_selector_with_more_terms_is_both_of_its_parts(
    labels: dict[str, str], selector: Selector, more: Selector
) -> None:
    """Terms are never alternatives, and an empty selector matches everything."""
    together = Selector(
        match_labels=selector.match_labels + more.match_labels,
        match_expressions=selector.match_expressions + more.match_expressions,
    )
    assert selects(together, labels) == (selects(selector, labels) and selects(more, labels))
    assert selects(Selector(), labels)


def test_a_pod_is_of_the_first_pool_that_has_its_namespace_and_its_labels() -> None:
    """Without a namespace a pool takes all of them."""
    ducks = Selector(match_labels=(("app", "duck"),))
    namespaces = {"there": frozenset({"there"}), "anywhere": frozenset[str](), "again": frozenset[str]()}
    pools = [
        Pool(name=name, selector=ducks, namespaces=those, busy_victims=BusyVictims.PROTECT)
        for name, those in namespaces.items()
    ]
    found = [pool_of(namespace, {"app": app}, pools) for namespace in ("there", "here") for app in ("duck", "goose")]
    assert found == ["there", None, "anywhere", None]


@pytest.mark.parametrize("term", [{"key": "app", "operator": "Gt"}, {"key": "app"}, {"operator": "Exists"}])
def test_a_selector_that_is_none_cannot_be_read(term: dict[str, str]) -> None:
    """Of an operator that is not known nobody knows what it keeps: the object is unreadable, and nothing is evicted."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"matchExpressions": [term]}), type=LabelSelectorObject)
