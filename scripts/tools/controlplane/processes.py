"""Child processes that never outlive the process that started them, and ports for them that nobody else is given.

Owns: how a child is started, signalled and ended. Knows nothing of Kubernetes.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.tools.controlplane.binaries import cache_directory
from scripts.tools.controlplane.errors import ControlPlaneError

STOP_SECONDS = 5.0
PORTS = range(15_000, 30_000)
"""Below what kernels use for connections by themselves (ip_local_port_range), and below Kubernetes' node ports."""

# Runs between fork and exec, as a program of its own: code of ours in a forked, threaded interpreter could deadlock
# (preexec_fn). prctl(PR_SET_PDEATHSIG, SIGKILL) survives exec; a parent that died before it is noticed by its id.
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"cannot start {sys.argv[2]}: {error.strerror}")
"""


def free_ports(count: int, counter: Path | None = None) -> list[int]:
    """Return ``count`` different TCP ports that are free on 127.0.0.1, and that nobody else is given for a long while.

    Whoever asks on this machine goes on in `PORTS` where the last one ended (it is in ``counter``, by default in the
    user's cache), so that control planes that start at once cannot choose the same. The kernel takes none of them for
    a connection of its own: that is what it does with a free port that it names itself.
    """
    counter = counter or cache_directory(os.environ).parent / "last-port"
    counter.parent.mkdir(parents=True, exist_ok=True)
    with counter.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        last = int(text) if text.isdecimal() else secrets.choice(PORTS)
        found: list[int] = []
        for number in range(1, len(PORTS) + 1):
            port = PORTS[(last - PORTS.start + number) % len(PORTS)]
            if _is_free(port):
                found.append(port)
            if len(found) == count:
                break
        else:
            raise ControlPlaneError(f"no {count} ports of {PORTS.start} to {PORTS.stop - 1} are free")
        file.truncate(0)
        file.write(str(found[-1] if found else last))
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def log_tail(log: Path, lines: int = 8) -> str:
    """Return the last lines of a log file, indented, or a remark that there are none."""
    try:
        text = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        text = []
    return "\n".join(f"  {line[:400]}" for line in text[-lines:]) or "  (its log is empty)"


class Process:
    """One running program in a session of its own. ``port`` is its port on 127.0.0.1, None without one."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], *, log: Path, port: int | None = None) -> None:
        self.name = name
        self.log = log
        self.port = port
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs (a paused process runs); negative is the signal that ended it."""
        return self._popen.poll()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone and its ports are free."""
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """SIGTERM, then SIGKILL after ``timeout`` seconds. Returns when it is gone; an ended process is no error."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        # poll() first: while the child is not reaped its id cannot belong to anybody else.
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, number)


class Spawner:
    """Starts children that the kernel kills when this process ends, however it ends.

    The parent-death signal belongs to the *thread* that forks, so all children come from one thread that lives as long
    as this object.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        port: int | None = None,
    ) -> Process:
        """Start ``command`` (an absolute path first), both output streams appended to ``log``."""
        return self._thread.submit(self._start, name, command, log, environment, directory, port).result()

    def close(self) -> None:
        """End the thread. Whatever still runs is killed by the kernel."""
        self._thread.shutdown()

    @staticmethod
    def _start(
        name: str,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None,
        directory: Path | None,
        port: int | None,
    ) -> Process:
        wrapper = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        with log.open("ab") as stream:
            popen = subprocess.Popen(
                [*wrapper, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=directory,
                start_new_session=True,
            )
        return Process(name, popen, log=log, port=port)
