"""Doctor's checks of Karpenter: the generation, expireAfter, NodePools, feature gates; and how a version is found."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from extender.inspect.doctor.evidence import KarpenterFacts, KeptNode, Kind, Program, WorkerFacts
from extender.inspect.doctor.findings import Finding, Verdict
from extender.inspect.doctor.karpenter import check_expiry, check_generation, check_node_pools, check_nodes
from extender.inspect.doctor.karpenter_prices import check_feature_gates, check_priorities
from extender.inspect.survey.karpenter_version import karpenter_facts, parse_version
from extender.kube.karpenter_events import EventObject, last_words
from extender.model import FOREVER, DisruptionBudget, Node, NodePool, Pod, SkipReason
from extender.policy.deletion_cost import FREE_AT
from extender.policy.node_pool_budgets import Kept
from tests.builders import NOW, daemon, minutes_ago, node, worker
from tests.evidence import evidence, facts, with_karpenter

OK, UNKNOWN, WARNING, PROBLEM = Verdict.OK, Verdict.UNKNOWN, Verdict.WARNING, Verdict.PROBLEM
CHECKS = (check_generation, check_expiry, check_node_pools, check_nodes, check_feature_gates)


def pool(name: str = "workers", **given: Any) -> NodePool:
    return NodePool(name=name, uid=f"uid-of-{name}", **given)


def of_pool(name: str, pool_name: str) -> Node:
    made = node(name)
    return Node(name=made.name, uid=made.uid, created=made.created, node_pool=pool_name)


def seen(**given: Any) -> KarpenterFacts:
    return KarpenterFacts(**({"where": "the image that runs, pod karpenter/a", "feature_gates": {}} | given))


def test_a_cluster_without_karpenter_has_nothing_to_check() -> None:
    """And says so."""
    assert [check(evidence()).summary for check in CHECKS] == ["no Karpenter in this cluster"] * 5
    assert {check(evidence()).verdict for check in CHECKS} == {OK}


@pytest.mark.parametrize("check", [check_expiry, check_node_pools, check_nodes])
def test_node_pools_that_may_not_be_read_are_not_known(check: Any) -> None:
    """With the reason."""
    finding = check(with_karpenter((1, 14), node_pools=(), unread={Kind.NODE_POOLS: "forbidden"}))
    assert (finding.verdict, finding.summary) == (UNKNOWN, "nodepools.karpenter.sh were not read (forbidden)")


# -- the generation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "says"), [((1, 14), "price"), ((2, 0), "price"), ((1, 13), "lifetime")])
def test_the_image_that_runs_tells_the_generation(version: tuple[int, int], says: str) -> None:
    """From 1.14 on by price, before by remaining lifetime."""
    finding = check_generation(with_karpenter(version, pool()))
    assert finding.verdict is OK
    assert says in finding.summary
    assert "the image that runs" in finding.summary


@pytest.mark.parametrize(("has_balanced", "guess"), [(True, "1.14 or newer"), (False, "1.13 or older")])
def test_the_crd_alone_is_a_guess(has_balanced: bool, guess: str) -> None:
    """Where Karpenter does not run in sight, as with managed control planes."""
    karpenter = seen(has_balanced=has_balanced)
    finding = check_generation(with_karpenter(None, pool(), karpenter=karpenter))
    assert finding.verdict is OK
    assert f"probably Karpenter {guess}" in finding.summary


def test_crds_of_another_generation_deserve_a_look() -> None:
    """Helm does not upgrade them. What runs decides."""
    karpenter = seen(version=(1, 14), has_balanced=False)
    finding = check_generation(with_karpenter((1, 14), pool(), karpenter=karpenter))
    assert finding.verdict is WARNING
    assert "apply the CRDs" in (finding.remedy or "")


def test_karpenter_before_1_0_is_older_than_what_is_read() -> None:
    """It is not served as karpenter.sh/v1."""
    assert check_generation(with_karpenter((0, 37), unread={Kind.NODE_POOLS: "not in this cluster"})).verdict is WARNING


def test_node_pools_of_a_version_that_is_not_read_are_not_known() -> None:
    """There is a Karpenter, whatever its version is: not one of its checks is ok."""
    karpenter = KarpenterFacts()
    unread = {Kind.NODE_POOLS: "served as karpenter.sh/v1beta1, and karpenter.sh/v1 is read"}
    looked_at = with_karpenter(None, node_pools=(), karpenter=karpenter, unread=unread)
    assert {check(looked_at).verdict for check in CHECKS} == {UNKNOWN}


@pytest.mark.parametrize(
    "given",
    [
        {"nodes": (of_pool("node-a", "workers"),)},
        {"karpenter": KarpenterFacts(is_running=True)},
    ],
)
def test_a_cluster_with_signs_of_karpenter_is_not_without(given: Any) -> None:
    """A node of a NodePool, a pod of Karpenter: the API alone does not make it absent."""
    assert {check(evidence(**given)).verdict for check in CHECKS} == {UNKNOWN}


def test_nothing_that_tells_is_not_known() -> None:
    """With what to look at."""
    finding = check_generation(with_karpenter(None, pool(), karpenter=KarpenterFacts()))
    assert finding.verdict is UNKNOWN
    assert finding.remedy is not None


# -- how the version is found -----------------------------------------------------------------------------------------


def pod(image: str, *, label: str = "", **given: Any) -> Program:
    return Program(
        namespace="karpenter", name="karpenter-1", program="karpenter", image=image, version_label=label, **given
    )


@pytest.mark.parametrize(
    ("image", "label", "version", "how"),
    [
        ("public.ecr.aws/karpenter/controller:1.14.1@sha256:0123", "", (1, 14), "the image that runs"),
        ("registry:5000/karpenter/controller:v1.13.0", "1.14.0", (1, 13), "the image that runs"),
        ("registry:5000/karpenter/controller", "1.13.0", (1, 13), "a label"),
        ("registry:5000/karpenter@sha256:0123", "1.14.1", (1, 14), "a label"),
        ("karpenter:latest", "", None, ""),
    ],
)
def test_the_image_counts_before_the_label(image: str, label: str, version: Any, how: str) -> None:
    """A tag that is no version, or a digest alone, tells nothing."""
    facts = karpenter_facts([pod(image, label=label)], has_balanced=None)
    assert (facts.version, facts.where.partition(",")[0]) == (version, how)


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.14.1", (1, 14)), ("v0.37.6", (0, 37)), ("1.14.0-eksbuild.2", (1, 14)), ("1.15", (1, 15)), ("latest", None)],
)
def test_versions_as_people_write_them(text: str, version: Any) -> None:
    """Major and minor."""
    assert parse_version(text) == version


def test_feature_gates_come_from_the_environment_or_the_flag() -> None:
    """The flag goes over it. Without a pod nothing is known."""
    name = "PodDeletionCostManagement"
    by_environment = pod("karpenter:1.14.1", environment={"FEATURE_GATES": f"NodeRepair=false, {name}=true"})
    assert (karpenter_facts([by_environment], has_balanced=None).feature_gates or {})[name] is True
    by_flag = pod(
        "karpenter:1.14.1", arguments=(f"--feature-gates={name}=false",), environment={"FEATURE_GATES": "A=true"}
    )
    assert karpenter_facts([by_flag], has_balanced=None).feature_gates == {name: False}
    assert karpenter_facts([], has_balanced=True).feature_gates is None
    elsewhere = pod("karpenter:1.14.1", environment={"FEATURE_GATES": None})
    assert karpenter_facts([by_flag, elsewhere], has_balanced=None).feature_gates is None


# -- expireAfter ------------------------------------------------------------------------------------------------------

MONTH = timedelta(days=30)


def test_expire_after_works_against_us_up_to_1_13() -> None:
    """For certain where the version is, else it may."""
    expiring = pool(expire_after=MONTH)
    finding = check_expiry(with_karpenter((1, 13), expiring))
    assert finding.verdict is PROBLEM
    assert "workers (30d)" in finding.summary
    guessed = seen(has_balanced=False)
    assert check_expiry(with_karpenter(None, expiring, karpenter=guessed)).verdict is WARNING
    assert check_expiry(with_karpenter(None, expiring)).verdict is UNKNOWN


def test_expire_after_orders_nothing_from_1_14_on() -> None:
    """Nor does Never up to 1.13, nor does it matter for static pools here."""
    assert check_expiry(with_karpenter((1, 14), pool(expire_after=MONTH))).verdict is OK
    assert check_expiry(with_karpenter((1, 13), pool())).verdict is OK
    assert check_expiry(with_karpenter((1, 13), pool(expire_after=MONTH, replicas=3))).verdict is OK


def test_only_node_pools_with_workers_matter() -> None:
    """Where none has any, all may."""
    pools = (pool("workers"), pool("others", expire_after=MONTH))
    nodes = (of_pool("node-a", "workers"), of_pool("node-b", "others"))
    assert check_expiry(with_karpenter((1, 13), *pools, nodes=nodes)).verdict is OK
    assert check_expiry(with_karpenter((1, 13), *pools, nodes=nodes, workers=())).verdict is PROBLEM


# -- NodePools --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"consolidate_after": None}, "consolidateAfter: Never"),
        ({"replicas": 3}, "static (3 replicas)"),
        ({"budgets": (DisruptionBudget(nodes="0"),)}, "budget of 0"),
        ({"budgets": (DisruptionBudget(nodes="0%", reasons=frozenset({"Empty"})), DisruptionBudget())}, "budget of 0%"),
    ],
)
def test_a_node_pool_that_keeps_empty_nodes_deserves_a_look(given: Any, said: str) -> None:
    """Emptying its nodes is in vain."""
    finding = check_node_pools(with_karpenter((1, 14), pool(**given)))
    assert finding.verdict is WARNING
    assert said in finding.summary


HOUR = timedelta(hours=1)
OPEN = DisruptionBudget(nodes="50%")


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        ((DisruptionBudget(nodes="10 %"),), "budget of 10 % for"),
        ((DisruptionBudget(nodes="10%", schedule="0 25 * * *", duration=HOUR),), "budget of 10% at '0 25 * * *'"),
        ((DisruptionBudget(nodes="10%", schedule="@daily"),), "budget of 10% at '@daily'"),
        ((DisruptionBudget(nodes="0", schedule="0 0 31 2 *", duration=HOUR), OPEN), "budget of 0 at '0 0 31 2 *' for"),
        ((DisruptionBudget(nodes="0", schedule="* * * * *", duration=HOUR),), "budget of 0 at '* * * * *'"),
        (
            tuple(DisruptionBudget(nodes="0", schedule=f"0 {hour} * * *", duration=12 * HOUR) for hour in (0, 12)),
            "budget of 0 at '0 0 * * *', 0 at '0 12 * * *'",
        ),
        ((DisruptionBudget(nodes="x", reasons=frozenset({"Drifted"})), OPEN), "budget of x for"),
    ],
)
def test_budgets_that_never_open_are_found_as_karpenter_reads_them(budgets: Any, said: str) -> None:
    """One that cannot be read allows nothing; one that is always on, or two that take turns, never end."""
    finding = check_node_pools(with_karpenter((1, 14), pool(budgets=budgets)))
    assert finding.verdict is WARNING
    assert said in finding.summary


@pytest.mark.parametrize(
    "budget",
    [
        DisruptionBudget(nodes="10%", schedule="0 0 31 2 *", duration=timedelta(hours=1)),
        DisruptionBudget(nodes="0", schedule="0 0 3 * *", duration=timedelta(days=25)),
        DisruptionBudget(nodes="10%"),
        DisruptionBudget(nodes="0", reasons=frozenset({"Drifted"})),
        DisruptionBudget(nodes="0", schedule="0 9 * * 1-5", duration=timedelta(hours=8)),
        DisruptionBudget(nodes="1"),
    ],
)
def test_a_budget_that_lets_empty_nodes_go_some_day_is_well(budget: DisruptionBudget) -> None:
    """0 for other reasons, or at some hours only."""
    assert check_node_pools(with_karpenter((1, 14), pool(budgets=(budget,)))).verdict is OK


# -- feature gates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gates", "verdict"),
    [
        ({"PodDeletionCostManagement": True}, PROBLEM),
        ({"PodDeletionCostManagement": False}, OK),
        ({}, OK),
        (None, UNKNOWN),
    ],
)
def test_karpenter_must_not_write_deletion_costs_too(gates: Any, verdict: Verdict) -> None:
    """The gate is off by default, so absent is off."""
    karpenter = seen(version=(1, 14), feature_gates=gates)
    assert check_feature_gates(with_karpenter((1, 14), pool(), karpenter=karpenter)).verdict is verdict


# -- nodes that stay --------------------------------------------------------------------------------------------------


def kept(name: str, reason: SkipReason | None, pod: Pod | None = None, *, workers: int = 1, **given: Any) -> KeptNode:
    held = None if reason is None else Kept(reason=reason, pod=pod, budgets=given.pop("budgets", ()))
    return KeptNode(name=name, workers=workers, kept=held, **given)


def nodes_that_stay(*found: KeptNode, **given: Any) -> Finding:
    return check_nodes(with_karpenter((1, 14), pool(), kept_nodes=found, **given))


def test_nodes_that_stay_are_named_with_the_pods_that_hold_them() -> None:
    """By reason, the empty ones first; with what Karpenter said last."""
    found = nodes_that_stay(
        kept("a", SkipReason.OTHER_POD_DO_NOT_DISRUPT, daemon("agent-a", node="a")),
        kept("b", SkipReason.OTHER_POD_DO_NOT_DISRUPT, daemon("agent-b", node="b")),
        kept("c", SkipReason.OTHER_POD_BUDGET, daemon("agent-c", node="c"), budgets=("x/one", "x/two")),
        kept("d", None, workers=0, said='Node "d" has buffer pods'),
        kept("e", SkipReason.NODE_POOL_UNKNOWN, workers=0),
    )
    assert found.verdict is WARNING
    assert found.summary.startswith("2 empty nodes that Karpenter does not take: d (not known why")
    assert 'Karpenter: Node "d" has buffer pods), e (its NodePool is not there)' in found.summary
    budgets, marks = found.details
    assert "c (PodDisruptionBudgets x/one and x/two on pod default/agent-c)" in budgets
    assert marks.startswith("2 nodes would stay without workers (otherPodDoNotDisrupt): a (karpenter.sh/do-not-disrupt")
    assert "on pod default/agent-b" in marks


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (SkipReason.NODE_DO_NOT_DISRUPT, "a (karpenter.sh/do-not-disrupt on the Node)"),
        (SkipReason.NO_NODE_CLAIM, "a (noNodeClaim)"),
    ],
)
def test_what_is_on_the_node_itself_is_told_too(reason: SkipReason, words: str) -> None:
    """By the name of the reason where there is nothing to add."""
    found = nodes_that_stay(kept("a", reason))
    assert found.verdict is WARNING
    assert words in found.summary


@pytest.mark.parametrize(
    "reason",
    [
        SkipReason.STATIC_NODE_POOL,
        SkipReason.NEVER_CONSOLIDATED,
        SkipReason.NODE_NOT_INITIALIZED,
        SkipReason.NODE_KEEPS_OTHERS,
    ],
)
def test_nodes_that_stay_as_they_should_are_no_finding(reason: SkipReason) -> None:
    """The check of NodePools tells the first two; a new node and a pod of something else are nothing to mend."""
    assert nodes_that_stay(kept("a", reason)).verdict is OK


@pytest.mark.parametrize("kind", [Kind.NODES, Kind.PODS, Kind.NODE_CLAIMS, Kind.DISRUPTION_BUDGETS])
def test_that_no_node_stays_is_said_only_where_all_was_read(kind: Kind) -> None:
    """What is found is told all the same, with what is missing."""
    unread = {kind: "forbidden"}
    assert (nodes_that_stay(unread=unread).verdict, nodes_that_stay().verdict) == (UNKNOWN, OK)
    found = nodes_that_stay(kept("a", SkipReason.NODE_DO_NOT_DISRUPT), unread=unread)
    assert (found.verdict, found.details) == (WARNING, (f"{kind} were not read (forbidden)",))


def test_what_karpenter_said_last_of_a_node_counts() -> None:
    """Of its reasons about Nodes; a message of several lines, and a very long one, are one short line."""

    def event(name: str, message: str, minutes: int, *, kind: str = "Node", reason: str = "DisruptionBlocked") -> Any:
        raw = {
            "metadata": {},
            "involvedObject": {"kind": kind, "name": name},
            "reason": reason,
            "message": message,
            "lastTimestamp": minutes_ago(minutes),
        }
        return msgspec.convert(raw, EventObject)

    said = last_words(
        [
            event("a", "later", 1),
            event("a", "earlier", 9, reason="Unconsolidatable"),
            event("b", "two\n lines", 1),
            event("c", "x" * 900, 1),
            event("d", "of its claim", 1, kind="NodeClaim"),
            event("e", "it rebooted", 1, reason="Rebooted"),
        ]
    )
    assert said == {"a": "later", "b": "two lines", "c": "x" * 300}


# -- prices and priorities --------------------------------------------------------------------------------------------


def priced(priority: int | None, **given: Any) -> WorkerFacts:
    return facts(worker(given.pop("name", "w"), node="node-a", priority=priority, **given))


@pytest.mark.parametrize(
    ("version", "given", "verdict"),
    [
        ((1, 15), {"priority": FREE_AT + 1}, OK),
        ((1, 15), {"priority": None}, OK),
        ((1, 15), {"priority": FREE_AT}, PROBLEM),
        ((1, 15), {"priority": FREE_AT, "idle_since": NOW}, PROBLEM),
        ((1, 14), {"priority": FREE_AT}, PROBLEM),
        ((1, 13), {"priority": FREE_AT}, OK),
        (None, {"priority": FREE_AT}, PROBLEM),
        ((1, 15), {"priority": FREE_AT, "disruption_cost": "2000000000"}, OK),
        (None, {"priority": FREE_AT, "disruption_cost": "2000000000"}, OK),
        ((1, 14), {"priority": FREE_AT, "disruption_cost": "2000000000"}, PROBLEM),
        ((1, 15), {"priority": -1_000_000_000, "disruption_cost": "2147483647"}, PROBLEM),
        ((1, 15), {"priority": FREE_AT, "disruption_cost": "abc"}, OK),
        ((1, 15), {"priority": FREE_AT, "do_not_disrupt_until": FOREVER}, OK),
        ((1, 15), {"priority": -20_000_000, "deletion_cost": "-84200000"}, OK),
    ],
)
def test_a_pool_whose_priority_makes_its_workers_free_is_a_problem(
    version: Any, given: dict[str, Any], verdict: Any
) -> None:
    """As this Karpenter weighs them, with what stands on them; with the bounds, and what helps below them."""
    nodes = (node("node-a", node_pool="workers"),)
    finding = check_priorities(with_karpenter(version, pool(), nodes=nodes, workers=(priced(**given),)))
    assert finding.verdict is verdict
    if verdict is PROBLEM:
        assert "pool pool" in finding.summary
        assert "-33,554,432" in "".join(finding.details)
        assert "-570,000,000" in (finding.remedy or "")


def test_without_karpenter_no_priority_is_low() -> None:
    """And it is not known where pods were not read."""
    assert check_priorities(evidence()).summary == "no Karpenter in this cluster"
    unread = with_karpenter((1, 15), pool(), workers=(), unread={Kind.PODS: "forbidden"})
    assert check_priorities(unread).verdict is UNKNOWN


def test_priorities_on_nodes_that_are_not_karpenters_are_nothing_to_it() -> None:
    """It takes none of them."""
    nodes = (node("node-a"), node("node-b", node_pool="workers"))
    assert check_priorities(with_karpenter((1, 15), pool(), nodes=nodes, workers=(priced(FREE_AT),))).verdict is OK


def test_static_node_pool_that_expires_gives_its_oldest_first() -> None:
    """When its replicas are lowered; with what to do before."""
    expiring = check_node_pools(with_karpenter((1, 15), pool(replicas=3, expire_after=MONTH)))
    assert expiring.verdict is WARNING
    assert "oldest go first" in expiring.summary
    assert "expireAfter: Never" in expiring.summary
    assert "oldest" not in check_node_pools(with_karpenter((1, 15), pool(replicas=3))).summary
