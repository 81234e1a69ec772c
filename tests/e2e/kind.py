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
def running(folder: Path, node_image: str | None, image: str, archive: Path | None, note: Note) -> Iterator[Path]:
    """A cluster with the image loaded: its kubeconfig. It is deleted with the block.

    The image is in ``archive``, under its name, or is built from this repository where that is None.
    """
    for program in ("docker", "kind"):
        if shutil.which(program) is None:
            raise MissingTool(f"--kind needs {program}: install it, or use --local (as root) or --kubeconfig")
    kubeconfig = folder / "kubeconfig"
    note(f"making the kind cluster {NAME}")
    chosen = ["--image", node_image] if node_image else []
    try:
        _run("kind", "create", "cluster", "--name", NAME, "--kubeconfig", str(kubeconfig), "--wait", "120s", *chosen)
        if archive is None:
            note(f"building {image}, and loading it")
            _run(str(ROOT / "scripts" / "image"), "--kind", NAME, image)
        else:
            note(f"loading {image} from {archive}")
            _run("kind", "load", "image-archive", str(archive), "--name", NAME)
        yield kubeconfig
    finally:
        _run("kind", "delete", "cluster", "--name", NAME, "--kubeconfig", str(kubeconfig))


def _run(*command: str) -> None:
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ControlPlaneError(f"{' '.join(command[:3])} failed; the end of what it says:\n{done.stderr[-3000:]}")
