"""What pods ask for, and how many of them a node can hold."""

from __future__ import annotations

from decimal import Decimal

import pytest

from extender.policy.resources import UNREADABLE, Resources, fitting, quantity, requests_in_all


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", Decimal(2)),
        (2, Decimal(2)),
        ("0.5", Decimal("0.5")),
        ("250m", Decimal("0.25")),
        ("1Ki", Decimal(1024)),
        ("3k", Decimal(3000)),
        ("2Ei", Decimal(2 * 1024**6)),
        ("-1", UNREADABLE),
        ("1e3", UNREADABLE),
        ("", UNREADABLE),
        (None, UNREADABLE),
    ],
)
def test_quantities_are_read_or_more_than_all(text: object, expected: Decimal) -> None:
    """Doubt says that it does not fit."""
    assert quantity(text) == expected


def amounts(**given: int) -> Resources:
    return {name: Decimal(amount) for name, amount in given.items()}


def test_what_a_pod_asks_for_is_the_sum_of_its_containers_or_the_most_before_them() -> None:
    """As in the table of KEP-753: sidecars count with the containers and with the init containers after them."""
    sidecar, first, second = amounts(cpu=2), amounts(cpu=6, gpu=1), amounts(cpu=3)
    containers = [amounts(cpu=1), amounts(cpu=1, memory=5)]
    assert requests_in_all(containers) == amounts(cpu=2, memory=5)
    assert requests_in_all(containers, [(first, False)]) == amounts(cpu=6, gpu=1, memory=5)
    assert requests_in_all(containers, [(sidecar, True), (second, False)]) == amounts(cpu=5, memory=5)
    assert requests_in_all(containers, [(second, False), (sidecar, True)]) == amounts(cpu=4, memory=5)
    assert requests_in_all([amounts(cpu=1)], [(sidecar, True)]) == amounts(cpu=3)


def test_a_resource_that_only_one_container_asks_for_keeps_its_amount() -> None:
    """Also where that is less than one."""
    quarter, half = Decimal("0.25"), Decimal("0.5")
    asked = requests_in_all([{"cpu": quarter}, {"gpu": half}], [({"memory": half}, False)])
    assert asked == {"cpu": quarter, "gpu": half, "memory": half}


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        (amounts(cpu=1), 4),
        (amounts(cpu=1, memory=5), 2),
        ({"cpu": Decimal("0.3")}, 13),
        ({}, 20),
        (amounts(cpu=1, marker=0), 4),
        (amounts(gpu=1), 0),
        ({"cpu": UNREADABLE}, 0),
        (amounts(cpu=100), 0),
    ],
)
def test_a_node_holds_as_many_as_its_scarcest_resource_allows(requests: Resources, expected: int) -> None:
    """Pods are one of its resources; what is asked for with amount zero is none, and doubt counts as no room."""
    assert fitting(amounts(cpu=4, memory=10, pods=20), requests) == expected


def test_an_amount_that_cannot_be_read_does_not_bound_what_a_node_holds() -> None:
    """The others do."""
    assert fitting({"cpu": UNREADABLE, "pods": Decimal(7)}, amounts(cpu=1)) == 7
    assert fitting({}, amounts(cpu=1)) == 0
