"""Records what a real kube-scheduler sends to an extender: scripts/record-requests runs it.

Owns ``tests/contract/recorded``: the raw bodies, byte for byte, and ``requests.json`` with the heads they came with.
Uses nothing of ours but the control plane, so that a mistake in the webhook cannot get into the records.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeAlias

from scripts.tools.controlplane import ControlPlane, ControlPlaneError, Json, Options, wait_for
from scripts.tools.controlplane.binaries import Note
from scripts.tools.controlplane.cluster import silent
from scripts.tools.serving import SCHEDULER_CONFIG, scheduler_config

RECORDED = Path(__file__).parents[2] / "tests" / "contract" / "recorded"
INDEX = "requests.json"
SECONDS = 60.0
NODES = ("node-a", "node-b", "node-c")
OPTIONS = Options(scheduler=False)

Request: TypeAlias = tuple[str, str, dict[str, str], bytes]
"""Method, path, headers, body."""


class Recorder(ThreadingHTTPServer):
    """Keeps each request's head and body, and answers as an extender without an opinion: no scores, no candidate."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[Request] = []


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
    """Record into the repository."""
    argparse.ArgumentParser(prog="scripts/record-requests", description=__doc__).parse_args()
    try:
        names = record(RECORDED, note=print)
    except ControlPlaneError as error:
        print(f"scripts/record-requests: {error}", file=sys.stderr)
        return 1
    print(f"recorded {', '.join(names)} in {RECORDED}")
    return 0


def record(folder: Path, *, note: Note = silent) -> list[str]:
    """Record prioritize and preempt, each with names only and with whole objects: the names of the files."""
    index: dict[str, Json] = {}
    with ControlPlane(OPTIONS, note=note) as control_plane:
        version = control_plane.api("GET", "/version")["gitVersion"]
        for node in NODES:
            control_plane.create_node(node, cpu="2")
        metadata: Json = {"name": "high"}
        control_plane.create(
            {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": metadata, "value": 1000}
        )
        for cacheable in (True, False):
            for method, path, headers, body in _requests(control_plane, cacheable=cacheable):
                name = f"{path.strip('/')}-{'names' if cacheable else 'objects'}.json"
                (folder / name).write_bytes(body)
                index[name] = {"method": method, "path": path, "headers": headers}
    (folder / INDEX).write_text(json.dumps({"kubernetes": version, "requests": index}, indent=2) + "\n")
    return sorted(index)


def _requests(control_plane: ControlPlane, *, cacheable: bool) -> list[Request]:
    """Fill the nodes with workers and let one more preempt: the first request of each path."""
    name = "names" if cacheable else "objects"
    namespace = control_plane.create_namespace(name)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    with recording() as recorder:
        config = scheduler_config(SCHEDULER_CONFIG, recorder.server_port)
        config["extenders"][0]["nodeCacheCapable"] = cacheable
        scheduler = control_plane.start_scheduler(f"recorded-{name}", config)
        for number in range(len(NODES)):
            _create_worker(control_plane, namespace, f"worker-{number}")
        wait_for(
            lambda: all(pod["spec"].get("nodeName") for pod in control_plane.api("GET", pods)["items"]),
            SECONDS,
            "the workers to be placed",
        )
        _create_worker(control_plane, namespace, "preemptor", priority_class="high")
        wait_for(lambda: any(path == "/preempt" for _, path, _, _ in recorder.requests), SECONDS, "the preempt call")
        scheduler.stop()
    control_plane.api("DELETE", pods, params={"gracePeriodSeconds": 0})
    wait_for(lambda: not control_plane.api("GET", pods)["items"], SECONDS, "the pods to be gone")
    first = {request[1]: request for request in reversed(recorder.requests)}
    return [first[path] for path in sorted(first)]


def _create_worker(
    control_plane: ControlPlane, namespace: str, name: str, *, priority_class: str | None = None
) -> None:
    resources = {"requests": {"cpu": "2"}}
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
