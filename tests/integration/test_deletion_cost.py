"""The deletion cost with the real ReplicaSet controller: whom it takes, how often we write, and to whom we yield."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from extender.kube.claim_store import format_claim
from extender.kube.objects import CLAIM, CLAIMED_BY, DISRUPTION_COST, DO_NOT_DISRUPT
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.proxy import Proxy
from tests.builders import claim
from tests.integration.ground import POOL, Ground
from tests.integration.reapers import COST, COST_MARK, IDLE, Reapers, reaping

pytestmark = pytest.mark.controlplane

KEEP_ALL: dict[str, Any] = {"enabled": False}
"""Settings under which nothing is evicted."""


@pytest.fixture
def reapers(ground: Ground, tmp_path: Path) -> Iterator[Reapers]:
    with reaping(ground, tmp_path) as made:
        yield made


def deployed_over(ground: Ground, reapers: Reapers, nodes: list[str]) -> dict[str, str]:
    """A Deployment with two workers on each node: pod name to node, oldest node first. All are busy."""
    reapers.deployment("ducks", 2 * len(nodes), idle=False)
    placed = {name: pod["spec"]["nodeName"] for name, pod in reapers.of("ducks").items()}
    assert Counter(placed.values()) == dict.fromkeys(nodes, 2)
    return dict(sorted(placed.items(), key=lambda item: (nodes.index(item[1]), item[0])))


def scale(reapers: Reapers, replicas: int) -> set[str]:
    """Scale the Deployment and wait: the pods that are left."""
    path = f"/apis/apps/v1/namespaces/{reapers.ground.namespace}/deployments/ducks/scale"
    reapers.control_plane.api("PATCH", path, {"spec": {"replicas": replicas}})
    reapers.ground.wait(lambda: len(reapers.of("ducks")) == replicas, lambda: f"{list(reapers.of('ducks'))}")
    return set(reapers.of("ducks"))


def wait_costs(reapers: Reapers, *names: str) -> None:
    """Wait until these pods have a cost."""
    reapers.ground.wait(
        lambda: all(reapers.costs().get(name) is not None for name in names), lambda: f"costs: {reapers.costs()}"
    )


def cost_writes(proxy: Proxy) -> Counter[str]:
    """Count the patches of deletion costs that came through, by pod."""
    return Counter(
        seen.path.rpartition("/")[2]
        for seen in list(proxy.seen)
        if seen.method == "PATCH" and COST in seen.json["metadata"].get("annotations", {})
    )


def test_scaling_in_takes_the_idle_on_the_newest_nodes_first(ground: Ground, reapers: Reapers) -> None:
    """N to N-k removes exactly the k idle workers on the newest nodes; busy ones only when no idle one is left."""
    nodes = ground.nodes(4, cpu="2500m")
    ground.write_ledger({name: 60 * (4 - position) for position, name in enumerate(nodes)})
    workers = deployed_over(ground, reapers, nodes)
    w0a, w0b, w1a, w1b, w2a, w2b, w3a, w3b = workers
    idle = [w0a, w0b, w1a, w2a, w3a]
    reaper = reapers.start(**KEEP_ALL)
    reapers.mark_idle(*idle)
    wait_costs(reapers, *idle)
    assert all(map(is_ready, reapers.of("ducks").values()))
    values = [int(reapers.costs()[name] or 0) for name in (w3a, w2a, w1a, w0a)]
    assert values == sorted(set(values))
    assert reapers.costs()[w0a] == reapers.costs()[w0b]
    assert {reapers.costs()[name] for name in workers if name not in idle} == {None}

    assert scale(reapers, 6) == workers.keys() - {w3a, w2a}
    assert scale(reapers, 5) == workers.keys() - {w3a, w2a, w1a}

    reapers.mark_busy(w0a)  # it has a cost of ours already, which now says busy
    ground.wait(lambda: int(reapers.costs()[w0a] or 0) > 0, lambda: f"{reapers.costs()}")
    assert scale(reapers, 4) == {w0a, w1b, w2b, w3b}
    assert w0a in scale(reapers, 1)  # whoever was never idle has 0, below all that were: it is what ReplicaSets know
    assert not reaper.lines("evicted")


def test_a_cycle_costs_two_writes_and_other_pods_none(ground: Ground, reapers: Reapers, tmp_path: Path) -> None:
    """A pod is written when its own state changes; nodes that join and leave cost nobody a write."""
    nodes = ground.nodes(2, wait=False)
    ground.write_ledger({nodes[0]: 120, nodes[1]: 60})
    reapers.run_workers({"w0": nodes[0], "w1": nodes[1], "never-idle": nodes[1]}, busy=["w0", "never-idle"])
    with Proxy(reapers.control_plane) as proxy:
        reaper = reapers.start(kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig"), **KEEP_ALL)
        wait_costs(reapers, "w1")
        reapers.mark_idle("w0")
        ground.wait(lambda: int(reapers.costs()["w0"] or 1) < 0, lambda: f"{reapers.costs()}")
        reapers.mark_busy("w0")
        ground.wait(lambda: int(reapers.costs()["w0"] or 0) > 0, lambda: f"{reapers.costs()}")
        assert cost_writes(proxy) == {"w0": 2, "w1": 1}
        # a cycle that is over before it has settled costs nothing
        reapers.mark_idle("w0")
        reapers.mark_busy("w0")

        (joined,) = ground.nodes(1, wait=False)
        reapers.run_workers({"w2": joined}, busy=["w2"])
        ground.control_plane.api("DELETE", f"/api/v1/nodes/{joined}")
        reapers.wait_passes(reaper, 6)  # a look at all costs comes every five seconds
        assert cost_writes(proxy) == {"w0": 2, "w1": 1}
        assert reaper.metric("warmnode_deletion_cost_writes_total", pool=POOL, outcome="written") == 3


def test_foreign_cost_is_left_alone_and_counted(ground: Ground, reapers: Reapers) -> None:
    (node,) = ground.nodes(1, wait=False)
    ground.write_ledger({node: 60})
    reapers.run_workers({"theirs": node, "ours": node})
    reapers.annotate("theirs", {COST: "7"})
    reaper = reapers.start(**KEEP_ALL)
    wait_costs(reapers, "ours")
    ground.wait(lambda: reaper.metric("warmnode_deletion_cost_foreign", pool=POOL) == 1, lambda: reaper.text()[-2000:])
    assert reapers.costs()["theirs"] == "7"
    assert COST_MARK not in ground.pod("theirs")["metadata"]["annotations"]


@pytest.mark.parametrize("how", ["overwrites", "removes"])
def test_writer_that_fights_us_makes_us_stop_for_the_pool(ground: Ground, reapers: Reapers, how: str) -> None:
    """Somebody who keeps overwriting, or removing, what we write wins within a few rounds; and stays undisturbed."""
    (node,) = ground.nodes(1, wait=False)
    ground.write_ledger({node: 60})
    names = {f"w{number}": node for number in range(4)}
    reapers.run_workers(names)
    reaper = reapers.start(**KEEP_ALL)

    def fight() -> bool:
        for name, pod in ground.pods().items():
            if COST_MARK in pod["metadata"]["annotations"]:
                reapers.annotate(name, {COST: "1"} if how == "overwrites" else {COST: None, COST_MARK: None})
        return reaper.metric("warmnode_deletion_cost_contested", pool=POOL) == 1

    ground.wait(fight, lambda: f"{reapers.costs()}: {reaper.text()[-2000:]}")
    writes = reaper.metric("warmnode_deletion_cost_writes_total", pool=POOL, outcome="written")
    assert writes <= 12
    assert len(reaper.lines("deletion costs are left alone: another writer overwrites them")) == 1
    reapers.wait_passes(reaper, 2)  # what was still on its way
    fight()
    written = reaper.metric("warmnode_deletion_cost_writes_total", pool=POOL, outcome="written")
    assert written <= writes + len(names)
    reapers.wait_passes(reaper, 6)
    assert set(reapers.costs().values()) == {"1" if how == "overwrites" else None}
    assert reaper.metric("warmnode_deletion_cost_writes_total", pool=POOL, outcome="written") == written


def test_switching_it_off_removes_ours_and_leaves_theirs(ground: Ground, reapers: Reapers) -> None:
    """Read from the file while running: what we wrote goes, what others wrote stays."""
    (node,) = ground.nodes(1, wait=False)
    ground.write_ledger({node: 60})
    reapers.run_workers({"ours": node, "theirs": node, "taken": node})
    reapers.annotate("theirs", {COST: "7"})
    reaper = reapers.start(**KEEP_ALL)
    wait_costs(reapers, "ours", "taken")
    reapers.annotate("taken", {COST: "-7"})
    reapers.configure(pool={"deletionCost": {"enabled": False}}, **KEEP_ALL)
    ground.wait(lambda: reapers.costs() == {"ours": None, "theirs": "7", "taken": "-7"}, lambda: f"{reapers.costs()}")
    assert COST_MARK not in ground.pod("ours")["metadata"]["annotations"]
    assert IDLE in ground.pod("ours")["metadata"]["annotations"]
    reaper.stop()


def test_pool_that_is_taken_out_of_the_file_leaves_no_cost_behind(ground: Ground, reapers: Reapers) -> None:
    """Its workers are workers of none from then on; the pool of another namespace goes on."""
    (node,) = ground.nodes(1, wait=False)
    ground.write_ledger({node: 60})
    reapers.run_workers({"ours": node})
    reaper = reapers.start(**KEEP_ALL)
    wait_costs(reapers, "ours")
    reapers.configure(pool={"namespaces": ["another"]}, **KEEP_ALL)
    ground.wait(lambda: reapers.costs() == {"ours": None}, lambda: f"{reapers.costs()}: {reaper.text()[-2000:]}")
    assert COST_MARK not in ground.pod("ours")["metadata"]["annotations"]
    reaper.stop()


def test_karpenters_own_writer_is_known_by_one_value(ground: Ground, reapers: Reapers) -> None:
    """By its name in managedFields. Deletion costs of ReplicaSets' pods are given up, the price it reads is written.

    So it is in a pool of two, of which one value was overwritten and the other one cleared, which leaves no trace.
    """
    (node,) = ground.nodes(1)
    ground.patch_node(node, {"metadata": {"labels": {"karpenter.sh/nodepool": "workers"}}})
    ground.write_ledger({node: 60})
    reapers.deployment("ducks", 3, node)
    idle, cleared, busy = sorted(reapers.of("ducks"))
    reapers.mark_busy(busy)
    reaper = reapers.start(**KEEP_ALL)
    wait_costs(reapers, idle, cleared)
    assert prices(ground) == {}
    for name, value in ((idle, "-5"), (cleared, None)):
        path = f"/api/v1/namespaces/{ground.namespace}/pods/{name}"
        written = {"metadata": {"annotations": {COST: value}}}
        reapers.control_plane.api("PATCH", path, written, params={"fieldManager": "karpenter"})
    ground.wait(lambda: len(prices(ground)) == 3, lambda: f"{prices(ground)}: {reaper.text()[-2000:]}")
    assert prices(ground)[busy] > 1_000_000_000 > 0 > prices(ground)[idle] == prices(ground)[cleared]
    reapers.wait_passes(reaper, 8)
    assert reapers.costs() == {idle: "-5", cleared: None, busy: None}
    assert len(reaper.lines("Karpenter writes deletion costs, ours are given up")) == 1
    assert reaper.metric("warmnode_deletion_cost_contested", pool=POOL) == 1
    events = reapers.control_plane.api("GET", f"/apis/events.k8s.io/v1/namespaces/{ground.namespace}/events")["items"]
    (told,) = (each for each in events if each["reason"] == "DeletionCostsGivenUp")
    assert (told["type"], told["regarding"]["name"]) == ("Warning", idle)
    writes = reaper.metric("warmnode_deletion_cost_writes_total", pool=POOL, outcome="written")
    assert writes == 5, "two deletion costs, then three prices, and no fight"


def prices(ground: Ground) -> dict[str, int]:
    """Read what pods are worth to Karpenter, of those that have a price."""
    found = {name: pod["metadata"].get("annotations") or {} for name, pod in ground.pods().items()}
    return {name: int(each[DISRUPTION_COST]) for name, each in found.items() if DISRUPTION_COST in each}


# -- cleanup --------------------------------------------------------------------------------------------------------


def clean_up(reapers: Reapers, *arguments: str) -> str:
    command = [sys.executable, "-m", "extender", "cleanup", "--kubeconfig", str(reapers.control_plane.kubeconfig)]
    command += ["--namespace", reapers.ground.namespace, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def claim_by_hand(reapers: Reapers, name: str) -> None:
    """Put on a pod what the claim API does."""
    held = replace(claim(), protects=True)
    reapers.annotate(name, {CLAIM: format_claim(held), DO_NOT_DISRUPT: "true"})
    path = f"/api/v1/namespaces/{reapers.ground.namespace}/pods/{name}"
    reapers.control_plane.api("PATCH", path, {"metadata": {"labels": {CLAIMED_BY: "0123"}}})


def test_cleanup_leaves_nothing_of_ours_and_all_of_theirs(ground: Ground, reapers: Reapers) -> None:
    """Annotations, ledger and Leases go; what others wrote stays. It is refused while a reaper leads."""
    (node,) = ground.nodes(1, wait=False)
    reapers.run_workers({"ours": node, "theirs": node, "taken": node})
    reapers.annotate("theirs", {COST: "7", DISRUPTION_COST: "9", "example.com/other": "stays"})
    reaper = reapers.start(pool={"deletionCost": {"settle": "1s", "disruptionCost": "always"}}, **KEEP_ALL)
    wait_costs(reapers, "ours", "taken")
    assert prices(ground).keys() == {"ours", "theirs", "taken"}
    ground.wait_for_ledger(bool)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        clean_up(reapers)
    assert "a reaper leads still" in refused.value.stderr
    reaper.stop()
    reapers.annotate("taken", {COST: "-7"})
    claim_by_hand(reapers, "ours")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{ground.namespace}/leases/warmnode-reaper"
    get = reapers.control_plane.api_client.get_or_none
    assert get(lease) is not None

    versions = {name: pod["metadata"]["resourceVersion"] for name, pod in ground.pods().items()}
    would = clean_up(reapers, "--dry-run")
    assert {name: pod["metadata"]["resourceVersion"] for name, pod in ground.pods().items()} == versions
    assert get(lease) is not None
    assert get(ground.ledger_path) is not None

    did = clean_up(reapers)
    assert did.splitlines()[:-1] == would.splitlines()[:-1]
    annotations = {name: pod["metadata"].get("annotations") or {} for name, pod in ground.pods().items()}
    assert [key for each in annotations.values() for key in each if key.startswith("warmnode.dev/")] == []
    assert reapers.costs() == {"ours": None, "theirs": "7", "taken": "-7"}
    assert prices(ground) == {"theirs": 9}
    assert annotations["theirs"]["example.com/other"] == "stays"
    assert DO_NOT_DISRUPT not in annotations["ours"], "it came with a claim"
    assert CLAIMED_BY not in ground.pod("ours")["metadata"]["labels"]
    assert get(lease) is None
    assert get(ground.ledger_path) is None
    assert clean_up(reapers) == "removed 0 things\n"
