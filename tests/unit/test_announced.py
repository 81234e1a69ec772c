"""What a snapshot of real objects shows of nodes that others take, that changed machines, or where a worker hangs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from extender.cluster.state import ClusterState
from extender.inspect.explain import PodExplanation, explain_pod
from extender.inspect.plan import Look, Plan, look_at
from extender.inspect.snapshot import parse_snapshot
from extender.kube.objects import ENDING_TAINTS, LEAVING_TAINTS, NodeObject, node_from
from extender.model import FOREVER, Departure, Ending, Pod, SkipReason
from extender.policy.ages import is_of_old_machine
from extender.policy.scoring import score_nodes
from extender.settings import Configuration
from extender.web.candidates import Candidates
from tests.builders import NOW, by_label, clock_of, ledger, minutes_ago, node, worker

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def time(**ago: float) -> str:
    return (AT - timedelta(**ago)).isoformat()


def node_item(name: str, created: str, *taints: str, ready: str = "True", since: str | None = None) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "lastHeartbeatTime": time(), "lastTransitionTime": since or created}
    return {
        "kind": "Node",
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": created},
        "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints]},
        "status": {"conditions": [condition]},
    }


def pod_item(
    name: str, on: str | None, created: str, *, idle: str | None = None, deleted: str | None = None
) -> dict[str, Any]:
    status = "True" if on else "False"
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "work",
            "uid": f"uid-{name}",
            "creationTimestamp": created,
            "labels": {"warmnode.dev/pool": "ducks"},
            "annotations": {"warmnode.dev/idle-since": idle} if idle else {},
            "deletionTimestamp": deleted,
        },
        "spec": {"schedulerName": "warmnode", "nodeName": on},
        "status": {
            "phase": "Running" if on else "Pending",
            "conditions": [
                {"type": kind, "status": status, "lastTransitionTime": created} for kind in ("PodScheduled", "Ready")
            ],
        },
    }


def look(*items: dict[str, Any]) -> Look:
    content = json.dumps({"kind": "List", "items": items}).encode()
    return look_at(parse_snapshot(content, by_label, source="test"), Configuration.default(), source="test")


def order(plan: Plan) -> list[tuple[str, int | None, str | None]]:
    return [(line.name, line.rank, line.leaving or line.ending) for line in plan.nodes]


def evicted(plan: Plan) -> list[str]:
    return [pod.name for reap in plan.reaps for pod in reap.victims if reap.waits is None]


def explained(seen: Look, name: str) -> PodExplanation:
    found = explain_pod(seen, name)
    assert found.worker is not None
    return found


def not_claimable(seen: Look, name: str) -> SkipReason | None:
    found = explained(seen, name).worker
    return found.not_claimable if found is not None else None


# -- departures that others announce ----------------------------------------------------------------------------------


def test_a_node_that_the_cluster_autoscaler_takes_is_leaving_and_its_candidate_ending() -> None:
    """The oldest node goes: its worker cannot be claimed and goes first. The one on the node that stays is kept."""
    seen = look(
        node_item("n0-old-going", time(days=10), "ToBeDeletedByClusterAutoscaler"),
        node_item("n1", time(days=9)),
        node_item("n2-candidate", time(days=8), "DeletionCandidateOfClusterAutoscaler"),
        *(
            pod_item(f"w{number}", name, time(days=7), idle=time(hours=1))
            for number, name in enumerate(("n0-old-going", "n1", "n2-candidate"))
        ),
    )
    assert order(seen.plan) == [
        ("n1", 1, None),
        ("n2-candidate", 2, Ending.DELETION_CANDIDATE),
        ("n0-old-going", None, Departure.CLUSTER_AUTOSCALER),
    ]
    assert not_claimable(seen, "w0") is SkipReason.LEAVING_NODE
    assert not_claimable(seen, "w2") is None
    assert evicted(seen.plan) == ["w0", "w2"]


@pytest.mark.parametrize("key", [*LEAVING_TAINTS, *ENDING_TAINTS])
def test_each_taint_of_the_tables_is_read_whatever_its_effect(key: str) -> None:
    """They are put on with effects that users may set."""
    for effect in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
        raw = {"metadata": {"name": "n", "uid": "u"}, "spec": {"taints": [{"key": key, "effect": effect}]}}
        read = node_from(msgspec.json.decode(json.dumps(raw), type=NodeObject))
        assert (read.announced, read.announced_ending) == (LEAVING_TAINTS.get(key), ENDING_TAINTS.get(key))
        assert not read.disrupted


def test_other_taints_announce_nothing() -> None:
    """A pool's own taint, or one of a new node."""
    raw = {
        "metadata": {"name": "n", "uid": "u"},
        "spec": {"taints": [{"key": "example.com/workers"}, {"key": "node.kubernetes.io/not-ready"}]},
    }
    read = node_from(msgspec.json.decode(json.dumps(raw), type=NodeObject))
    assert (read.announced, read.announced_ending) == (None, None)


# -- nodes that are not heard of --------------------------------------------------------------------------------------


def test_an_old_node_that_is_unreachable_is_last_and_nobody_is_handed_out_there() -> None:
    """It may come back, so it keeps its rank behind the others, and its workers go no sooner than others."""
    seen = look(
        node_item("n0-lost", time(days=10), ready="Unknown", since=time(seconds=1)),
        node_item("n1", time(days=9)),
        node_item("n2-blinks", time(days=8), ready="False", since=time(seconds=49)),
        *(
            pod_item(f"w{number}", name, time(days=7), idle=time(hours=1))
            for number, name in enumerate(("n0-lost", "n1", "n2-blinks"))
        ),
    )
    assert order(seen.plan) == [("n1", 1, None), ("n2-blinks", 2, None), ("n0-lost", 3, Ending.NOT_HEARD_OF)]
    assert not_claimable(seen, "w0") is SkipReason.NODE_NOT_HEARD_OF
    assert not_claimable(seen, "w2") is None
    assert evicted(seen.plan)[0] == "w2"


def test_a_node_falls_silent_by_the_clock_alone() -> None:
    """No event tells that 50 s are over: ranking and claims follow the clock, and it comes back with an event."""
    now = [NOW]
    state = ClusterState(clock=lambda: now[0])
    silent = node("old", created=minutes_ago(900), ready=False, not_ready_since=NOW)
    state.replace_nodes([silent, node("new", created=minutes_ago(9))])
    state.replace_pods([worker("w", node="old"), worker("v", node="new", ready_since=minutes_ago(5))])
    state.take_ledger(ledger({}))
    state.begin()
    assert names(state, now[0]) == ["old", "new"]
    now[0] += timedelta(seconds=49)
    assert (names(state, now[0]), state.objects.why_barred("old", now[0])) == (["old", "new"], None)
    now[0] += timedelta(seconds=1)
    assert (names(state, now[0]), state.objects.why_barred("old", now[0])) == (
        ["new", "old"],
        SkipReason.NODE_NOT_HEARD_OF,
    )
    state.upsert_node(node("old", created=minutes_ago(900)))
    assert (names(state, now[0]), state.objects.why_barred("old", now[0])) == (["old", "new"], None)


async def test_nobody_is_handed_out_on_a_node_that_is_not_heard_of() -> None:
    """Its worker says Ready still, for the kubelet that would take that back is not heard of."""
    state = ClusterState(clock=lambda: NOW)
    state.replace_nodes([node("old", ready=False, not_ready_since=minutes_ago(0), unreachable=True), node("new")])
    state.replace_pods([worker(f"w-{name}", node=name, idle_since=minutes_ago(9)) for name in ("old", "new")])
    state.begin()
    candidates = Candidates(state, clock_of(lambda: NOW))
    assert [each.name for each in candidates.in_order("pool") if each] == ["w-new"]
    assert await candidates.tally("pool") == {SkipReason.NODE_NOT_HEARD_OF: 1}


def names(state: ClusterState, now: datetime = NOW) -> list[str]:
    return [name for name, _ in score_nodes(list(state.nodes), state.ranking.as_of(now))]


# -- a node's name on another machine ---------------------------------------------------------------------------------


def test_a_worker_of_an_earlier_machine_makes_the_node_neither_older_nor_is_it_claimable() -> None:
    """A node was replaced under its name; the pod of the earlier one is still bound to it."""
    seen = look(
        node_item("worker-1", time(days=19)),
        node_item("worker-3", time(minutes=10)),
        node_item("worker-5", time(minutes=20)),
        pod_item("w1", "worker-1", time(hours=23)),
        pod_item("w-stale", "worker-3", time(days=2), idle=time(hours=1)),
    )
    assert [name for name, _, _ in order(seen.plan)] == ["worker-1", "worker-5", "worker-3"]
    assert seen.state.ages.first_seen(seen.state.nodes["worker-3"]) is None
    assert not_claimable(seen, "w-stale") is SkipReason.OLD_MACHINE


CREATED = minutes_ago(60)


@pytest.mark.parametrize(
    ("created", "bound", "ready", "expected"),
    [
        (90, 89, 88, True),
        (90, 89, None, True),
        (90, 59, 58, False),  # it waited for this node
        (90, 59, 61, False),  # the same, with a kubelet's clock that is slow
        (90, 89, 30, False),  # the kubelet of this machine has started it
        (90, None, 88, False),  # nobody says when it was bound
        (50, 88, 88, False),  # bound by a kubelet's clock: it is younger than the node
    ],
)
def test_who_is_of_an_old_machine(created: float, bound: float | None, ready: float | None, expected: bool) -> None:
    """Bound before the Node was there, and not started since."""
    pod = worker(
        created=minutes_ago(created),
        bound=None if bound is None else minutes_ago(bound),
        ready_since=None if ready is None else minutes_ago(ready),
    )
    assert is_of_old_machine(pod, node(created=CREATED)) is expected
    assert not is_of_old_machine(pod, node(created=FOREVER)), "nobody says when the Node was created"


STALE = worker("stale", node="n", created=minutes_ago(90), bound=minutes_ago(89), ready_since=minutes_ago(88))
MACHINE = node("n", uid="new", created=CREATED)


def fed_pod_first(state: ClusterState) -> None:
    state.upsert_pod(STALE)
    state.upsert_node(MACHINE)


def fed_node_first(state: ClusterState) -> None:
    state.upsert_node(MACHINE)
    state.upsert_pod(STALE)


def fed_by_lists(state: ClusterState) -> None:
    state.replace_pods([STALE])
    state.replace_nodes([MACHINE])


def fed_by_a_replacement(state: ClusterState) -> None:
    state.upsert_node(node("n", uid="old", created=minutes_ago(900)))
    state.upsert_pod(STALE)
    assert not state.pods[STALE.uid].old_machine
    state.upsert_node(MACHINE)


@pytest.mark.parametrize("feed", [fed_pod_first, fed_node_first, fed_by_lists, fed_by_a_replacement])
def test_a_worker_of_an_old_machine_is_known_in_any_order_of_events(feed: Any) -> None:
    """And is a worker like others once this machine's kubelet has started it."""
    state = ClusterState(clock=lambda: NOW)
    feed(state)
    assert seen_by(state) == (True, None)
    state.begin()
    assert seen_by(state) == (True, None)
    state.upsert_pod(worker("stale", node="n", created=STALE.created, bound=STALE.bound, ready_since=minutes_ago(30)))
    assert seen_by(state) == (False, minutes_ago(30))


def seen_by(state: ClusterState) -> tuple[bool, datetime | None]:
    (there,) = state.where.workers_on("n").values()
    assert there is state.pods[there.uid]
    return there.old_machine, state.ages.first_seen(MACHINE)


# -- a worker that hangs ----------------------------------------------------------------------------------------------


def test_a_worker_that_hangs_does_not_make_the_oldest_node_ending() -> None:
    """A finalizer has kept it for two days after its grace."""
    seen = look(
        node_item("n0-old", time(days=19)),
        node_item("n1-young", time(days=1)),
        node_item("n2-never-used", time(hours=1)),
        pod_item("w-stuck", "n0-old", time(days=18), deleted=time(days=2)),
        pod_item("w1", "n1-young", time(hours=23)),
    )
    assert order(seen.plan) == [("n0-old", 1, None), ("n1-young", 2, None), ("n2-never-used", 3, None)]


def test_a_node_ends_to_be_ending_when_its_worker_begins_to_hang() -> None:
    """By the clock alone: whoever hangs makes no event."""
    now = [NOW]
    state = ClusterState(clock=lambda: now[0])
    going: Pod = worker("w", node="old", terminating=True, going_until=NOW + timedelta(seconds=30))
    state.replace_nodes([node("old", created=minutes_ago(900)), node("new", created=minutes_ago(9))])
    state.replace_pods([going, worker("v", node="new", ready_since=minutes_ago(5))])
    state.take_ledger(ledger({}))
    state.begin()
    assert names(state, now[0]) == ["new", "old"]
    now[0] += timedelta(minutes=5, seconds=29)
    assert names(state, now[0]) == ["new", "old"]
    now[0] += timedelta(seconds=1)
    assert names(state, now[0]) == ["old", "new"]


# -- a worker that is never placed ------------------------------------------------------------------------------------


def test_a_worker_that_fits_nowhere_does_not_hold_its_pool_for_ever() -> None:
    """Four idle workers; one waits since two days for a node that there is not."""
    seen = look(
        *(node_item(f"n{number}", time(days=9 - number)) for number in range(4)),
        *(pod_item(f"w{number}", f"n{number}", time(hours=23), idle=time(hours=1)) for number in range(4)),
        pod_item("never", None, time(days=2)),
    )
    assert evicted(seen.plan) == ["w3", "w2", "w1"]
