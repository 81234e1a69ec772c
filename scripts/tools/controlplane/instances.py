"""Control planes that outlive the command that started them: `up`, `down`, `status`.

Each is one supervisor process that runs a `ControlPlane`; so all its processes end with the supervisor, and its folder
is locked for as long as it lives. The supervisor is tied to the command that starts it by a pipe until it is told to
carry on alone: a command that dies before that takes the supervisor with it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from scripts.tools.controlplane.binaries import ROOT, Note
from scripts.tools.controlplane.client import Json, wait_for
from scripts.tools.controlplane.cluster import ControlPlane, Options
from scripts.tools.controlplane.errors import ControlPlaneError
from scripts.tools.controlplane.workspace import Held, holder, remove_stale

DETACH = "detach"
STATE = "instance.json"
STOP_SECONDS = 20.0


def state_directory(environment: Mapping[str, str]) -> Path:
    """Return ``$XDG_STATE_HOME/warmnode/control-plane``, by default under ``~/.local/state``."""
    base = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base).absolute() / "warmnode" / "control-plane"


def bring_up(directory: Path, options: Options, note: Note) -> None:
    """Start a supervisor and return once its control plane is ready; the programs have been found before.

    Raises ControlPlaneError (with the supervisor's message) and leaves nothing then, nor when it is interrupted.
    """
    if pid := holder(directory):
        raise Held(directory, pid)
    supervisor = subprocess.Popen(
        [sys.executable, "-P", "-m", "scripts.tools.controlplane", "supervise"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        text=True,
        start_new_session=True,
    )
    stdin, stdout = supervisor.stdin, supervisor.stdout
    if stdin is None or stdout is None:
        raise AssertionError("both were asked for")
    try:
        order = {"directory": str(directory.absolute()), "options": dataclasses.asdict(options)}
        print(json.dumps(order), file=stdin, flush=True)
        for line in stdout:
            message = json.loads(line)
            if "note" in message:
                note(message["note"])
            if "error" in message:
                raise ControlPlaneError(message["error"])
            if "ready" in message:
                print(DETACH, file=stdin, flush=True)
                supervisor.returncode = 0  # it is on its own now: no zombie to collect, no warning about one
                return
        raise ControlPlaneError("the control plane ended before it was ready")
    finally:
        stdin.close()
        if supervisor.returncode is None:
            supervisor.wait()
        stdout.close()


def take_down(directory: Path) -> bool:
    """End the control plane in ``directory`` and remove the folder. False where there was nothing."""
    pid = holder(directory)
    if pid is None:
        return remove_stale(directory)
    os.kill(pid, signal.SIGTERM)
    try:
        wait_for(lambda: holder(directory) != pid, STOP_SECONDS, f"process {pid} to end")
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)  # its children die with it
        wait_for(lambda: holder(directory) != pid, STOP_SECONDS, f"process {pid} to end after SIGKILL")
    remove_stale(directory)
    return True


def read_status(directory: Path) -> Json | None:
    """Return what `up` wrote, with each component's ``state`` (running, paused, ended) as it is now; None: not up."""
    if holder(directory) is None:
        return None
    try:
        state: Json = json.loads((directory / STATE).read_text())
    except FileNotFoundError:  # it is starting or stopping
        return None
    for each in state["components"]:
        each["state"] = _process_state(each["pid"])
    return state


def supervise() -> int:
    """Run one control plane, as ordered by the first line of stdin, until SIGTERM. Returns the exit code."""
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = json.loads(sys.stdin.readline())
    options = msgspec.convert(order["options"], Options)
    detached = threading.Event()
    threading.Thread(target=_watch_starter, args=(detached,), daemon=True).start()
    control_plane = ControlPlane(options, directory=Path(order["directory"]), note=lambda line: _tell(note=line))
    try:
        control_plane.start()
        (control_plane.directory / STATE).write_text(json.dumps(_describe(control_plane), indent=2))
        _tell(ready=True)
        detached.wait()
        _silence(control_plane.directory / "logs" / "supervisor.log")
        while True:
            signal.pause()
    except ControlPlaneError as error:
        _tell(error=str(error))
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough: the clean-up is not to be interrupted
        control_plane.stop()


def _watch_starter(detached: threading.Event) -> None:
    if sys.stdin.readline().strip() == DETACH:
        detached.set()
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _tell(**message: object) -> None:
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 (the starter is gone; SIGTERM follows)


def _silence(log: Path) -> None:
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.close(null)
    os.close(stream)


def _describe(control_plane: ControlPlane) -> Json:
    return {
        "directory": str(control_plane.directory),
        "pid": os.getpid(),
        "server": control_plane.server_url,
        "kubeconfig": str(control_plane.kubeconfig),
        "caFile": str(control_plane.ca_file),
        "clientCertificate": str(control_plane.client_certificate),
        "clientKey": str(control_plane.client_key),
        "components": [
            {"name": name, "pid": process.pid, "port": process.port, "log": str(process.log)}
            for name, process in control_plane.processes.items()
        ],
    }


def _process_state(pid: int) -> str:
    try:
        # proc_pid_stat(5): the state is the field after the command's name in parentheses
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "ended"
    return {"Z": "ended", "X": "ended", "T": "paused"}.get(letter, "running")
