"""What plan and doctor say of snapshots with Karpenter: nodes that would stay, and empty ones that nobody takes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from extender.inspect.doctor.findings import Verdict
from extender.inspect.doctor.karpenter import check_nodes
from extender.inspect.plan import Plan
from extender.inspect.plan_text import render_json, render_table
from extender.inspect.snapshot import parse_snapshot
from extender.inspect.survey.snapshot_evidence import evidence_of_snapshot
from extender.inspect.survey.to_evidence import DoctorOptions
from extender.settings import Configuration
from tests.builders import by_label, plan_of

Json = dict[str, Any]

NOW = "2026-11-20T12:00:00Z"
YESTERDAY = "2026-11-19T11:59:00Z"
GUARD = {"karpenter.sh/do-not-disrupt": "true"}
NODE_POOL: Json = {
    "kind": "NodePool",
    "metadata": {"name": "w", "uid": "np-w"},
    "spec": {
        "disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "1m", "budgets": [{"nodes": "10%"}]}
    },
}


def condition(kind: str, since: str = YESTERDAY, **more: str) -> Json:
    return {"type": kind, "status": "True", "lastTransitionTime": since, **more}


def machine(number: int, *, claimed: bool = True) -> Iterable[Json]:
    """A Node, the higher the number the newer, and its NodeClaim, Consolidatable for a day."""
    name = f"n{number}"
    labels = {"karpenter.sh/nodepool": "w", "karpenter.sh/initialized": "true"}
    owner = {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "uid": f"claim-{name}"}
    created = f"2026-11-{11 + number}T12:00:00Z"
    metadata = {"name": name, "uid": f"uid-{name}", "creationTimestamp": created, "labels": labels}
    ready = condition("Ready", created, lastHeartbeatTime=NOW)
    yield {"kind": "Node", "metadata": {**metadata, "ownerReferences": [owner]}, "status": {"conditions": [ready]}}
    if claimed:
        status = {"conditions": [condition("Initialized"), condition("Consolidatable")]}
        yield {"kind": "NodeClaim", "metadata": {"name": f"w-{name}", "uid": f"claim-{name}"}, "status": status}


def pod(name: str, on: int, **metadata: Any) -> Json:
    own = {"name": name, "namespace": "work", "uid": f"uid-{name}", "creationTimestamp": YESTERDAY}
    status = {"phase": "Running", "startTime": YESTERDAY, "conditions": [condition("Ready")]}
    return {"kind": "Pod", "metadata": {**own, **metadata}, "spec": {"nodeName": f"n{on}"}, "status": status}


def idle(on: int) -> Json:
    marks = {"warmnode.dev/idle-since": "2026-11-20T11:00:00Z"}
    return pod(f"w{on}", on, labels={"warmnode.dev/pool": "ducks"}, annotations=marks)


def agent(on: int, **metadata: Any) -> Json:
    """A DaemonSet's pod."""
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "uid": "o", "controller": True}
    return pod(f"agent-{on}", on, ownerReferences=[owner], **metadata)


def budget(allowed: int) -> Json:
    spec = {"selector": {"matchLabels": {"app": "agent"}}}
    metadata = {"name": "guard", "namespace": "work"}
    return {
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": spec,
        "status": {"disruptionsAllowed": allowed},
    }


def content_of(*items: Json) -> bytes:
    return json.dumps({"kind": "List", "items": [NODE_POOL, *items]}).encode()


def kept(*items: Json) -> dict[str, tuple[int, str | None, str | None]]:
    """What doctor finds of nodes that stay: how many workers, the reason, and what Karpenter said."""
    found = evidence_of_snapshot(content_of(*items), DoctorOptions(), source="the test").kept_nodes
    assert found is not None
    return {each.name: (each.workers, each.kept.reason if each.kept else None, each.said) for each in found}


def plan(*items: Json) -> Plan:
    content = content_of(*items)
    snapshot = parse_snapshot(content, by_label, source="the test")
    return plan_of(snapshot, Configuration.default(), source="the test")


def evicted(made: Plan) -> list[str]:
    (reap,) = made.reaps
    return [victim.name for victim in reap.victims]


def stays(made: Plan) -> dict[str, str]:
    (reap,) = made.reaps
    return {pod.name: reason for pod, reason in reap.stays}


FIVE = [item for number in range(5) for item in machine(number)]


def test_empty_node_held_by_a_daemon_sets_pod_does_not_stop_reaping() -> None:
    """n4 is empty for a day and will stay: it is told with the pod, and n3, the newest of the others, is emptied."""
    made = plan(*FIVE, *map(idle, range(4)), agent(4, annotations=GUARD))
    assert evicted(made) == ["w3"]
    (stuck,) = json.loads(render_json(made))["stuckNodes"]
    expected = {"name": "n4", "nodePool": "w", "reason": "otherPodDoNotDisrupt", "pod": "work/agent-4"}
    assert stuck == {**expected, "podDisruptionBudgets": []}
    assert "n4 of w: karpenter.sh/do-not-disrupt on pod work/agent-4" in render_table(made)


def test_no_worker_goes_where_every_node_would_stay() -> None:
    """A DaemonSet whose pods all ask not to be disrupted."""
    made = plan(*FIVE, *map(idle, range(5)), *(agent(on, annotations=GUARD) for on in range(5)))
    assert evicted(made) == []
    assert set(stays(made).values()) == {"otherPodDoNotDisrupt"}
    assert made.stuck == ()


def test_empty_node_that_nothing_is_known_to_hold_is_told_so() -> None:
    """It may be a CapacityBuffer, which is in no object."""
    made = plan(*FIVE, *map(idle, range(4)), agent(4))
    assert evicted(made) == ["w3"]
    assert "n4 of w: not known why" in render_table(made)


def test_closed_budget_over_a_daemon_sets_pod_keeps_its_node() -> None:
    """With the budget in the snapshot it is told; without, that it is not known."""
    items = (*FIVE, *map(idle, range(5)), agent(4, labels={"app": "agent"}))
    made = plan(*items, budget(0))
    assert (evicted(made), stays(made)["w4"]) == (["w3"], "otherPodBudget")
    assert evicted(plan(*items, budget(1))) == ["w4"]
    assert any("PodDisruptionBudget holds" in line for line in plan(*items).unknown)
    assert not any("PodDisruptionBudget holds" in line for line in made.unknown)
    empty = plan(*FIVE, *map(idle, range(4)), agent(4, labels={"app": "agent"}), budget(0))
    assert "n4 of w: PodDisruptionBudget work/guard on pod work/agent-4" in render_table(empty)


def test_node_without_a_node_claim_is_nothing_to_karpenter() -> None:
    """n4 is empty and none of Karpenter's: it stops nobody, and no worker goes for its sake."""
    machines = [item for number in range(4) for item in machine(number)]
    made = plan(*machines, *machine(4, claimed=False), *map(idle, range(4)))
    assert (evicted(made), made.stuck) == (["w3"], ())
    made = plan(*machines, *machine(4, claimed=False), *map(idle, range(5)))
    assert (evicted(made), stays(made)["w4"]) == (["w3"], "noNodeClaim")


def test_doctor_finds_the_nodes_that_the_reaper_would_leave_alone() -> None:
    """By the same functions: what holds n2 and n3 is known, n4 is empty for a day and only Karpenter says why."""
    said = {
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Node", "name": "n4"},
        "reason": "Unconsolidatable",
        "message": 'Node "n4" has buffer pods',
        "lastTimestamp": NOW,
    }
    held = agent(2, annotations=GUARD)
    covered = agent(3, labels={"app": "agent"})
    assert kept(*FIVE, *map(idle, range(4)), held, covered, budget(0), said) == {
        "n2": (1, "otherPodDoNotDisrupt", None),
        "n3": (1, "otherPodBudget", None),
        "n4": (0, None, 'Node "n4" has buffer pods'),
    }


def test_doctor_does_not_know_which_nodes_stay_without_node_pools() -> None:
    content = json.dumps({"kind": "List", "items": [*FIVE, idle(1)]}).encode()
    assert check_nodes(evidence_of_snapshot(content, DoctorOptions(), source="the test")).verdict is Verdict.UNKNOWN
