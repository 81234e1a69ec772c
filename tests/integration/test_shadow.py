"""Placement in the shadow, with a real kube-scheduler: nothing changes, and what is counted is what happened."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest

from extender.cluster.shadow import ShadowVerdict
from extender.policy.decisions import PlacementDecision, decode_decision
from scripts.tools.controlplane import ControlPlane, Json, Options, wait_for
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.serving import SCHEDULER_CONFIG, Serve, scheduler_config
from tests.integration.ground import HTTP_TIMEOUT, POOL, POOL_LABEL

pytestmark = pytest.mark.controlplane

ALONE = Options(scheduler=False, controller_manager=False, kwok=False)
PODS, NODES, SECONDS = 500, 60, 120.0
"""Below a hundred nodes a scheduler looks at all of them."""
NO_TIES = 201
"""Weight of a node affinity that differs on every node. All else differs by 200 at most, so no two are equal: ties
are broken in another way where any extender is configured, whatever it answers. An answer of ours weighs 20,000.
"""


def place_all(plane: ControlPlane, namespace: str, *, labelled: bool) -> dict[str, str]:
    """Place pods of several sizes one after the other, always the same ones: pod to node."""
    plane.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    plane.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
    )
    draw = random.Random(7)  # noqa: S311 - the same pods in both runs
    pods = f"/api/v1/namespaces/{namespace}/pods"
    placed: dict[str, str] = {}
    for number in range(PODS):
        name, cpu = f"pod-{number:03}", draw.choice(["500m", "1", "1500m"])
        requests = {"requests": {"cpu": cpu}}
        order = draw.sample(range(NODES), NODES)
        preferred = [{"weight": at + 1, "preference": _on(node)} for at, node in enumerate(order)]
        labels = {POOL_LABEL: POOL} if labelled else {"app": "none"}
        plane.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {
                    "schedulerName": "warmnode",
                    "tolerations": [{"operator": "Exists"}],
                    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
                    "containers": [{"name": "main", "image": "none", "resources": requests}],
                },
            }
        )
        path = f"{pods}/{name}"
        placed[name] = wait_for(partial(_node_of, plane, path), SECONDS, f"{name} placed")
    plane.api("DELETE", pods, params={"gracePeriodSeconds": 0})
    wait_for(lambda: not plane.api("GET", pods)["items"], SECONDS, "the pods to be gone")
    return placed


def _on(node: int) -> Json:
    return {"matchExpressions": [{"key": "number", "operator": "In", "values": [str(node)]}]}


def _node_of(plane: ControlPlane, path: str) -> str | None:
    node: str | None = plane.api("GET", path)["spec"].get("nodeName")
    return node


def test_nothing_changes_and_the_counts_are_what_happened(require_binaries: RequireBinaries, tmp_path: Path) -> None:
    """500 workers go where a scheduler without an extender puts them. How many agree with what would have been answered
    is counted again from the history and from the API server.
    """
    require_binaries([*ALONE.binaries(), "kube-scheduler"])
    with ControlPlane(ALONE) as plane:
        for number in range(NODES):
            plane.create_node(f"node-{number:02}", cpu="16", labels={"number": str(number)})
        port, history_port = free_ports(2)
        config = tmp_path / "warmnode.yaml"
        config.write_text("apiVersion: warmnode.dev/v1alpha1\nkind: Configuration\npoolDefaults: {placement: shadow}\n")
        serve = Serve(
            kubeconfig=plane.kubeconfig,
            log=tmp_path / "serve.log",
            arguments=["--config", str(config), "--history-listen", f"127.0.0.1:{history_port}"],
            webhook_port=port,
        )
        try:
            serve.start()
            asking = scheduler_config(SCHEDULER_CONFIG, port, http_timeout=f"{HTTP_TIMEOUT}s")
            score = {"disabled": [{"name": "NodeAffinity"}], "enabled": [{"name": "NodeAffinity", "weight": NO_TIES}]}
            asking["profiles"][0].setdefault("plugins", {})["score"] = score
            without = plane.start_scheduler("without", {key: asking[key] for key in asking if key != "extenders"})
            expected = place_all(plane, "without", labelled=False)
            without.stop()
            plane.start_scheduler("shadow", asking)
            placed = place_all(plane, "shadow", labelled=True)
            with urlopen(f"http://127.0.0.1:{history_port}/decisions") as response:
                found = [decode_decision(line) for line in response.read().splitlines()]
            counted = {
                verdict: serve.metric("warmnode_shadow_placements_total", pool=POOL, verdict=verdict)
                for verdict in (ShadowVerdict.AGREED, ShadowVerdict.OLDER_NODE)
            }
        finally:
            serve.close()
    assert placed == expected
    told = [each for each in found if isinstance(each, PlacementDecision)]
    assert {each.pod: each.node for each in told} == placed
    recount = Counter(each.best[0].node == placed[each.pod] for each in told)
    assert counted[ShadowVerdict.AGREED] == recount[True]
    assert counted[ShadowVerdict.OLDER_NODE] == recount[False] == PODS - recount[True]
