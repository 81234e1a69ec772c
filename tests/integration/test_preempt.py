"""Whom a stock kube-scheduler preempts when `warmnode serve` is asked, on nodes that are full."""

from __future__ import annotations

import pytest

from scripts.tools.controlplane import Process
from scripts.tools.serving import Serve
from tests.integration.ground import Ground, decisions

pytestmark = pytest.mark.controlplane

PROTECT = """
apiVersion: warmnode.dev/v1alpha1
kind: Configuration
poolDefaults:
  preempt: {busyVictims: protect}
pools:
  - name: ducks
    selector: {matchLabels: {warmnode.dev/pool: ducks}}
"""


def verdicts(serve: Serve, verdict: str) -> float:
    return serve.metric("warmnode_webhook_requests_total", verb="preempt", outcome=verdict)


def full(ground: Ground, count: int = 3) -> list[str]:
    """Nodes with room for one pod each, the oldest first, with their ages in the ledger."""
    names = ground.nodes(count, cpu="1")
    ground.write_ledger({name: 60 * (count - position) for position, name in enumerate(names)})
    return names


def alive(ground: Ground) -> set[str]:
    return {name for name, pod in ground.pods().items() if "deletionTimestamp" not in pod["metadata"]}


def test_a_worker_takes_the_place_of_a_placeholder_on_the_oldest_node(ground: Ground) -> None:
    """All placeholders cost the same: the worker goes where a cache is most likely warm."""
    oldest, older, newest = full(ground)
    for node in (newest, oldest, older):
        ground.run(f"placeholder-{node}", pool=None, node=node, priority_class="placeholder")
    serve = ground.serve()
    assert ground.place("worker", priority_class="low") == oldest
    assert alive(ground) == {"worker", f"placeholder-{older}", f"placeholder-{newest}"}
    assert [line["nodes"] for line in decisions(serve, "preempt")] == [[oldest]]


def test_a_stranger_takes_the_place_of_a_worker_on_the_newest_node(ground: Ground) -> None:
    """Workers are the victims and all are idle: the one that goes is on the coldest node."""
    oldest, older, newest = full(ground)
    for node in (older, newest, oldest):
        ground.run(f"worker-{node}", node=node, priority_class="low", idle=True)
    serve = ground.serve()
    assert ground.place("stranger", pool=None, priority_class="high") == newest
    assert alive(ground) == {"stranger", f"worker-{older}", f"worker-{oldest}"}
    assert verdicts(serve, "chosen") == 1


def test_a_busy_worker_is_taken_last(ground: Ground) -> None:
    """One worker is idle, on the oldest node: it goes although the busy ones are on newer nodes."""
    oldest, older, newest = full(ground)
    for node in (oldest, older, newest):
        ground.run(f"worker-{node}", node=node, priority_class="low", idle=node == oldest)
    ground.serve()
    assert ground.place("stranger", pool=None, priority_class="high") == oldest


def test_only_busy_workers_left_means_that_one_of_them_goes(ground: Ground) -> None:
    """busyVictims is lastResort by default: a pod of higher priority is not kept waiting, the newest node gives."""
    oldest, newest = full(ground, 2)
    for node in (oldest, newest):
        ground.run(f"worker-{node}", node=node, priority_class="low")
    ground.serve()
    assert ground.place("stranger", pool=None, priority_class="high") == newest


@pytest.mark.parametrize("preemptor", ["worker", "stranger"])
def test_the_priority_of_victims_comes_before_age(ground: Ground, preemptor: str) -> None:
    """The pod of lowest priority goes, wherever it is: here where age alone would not choose."""
    oldest, older, newest = full(ground)
    worker = preemptor == "worker"
    for node in (oldest, older, newest):
        priority = "low" if node == older else "middle"
        pool = None if worker else "ducks"
        ground.run(f"victim-{node}", pool=pool, node=node, priority_class=priority, idle=not worker)
    ground.serve()
    assert ground.place(preemptor, pool="ducks" if worker else None, priority_class="high") == older
    assert f"victim-{older}" not in alive(ground)


def test_where_no_worker_is_involved_the_answer_is_the_input(ground: Ground) -> None:
    """Strangers among themselves are the scheduler's own business: it gets back what it sent."""
    names = full(ground)
    for node in names:
        ground.run(f"victim-{node}", pool=None, node=node, priority_class="low")
    serve = ground.serve()
    assert ground.place("stranger", pool=None, priority_class="high") in names
    assert [line["nodes"] for line in map(sort_nodes, decisions(serve, "preempt"))] == [sorted(names)]
    assert verdicts(serve, "noWorker") == 1


def sort_nodes(line: dict[str, list[str]]) -> dict[str, list[str]]:
    return {**line, "nodes": sorted(line["nodes"])}


def test_protected_busy_workers_are_never_preempted(ground: Ground) -> None:
    """busyVictims: protect and only busy workers: no preemption. The pod stays Pending, which is Karpenter's cue."""
    names = full(ground, 2)
    for node in names:
        ground.run(f"worker-{node}", node=node, priority_class="low")
    serve = ground.serve(config=PROTECT)
    ground.create_pod("stranger", pool=None, priority_class="high")
    ground.wait(lambda: verdicts(serve, "vetoed") >= 1, "the veto")
    refused = ground.wait(
        lambda: [c for c in ground.pod("stranger")["status"].get("conditions", ()) if c["type"] == "PodScheduled"],
        "the scheduler to say why",
    )
    assert (refused[0]["status"], refused[0]["reason"]) == ("False", "Unschedulable")
    assert "nominatedNodeName" not in ground.pod("stranger")["status"]
    assert alive(ground) == {"stranger", *(f"worker-{node}" for node in names)}


def test_protect_still_gives_up_an_idle_worker(ground: Ground) -> None:
    """The node with the busy worker is dropped, the one with the idle worker is left."""
    oldest, newest = full(ground, 2)
    ground.run("idle", node=oldest, priority_class="low", idle=True)
    ground.run("busy", node=newest, priority_class="low")
    ground.serve(config=PROTECT)
    assert ground.place("stranger", pool=None, priority_class="high") == oldest
    assert alive(ground) == {"busy", "stranger"}


def test_a_scheduler_survives_every_answer(ground: Ground, scheduler: Process) -> None:
    """Scores, [], one candidate, all of them, none of them, and 503 before the start: the same process goes on."""
    pid, offset = scheduler.pid, scheduler.log.stat().st_size
    oldest, newest = full(ground, 2)
    serve = ground.serve(config=PROTECT)
    assert ground.place("first") == oldest  # scores
    ground.delete_pod("first")
    stranger = ground.place("second", pool=None)  # []
    ground.delete_pod("second")
    assert stranger in (oldest, newest)
    for node in (oldest, newest):
        ground.run(f"worker-{node}", node=node, priority_class="low")
    ground.create_pod("vetoed", pool=None, priority_class="middle")
    ground.wait(lambda: verdicts(serve, "vetoed") >= 1, "an empty map to be answered")
    ground.delete_pod("vetoed")
    mark = {"metadata": {"annotations": {"warmnode.dev/idle-since": "2026-01-01T00:00:00Z"}}}
    path = f"/api/v1/namespaces/{ground.namespace}/pods/worker-{oldest}"
    ground.control_plane.api("PATCH", path, mark)
    assert ground.place("chosen", pool=None, priority_class="middle") == oldest  # one candidate
    ground.delete_pod(f"worker-{newest}")
    ground.run("other", pool=None, node=newest, priority_class="low")
    ground.delete_pod("chosen")
    ground.run("another", pool=None, node=oldest, priority_class="low")
    assert ground.place("third", pool=None, priority_class="high") in (oldest, newest)  # all candidates
    for outcome in ("vetoed", "chosen", "noWorker"):
        assert verdicts(serve, outcome) >= 1, outcome
    for outcome in ("scored", "neutral"):
        assert serve.metric("warmnode_webhook_requests_total", verb="prioritize", outcome=outcome) >= 1, outcome

    serve.kill()
    for name in ("third", "other", "another"):
        if name in alive(ground):
            ground.delete_pod(name)
    unsynced = ground.serve(kubeconfig=ground.control_plane.kubeconfig_for("nobody"), wait_ready=False)
    assert ground.place("unsynced") in (oldest, newest)  # 503
    ground.run("filler", pool=None, node=({oldest, newest} - {ground.node_of("unsynced")}).pop(), priority_class="low")
    assert ground.place("last", pool=None, priority_class="high") in (oldest, newest)  # all, for nothing is known
    assert unsynced.metric("warmnode_webhook_requests_total", verb="prioritize", outcome="notSynced") >= 1
    assert verdicts(unsynced, "notSynced") >= 1

    assert (scheduler.pid, scheduler.exit_code) == (pid, None)
    with scheduler.log.open("rb") as log:
        log.seek(offset)
        content = log.read().lower()
    assert b"panic" not in content
    assert b"goroutine " not in content
