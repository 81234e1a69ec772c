"""`warmnode page` as a process, for the tests, the demo and the benchmarks: the real command, on a free port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.tools.controlplane.client import wait_for

SECONDS = 60.0


class LivePage:
    """One `warmnode page`, used as a context manager. ``url`` is what it printed, ``log`` where it did."""

    def __init__(self, kubeconfig: Path, log: Path, *arguments: str) -> None:
        self.url = ""
        self.log = log
        self._command = (sys.executable, "-m", "extender", "page", "--kubeconfig", str(kubeconfig), *arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            # a new session: a Ctrl-C is for whoever started this
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        try:
            self.url = wait_for(self._printed, SECONDS, lambda: f"warmnode page to listen: {self.log.read_text()}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id, 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    def close(self) -> int:
        """End it with SIGTERM: the exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            return process.wait()

    def _printed(self) -> str | None:
        return next((line for line in self.log.read_text().splitlines() if line.startswith("http://127.0.0.1:")), None)
