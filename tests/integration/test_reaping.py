"""The reaper against a real control plane: who is evicted, in which order, who never is, and what is told of it."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.client import wait_for
from scripts.tools.controlplane.objects import is_ready
from tests.integration.ground import POOL, POOL_LABEL, Ground
from tests.integration.reapers import IDLE, LONG_AGO, Reapers, evicted, reaping, wait_evicted
from tests.integration.test_doctor import doctor

pytestmark = pytest.mark.controlplane


@pytest.fixture
def reapers(ground: Ground, tmp_path: Path) -> Iterator[Reapers]:
    with reaping(ground, tmp_path) as made:
        yield made


def aged_nodes(ground: Ground, count: int) -> list[str]:
    """Nodes whose first-seen times are an hour apart, oldest first; their creation says nothing."""
    names = ground.nodes(count, cpu="8", wait=False)
    ground.write_ledger({name: 60 * (count - position) for position, name in enumerate(names)})
    return names


def two_on_each(nodes: list[str]) -> dict[str, str]:
    """Two workers for each node: w0a and w0b on the oldest."""
    return {f"w{position}{letter}": node for position, node in enumerate(nodes) for letter in "ab"}


# -- the order ------------------------------------------------------------------------------------------------------


def test_idle_workers_leave_from_the_newest_node_until_the_floor_is_left(ground: Ground, reapers: Reapers) -> None:
    """Evictions go from the newest node to the oldest. The floor stays, on the oldest. Busy ones stay wherever."""
    nodes = aged_nodes(ground, 4)
    workers = two_on_each(nodes)
    reapers.run_workers(workers, busy=["w3a", "w1b"])
    reaper = reapers.start(floor=2)
    reapers.wait_names({"w0a", "w0b", "w3a", "w1b"})
    reapers.wait_passes(reaper)
    assert reapers.names() == {"w0a", "w0b", "w3a", "w1b"}
    order = evicted(reaper)
    assert [workers[name] for name in order] == [nodes[3], nodes[2], nodes[2], nodes[1]]

    told = [event for event in reapers.events() if event["reason"] == "EvictedIdleWorker"]
    assert {event["regarding"]["name"] for event in told} == set(order)
    assert {event["reportingController"] for event in told} == {"warmnode.dev/reaper"}
    assert reaper.metric("warmnode_evictions_total", pool=POOL, outcome="evicted") == 4
    assert reapers.skipped(reaper, "floor") == 2


@pytest.mark.parametrize(
    "spec",
    [
        {"unschedulable": True},
        {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "value": "1763640000", "effect": "NoSchedule"}]},
    ],
    ids=["cordoned", "clusterAutoscaler"],
)
def test_leaving_nodes_are_emptied_first_and_do_not_hold_the_floor(
    ground: Ground, reapers: Reapers, spec: Json
) -> None:
    """An idle worker on a node that goes goes first, whatever its age, and is not one of those that the floor keeps."""
    nodes = aged_nodes(ground, 3)
    reapers.run_workers({"old": nodes[0], "mid": nodes[1], "new": nodes[2]})
    ground.patch_node(nodes[0], {"spec": spec})
    reaper = reapers.start(floor=1)
    reapers.wait_names({"mid"})
    wait_evicted(reaper, "old", "new")


def test_order_and_floor_survive_a_kill(ground: Ground, reapers: Reapers) -> None:
    """After SIGKILL nothing is evicted before nodes, pods and ledger are loaded, and the order is as before."""
    nodes = aged_nodes(ground, 4)
    workers = two_on_each(nodes)
    reapers.run_workers(workers)
    reaper = reapers.start(floor=2, maxPerPass=2)
    ground.wait(lambda: evicted(reaper), "the first eviction")
    reaper.kill()
    lines_before = len(reaper.text().splitlines())
    reaper.start()
    reapers.wait_names({"w0a", "w0b"})
    ground.wait(lambda: len(evicted(reaper)) == 6, lambda: f"{evicted(reaper)}")
    assert [workers[name] for name in evicted(reaper)] == [nodes[3]] * 2 + [nodes[2]] * 2 + [nodes[1]] * 2
    messages = [json.loads(line)["message"] for line in reaper.text().splitlines()[lines_before:]]
    assert messages.index("synced") < messages.index("evicted")
    listed = [position for position, message in enumerate(messages) if message == "listed"]
    assert len(listed) == 3
    assert max(listed) < messages.index("synced")


def test_a_worker_that_fits_nowhere_holds_its_pool_for_pending_for_only(ground: Ground, reapers: Reapers) -> None:
    """Then the pool goes on, a gauge counts it, and doctor says what the real scheduler says of it."""
    nodes = aged_nodes(ground, 2)
    reapers.run_workers({"old": nodes[0], "new": nodes[1]}, busy=["old", "new"])
    reaper = reapers.start(floor=1, pendingFor="10s")
    ground.create_pod("never", cpu="64")
    reapers.mark_idle("old", "new", since=LONG_AGO)
    ground.wait(lambda: reaper.metric("warmnode_reap_skipped", pool=POOL, reason="pendingWorkers") == 1, "the brake")
    reapers.wait_names({"old", "never"})
    ground.wait(lambda: reaper.metric("warmnode_reap_unplaced_workers", pool=POOL) == 1, "the pass that evicted to end")
    _, found = doctor(ground, "--config", str(reapers.config_file))
    assert found["waitingWorkers"]["verdict"] == "warning"
    assert "Insufficient cpu" in found["waitingWorkers"]["details"][0]


NEVER_READY = {"pod-ready.stage.kwok.x-k8s.io/delay": "1h"}


# -- owners ---------------------------------------------------------------------------------------------------------


def test_worker_whose_owner_would_recreate_it_stays(ground: Ground, reapers: Reapers) -> None:
    """Pods of a ReplicaSet, a Job, a StatefulSet or an unknown owner stay, unless the settings say otherwise."""
    (node,) = aged_nodes(ground, 1)
    reapers.deployment("deployed", 1, node)
    template = reapers.template(node, "job", annotations=NEVER_READY)  # one that runs would complete at once
    template["spec"]["restartPolicy"] = "Never"
    reapers.create("batch/v1", "Job", "job", {"template": template})
    selector = {"matchLabels": {"app": "stateful"}}
    reapers.create(
        "apps/v1",
        "StatefulSet",
        "stateful",
        {"selector": selector, "serviceName": "none", "template": reapers.template(node, "stateful")},
    )
    owner = {"apiVersion": "example.com/v1", "kind": "Session", "name": "one", "controller": True}
    reapers.pod_with("of-a-session", node, ownerReferences=[owner | {"uid": str(uuid.uuid4())}])
    reapers.pod_with("bare", node)
    ground.wait(lambda: sum(map(is_ready, ground.pods().values())) == 4, lambda: f"{list(ground.pods())}")
    ground.wait(lambda: len(ground.pods()) == 5, lambda: f"{list(ground.pods())}")

    reaper = reapers.start()
    ground.wait(lambda: evicted(reaper), lambda: reaper.text()[-2000:])
    reapers.wait_passes(reaper)
    wait_evicted(reaper, "bare")
    assert reapers.skipped(reaper, "ownerRecreates") == 4
    reaper.stop()

    reaper = reapers.start(evictOwners=["Session.example.com"])
    ground.wait(lambda: evicted(reaper), lambda: reaper.text()[-2000:])
    reapers.wait_passes(reaper)
    wait_evicted(reaper, "of-a-session")
    assert reapers.skipped(reaper, "ownerRecreates") == 3


def test_workers_that_keep_coming_back_pause_the_pool(ground: Ground, reapers: Reapers) -> None:
    """Evicting what a ReplicaSet makes again is stopped, and an Event, explain and doctor (by the Lease) say so."""
    (node,) = aged_nodes(ground, 1)
    reapers.deployment("deployed", 2, node)
    reaper = reapers.start(scaleIn="evict")
    ground.wait(
        lambda: reaper.metric("warmnode_reap_paused", pool=POOL) == 1,
        lambda: f"a pause after {evicted(reaper)}: {reaper.text()[-3000:]}",
    )
    reapers.wait_passes(reaper)
    assert 4 <= len(evicted(reaper)) <= 6
    assert reapers.skipped(reaper, "poolPaused") == 2
    assert len(reapers.of("deployed")) == 2
    assert [event["type"] for event in reapers.events() if event["reason"] == "ReapingPaused"] == ["Warning"]
    ground.wait(
        lambda: asked(reapers, "explain", "pool", POOL)["pool"]["pausedUntil"] is not None, "a Lease that says so"
    )
    assert asked(reapers, "explain", "pool", POOL)["pool"]["waits"] == "poolPaused"
    (check,) = (each for each in asked(reapers, "doctor")["checks"] if each["check"] == "reaper")
    assert f"pool {POOL} is paused until" in check["summary"]


def test_loop_of_workers_that_mark_themselves_late_pauses_the_pool(ground: Ground, reapers: Reapers) -> None:
    """A Deployment of three and an idle timeout of 5 s; each worker marks itself two seconds after Ready."""
    (node,) = aged_nodes(ground, 1)
    reapers.deployment("deployed", 3, node, idle=False)
    reaper = reapers.start(scaleIn="evict", idleTimeout="5s")

    def is_paused() -> bool:
        for name, pod in reapers.of("deployed").items():
            since = next((each for each in pod["status"].get("conditions", ()) if each["type"] == "Ready"), None)
            marked = IDLE in pod["metadata"].get("annotations", {})
            if since is not None and since["status"] == "True" and not marked:
                ready = datetime.fromisoformat(since["lastTransitionTime"])
                if datetime.now(UTC) - ready >= timedelta(seconds=2):
                    reapers.mark_idle(name)
        return reaper.metric("warmnode_reap_paused", pool=POOL) == 1

    wait_for(is_paused, 120, lambda: f"a pause after {evicted(reaper)}: {reaper.text()[-3000:]}")
    assert len(evicted(reaper)) <= 15


def asked(reapers: Reapers, *command: str) -> Any:
    """What a command for people says of the cluster, as JSON."""
    flags = ("--kubeconfig", str(reapers.control_plane.kubeconfig), "--namespace", reapers.ground.namespace)
    files = ("--config", str(reapers.config_file), "--output", "json")
    words = [sys.executable, "-m", "extender", *command, *flags, *files]
    return json.loads(subprocess.run(words, capture_output=True, text=True, timeout=60).stdout)


# -- budgets --------------------------------------------------------------------------------------------------------


def budget(reapers: Reapers, name: str, minimum: int, labels: dict[str, str]) -> str:
    """Create a PodDisruptionBudget and wait until the disruption controller has looked at it: its path."""
    reapers.create(
        "policy/v1", "PodDisruptionBudget", name, {"minAvailable": minimum, "selector": {"matchLabels": labels}}
    )
    path = f"/apis/policy/v1/namespaces/{reapers.ground.namespace}/poddisruptionbudgets/{name}"
    reapers.ground.wait(lambda: _is_judged(reapers, path), f"{name} to be judged")
    return path


def _is_judged(reapers: Reapers, path: str) -> bool:
    item = reapers.control_plane.api("GET", path)
    return bool(item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"])


def test_budget_that_forbids_an_eviction_holds_its_pods_and_no_others(ground: Ground, reapers: Reapers) -> None:
    """429 by a budget: counted, its pods are let be for a while, others go, and all go once it allows that."""
    old, new = aged_nodes(ground, 2)
    guarded = {"labels": {POOL_LABEL: POOL, "guarded": "yes"}}
    for name in ("g1", "g2"):
        reapers.pod_with(name, new, **guarded)
    reapers.pod_with("free", old)
    reapers.wait_ready(["g1", "g2", "free"])
    path = budget(reapers, "guard", 2, {"guarded": "yes"})
    reaper = reapers.start()
    reapers.wait_names({"g1", "g2"})
    reapers.wait_passes(reaper)
    wait_evicted(reaper, "free")
    assert reaper.metric("warmnode_evictions_total", pool=POOL, outcome="blocked") == 1
    # the pass that was refused skips the other one only, those after it skip both
    reapers.ground.wait(lambda: reapers.skipped(reaper, "budgetBlocked") == 2, "both guarded workers to be held")
    assert [line["pod"] in ("g1", "g2") for line in reaper.lines("not evicted")] == [True]

    reapers.control_plane.api("PATCH", path, {"spec": {"minAvailable": 0}})
    reapers.wait_names(set())


def test_two_budgets_on_one_pod_are_reported(ground: Ground, reapers: Reapers) -> None:
    """The API server evicts no pod that two budgets cover: an outcome of its own, and others go all the same."""
    old, new = aged_nodes(ground, 2)
    reapers.pod_with("twice", new, labels={POOL_LABEL: POOL, "guarded": "yes"})
    reapers.pod_with("free", old)
    reapers.wait_ready(["twice", "free"])
    budget(reapers, "first", 0, {"guarded": "yes"})
    budget(reapers, "second", 0, {"guarded": "yes"})
    reaper = reapers.start()
    reapers.wait_names({"twice"})
    ground.wait(
        lambda: reaper.metric("warmnode_evictions_total", pool=POOL, outcome="severalBudgets") >= 1,
        lambda: reaper.text()[-2000:],
    )
    wait_evicted(reaper, "free")


# -- dry-run --------------------------------------------------------------------------------------------------------


def test_dry_run_writes_nothing_and_says_what_a_run_then_does(ground: Ground, reapers: Reapers) -> None:
    """With --dry-run no pod changes and no Event is written; the logged plan is what a real run carries out."""
    nodes = aged_nodes(ground, 3)
    reapers.run_workers(two_on_each(nodes), busy=["w2a"])
    versions = {name: pod["metadata"]["resourceVersion"] for name, pod in ground.pods().items()}
    dry = reapers.start("--dry-run", floor=2)
    reapers.wait_passes(dry, 6)  # a look at all deletion costs comes every five seconds
    assert {name: pod["metadata"]["resourceVersion"] for name, pod in ground.pods().items()} == versions
    assert reapers.events() == []
    assert not dry.lines("evicted")
    assert dry.metric("warmnode_reap_passes_total", outcome="dryRun") >= 6
    planned = [line["pod"] for line in dry.lines("would evict")][:3]
    dry.stop()

    reaper = reapers.start(floor=2)
    reapers.wait_names({"w0a", "w0b", "w2a"})
    wait_evicted(reaper, *planned)


# -- never ----------------------------------------------------------------------------------------------------------


def test_daemon_set_static_and_system_pods_are_never_evicted(ground: Ground, reapers: Reapers) -> None:
    """A selector that matches them does not make them victims, whatever else the settings say."""
    (node,) = aged_nodes(ground, 1)
    label = f"pool-{secrets.token_hex(4)}"
    labels = {POOL_LABEL: POOL, label: "yes"}
    template = reapers.template(None, "daemon")
    template["metadata"]["labels"] |= labels
    reapers.create(
        "apps/v1", "DaemonSet", "daemon", {"selector": {"matchLabels": {"app": "daemon"}}, "template": template}
    )
    mirror = {IDLE: LONG_AGO, "kubernetes.io/config.mirror": "a", "kubernetes.io/config.source": "file"}
    reapers.pod_with("static", node, labels=labels, annotations=mirror)
    system = reapers.pod_with(label, node, labels=labels, namespace="kube-system")
    reapers.pod_with("bare", node, labels=labels)
    try:
        ground.wait(lambda: len(ground.pods()) == 3, lambda: f"{list(ground.pods())}")
        reapers.wait_ready(list(ground.pods()))
        pool = {"namespaces": None, "selector": {"matchLabels": {label: "yes"}}}
        reaper = reapers.start(pool=pool, scaleIn="evict")
        ground.wait(lambda: evicted(reaper), lambda: reaper.text()[-2000:])
        reapers.wait_passes(reaper)
        wait_evicted(reaper, "bare")
        for reason in ("daemonSet", "systemNamespace", "staticPod"):
            assert reapers.skipped(reaper, reason) == 1, reason
    finally:
        reapers.remove(f"/api/v1/namespaces/kube-system/pods/{system['metadata']['name']}")


# -- nonsense -------------------------------------------------------------------------------------------------------


def in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


BUSY_MARKS = {
    "empty": "",
    "words": "since yesterday",
    "number": "1767225600",
    "no-zone": "2026-01-01T00:00:00",
    "date": "2026-01-01",
    "no-such-day": "2026-02-31T00:00:00Z",
    "year-zero": "0000-01-01T00:00:00Z",
    "huge": "2026-01-01T00:00:00Z" * 10_000,
    "null": "\u0000",
}
IDLE_MARKS = {
    "zone": "2026-01-01T00:00:00+14:00",
    "far-zone": "2026-01-01T00:00:00.123456789-11:30",
    "lower": "2026-01-01t00:00:00z",
}


def test_only_a_time_with_a_zone_that_has_come_means_idle(ground: Ground, reapers: Reapers) -> None:
    """Whatever else stands in the mark means busy, however large; and other annotations mean nothing."""
    (node,) = aged_nodes(ground, 1)
    for name, mark in {**BUSY_MARKS, **IDLE_MARKS, "future": in_an_hour()}.items():
        reapers.pod_with(name, node, annotations={IDLE: mark})
    reapers.pod_with("laden", node, annotations={IDLE: LONG_AGO, "example.com/notes": "x" * 200_000})
    names = set(ground.pods())
    reapers.wait_ready(sorted(names))
    reaper = reapers.start()
    reapers.wait_names({*BUSY_MARKS, "future"})
    reapers.wait_passes(reaper)
    assert reapers.names() == {*BUSY_MARKS, "future"}
    assert reaper.metric("warmnode_pool_workers", pool=POOL, state="busy") == len(BUSY_MARKS) + 1


def test_floor_above_the_number_of_workers_keeps_all(ground: Ground, reapers: Reapers) -> None:
    (node,) = aged_nodes(ground, 1)
    reapers.run_workers({"w1": node, "w2": node})
    reaper = reapers.start(floor=1000)
    reapers.wait_passes(reaper, 2)
    assert reapers.names() == {"w1", "w2"}
    assert reapers.skipped(reaper, "floor") == 2


def test_nonsense_in_the_ledger_is_ignored_reported_and_kept(ground: Ground, reapers: Reapers) -> None:
    """Keys that make no sense change no order and stay as they are; those that make sense count."""
    old, mid, new = ground.nodes(3, wait=False)
    nonsense = {"not-a-node": "never", ground.uid(mid): "soon", "future": "99999999999999"}
    ground.write_ledger({old: 60, new: 1}, nonsense=nonsense)
    reapers.run_workers({"old": old, "new": new})
    reaper = reapers.start(floor=1)
    reapers.wait_names({"old"})
    (told,) = reaper.lines("ledger keys make no sense and are left alone")
    assert set(told["keys"]) == set(nonsense)
    assert {key: ground.ledger()[key] for key in nonsense} == nonsense
