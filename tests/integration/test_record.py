"""`warmnode record` against a real API server: killed without warning, and going on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from extender.inspect.record.recording import Recording, read_recording
from scripts.tools.controlplane import ControlPlane, Json, Options, wait_for
from scripts.tools.controlplane.fixtures import RequireBinaries
from tests.integration.ground import POOL, POOL_LABEL, SECONDS

pytestmark = pytest.mark.controlplane

ALONE = Options(scheduler=False, controller_manager=False, kwok=False)
PODS = "/api/v1/namespaces/default/pods"


def worker(name: str) -> Json:
    """A worker that is placed already."""
    metadata = {"name": name, "namespace": "default", "labels": {POOL_LABEL: POOL}}
    spec = {"nodeName": "a", "containers": [{"name": "main", "image": "none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def test_a_recorder_that_is_killed_leaves_a_file_that_is_continued(
    require_binaries: RequireBinaries, tmp_path: Path
) -> None:
    """What ended meanwhile ended at about the time of the last line; a second recorder on the same file is refused."""
    require_binaries(ALONE.binaries())
    file = tmp_path / "recording"

    def found() -> Recording:
        return read_recording(file.read_bytes() if file.exists() else b"", "f")

    def names() -> set[str]:
        return {each.name for each in found().workers.values()}

    with ControlPlane(ALONE) as plane:
        plane.create_node("a")
        plane.create(worker("w1"))
        command = [sys.executable, "-m", "extender", "record", str(file), "--kubeconfig", str(plane.kubeconfig)]
        with subprocess.Popen([*command, "--quiet"]) as recorder:
            wait_for(lambda: "w1" in names(), SECONDS, "w1 to be recorded")
            second = subprocess.run([*command, "--for", "1s"], capture_output=True, text=True, check=False)
            recorder.kill()
        assert (second.returncode, "another recorder writes to it" in second.stderr) == (2, True)
        plane.api("DELETE", f"{PODS}/w1", params={"gracePeriodSeconds": 0})
        plane.create(worker("w2"))
        with subprocess.Popen([*command, "--quiet"]) as recorder:
            wait_for(lambda: "w2" in names(), SECONDS, "w2 to be recorded")
            recorder.send_signal(signal.SIGINT)
            assert recorder.wait(SECONDS) == 0
    ended = {each.name: (each.ended is not None, each.ended_about) for each in found().workers.values()}
    assert ended == {"w1": (True, True), "w2": (False, False)}
