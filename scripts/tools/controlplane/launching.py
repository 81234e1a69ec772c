"""Starting components and waiting until they are ready.

Owns the running processes of one control plane by name, each with the means to start it again as it was.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from scripts.tools.controlplane.client import wait_for
from scripts.tools.controlplane.errors import ControlPlaneError, StartFailed
from scripts.tools.controlplane.processes import Process, Spawner, log_tail

START_SECONDS = 90.0
PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a component is started. ``probe`` is the URL that answers 200 when it is ready, None: it has none."""

    name: str
    command: tuple[str, ...]
    port: int | None = None
    probe: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class Components:
    """The processes of one control plane. Every one of them ends with `close`, or with this process."""

    def __init__(self, logs: Path, tls: ssl.SSLContext) -> None:
        self._logs = logs
        self._tls = tls
        self._spawner = Spawner()
        self._launches: dict[str, Launch] = {}
        self.processes: dict[str, Process] = {}

    def start(self, launch: Launch) -> Process:
        """Start a component and return at once. A name is free again when its process has ended."""
        if launch.name in self.processes and self.processes[launch.name].exit_code is None:
            raise ControlPlaneError(f"a component named {launch.name} runs already: stop it or choose another name")
        self._launches[launch.name] = launch
        return self._spawn(launch)

    def await_ready(self, name: str, *needed: str) -> Process:
        """Wait until the component answers. Raises StartFailed if it does not, or if it or one of ``needed`` ends."""
        launch, process = self._launches[name], self.process(name)
        watched = [process, *map(self.process, needed)]

        def ready() -> bool:
            for each in watched:
                if each.exit_code is not None:
                    raise StartFailed(f"{each.name} ended with code {each.exit_code}:\n{log_tail(each.log)}")
            return launch.probe is None or is_healthy(launch.probe, self._tls)

        try:
            wait_for(
                ready, START_SECONDS, lambda: f"{name} to become ready; its log ends with\n{log_tail(process.log)}"
            )
        except TimeoutError as error:
            raise StartFailed(str(error)) from error
        return process

    def restart(self, name: str) -> Process:
        """Kill the component if it runs, start it as before (same flags, same ports) and wait until it is ready."""
        self.process(name).kill()
        self._spawn(self._launches[name])
        return self.await_ready(name)

    def process(self, name: str) -> Process:
        """Return the process of a component. Raises ControlPlaneError with the names that there are."""
        try:
            return self.processes[name]
        except KeyError:
            raise ControlPlaneError(f"no component {name}: there are {', '.join(self.processes)}") from None

    def close(self) -> None:
        """Kill all, the last started first. SIGKILL: kube-apiserver takes long over SIGTERM and holds its port."""
        for process in reversed(self.processes.values()):
            process.kill()
        self._spawner.close()

    def _spawn(self, launch: Launch) -> Process:
        process = self._spawner.start(
            launch.name,
            launch.command,
            log=self._logs / f"{launch.name}.log",
            environment=launch.environment,
            directory=self._logs,
            port=launch.port,
        )
        self.processes[launch.name] = process
        return process


def is_healthy(url: str, tls: ssl.SSLContext) -> bool:
    """Return whether a GET of ``url`` is answered with 200; no answer is a no."""
    address = urlsplit(url)
    host, port = address.hostname or "127.0.0.1", address.port or 0
    connection = (
        http.client.HTTPSConnection(host, port, timeout=PROBE_SECONDS, context=tls)
        if address.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=PROBE_SECONDS)
    )
    try:
        connection.request("GET", address.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
