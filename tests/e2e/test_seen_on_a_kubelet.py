"""The live view of workers that are processes, before anything is installed: a kubelet says what becomes of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from scripts.tools.controlplane import Json
from scripts.tools.live_page import LivePage
from tests.drawn import Drawn, drawn_of, in_order
from tests.e2e.stage import IDLE, LONG_AGO, POOL, WORKERS, Stage

SELECTOR = f"app={POOL}"
SIGNS = {"busy": "■", "idle": "□", "starting": "+", "going": "×"}  # noqa: RUF001
GRACE = 15


def test_what_is_shown_is_what_the_kubelet_says(stage: Stage, tmp_path: Path) -> None:
    """Workers that work, are idle, are never Ready, ignore SIGTERM, have ended: on the page and in the terminal."""
    python = ["/usr/bin/python3", "-c"]
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"
    create(stage, "busy")
    create(stage, "idle", annotations={IDLE: LONG_AGO})
    never = {"exec": {"command": [*python, "raise SystemExit(1)"]}, "periodSeconds": 1}
    create(stage, "starting", container={"readinessProbe": never})
    create(stage, "going", container={"command": [*python, deaf]}, terminationGracePeriodSeconds=GRACE)
    create(stage, "ended", container={"command": [*python, ""]}, restartPolicy="Never")
    with LivePage(stage.cluster.kubeconfig, tmp_path / "page.log", "--selector", SELECTOR) as live:
        stage.wait_ready(("busy", "idle", "going"))
        stage.wait(lambda: stage.pods()["ended"]["status"]["phase"] == "Succeeded", "a worker to end")
        stage.wait(lambda: "running" in str(stage.pods()["starting"]["status"]), "a worker that is not Ready to run")
        stage.cluster.delete(f"/api/v1/namespaces/{WORKERS}/pods/going")
        shown = stage.wait(lambda: shown_as_there(stage, live), lambda: f"{there(stage)}, shown {page(live)}")
        states = sorted(state for _, cells in shown for _, state in cells)
        assert states == sorted(SIGNS)
        assert signs_in_terminal(stage) == sorted(SIGNS.values())
        stage.wait(lambda: "going" not in str(there(stage)), "the worker that ignores SIGTERM to be killed")
        stage.wait(lambda: shown_as_there(stage, live), lambda: f"{there(stage)}, shown {page(live)}")
    stage.remove_workers()


def create(
    stage: Stage, name: str, *, container: Json | None = None, annotations: Json | None = None, **spec: Any
) -> None:
    """Create a worker of the cluster's own scheduler, on a node with a kubelet."""
    made = {**stage.real_spec(), "schedulerName": "default-scheduler", **spec}
    made["containers"] = [{**made["containers"][0], **(container or {})}]
    metadata = {"name": name, "namespace": WORKERS, "labels": {"app": POOL}, "annotations": annotations or {}}
    stage.cluster.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": made})


def there(stage: Stage) -> Drawn:
    """What the API server has."""
    pods = stage.cluster.items(f"/api/v1/namespaces/{WORKERS}/pods", labelSelector=SELECTOR)
    return drawn_of(stage.cluster.items("/api/v1/nodes"), pods)


def page(live: LivePage) -> Drawn:
    """What a page that was just opened is sent to draw."""
    with urllib.request.urlopen(f"{live.url}events", timeout=20) as events:  # noqa: S310 - loopback
        frame = json.loads(events.readline().partition(b":")[2])
    columns = frame["columns"]
    return in_order([each["uid"], [[cell["uid"], cell["state"]] for cell in each["cells"]]] for each in columns)


def shown_as_there(stage: Stage, live: LivePage) -> Drawn | None:
    """The page, if it shows what there is."""
    shown = page(live)
    return shown if shown == there(stage) else None


def signs_in_terminal(stage: Stage) -> list[str]:
    """What `warmnode top` prints once, where there is no terminal: the signs on the lines of nodes, in order."""
    command = [sys.executable, "-X", "utf8", "-m", "extender", "top", "--kubeconfig", str(stage.cluster.kubeconfig)]
    done = subprocess.run([*command, "--selector", SELECTOR], capture_output=True, text=True, check=True, timeout=60)
    nodes = re.findall(r"^ +(?:\d+|-) .*$", done.stdout, flags=re.MULTILINE)
    assert len(nodes) == len(stage.cluster.items("/api/v1/nodes"))
    return sorted(sign for line in nodes for sign in line if sign in SIGNS.values())
