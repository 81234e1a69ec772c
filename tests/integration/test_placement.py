"""Where a stock kube-scheduler puts workers when `warmnode serve` scores the nodes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import pytest

from scripts.tools.controlplane import ControlPlane, Options, wait_for
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.serving import SCHEDULER_CONFIG, Serve, scheduler_config
from tests.integration.ground import HTTP_TIMEOUT, POOL, POOL_LABEL, SECONDS, TOLERATE_ALL, Ground, decisions, settled

pytestmark = pytest.mark.controlplane

ALONE = Options(scheduler=False, controller_manager=False, kwok=False)
"""Nodes without anybody who cares for them: a thousand cost three seconds."""


def test_workers_go_to_the_oldest_node_with_room_then_to_the_next_oldest(ground: Ground) -> None:
    """Three nodes with room for two: each is full before the next oldest gets its first worker."""
    first, second, third = ground.nodes(3)
    ground.write_ledger({third: 180, first: 120, second: 60})
    ground.serve()
    placed = [ground.place(f"worker-{number}") for number in range(6)]
    assert placed == [third, third, first, first, second, second]


def test_nodes_seen_before_come_before_unseen_ones(ground: Ground) -> None:
    """A node with a recorded first worker is older than any that has had none, whatever they were created."""
    first, second = ground.nodes(2)
    ground.write_ledger({second: 0})
    ground.serve()
    assert [ground.place(f"worker-{number}") for number in range(4)] == [second, second, first, first]


def test_a_batch_of_nodes_without_workers_fills_one_after_the_other(ground: Ground) -> None:
    """Nodes of one age, none of which has a Ready worker yet, still fill one by one, in one stable order."""
    names = ground.nodes(4)
    ground.serve()
    placed = [ground.place(f"worker-{number}", ready=False) for number in range(8)]
    assert [len(list(group)) for _, group in groupby(placed)] == [2, 2, 2, 2], placed
    assert set(placed) == set(names)


def leave_by_cordon(ground: Ground, node: str) -> None:
    ground.patch_node(node, {"spec": {"unschedulable": True}})


def leave_by_karpenter(ground: Ground, node: str) -> None:
    taint = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}
    ground.patch_node(node, {"spec": {"taints": [taint]}})


def leave_by_deletion(ground: Ground, node: str) -> None:
    ground.delete_node_slowly(node)


def leave_by_cluster_autoscaler(ground: Ground, node: str) -> None:
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "value": "1763640000", "effect": "NoSchedule"}
    ground.patch_node(node, {"spec": {"taints": [taint]}})


def leave_by_notice(ground: Ground, node: str) -> None:
    taint = {"key": "aws-node-termination-handler/spot-itn", "value": "event", "effect": "NoSchedule"}
    ground.patch_node(node, {"spec": {"taints": [taint]}})


LEAVE = [leave_by_cordon, leave_by_karpenter, leave_by_deletion, leave_by_cluster_autoscaler, leave_by_notice]


@pytest.mark.parametrize("leave", LEAVE)
def test_a_leaving_node_comes_after_all_others_although_it_is_the_oldest(
    ground: Ground, leave: Callable[[Ground, str], None]
) -> None:
    """A cordoned, disrupted or deleting node scores nothing; pods that tolerate it go there when nothing else fits."""
    oldest, older, unseen = ground.nodes(3)
    ground.write_ledger({oldest: 180, older: 60})
    serve = ground.serve()
    leave(ground, oldest)
    settled(serve, [oldest, older, unseen], [older, unseen])
    placed = [ground.place(f"worker-{number}") for number in range(6)]
    assert placed == [older, older, unseen, unseen, oldest, oldest]


def test_a_cordoned_node_that_is_opened_again_is_the_oldest_again(ground: Ground) -> None:
    """Leaving is what a node says now, not what it once said: its first-seen time is kept meanwhile."""
    oldest, older = ground.nodes(2)
    ground.write_ledger({oldest: 180, older: 60})
    serve = ground.serve()
    leave_by_cordon(ground, oldest)
    settled(serve, [oldest, older], [older])
    ground.patch_node(oldest, {"spec": {"unschedulable": None}})
    settled(serve, [oldest, older], [oldest, older])
    assert ground.place("worker") == oldest


def test_a_candidate_of_the_cluster_autoscaler_comes_last(ground: Ground) -> None:
    """Its taint is PreferNoSchedule: pods may go there, and without us would go to the oldest."""
    oldest, unseen = ground.nodes(2)
    ground.write_ledger({oldest: 180})
    serve = ground.serve()
    taint = {"key": "DeletionCandidateOfClusterAutoscaler", "value": "1763640000", "effect": "PreferNoSchedule"}
    ground.patch_node(oldest, {"spec": {"taints": [taint]}})
    settled(serve, [oldest, unseen], [unseen, oldest])
    assert [ground.place(f"worker-{number}") for number in range(3)] == [unseen, unseen, oldest]


def test_a_node_that_is_replaced_under_its_name_is_as_new_as_it_is(ground: Ground) -> None:
    """The pod of the earlier machine is bound to it still, and says that it is Ready; it makes the node no older."""
    (replaced,) = ground.nodes(1)
    ground.run("stale")
    bound = next(each for each in ground.pod("stale")["status"]["conditions"] if each["type"] == "PodScheduled")
    (older,) = ground.nodes(1)
    serve = ground.serve()
    settled(serve, [replaced, older], [replaced, older])
    wait_for(lambda: rfc3339(time.time()) > bound["lastTransitionTime"], SECONDS, "the next second")
    ground.replace_node(replaced)
    settled(serve, [replaced, older], [older, replaced])
    assert ground.pod("stale")["spec"]["nodeName"] == replaced


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_node_where_all_workers_terminate_comes_last(ground: Ground) -> None:
    """Every worker there is terminating: the node ends soon, so it is asked after all others, even unseen ones."""
    oldest, unseen = ground.nodes(2)
    ground.write_ledger({oldest: 180})
    serve = ground.serve()
    ground.run("leaver", node=oldest)
    path = f"/api/v1/namespaces/{ground.namespace}/pods/leaver"
    ground.control_plane.api("PATCH", path, {"metadata": {"finalizers": ["warmnode.dev/test"]}})
    ground.control_plane.api("DELETE", path)
    settled(serve, [oldest, unseen], [unseen, oldest])
    assert ground.place("worker") == unseen
    ground.control_plane.api("PATCH", path, {"metadata": {"finalizers": None}})


def test_a_node_that_is_not_known_scores_nothing(ground: Ground) -> None:
    """A node that the scheduler knows before we do counts as new: it is not in the answer."""
    old, new = ground.nodes(2)
    ground.write_ledger({old: 60, new: 30})
    serve = ground.serve()
    assert serve.preferred(["stranger", new, old], {POOL_LABEL: POOL}) == [old, new]


def test_pods_of_no_pool_are_spread_as_by_the_default_scheduler(ground: Ground) -> None:
    """A pod of no pool gets the answer [], and the scheduler with warmnode does with it what the one without does."""
    names = ground.nodes(4, cpu="4")
    ground.write_ledger({name: 60 * number for number, name in enumerate(names)})
    serve = ground.serve()
    asked = {"Pod": {"metadata": {"name": "asked"}}, "Nodes": None, "NodeNames": names}
    assert serve.post("/prioritize", asked) == (200, [])

    def spread(scheduler: str) -> Counter[str]:
        pods = [f"{scheduler}-{number}" for number in range(8)]
        placed = Counter(ground.place(pod, pool=None, scheduler=scheduler) for pod in pods)
        for pod in pods:
            ground.delete_pod(pod)
        return placed

    assert spread("warmnode") == spread("default-scheduler") == dict.fromkeys(names, 2)
    assert serve.metric("warmnode_webhook_requests_total", verb="prioritize", outcome="neutral") == 9
    assert serve.metric("warmnode_webhook_requests_total", verb="prioritize", outcome="scored") == 0


def test_configured_pools_decide_who_is_a_worker(ground: Ground) -> None:
    """With a configuration file the selectors of the pools count, and the label of step one does not."""
    old, new = ground.nodes(2, cpu="4")
    ground.write_ledger({old: 60, new: 30})
    serve = ground.serve(config=CONFIGURATION.format(namespace=ground.namespace))
    assert [ground.place(f"duck-{number}", pool="ducks") for number in range(3)] == [old] * 3
    assert ground.place("goose", pool="geese") == new  # spread: the other node is fuller
    assert [line["pool"] for line in decisions(serve, "prioritize")] == ["pond"] * 3


CONFIGURATION = """
apiVersion: warmnode.dev/v1alpha1
kind: Configuration
pools:
  - name: pond
    namespaces: ["{namespace}"]
    selector: {{matchLabels: {{warmnode.dev/pool: ducks}}}}
"""


def test_managed_resources_keep_other_pods_off_the_webhook(ground: Ground, tmp_path: Path) -> None:
    """With managedResources uncommented, pods with the resource at quantity "0" are asked about and others are not."""
    port = free_ports(1)[0]
    shipped = SCHEDULER_CONFIG.read_text()
    commented = "    # managedResources:\n    #   - name: warmnode.dev/worker\n    #     ignoredByScheduler: false"
    assert commented in shipped
    changed = tmp_path / "scheduler.yaml"
    changed.write_text(shipped.replace(commented, commented.replace("    # ", "    ")))
    config = scheduler_config(changed, port, http_timeout=f"{HTTP_TIMEOUT}s")
    assert config["extenders"][0]["managedResources"] == [{"name": "warmnode.dev/worker", "ignoredByScheduler": False}]
    config["profiles"][0]["schedulerName"] = "managed"  # the session's scheduler goes by the shipped name

    old, new = ground.nodes(2, cpu="4")
    ground.write_ledger({old: 60, new: 30})
    serve = Serve(
        kubeconfig=ground.control_plane.kubeconfig,
        log=tmp_path / "managed.log",
        arguments=["--namespace", ground.namespace],
        webhook_port=port,
    )
    scheduler = ground.control_plane.start_scheduler("managed", config)
    try:
        serve.start()
        worker = {"warmnode.dev/worker": "0"}
        assert [ground.place(f"m-{n}", scheduler="managed", resources=worker) for n in range(3)] == [old] * 3
        assert serve.metric("warmnode_webhook_requests_total", verb="prioritize", outcome="scored") == 3
        assert ground.place("unmanaged", scheduler="managed") == new  # not asked about, so spread
        assert serve.metric("warmnode_webhook_requests_total", verb="prioritize", outcome="scored") == 3
    finally:
        scheduler.stop()
        serve.close()


def test_all_of_a_thousand_nodes_are_candidates(require_binaries: RequireBinaries, tmp_path: Path) -> None:
    """The shipped percentageOfNodesToScore makes the scheduler send every feasible node, so the oldest is there."""
    require_binaries([*ALONE.binaries(), "kube-scheduler"])
    with ControlPlane(ALONE) as alone:
        with ThreadPoolExecutor(8) as threads:
            made = list(threads.map(lambda number: alone.create_node(f"node-{number:04}"), range(1000)))
        oldest = made[617]["metadata"]
        alone.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "warmnode-first-seen", "namespace": "default"},
                "data": {oldest["uid"]: "1500000000"},
            }
        )
        port = free_ports(1)[0]
        serve = Serve(
            kubeconfig=alone.kubeconfig, log=tmp_path / "log", arguments=["--log-level", "debug"], webhook_port=port
        )
        config = scheduler_config(SCHEDULER_CONFIG, port, http_timeout=f"{HTTP_TIMEOUT}s")
        alone.start_scheduler("warmnode", config)
        try:
            serve.start()
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "worker", "namespace": "default", "labels": {POOL_LABEL: POOL}},
                "spec": {
                    "schedulerName": "warmnode",
                    "tolerations": TOLERATE_ALL,
                    "containers": [{"name": "main", "image": "none"}],
                },
            }
            alone.create(pod)
            path = "/api/v1/namespaces/default/pods/worker"
            placed = alone.wait_for(lambda: alone.api("GET", path)["spec"].get("nodeName"), 60, "the worker placed")
            assert placed == oldest["name"]
            assert [line["candidates"] for line in decisions(serve, "prioritize")] == [1000]
        finally:
            serve.close()
