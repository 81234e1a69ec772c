"""A kind cluster of its own: needs Docker and kind, which nothing here installs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.tools.controlplane import ControlPlaneError
from scripts.tools.controlplane.binaries import ROOT, Note
from scripts.tools.controlplane.errors import MissingTool

NAME = "warmnode-e2e"


@contextmanager
def running(folder: Path, node_image: str | None, image: str, note: Note) -> Iterator[Path]:
    """A cluster with the image of this repository loaded: its kubeconfig. It is deleted with the block."""
    for program in ("docker", "kind"):
        if shutil.which(program) is None:
            raise MissingTool(f"--kind needs {program}: install it, or use --local (as root) or --kubeconfig")
    kubeconfig = folder / "kubeconfig"
    note(f"making the kind cluster {NAME}")
    chosen = ["--image", node_image] if node_image else []
    try:
        _run("kind", "create", "cluster", "--name", NAME, "--kubeconfig", str(kubeconfig), "--wait", "120s", *chosen)
        note(f"building {image}, and loading it")
        _run(str(ROOT / "scripts" / "image"), "--kind", NAME, image)
        yield kubeconfig
    finally:
        _run("kind", "delete", "cluster", "--name", NAME, "--kubeconfig", str(kubeconfig))


def _run(*command: str) -> None:
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ControlPlaneError(f"{' '.join(command[:3])} failed; the end of what it says:\n{done.stderr[-3000:]}")
