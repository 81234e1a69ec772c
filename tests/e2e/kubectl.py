"""A cluster as somebody with kubectl and Helm sees it, whatever it is: requests go through `kubectl proxy`.

Owns the way in. Knows nothing of how the cluster was made.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from scripts.tools.controlplane import Api, ApiError, Json, wait_for
from scripts.tools.controlplane.building import find_or_build

T = TypeVar("T")
SECONDS = 90.0


class Cluster:
    """One cluster. ``api`` sends requests as the kubeconfig's user."""

    def __init__(self, kubeconfig: Path, api: Api) -> None:
        self.kubeconfig = kubeconfig
        self.api = api

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl and give its output. Raises with what it said."""
        return _run("kubectl", *arguments, environment={"KUBECONFIG": str(self.kubeconfig)})

    def helm(self, *arguments: str) -> str:
        """Run Helm and give its output."""
        return _run("helm", *arguments, environment={"KUBECONFIG": str(self.kubeconfig)})

    def get(self, path: str) -> Json | None:
        """The object at a path, None where there is none."""
        return self.api.get_or_none(path)

    def items(self, path: str, **params: str) -> list[Json]:
        """The objects of a collection."""
        found: list[Json] = self.api.request("GET", path, params=params)["items"]
        return found

    def delete(self, path: str) -> None:
        """Delete an object, or a collection, with what it owns; nothing there is no error."""
        try:
            self.api.request("DELETE", path, {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise

    @contextmanager
    def following(self, *arguments: str, log: Path) -> Iterator[Path]:
        """Follow the log of a pod, from its start to its end, into a file."""
        kubectl = find_or_build(["kubectl"], os.environ, lambda line: None)["kubectl"]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [kubectl, "--kubeconfig", str(self.kubeconfig), "logs", "--follow", *arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
            try:
                yield log
            finally:
                process.terminate()
                process.wait()

    @staticmethod
    def wait(condition: Callable[[], T | None], describe: str | Callable[[], str], seconds: float = SECONDS) -> T:
        """Wait for a condition, with a deadline."""
        return wait_for(condition, seconds, describe)


@contextmanager
def reach(kubeconfig: Path, folder: Path) -> Iterator[Cluster]:
    """Reach a cluster through `kubectl proxy`, so that every way in that kubectl knows will do."""
    kubectl = find_or_build(["kubectl"], os.environ, lambda line: None)["kubectl"]
    log = folder / "proxy.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [kubectl, "--kubeconfig", str(kubeconfig), "proxy", "--port=0", "--reject-methods=^$", "--reject-paths=^$"],
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        port = wait_for(lambda: re.search(r"127\.0\.0\.1:(\d+)", log.read_text()), 20, lambda: log.read_text())
        api = Api(f"http://127.0.0.1:{port[1]}")
        yield Cluster(kubeconfig, api)
        api.close()
    finally:
        process.terminate()
        process.wait()


def _run(program: str, *arguments: str, environment: dict[str, str]) -> str:
    path = find_or_build([program], os.environ, lambda line: None)[program]
    command: Sequence[str] = [str(path), *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{program} {' '.join(arguments)}: {done.stderr.strip()}\n{done.stdout[-3000:]}")
    return done.stdout
