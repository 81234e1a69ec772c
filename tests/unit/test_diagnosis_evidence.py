"""The rule of every check of doctor: ok is said only where the evidence for it was read, else unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from extender.inspect.doctor.diagnose import Check, diagnose
from extender.inspect.doctor.evidence import Evidence, Kind
from extender.inspect.doctor.findings import Finding, Verdict
from tests.builders import minutes_ago, node, node_pool
from tests.evidence import called, config, evidence, extender, facts, with_karpenter

OK, UNKNOWN = Verdict.OK, Verdict.UNKNOWN
WHY = "somebody forbids it"
OF_WORKERS = {
    Check.SCHEDULER_NAMES,
    Check.POOLS,
    Check.IDLE_MARKS,
    Check.DELETION_COSTS,
    Check.DISRUPTION_BUDGETS,
    Check.LEDGER,
    Check.WAITING_WORKERS,
}
OF_NODE_POOLS = {Check.KARPENTER_EXPIRY, Check.KARPENTER_NODE_POOLS, Check.KARPENTER_NODES}

PIECES: dict[Kind, tuple[dict[str, Any], set[Check]]] = {
    Kind.NODES: (
        {"nodes": (), "kept_nodes": ()},
        {Check.LEDGER, Check.KARPENTER_NODES, Check.KARPENTER_PRIORITIES},
    ),
    Kind.PODS: (
        {"workers": (), "programs": ()},
        OF_WORKERS
        | {
            Check.SCHEDULER_CALLS,
            Check.REAPER,
            Check.PERMISSIONS,
            Check.KARPENTER_NODES,
            Check.KARPENTER_PRIORITIES,
        },
    ),
    Kind.CONFIG_MAPS: ({"ledger": None}, {Check.LEDGER}),
    Kind.SETTINGS: ({}, OF_WORKERS | {Check.CONFIGURATION}),
    Kind.LEASES: ({"webhook": None, "leader": None}, {Check.SCHEDULER_CALLS, Check.REAPER, Check.CLOCKS}),
    Kind.DISRUPTION_BUDGETS: ({"budgets": ()}, {Check.DISRUPTION_BUDGETS, Check.KARPENTER_NODES}),
    Kind.NODE_POOLS: ({"node_pools": ()}, OF_NODE_POOLS),
    Kind.NODE_CLAIMS: ({"node_claims": {}}, {Check.KARPENTER_NODES}),
    Kind.NODE_EVENTS: ({}, set()),
    Kind.NODE_LEASES: ({}, {Check.CLOCKS}),
    Kind.ACCESS_REVIEWS: ({"access": None}, {Check.PERMISSIONS}),
}
"""What is left of the evidence without each kind, and the checks that rest on it."""


def well() -> Evidence:
    """Nothing but ok, in a cluster with Karpenter."""
    return with_karpenter((1, 14), node_pool(), nodes=(node("node-a", node_pool="workers"), node("node-b")))


def without(kind: Kind, whole: Evidence) -> Evidence:
    changes, _ = PIECES[kind]
    return replace(whole, unread={**whole.unread, kind: WHY}, **changes)


def findings(looked_at: Evidence) -> dict[Check, Finding]:
    return dict(diagnose(looked_at, source="f").findings)


def test_whatever_is_looked_at_is_a_piece_here() -> None:
    """So that a new kind is taken away too."""
    assert set(PIECES) == set(Kind)


@pytest.mark.parametrize("whole", [well(), evidence()], ids=["karpenter", "no karpenter"])
def test_with_all_its_evidence_everything_is_well(whole: Evidence) -> None:
    """None is unknown without need."""
    assert {finding.verdict for finding in findings(whole).values()} == {OK}


@pytest.mark.parametrize("kind", PIECES)
def test_without_its_evidence_no_check_says_ok(kind: Kind) -> None:
    """It is unknown and names what was not read; the checks that do not rest on it stay as they are."""
    found = findings(without(kind, well()))
    _, rest_on_it = PIECES[kind]
    assert {check for check, finding in found.items() if finding.verdict is not OK} == rest_on_it
    for check in rest_on_it:
        assert found[check].verdict is UNKNOWN
        assert f"({WHY})" in found[check].summary or WHY in found[check].summary


def test_with_nothing_read_nothing_is_ok() -> None:
    """Nor does any check crash, whatever else is there."""
    nothing = well()
    for kind in Kind:
        nothing = without(kind, nothing)
    nothing = replace(nothing, clocks=None, scheduler_configs=(), karpenter=type(nothing.karpenter)())
    assert {finding.verdict for finding in findings(nothing).values()} == {UNKNOWN}


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({"clocks": None}, {Check.CLOCKS}),
        ({"clocks": ()}, {Check.CLOCKS}),
        (
            {"scheduler_configs": ()},
            {Check.SCHEDULER_EXTENDER, Check.SCHEDULER_WEIGHT, Check.SCHEDULER_SAMPLE},
        ),
        ({"leader": None, "webhook": None}, {Check.SCHEDULER_CALLS, Check.REAPER}),
    ],
)
def test_what_was_not_found_is_not_ok_either(changes: Any, unknown: set[Check]) -> None:
    """A clock that nobody told, a scheduler's configuration that is nowhere, an installation that is elsewhere."""
    found = findings(replace(well(), **changes))
    assert {check for check, finding in found.items() if finding.verdict is not OK} == unknown
    assert {found[check].verdict for check in unknown} == {UNKNOWN}


def test_managed_resources_rest_on_the_pods() -> None:
    """Without them nobody knows whether workers carry the resource."""
    managed = config(extender(managedResources=[{"name": "warmnode.dev/worker"}]))
    carrying = facts(resources=frozenset({"warmnode.dev/worker"}))
    whole = evidence(scheduler_configs=(managed,), workers=(carrying,))
    assert findings(whole)[Check.SCHEDULER_EXTENDER].verdict is OK
    assert findings(without(Kind.PODS, whole))[Check.SCHEDULER_EXTENDER].verdict is UNKNOWN


def test_a_silence_that_one_node_explains_rests_on_the_nodes() -> None:
    """With them read it is well: a worker that fits on one node only is placed without a call."""
    placed = tuple(facts(scheduled=minutes_ago(5)) for _ in range(3))
    whole = evidence(webhook=called(minutes_ago(60)), workers=placed, nodes=(node("node-a"),))
    assert Check.SCHEDULER_CALLS.judge(whole).verdict is OK
    assert Check.SCHEDULER_CALLS.judge(without(Kind.NODES, whole)).verdict is UNKNOWN


@pytest.mark.parametrize("kind", [Kind.PODS, Kind.SETTINGS])
def test_no_reaper_rests_on_the_pods_and_the_settings(kind: Kind) -> None:
    """One that should lead and does not would be among the pods, and the settings name its Lease."""
    whole = evidence(leader=None)
    assert Check.REAPER.judge(whole).verdict is OK
    assert Check.REAPER.judge(without(kind, whole)).verdict is UNKNOWN
