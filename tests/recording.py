"""Records what a real kube-scheduler sends to an extender: scripts/record-requests runs it.

Owns ``tests/contract/recorded``: the raw bodies, byte for byte, and ``requests.json`` with the heads they came with.
Uses nothing of ours but the control plane, so that a mistake in the webhook cannot get into the records.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.controlplane import ControlPlane, ControlPlaneError, Json, Options, wait_for
from tests.serving import SCHEDULER_CONFIG, scheduler_config

RECORDED = Path(__file__).parent / "contract" / "recorded"
INDEX = RECORDED / "requests.json"
SECONDS = 60.0
NODES = ("node-a", "node-b", "node-c")


class Recorder(ThreadingHTTPServer):
    """Keeps each request's head and body, and answers as an extender without an opinion: no scores, no candidate."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.command, self.path, dict(self.headers.items()), body))
        answer = b"[]" if self.path == "/prioritize" else b"{}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def recording() -> Iterator[Recorder]:
    """Run a recorder on a free port."""
    recorder = Recorder()
    thread = threading.Thread(target=recorder.serve_forever)
    thread.start()
    try:
        yield recorder
    finally:
        recorder.shutdown()
        recorder.server_close()
        thread.join()


def main() -> int:
    """Record prioritize and preempt, each with names only and with whole objects."""
    index: dict[str, Json] = {}
    try:
        with ControlPlane(Options(scheduler=False), note=print) as control_plane:
            version = control_plane.api("GET", "/version")["gitVersion"]
            for node in NODES:
                control_plane.create_node(node, cpu="2")
            metadata: Json = {"name": "high"}
            control_plane.create(
                {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": metadata, "value": 1000}
            )
            for cacheable in (True, False):
                index |= _record(control_plane, cacheable=cacheable)
    except ControlPlaneError as error:
        print(f"scripts/record-requests: {error}", file=sys.stderr)
        return 1
    INDEX.write_text(json.dumps({"kubernetes": version, "requests": index}, indent=2) + "\n")
    print(f"recorded {', '.join(index)} in {RECORDED}")
    return 0


def _record(control_plane: ControlPlane, *, cacheable: bool) -> dict[str, Json]:
    suffix = "names" if cacheable else "objects"
    namespace = control_plane.create_namespace(suffix)
    with recording() as recorder:
        config = scheduler_config(SCHEDULER_CONFIG, recorder.server_port)
        config["extenders"][0]["nodeCacheCapable"] = cacheable
        scheduler = control_plane.start_scheduler(f"recorded-{suffix}", config)
        for number in range(3):
            _create_worker(control_plane, namespace, f"worker-{number}", cpu="2")
        pods = f"/api/v1/namespaces/{namespace}/pods"
        wait_for(
            lambda: all(pod["spec"].get("nodeName") for pod in control_plane.api("GET", pods)["items"]),
            SECONDS,
            "the workers to be placed",
        )
        _create_worker(control_plane, namespace, "preemptor", cpu="2", priority_class="high")
        wait_for(lambda: any(path == "/preempt" for _, path, _, _ in recorder.requests), SECONDS, "the preempt call")
        scheduler.stop()
        recorded = {path: request for request in reversed(recorder.requests) if (path := request[1])}
    for pod in control_plane.api("GET", pods)["items"]:
        control_plane.api("DELETE", f"{pods}/{pod['metadata']['name']}", params={"gracePeriodSeconds": 0})
    wait_for(lambda: not control_plane.api("GET", pods)["items"], SECONDS, "the pods to be gone")
    index: dict[str, Json] = {}
    RECORDED.mkdir(exist_ok=True)
    for path, (method, _, headers, body) in sorted(recorded.items()):
        name = f"{path.strip('/')}-{suffix}.json"
        (RECORDED / name).write_bytes(body)
        index[name] = {"method": method, "path": path, "headers": headers}
    return index


def _create_worker(
    control_plane: ControlPlane, namespace: str, name: str, *, cpu: str, priority_class: str | None = None
) -> None:
    resources = {"requests": {"cpu": cpu}}
    spec: Json = {
        "schedulerName": "warmnode",
        "containers": [{"name": "main", "image": "none", "resources": resources}],
    }
    if priority_class is not None:
        spec["priorityClassName"] = priority_class
    labels = {"warmnode.dev/pool": "ducks", "app": "worker"}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    control_plane.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


if __name__ == "__main__":
    sys.exit(main())
