"""The programs beside ours, from sources beside this file: two in Go, one with aiohttp. Owns no measurement."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.tools.benchmarks import machine
from scripts.tools.controlplane import ControlPlaneError, Json, MissingTool, Process, wait_for
from scripts.tools.controlplane.processes import Spawner, free_ports, log_tail

ONE_CORE = {"GOMAXPROCS": "1"}
START_SECONDS = 10.0
_SOURCES = Path(__file__).parent


def build(name: str, folder: Path) -> Path:
    """Build one program into ``folder``. Raises MissingTool where there is no Go, ControlPlaneError where it fails."""
    go = shutil.which("go")
    if go is None:
        raise MissingTool("the benchmarks compare with a server in Go: install Go and put its bin folder into PATH")
    path = folder / name
    command = [go, "build", "-buildvcs=false", "-o", str(path), "."]
    done = subprocess.run(command, cwd=_SOURCES / name, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ControlPlaneError(f"building {name} failed:\n{done.stdout}{done.stderr}")
    return path


def go_version() -> str:
    """Return Go's version without its prefix."""
    done = subprocess.run(["go", "env", "GOVERSION"], cwd=_SOURCES / "load", capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("go")


def start_extender(
    spawner: Spawner, binary: Path, *, ages: Path | None, log: Path, environment: Mapping[str, str] | None = None
) -> Process:
    """Start the Go extender on a free port: with ``ages`` it answers every host, without it is the no-op."""
    (port,) = free_ports(1)
    answer = ["-answer", "every", "-ages", str(ages)] if ages else ["-answer", "none"]
    command: list[str | Path] = [binary, "-listen", f"127.0.0.1:{port}", *answer]
    return _listening(spawner.start("goextender", command, log=log, environment=environment, port=port), port, log)


def start_aiohttp_noop(spawner: Spawner, *, log: Path) -> Process:
    """Start the no-op with aiohttp on a free port."""
    (port,) = free_ports(1)
    command: list[str | Path] = [sys.executable, "-P", _SOURCES / "aiohttp_noop.py", str(port)]
    return _listening(spawner.start("aiohttp-noop", command, log=log, port=port), port, log)


def _listening(process: Process, port: int, log: Path) -> Process:
    """Wait until it can be called."""

    def listens() -> bool:
        if process.exit_code is not None:
            raise ControlPlaneError(f"the extender ended:\n{log_tail(log)}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens, START_SECONDS, "the extender to listen")
    return process


def run_load(binary: Path, core: int, arguments: Mapping[str, object]) -> Json:
    """Run the load client on one core to its end and return what it measured."""
    flags = [f"-{name}={value}" for name, value in arguments.items()]
    with machine.pinned(core):
        done = subprocess.run([binary, *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ControlPlaneError(f"the load client failed: {done.stderr.strip()}")
    measured: Json = json.loads(done.stdout)
    return measured
