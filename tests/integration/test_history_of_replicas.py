"""Two real replicas of `serve`: one that is killed takes its own decisions with it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from extender.policy.decisions import decode_decision
from scripts.tools.controlplane import ControlPlane, Options
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.serving import Serve
from tests.integration.ground import POOL, POOL_LABEL

pytestmark = pytest.mark.controlplane

ALONE = Options(scheduler=False, controller_manager=False, kwok=False)
NODES = ("first", "second")


def ask(replica: Serve, name: str) -> Any:
    """Ask where a worker goes, as a scheduler does."""
    pod = {"metadata": {"name": name, "namespace": "default", "uid": name, "labels": {POOL_LABEL: POOL}}}
    status, scores = replica.post("/prioritize", {"Pod": pod, "NodeNames": list(NODES)})
    assert status == 200
    return scores


def remembered(port: int) -> list[str]:
    """Name the pods of a replica's decisions."""
    with urlopen(f"http://127.0.0.1:{port}/decisions") as answer:
        return [decode_decision(line).pod for line in answer.read().splitlines()]


def test_a_killed_replica_loses_its_ring_and_nothing_else(require_binaries: RequireBinaries, tmp_path: Path) -> None:
    """The other one remembers and answers as before; started again it answers the same, with an empty ring."""
    require_binaries(ALONE.binaries())
    ports = free_ports(2)
    with ControlPlane(ALONE) as plane:
        for name in NODES:
            plane.create_node(name)
        ours, theirs = (
            Serve(
                kubeconfig=plane.kubeconfig,
                log=tmp_path / f"serve-{port}.log",
                arguments=["--history-listen", f"127.0.0.1:{port}"],
            )
            for port in ports
        )
        try:
            ours.start()
            theirs.start()
            before = [ask(ours, "a"), ask(theirs, "b"), ask(ours, "c")]
            assert before[0] == before[1]
            assert [remembered(port) for port in ports] == [["a", "c"], ["b"]]
            ours.kill()
            assert ask(theirs, "d") == before[0]
            assert remembered(ports[1]) == ["b", "d"]
            ours.start()
            assert remembered(ports[0]) == []
            assert ask(ours, "e") == before[0]
            assert [remembered(port) for port in ports] == [["e"], ["b", "d"]]
        finally:
            ours.close()
            theirs.close()
