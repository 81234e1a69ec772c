"""`warmnode record` beside a run: the real command, on the same cluster, for as long as the block lasts."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.tools.controlplane import ControlPlaneError
from scripts.tools.experiment.scene import MODEL_LABEL, POOL_LABEL

STOP_SECONDS = 20.0


@contextmanager
def recorded(kubeconfig: Path, file: Path) -> Iterator[None]:
    """Record the workers into a new file. Raises ControlPlaneError where the recorder was not there to the end."""
    file.unlink(missing_ok=True)
    command: tuple[str, ...] = (
        sys.executable,
        "-P",
        "-m",
        "extender",
        "record",
        str(file),
        "--kubeconfig",
        str(kubeconfig),
    )
    command += ("--selector", POOL_LABEL, "--cache-key", MODEL_LABEL, "--quiet")
    # a new session: a Ctrl-C is for whoever started this
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as recorder:
        try:
            yield
            recorder.send_signal(signal.SIGINT)
            if code := recorder.wait(STOP_SECONDS):
                raise ControlPlaneError(f"warmnode record ended with code {code}")
        finally:
            recorder.kill()
