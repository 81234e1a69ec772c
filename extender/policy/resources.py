"""What pods ask for, and how many of a kind a node can hold. Owns quantities, and the sum over a pod's containers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TypeAlias

_QUANTITY = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_DECIMAL = {"": Decimal(1), "m": Decimal("0.001")} | {
    suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", 1)
}
_UNITS = _DECIMAL | {f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)}
UNREADABLE = Decimal("Infinity")

Resources: TypeAlias = Mapping[str, Decimal]
"""Amounts by the name of the resource: cpu in cores, memory in bytes."""

_ONE_POD = {"pods": Decimal(1)}


def quantity(text: object) -> Decimal:
    """Read a quantity (apimachinery resource.Quantity): 500m, 2, 1.5Gi. What cannot be read is more than all."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        return UNREADABLE
    number, suffix = match.groups(default="")
    return Decimal(number) * _UNITS[suffix]


def requests_in_all(containers: Iterable[Resources], before_them: Iterable[tuple[Resources, bool]] = ()) -> Resources:
    """Sum up what a pod asks for, as kube-scheduler does (component-helpers/resource/helpers.go, PodRequests).

    ``before_them`` are the init containers in their order, with True for those that go on running (sidecars). It is the
    greater of 1. containers and sidecars together; 2. any one init container with the sidecars before it.
    """
    running: Resources = {}
    most: Resources = {}
    for requests, is_sidecar in before_them:
        if is_sidecar:
            running = _sum(running, requests)
        else:
            most = _greater(most, _sum(running, requests))
    for requests in containers:
        running = _sum(running, requests)
    return _greater(most, running)


def fitting(allocatable: Resources, requests: Resources) -> int:
    """Count the pods with these requests for which a node has room while nothing else is on it.

    0 where it has not heard of a resource that they ask for, or where a request cannot be read.
    """
    asked = {name: amount for name, amount in {**requests, **_ONE_POD}.items() if amount}
    if UNREADABLE in asked.values():
        return 0
    room = [allocatable.get(name, Decimal(0)) / amount for name, amount in asked.items()]
    return min((int(each) for each in room if each != UNREADABLE), default=0)


def _sum(one: Resources, other: Resources) -> Resources:
    return {name: one.get(name, Decimal(0)) + other.get(name, Decimal(0)) for name in one.keys() | other.keys()}


def _greater(one: Resources, other: Resources) -> Resources:
    return {name: max(one.get(name, Decimal(0)), other.get(name, Decimal(0))) for name in one.keys() | other.keys()}
