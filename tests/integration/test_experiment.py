"""scripts/experiment against the real programs: one short run, its record, and that it is not run again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from extender.inspect.record.recording import read_recording
from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.controlplane.cluster import Options
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.experiment.record import read
from scripts.tools.experiment.stage import KARPENTER

pytestmark = pytest.mark.controlplane
ARGUMENTS = (
    "--workload",
    "sessions",
    "--arm",
    "keyed",
    "--consolidate-after",
    "10",
    "--seed",
    "1",
    "--seconds",
    "30",
    "--record",
)


def test_run_leaves_a_record_and_is_not_run_again(tmp_path: Path, require_binaries: RequireBinaries) -> None:
    """Karpenter made nodes, our scheduler used them, sessions started; all by the API server's word, and recorded."""
    require_binaries(Options(karpenter=KARPENTER).binaries())
    command = [sys.executable, "-P", "-m", "scripts.tools.experiment", "run", *ARGUMENTS, "--to", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=150)
    assert done.returncode == 0, done.stderr
    file, recording = sorted(tmp_path.iterdir())
    assert (file.name, recording.name) == ("sessions-10s-keyed-1.json.xz", "sessions-10s-keyed-1.jsonl")
    found = read(file)
    nodes = {node.name for node in found.nodes if node.ready is not None}
    placed = [pod for pod in found.pods if pod.bound is not None and pod.added <= pod.bound]
    assert nodes
    assert placed
    assert {pod.node for pod in placed} <= nodes
    assert {each.pod for each in found.attempts} <= {pod.name for pod in placed}
    assert found.attempts
    recorded = read_recording(recording.read_bytes(), recording.name)
    assert {pod.name for pod in placed} <= {each.name for each in recorded.workers.values()}
    assert {
        "kube-apiserver",
        "karpenter",
        "warmnode-scheduler",
        "serve",
        "reap",
        "harness",
    } <= found.conditions.own.keys()

    again = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert (again.returncode, "batch" in again.stderr) == (0, False)
