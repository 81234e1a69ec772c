"""Installed with kustomize: what workers and their nodes see. The tests run in this order, on one installation."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.manifests.rendering import MANIFESTS, NAMESPACE
from tests.e2e.stage import AGES_MINUTES, LEDGER, MIDDLE, NEWEST, OLDEST, POOL, WORKERS, Stage, is_ours

AUDIT_LOG = "WARMNODE_E2E_AUDIT_LOG"
LOCAL = "WARMNODE_E2E_LOCAL"
LONGEST_GAP = timedelta(seconds=15 + 2 * 2.2 * 1)
"""Without a leader, by leaseDuration and retryPeriod of the shipped file: docs/decisions/0016 has the sum."""
BOTH = ("warmnode-scheduler", "warmnode-reap")


@pytest.fixture(scope="module")
def installed(stage: Stage) -> Iterator[Stage]:
    """As shipped: with dry-run on."""
    stage.began = datetime.now(UTC)
    folder = stage.kustomization(dry_run=True)
    stage.cluster.kubectl("apply", "--kustomize", str(folder))
    stage.rollout(*BOTH)
    yield stage
    stage.cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "--kustomize", str(folder))


@pytest.fixture
def workers(installed: Stage) -> Iterator[Stage]:
    """No workers before, and none after."""
    yield installed
    installed.remove_workers()


def requests_of_warmnode(stage: Stage) -> list[Json]:
    """What warmnode's pods have asked of the API server since it was installed. Skips where nobody writes that down."""
    path = os.environ.get(AUDIT_LOG)
    if path is None:
        pytest.skip("the API server's audit log is not to be had here: scripts/e2e --local has one")
    lines = Path(path).read_text().splitlines()
    events: list[Json] = [json.loads(line) for line in lines]
    since = stage.began.isoformat()
    return [each for each in events if each["requestReceivedTimestamp"].replace("Z", "+00:00") >= since]


def test_two_replicas_and_one_leader(installed: Stage) -> None:
    """Both pods are Ready, placed by the cluster's own scheduler, and one of them schedules."""
    replicas = installed.replicas("scheduler")
    assert len(replicas) == 2
    assert all(map(is_ready, replicas.values()))
    assert {pod["spec"]["schedulerName"] for pod in replicas.values()} == {"default-scheduler"}
    holder = installed.wait(lambda: installed.lease_holder("warmnode-scheduler"), "a scheduler that leads")
    assert holder.partition("_")[0] in replicas
    reaper = installed.wait(lambda: installed.lease_holder("warmnode-reaper"), "a reaper that leads")
    assert any(reaper.startswith(name) for name in installed.replicas("reap")), reaper


def test_a_deployment_of_workers_fills_the_oldest_node_first(workers: Stage) -> None:
    """Four workers, two to a node: the two oldest nodes are full, and the newest one stays empty."""
    template = {"metadata": {"labels": {"app": POOL}}, "spec": workers.fake_spec()}
    workers.cluster.api.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "workers", "namespace": WORKERS},
            "spec": {"replicas": 4, "selector": {"matchLabels": {"app": POOL}}, "template": template},
        }
    )
    workers.wait(
        lambda: len(pods := workers.pods()) == 4 and all(map(is_ready, pods.values())),
        lambda: f"four workers: { {name: pod['status'] for name, pod in workers.pods().items()} }",
    )
    nodes = sorted(pod["spec"]["nodeName"] for pod in workers.pods().values())
    assert nodes == sorted([OLDEST, OLDEST, MIDDLE, MIDDLE])


def test_dry_run_tells_and_writes_nothing(workers: Stage) -> None:
    """The reaper says what it would evict; no worker is touched, and the API server saw no write but of own objects."""
    for name, node in {"old": OLDEST, "middle": MIDDLE, "new": NEWEST}.items():
        workers.worker(name, node=node, idle=True)
    workers.wait_ready(("old", "middle", "new"))
    told = workers.wait(
        lambda: [line["pod"] for line in workers.log("reap") if line["message"] == "would evict"],
        lambda: f"the reaper to tell: {workers.log('reap')[-5:]}",
    )
    assert told[:2] == ["new", "middle"]
    assert not [
        key
        for pod in workers.pods().values()
        for key in pod["metadata"]["annotations"]
        if is_ours(key) and key != "warmnode.dev/idle-since"
    ]
    writes = {
        each["objectRef"].get("namespace")
        for each in requests_of_warmnode(workers)
        if each["verb"] not in ("get", "list", "watch") and "scheduler" not in each["user"]["username"]
    }
    assert writes == {NAMESPACE}


class Steady:
    """Creates a worker, waits until it has a node, deletes it, and again, in a thread of its own."""

    def __init__(self, stage: Stage) -> None:
        self.waits: list[float] = []
        self.places: list[str] = []
        self._stage = stage
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def go_on(self, count: int = 3) -> None:
        """Wait until so many further workers went to the oldest node, one after the other."""
        start = len(self.places)

        def settled() -> bool:
            latest = self.places[start:][-count:]
            return self._failure is not None or latest == [OLDEST] * count

        self._stage.wait(settled, lambda: f"{count} workers on {OLDEST}, not {self.places[start:]}")
        assert self._failure is None, self._failure

    def check(self, what: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Tell how long the longest one waited, and how many were placed while the scheduler could ask nobody.

        A scheduler that has just started may lead for a moment before its sidecar listens: it does not wait for it.
        """
        assert self._failure is None, self._failure
        elsewhere = [number for number, place in enumerate(self.places) if place != OLDEST]
        with capsys.disabled():
            print(
                f"\n{what}: {len(self.waits)} pods, the longest waited {max(self.waits):.1f} s to be placed; "
                f"{len(elsewhere)} placed without an answer"
            )

    def _run(self) -> None:
        try:
            for number in itertools.count():
                if self._ended.is_set():
                    return
                name, started = f"steady-{number}", time.monotonic()
                self._stage.worker(name, cpu="100m")
                self.places.append(self._stage.node_of(name))
                self.waits.append(time.monotonic() - started)
                self._stage.cluster.delete(f"/api/v1/namespaces/{WORKERS}/pods/{name}")
        except BaseException as error:
            self._failure = error


def leader_of(stage: Stage) -> str:
    """Name of the pod whose scheduler leads."""
    return stage.lease_holder("warmnode-scheduler").partition("_")[0]


def test_a_rolling_update_stops_nothing(workers: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Pods are created and placed all the time while every replica is replaced, and afterwards as they should be."""
    workers.cluster.kubectl("apply", "--kustomize", str(workers.kustomization(dry_run=False)))
    before = set(workers.replicas("scheduler"))
    with Steady(workers) as steady:
        steady.go_on()
        deployments = [f"deployment/{each}" for each in BOTH]
        workers.cluster.kubectl("rollout", "restart", "--namespace", NAMESPACE, *deployments)
        workers.rollout(*BOTH)
        workers.wait(lambda: before.isdisjoint(workers.replicas("scheduler")), "the old replicas to be gone")
        workers.wait(lambda: (leader := leader_of(workers)) and leader not in before, "a new leader")
        steady.go_on()
    steady.check("rolling update", capsys)


def test_a_drain_stops_nothing(workers: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """The pod that leads is evicted, as by a drain of its node: the budget allows one, and the other takes over."""
    leader = leader_of(workers)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": leader, "namespace": NAMESPACE}}
    with Steady(workers) as steady:
        steady.go_on()
        workers.cluster.api.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{leader}/eviction", eviction)
        workers.wait(lambda: (now := leader_of(workers)) and now != leader, "a new leader")
        steady.go_on()
    steady.check("drain", capsys)
    workers.rollout("warmnode-scheduler")


def test_ages_are_kept(installed: Stage) -> None:
    """After the update the ledger knows what it knew."""
    ledger = installed.cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{LEDGER}")
    assert ledger is not None
    nodes = {item["metadata"]["uid"]: item["metadata"]["name"] for item in installed.cluster.items("/api/v1/nodes")}
    seen = {nodes[uid]: int(text) for uid, text in ledger["data"].items() if uid in nodes}
    assert sorted(AGES_MINUTES, key=lambda name: seen[name]) == [OLDEST, MIDDLE, NEWEST]
    assert all(time.time() - seen[name] >= 60 * minutes for name, minutes in AGES_MINUTES.items())


def test_idle_workers_leave_from_the_newest_node_and_their_process_gets_sigterm(workers: Stage, tmp_path: Path) -> None:
    """Real evictions: of a process on a real node, which is the newest, and of the next newest; the floor stays."""
    workers.worker("process", real=True)
    workers.wait_ready(["process"])
    for name, node in {"old": OLDEST, "new": NEWEST}.items():
        workers.worker(name, node=node, idle=True)
    workers.wait_ready(("old", "new"))
    with workers.cluster.following("--namespace", WORKERS, "process", log=tmp_path / "process.log") as log:
        workers.wait(lambda: "working" in log.read_text(), "the worker to work")
        path = f"/api/v1/namespaces/{WORKERS}/pods/process"
        workers.cluster.api.request(
            "PATCH", path, {"metadata": {"annotations": {"warmnode.dev/idle-since": "2026-01-01T00:00:00Z"}}}
        )
        workers.wait(lambda: set(workers.pods()) == {"old"}, lambda: f"the floor to be left: {list(workers.pods())}")
        workers.wait(lambda: "SIGTERM" in log.read_text(), lambda: f"SIGTERM in {log.read_text()}")
    evicted = [line["pod"] for line in workers.log("reap") if line["message"] == "evicted"]
    assert set(evicted) == {"process", "new"}


def test_the_scheduler_outlives_its_sidecar(workers: Stage) -> None:
    """warmnode ends in the pod that leads: the scheduler goes on, and gets its answers again when it is back."""
    leader = leader_of(workers)
    before = restarts(workers, leader)
    end = "import os, signal; os.kill(1, signal.SIGTERM)"
    workers.cluster.kubectl(
        *("exec", "--namespace", NAMESPACE, leader, "--container", "warmnode", "--", "/usr/bin/python3", "-c", end)
    )
    workers.worker("meanwhile")
    assert workers.node_of("meanwhile")
    workers.wait(
        lambda: (
            restarts(workers, leader)["warmnode"] > before["warmnode"] and is_ready(workers.pods(NAMESPACE)[leader])
        ),
        lambda: f"{leader} to be whole again: {workers.pods(NAMESPACE)[leader]['status']}",
    )
    assert restarts(workers, leader)["kube-scheduler"] == before["kube-scheduler"]
    assert leader_of(workers) == leader
    workers.cluster.delete(f"/api/v1/namespaces/{WORKERS}/pods/meanwhile")
    workers.worker("afterwards")
    assert workers.node_of("afterwards") == OLDEST


def restarts(stage: Stage, pod: str) -> dict[str, int]:
    """How often each container of a pod of warmnode was started again."""
    status = stage.pods(NAMESPACE)[pod]["status"]
    return {
        each["name"]: each["restartCount"] for each in (*status["initContainerStatuses"], *status["containerStatuses"])
    }


def test_a_crashed_leader_is_replaced(workers: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """The scheduler that leads gets SIGKILL, so it hands nothing over: another process places the next pod."""
    if LOCAL not in os.environ:
        pytest.skip("a process of a pod can be killed only where the node is this machine: scripts/e2e --local")
    holder = workers.lease_holder("warmnode-scheduler")
    leader = workers.replicas("scheduler")[holder.partition("_")[0]]
    (process,) = processes_of(leader["metadata"]["uid"], "kube-scheduler")
    os.kill(process, signal.SIGKILL)
    before = workers.lease("warmnode-scheduler")
    started = time.monotonic()
    workers.worker("after-the-crash")
    assert workers.node_of("after-the-crash") == OLDEST
    waited = time.monotonic() - started
    after = workers.lease("warmnode-scheduler")
    assert after["holderIdentity"] != holder
    gap = datetime.fromisoformat(after["acquireTime"]) - datetime.fromisoformat(before["renewTime"])
    assert gap <= LONGEST_GAP
    with capsys.disabled():
        print(f"\ncrash of the leader: {gap.total_seconds():.1f} s without one, the next pod waited {waited:.1f} s")
    workers.rollout("warmnode-scheduler")


def processes_of(pod_uid: str, program: str) -> list[int]:
    """Processes of a pod on this machine: the kubelet names their cgroup after the pod's UID."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, groups = (folder / "cmdline").read_text(), (folder / "cgroup").read_text()
        except OSError:
            continue
        if pod_uid in groups and Path(command.partition("\0")[0]).name == program:
            found.append(int(folder.name))
    return found


def test_nothing_was_forbidden(installed: Stage) -> None:
    """In all of the above the API server has refused nothing to warmnode, and has seen only what is in the roles."""
    refused = [
        (each["user"]["username"], each["verb"], each["requestURI"])
        for each in requests_of_warmnode(installed)
        if each["responseStatus"]["code"] == 403
    ]
    assert refused == []
    assert len(requests_of_warmnode(installed)) > 20


def test_uninstalling_leaves_nothing(installed: Stage) -> None:
    """Deployments first, then the cleanup, then the rest, as docs/uninstall.md says."""
    installed.worker("kept", node=OLDEST, idle=True)  # by the floor
    installed.wait(
        lambda: any("deletion-cost" in each for each in installed.ours()), lambda: f"a cost in {installed.ours()}"
    )
    kubectl = installed.cluster.kubectl
    kubectl(
        *("delete", "deployment", "--namespace", NAMESPACE, "--cascade=foreground", "--timeout=60s"),
        *("--selector", "app.kubernetes.io/name=warmnode"),
    )
    cleanup = installed.folder / "cleanup"
    cleanup.mkdir()
    (cleanup / "kustomization.yaml").write_text(
        json.dumps(
            {
                "resources": [os.path.relpath(MANIFESTS / "cleanup", cleanup)],
                "images": [{"name": "ghcr.io/warmnode/warmnode", "newTag": installed.tag}],
            }
        )
    )
    kubectl("apply", "--kustomize", str(cleanup))
    kubectl("wait", "--namespace", NAMESPACE, "job/warmnode-cleanup", "--for=condition=Complete", "--timeout=60s")
    kubectl("delete", "--kustomize", str(cleanup))
    kubectl("delete", "--ignore-not-found", "--timeout=60s", "--kustomize", str(installed.kustomization(dry_run=False)))
    assert installed.ours() == []
    assert set(installed.pods()) == {"kept"}
