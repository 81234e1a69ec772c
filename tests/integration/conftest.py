"""The session's second scheduler, and a ground of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.tools.controlplane import ControlPlane, Process
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.serving import SCHEDULER_CONFIG, scheduler_config
from tests.integration.ground import HTTP_TIMEOUT, Ground

PRIORITIES = {"placeholder": -10, "low": 10, "middle": 100, "high": 1000}


@pytest.fixture(scope="session")
def webhook_port() -> int:
    """Where the session's scheduler calls; a test starts there what it wants to be called."""
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def scheduler(control_plane: ControlPlane, webhook_port: int) -> Process:
    """A stock kube-scheduler with the shipped configuration and more patience. It ends with the control plane."""
    for name, value in PRIORITIES.items():
        metadata = {"name": name}
        control_plane.create(
            {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": metadata, "value": value}
        )
    config = scheduler_config(SCHEDULER_CONFIG, webhook_port, http_timeout=f"{HTTP_TIMEOUT}s")
    return control_plane.start_scheduler("warmnode", config)


@pytest.fixture
def ground(
    control_plane: ControlPlane, scheduler: Process, namespace: str, webhook_port: int, tmp_path: Path
) -> Iterator[Ground]:
    """Nodes, pods and a ledger of the test's own. The scheduler has outlived the test."""
    made = Ground(control_plane, namespace, webhook_port, tmp_path)
    try:
        yield made
    finally:
        made.close()
    assert scheduler.exit_code is None, "the scheduler died"
