"""A real Prometheus server for tests: found in PATH, or Debian's package, unpacked into the user's cache.

Owns where the program comes from and how it is started. Nothing is installed: the package is downloaded with apt-get,
which checks its signature, and unpacked; neither needs root.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest

from scripts.tools.controlplane.binaries import Note, cache_directory
from scripts.tools.controlplane.building import locked
from scripts.tools.controlplane.client import wait_for
from scripts.tools.controlplane.errors import MissingTool
from scripts.tools.controlplane.processes import Process, Spawner, free_ports, log_tail

REQUIRED = "WARMNODE_REQUIRE_PROMETHEUS"
APT_SECONDS = 300
START_SECONDS = 60.0
REMEDY = "put a prometheus program into PATH (https://prometheus.io/download, or your distribution's package)"


def find_prometheus(environment: Mapping[str, str], note: Note) -> Path:
    """Return the program, from PATH, from the cache, or out of Debian's package. Raises MissingTool."""
    found = shutil.which("prometheus", path=environment.get("PATH"))
    if found is not None:
        return Path(found)
    cache = cache_directory(environment)
    program = cache / "prometheus-debian" / "usr" / "bin" / "prometheus"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / ".prometheus.lock", note):
        if not os.access(program, os.X_OK):
            note("downloading Debian's package of prometheus (once; 20 MB)")
            _unpack(cache, environment)
    return program


def skip_or_fail(error: MissingTool, environment: Mapping[str, str]) -> NoReturn:
    """Skip the running test with the remedy, or fail it where there must be a Prometheus server."""
    if environment.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1: {error}", pytrace=False)
    pytest.skip(str(error))


def _unpack(cache: Path, environment: Mapping[str, str]) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool, path=environment.get("PATH")) is None:
            raise MissingTool(f"no Prometheus server, and no {tool} to download Debian's package with: {REMEDY}")
    work = cache / ".downloading-prometheus"
    shutil.rmtree(work, ignore_errors=True)
    try:
        (work / "lists" / "partial").mkdir(parents=True)
        own_lists = [f"-oDir::State::Lists={work / 'lists'}", f"-oDir::Cache={work}"]
        # A machine whose package lists were never fetched has none: fetch them into a folder of our own then.
        if not _apt(["download", "prometheus"], work, environment):
            if not _apt([*own_lists, "update"], work, environment):
                raise MissingTool(f"no Prometheus server, and apt-get cannot reach a package archive: {REMEDY}")
            if not _apt([*own_lists, "download", "prometheus"], work, environment):
                raise MissingTool(f"no Prometheus server, and apt-get knows no package prometheus: {REMEDY}")
        packages = sorted(work.glob("prometheus_*.deb"))
        if not packages:
            raise MissingTool(f"no Prometheus server: apt-get downloaded nothing: {REMEDY}")
        unpacked = work / "unpacked"
        subprocess.run(["dpkg-deb", "--extract", packages[0], unpacked], check=True, env=dict(environment))
        program = unpacked / "usr" / "bin" / "prometheus"
        if subprocess.run([program, "--version"], capture_output=True, check=False).returncode:
            raise MissingTool(f"Debian's prometheus does not run on this machine: {REMEDY}")
        shutil.rmtree(cache / "prometheus-debian", ignore_errors=True)
        unpacked.rename(cache / "prometheus-debian")
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingTool(f"no Prometheus server: {error}: {REMEDY}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _apt(arguments: Sequence[str | Path], directory: Path, environment: Mapping[str, str]) -> bool:
    done = subprocess.run(
        # as root, apt would download as a user who may not write into this folder
        ["apt-get", "-qq", "-oAPT::Sandbox::User=root", *arguments],
        cwd=directory,
        env=dict(environment),
        capture_output=True,
        timeout=APT_SECONDS,
        check=False,
    )
    return done.returncode == 0


class Prometheus:
    """One server that scrapes ``targets`` (HOST:PORT) every second, as job ``ducks``; labels of the series win."""

    def __init__(self, program: Path, folder: Path, targets: Sequence[str]) -> None:
        self._program = program
        self._folder = folder
        self._spawner = Spawner()
        self._process: Process | None = None
        self.port = free_ports(1)[0]
        self.log = folder / "prometheus.log"
        job = {"job_name": "ducks", "honor_labels": True, "static_configs": [{"targets": list(targets)}]}
        content = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(json.dumps(content))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._spawner.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it and wait until it answers queries."""
        command: list[str | Path] = [
            *(self._program, f"--config.file={self._folder / 'prometheus.yml'}"),
            *(f"--storage.tsdb.path={self._folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"),
        ]
        self._process = self._spawner.start("prometheus", command, log=self.log, port=self.port)
        wait_for(self._is_ready, START_SECONDS, lambda: f"prometheus to start:\n{log_tail(self.log)}")
        return self

    def stop(self) -> None:
        """End it; nobody listens on its port then."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def query(self, query: str) -> list[dict[str, Any]]:
        """Ask it, as a person would."""
        address = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(address, timeout=10) as response:  # noqa: S310 - our own server
            result: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return result

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as response:  # noqa: S310 - our own server
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False
