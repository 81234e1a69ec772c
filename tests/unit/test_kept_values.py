"""What is kept by the thousand costs the garbage collector nothing, however often it is replaced."""

from __future__ import annotations

import gc
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, get_args, get_type_hints

import pytest

from extender.cluster.state import ClusterState
from extender.model import Node, NodeClaim, Pod, PodClaim
from tests.builders import NOW, claim, minutes_ago, node, worker

KEPT = (Node, NodeClaim, Pod, PodClaim)
LEAVES = (str, int, datetime, timedelta, Decimal, type(None))


def tracked() -> int:
    gc.collect()
    return len(gc.get_objects())


def parts(kind: Any) -> set[type]:
    return set().union(*map(parts, get_args(kind))) if get_args(kind) else {kind}


@pytest.mark.parametrize("kind", KEPT)
def test_a_kept_value_can_never_be_part_of_a_cycle(kind: type) -> None:
    """The collector would not find it. Each field holds texts, numbers, times, or another such value."""
    for hint in get_type_hints(kind).values():
        for part in parts(hint):
            assert issubclass(part, (*LEAVES, StrEnum)) or part is PodClaim is not kind


def test_pods_that_are_listed_again_are_not_looked_through() -> None:
    """A full collection takes as long with them as without: after the first list, the next one, and changes."""
    state = ClusterState(clock=lambda: NOW)
    state.replace_nodes([node(f"n{number}") for number in range(10)])
    before = tracked()
    for turn in range(2):
        state.replace_pods([worker(f"w{i}", node=f"n{i % 10}", idle_since=minutes_ago(turn)) for i in range(1000)])
    for number in range(0, 1000, 2):
        state.upsert_pod(worker(f"w{number}", node=f"n{number % 10}", claim=claim()))
    assert tracked() - before < 100
