"""`warmnode serve` as a process, for the tests, the demo and the benchmarks: the real command, on free ports."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from scripts.tools.controlplane.client import wait_for

READY_SECONDS = 90.0
SCHEDULER_CONFIG = Path(__file__).parents[2] / "manifests" / "base" / "kube-scheduler-config.yaml"
"""The shipped one: tests run a scheduler with this very file."""


class Serve:
    """One `warmnode serve`. Its log is in ``log``; ``webhook_port`` and ``ops_port`` stay the same over restarts."""

    def __init__(
        self,
        *,
        kubeconfig: Path,
        log: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        webhook_port: int = 0,
        role: str = "serve",
        module: str = "extender",
    ) -> None:
        self.log = log
        self.role = role
        self._module = module
        self.webhook_port = webhook_port
        self.ops_port = 0
        self._kubeconfig = kubeconfig
        self._arguments = tuple(arguments)
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait_ready: bool = True) -> Self:
        """Start it, and wait until it listens and, unless told otherwise, is ready."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", self._module, self.role, "--kubeconfig", str(self._kubeconfig)),
                    *(() if self.role == "reap" else ("--webhook-listen", f"127.0.0.1:{self.webhook_port}")),
                    *("--ops-listen", f"127.0.0.1:{self.ops_port}", "--history-listen", "127.0.0.1:0"),
                    *self._arguments,
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
            )
        ports = wait_for(lambda: self._ports(offset), READY_SECONDS, lambda: f"serve listens: {self.text()[-2000:]}")
        self.webhook_port, self.ops_port = ports.get("webhook", 0), ports["ops"]
        if wait_ready:
            wait_for(lambda: self.is_ready() or None, READY_SECONDS, lambda: f"serve is ready: {self.text()[-2000:]}")
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running.pid

    def is_ready(self) -> bool:
        """Ask /readyz."""
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def readiness(self) -> dict[str, Any]:
        """What /readyz says, whatever its status."""
        said: dict[str, Any] = json.loads(self.get("/readyz")[1])
        return said

    def text(self) -> str:
        """Everything it logged."""
        return self.log.read_text(errors="replace")

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Log lines with this message."""
        found = (json.loads(line) for line in self.text().splitlines() if line.startswith("{"))
        return [line for line in found if line.get("message") == message]

    def get(self, path: str) -> tuple[int, str]:
        """GET from the operations listener."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ops_port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """POST to the webhook: the status and the JSON that came back."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.webhook_port, timeout=30)
        try:
            connection.request("POST", path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def preferred(self, names: Sequence[str], labels: Mapping[str, str]) -> list[str]:
        """Ask to prioritize a worker with these labels: the scored hosts, best first."""
        pod = {"metadata": {"name": "asked", "namespace": "default", "labels": dict(labels)}}
        status, scores = self.post("/prioritize", {"Pod": pod, "Nodes": None, "NodeNames": list(names)})
        assert status == 200, scores
        return [score["Host"] for score in sorted(scores, key=lambda score: -score["Score"])]

    def metric(self, name: str, **labels: str) -> float:
        """Read one sample of /metrics, 0 where it is not there."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and wanted <= set(series.partition("{")[2].rstrip("}").split(",")):
                return float(value)
        return 0.0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._running.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and wait: the exit code."""
        self._running.send_signal(signal.SIGTERM)
        return self._reap()

    def wait(self) -> int:
        """Wait until it has ended by itself: the exit code."""
        return self._reap()

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._running.kill()
        self._reap()

    def close(self) -> None:
        """End it if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def _reap(self) -> int:
        code = self._running.wait(timeout=30)
        self._process = None
        return code

    def _ports(self, offset: int) -> dict[str, int] | None:
        with self.log.open("rb") as log:
            log.seek(offset)
            content = log.read().decode(errors="replace")
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"serve ended: {content[-2000:]}")
        lines = [json.loads(line) for line in content.splitlines() if line.startswith("{") and line.endswith("}")]
        ports = {
            str(line["listener"]): int(line["address"].rpartition(":")[2])
            for line in lines
            if line.get("message") == "listening"
        }
        wanted = {"ops"} if self.role == "reap" else {"webhook", "ops"}
        return ports if ports.keys() >= wanted else None


@contextmanager
def serving(**arguments: Any) -> Iterator[Serve]:
    """Run one `warmnode serve` and end it afterwards."""
    serve = Serve(**arguments)
    try:
        yield serve.start()
    finally:
        serve.close()


def scheduler_config(source: Path, webhook_port: int, *, http_timeout: str | None = None) -> dict[str, Any]:
    """Read the shipped scheduler configuration and point it at a port here; nothing else is changed.

    ``http_timeout`` is for a machine that may not answer within the shipped one. Leader election is off: it names a
    namespace that exists only where warmnode is installed.
    """
    import yaml

    config: dict[str, Any] = yaml.safe_load(source.read_text())
    config["leaderElection"] = {"leaderElect": False}
    for extender in config["extenders"]:
        extender["urlPrefix"] = f"http://127.0.0.1:{webhook_port}"
        extender["httpTimeout"] = http_timeout or extender["httpTimeout"]
    return config
