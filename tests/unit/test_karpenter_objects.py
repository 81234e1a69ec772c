"""What is read of Karpenter's objects, on those that real Karpenters left: scripts/record-karpenter recorded them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from msgspec.structs import replace

from extender.kube.karpenter_objects import NodeClaimObject, NodePoolObject, node_claim_from, node_pool_from
from extender.kube.objects import NodeObject, node_from
from extender.model import FOREVER, Departure, DisruptionBudget, Ending, Node, NodeClaim, NodePool, SkipReason
from extender.model import NodeClaimCondition as Condition
from extender.policy.defaults import EndingRules
from extender.policy.departure import departure_of, ending_of, why_barred
from extender.policy.node_pool_budgets import Share, share_of
from tests.builders import node

Json: TypeAlias = dict[str, Any]
VERSIONS = ("1.15.0", "1.14.3", "1.13.0")
LEAVING = {
    "consolidatable": None,
    "deadline": Departure.NODE_DELETING,
    "deleting": Departure.NODE_DELETING,
    "disrupted": Departure.DISRUPTED,
    "drifted": None,
    "initialized": None,
    "neverConsolidated": None,
}
LEAVING_FROM_1_15 = {"bare": None, "rebooted": None, "rebooting": None, "repaired": Departure.DISRUPTED}


def recorded(version: str) -> dict[str, Json]:
    file = Path(__file__).parent / "recorded" / f"karpenter-{version}.json"
    states: dict[str, Json] = json.loads(file.read_text())["states"]
    return states


def read(objects: Mapping[str, Json]) -> tuple[Node, NodeClaim, NodePool]:
    return (
        node_from(msgspec.json.decode(msgspec.json.encode(objects["Node"]), type=NodeObject)),
        read_claim(objects["NodeClaim"]),
        node_pool_from(msgspec.json.decode(msgspec.json.encode(objects["NodePool"]), type=NodePoolObject)),
    )


def read_claim(raw: Json) -> NodeClaim:
    return node_claim_from(msgspec.json.decode(msgspec.json.encode(raw), type=NodeClaimObject))


def read_pool(**disruption: Any) -> NodePool:
    raw = {"metadata": {"name": "p", "uid": "u"}, "spec": {"disruption": disruption}}
    return node_pool_from(msgspec.json.decode(msgspec.json.encode(raw), type=NodePoolObject))


@pytest.fixture(params=VERSIONS)
def states(request: pytest.FixtureRequest) -> dict[str, Json]:
    """The states that each version has."""
    return {name: objects for name, objects in recorded(request.param).items() if name in LEAVING}


@pytest.fixture
def of_newest() -> dict[str, Json]:
    """The states that only the newest has."""
    return {name: objects for name, objects in recorded(VERSIONS[0]).items() if name not in LEAVING}


def test_every_recorded_state_is_told_apart(states: dict[str, Json]) -> None:
    """The reason of each state, and that states which are none are none."""
    assert {name: departure_of(*read(objects)[:2]) for name, objects in states.items()} == LEAVING


def test_a_node_that_reboots_is_not_leaving(of_newest: dict[str, Json]) -> None:
    """Its DisruptionReason stays True until a while after it is back; a repair by another node is as any disruption."""
    found = {name: read(objects) for name, objects in of_newest.items()}
    assert {name: departure_of(node, claim) for name, (node, claim, _) in found.items()} == LEAVING_FROM_1_15
    node, claim, _ = found["rebooting"]
    assert ending_of(node, [], claim, EndingRules(), claim.created) is Ending.REBOOTING
    assert why_barred(node, claim, claim.created) is SkipReason.NODE_REBOOTING
    node, claim, _ = found["rebooted"]
    assert ending_of(node, [], claim, EndingRules(), claim.created) is None
    assert why_barred(node, claim, claim.created) is None
    for objects in (of_newest["rebooting"], of_newest["rebooted"]):
        raw = deepcopy(objects["NodeClaim"])
        (reason,) = (each for each in raw["status"]["conditions"] if each["type"] == "DisruptionReason")
        reason["lastTransitionTime"] = "2036-01-01T00:00:00Z"
        assert departure_of(node, read_claim(raw)) is Departure.DISRUPTION_REASON, "one that came later is another one"


def test_a_node_that_reboots_uses_the_budget(of_newest: dict[str, Json]) -> None:
    """As in Karpenter, initialized or not."""
    node, claim, _ = read(of_newest["rebooting"])
    for each in (node, replace(node, initialized=False)):
        assert share_of(each, None, claim, knows_claims=True) == Share(nodes=1, used=1)


def test_node_pool_that_says_nothing_of_disruption_has_the_defaults(of_newest: dict[str, Json]) -> None:
    """consolidateAfter 0s, and 10% of the nodes at once; as where the API server did not fill them in."""
    _, _, pool = read(of_newest["bare"])
    assert (pool.consolidate_after, pool.consolidation_policy) == (timedelta(0), "WhenEmptyOrUnderutilized")
    assert pool.budgets == (DisruptionBudget(nodes="10%"),)
    given = read_pool()
    assert (given.consolidate_after, given.budgets) == (pool.consolidate_after, pool.budgets)


def test_node_claim_says_it_before_its_node_does(states: dict[str, Json]) -> None:
    """Between the deletion of a NodeClaim and the deletion and taint of its Node, the claim alone knows."""
    untouched, _, _ = read(states["initialized"])
    _, deleting, _ = read(states["deleting"])
    _, deadline, _ = read(states["deadline"])
    _, disrupted, _ = read(states["disrupted"])
    assert departure_of(untouched, deleting) is Departure.NODE_CLAIM_DELETING
    assert departure_of(untouched, disrupted) is Departure.DISRUPTION_REASON
    assert deadline.has_deadline
    assert not deleting.has_deadline
    assert departure_of(untouched, None) is None


def test_deadline_and_termination_are_reasons_of_their_own(states: dict[str, Json]) -> None:
    """Each is enough by itself: the recorded claims with nothing but this changed."""
    node, _, _ = read(states["initialized"])
    raw = deepcopy(states["initialized"]["NodeClaim"])
    raw["metadata"]["annotations"]["karpenter.sh/nodeclaim-termination-timestamp"] = "2026-11-24T12:35:28Z"
    assert departure_of(node, read_claim(raw)) is Departure.TERMINATION_TIMESTAMP
    raw["status"]["conditions"].append({"type": "InstanceTerminating", "status": "True"})
    assert departure_of(node, read_claim(raw)) is Departure.INSTANCE_TERMINATING
    raw["status"]["conditions"][-1]["status"] = "Unknown"
    assert departure_of(node, read_claim(raw)) is Departure.TERMINATION_TIMESTAMP


def test_node_and_claim_find_each_other(states: dict[str, Json]) -> None:
    """The Node names its NodeClaim by UID, and both name the NodePool."""
    for objects in states.values():
        node, claim, pool = read(objects)
        assert node.node_claim == claim.uid
        assert node.node_pool == claim.node_pool == pool.name
        assert node.initialized
        assert node.ready


def test_drifted_node_is_ending_only_where_the_setting_says_so(states: dict[str, Json]) -> None:
    """One edit of a template drifts every node: by default that changes nothing."""
    _, claim, _ = read(states["drifted"])
    now = claim.created + timedelta(minutes=1)
    assert Condition.DRIFTED in claim.conditions
    assert ending_of(node(), [], claim, EndingRules(), now) is None
    assert ending_of(node(), [], claim, EndingRules(drifted=True), now) is Ending.DRIFTED


def test_node_is_ending_for_a_tenth_of_its_life_at_most(states: dict[str, Json]) -> None:
    """2h of life and a horizon of 1h: the last 12 minutes. 720h of life: the last hour."""
    _, short, _ = read(states["drifted"])
    _, long, _ = read(states["initialized"])
    for claim, life, last in (
        (short, timedelta(hours=2), timedelta(minutes=12)),
        (long, timedelta(days=30), timedelta(hours=1)),
    ):
        assert claim.expire_after == life
        begins = claim.created + life - last
        assert ending_of(node(), [], claim, EndingRules(), begins - timedelta(seconds=1)) is None
        assert ending_of(node(), [], claim, EndingRules(), begins) is Ending.EXPIRES_SOON


def test_node_pool_settings_are_read(states: dict[str, Json]) -> None:
    _, _, pool = read(states["initialized"])
    assert pool.consolidate_after == timedelta(minutes=90)
    assert pool.consolidation_policy == "WhenEmptyOrUnderutilized"
    assert pool.expire_after == timedelta(hours=720)
    assert pool.replicas is None
    assert pool.budgets == (
        DisruptionBudget(nodes="20%", reasons=frozenset({"Empty", "Drifted"})),
        DisruptionBudget(nodes="5"),
        DisruptionBudget(nodes="0", schedule="@daily", duration=timedelta(minutes=10)),
    )
    _, _, never = read(states["neverConsolidated"])
    assert (never.consolidate_after, never.expire_after) == (None, None)
    assert never.budgets == (DisruptionBudget(nodes="10%"),)


def test_what_is_absent_is_karpenters_default() -> None:
    """An old or odd object decodes: 10% at once, no expiry, consolidated at once."""
    pool = read_pool()
    assert pool == NodePool(name="p", uid="u")
    claim = read_claim({"metadata": {"name": "c", "uid": "u"}})
    assert (claim.created, claim.expire_after, claim.conditions) == (FOREVER, None, frozenset())


def test_no_reasons_are_not_all_reasons() -> None:
    """Karpenter takes an absent list for all reasons and an empty one for none."""
    (budget,) = read_pool(budgets=[{"nodes": "0", "reasons": []}]).budgets
    assert budget.reasons == frozenset()


def test_duration_that_cannot_be_read_fails_closed() -> None:
    """It is dropped, and a schedule without a duration allows nothing; an unreadable expiry never comes."""
    (budget,) = read_pool(budgets=[{"nodes": "5", "schedule": "@daily", "duration": "soon"}]).budgets
    assert (budget.schedule, budget.duration) == ("@daily", None)
    raw = {"metadata": {"name": "c", "uid": "u", "creationTimestamp": "2026-11-01T12:00:00Z"}}
    claim = read_claim({**raw, "spec": {"expireAfter": "9" * 40 + "h"}})
    assert ending_of(node(), [], claim, EndingRules(), datetime(9999, 1, 1, tzinfo=UTC)) is None
