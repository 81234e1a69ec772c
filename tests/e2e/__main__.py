"""The command line of scripts/e2e: make a cluster or take one, run tests/e2e in it, leave nothing.

Exit codes: that of pytest; 1 where the cluster could not be made, 2 for bad usage.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scripts.tools.controlplane import ControlPlane, ControlPlaneError
from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.manifests.rendering import KUBERNETES
from tests.e2e import kind
from tests.e2e.images import Builder, debian_mirror, write_program_image
from tests.e2e.machine import install_command, require_packages, require_root
from tests.e2e.node import PAUSE, PROGRAMS, audit_log, control_plane_options, running_node
from tests.e2e.stage import IMAGE, SCHEDULER_IMAGE

PROGRAM = "scripts/e2e"
TAG = "e2e"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The cluster to test in, and which images its nodes have. ``environment`` is what only some clusters have."""

    kubeconfig: Path
    image_tag: str
    scheduler_tag: str
    environment: Mapping[str, str] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options, pytest_arguments = _parser().parse_known_args(arguments)
    if options.packages:
        print(install_command())
        return 0
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: clean up, then end
    folder = Path(tempfile.mkdtemp(prefix="warmnode-e2e-"))
    try:
        find_or_build(["kubectl", "helm"], os.environ, _note)
        with _target(options, folder) as target:
            return _run_tests(target, pytest_arguments)
    except ControlPlaneError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; nothing is left", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Build the image, install it in a cluster as users do, and run tests/e2e. Further arguments go to "
        "pytest.",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--local",
        action="store_true",
        help="a real kubelet with containers on this machine, without Docker: needs root (the default)",
    )
    where.add_argument("--kind", action="store_true", help="a new kind cluster: needs Docker and kind")
    where.add_argument("--kubeconfig", type=Path, metavar="FILE", help="any cluster, which is left as it was")
    where.add_argument(
        "--packages", action="store_true", help="print the command that installs what --local needs, and end"
    )
    parser.add_argument(
        "--image-tag", metavar="TAG", help=f"with --kubeconfig: the tag of {IMAGE} that the cluster can pull"
    )
    parser.add_argument(
        "--image-archive",
        type=Path,
        metavar="FILE",
        help=f"with --kind: an archive that holds {IMAGE}:{TAG}, in place of building it",
    )
    parser.add_argument("--node-image", metavar="IMAGE", help="with --kind: kind's node image, for another version")
    return parser


@contextmanager
def _target(options: argparse.Namespace, folder: Path) -> Iterator[Target]:
    if options.kind:
        with (
            kind.running(folder, options.node_image, f"{IMAGE}:{TAG}", options.image_archive, _note) as kubeconfig,
            _kwok(kubeconfig, folder),
        ):
            yield Target(kubeconfig=kubeconfig, image_tag=TAG, scheduler_tag=_server_version(kubeconfig))
    elif options.kubeconfig is not None:
        if not options.image_tag:
            raise ControlPlaneError(f"--kubeconfig needs --image-tag: the tag of {IMAGE} that the cluster can pull")
        with _kwok(options.kubeconfig, folder):
            yield Target(
                kubeconfig=options.kubeconfig,
                image_tag=options.image_tag,
                scheduler_tag=_server_version(options.kubeconfig),
            )
    else:
        with _local(folder) as target:
            yield target


@contextmanager
def _local(folder: Path) -> Iterator[Target]:
    require_root()
    require_packages()
    programs = find_or_build(PROGRAMS, os.environ, _note)
    archives = [folder / name for name in ("pause.tar", "kube-scheduler.tar", "warmnode.tar")]
    pause = folder / "pause"
    command = ["go", "build", "-ldflags", "-s -w", "-o", str(pause), str(Path(__file__).with_name("pause.go"))]
    subprocess.run(command, check=True, env={**os.environ, "CGO_ENABLED": "0"})
    write_program_image(archives[0], PAUSE, pause)
    write_program_image(archives[1], f"{SCHEDULER_IMAGE}:{KUBERNETES}", programs["kube-scheduler"])
    started = time.monotonic()
    build = folder / "build"
    build.mkdir()
    Builder(build, debian_mirror(), _note).build(f"{IMAGE}:{TAG}", archives[2])
    size = archives[2].stat().st_size / 2**20
    _note(f"built the image in {time.monotonic() - started:.0f} s: {size:.0f} MiB, compressed, with its base")
    place = folder / "control-plane"
    options = control_plane_options(folder, place / "pki")
    with (
        ControlPlane(options, directory=place, note=_note) as control_plane,
        running_node(control_plane, folder, _note) as node,
    ):
        node.import_images(archives)
        yield Target(
            kubeconfig=control_plane.kubeconfig,
            image_tag=TAG,
            scheduler_tag=KUBERNETES,
            environment={"WARMNODE_E2E_AUDIT_LOG": str(audit_log(folder)), "WARMNODE_E2E_LOCAL": "1"},
        )


@contextmanager
def _kwok(kubeconfig: Path, folder: Path) -> Iterator[None]:
    """Run KWOK here for a cluster elsewhere: it takes care of the fake nodes, and of no other."""
    kwok = find_or_build(["kwok"], os.environ, _note)["kwok"]
    stages = sorted((ROOT / "scripts" / "tools" / "controlplane" / "stages").glob("*.yaml"))
    with (folder / "kwok.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(kwok), "--kubeconfig", str(kubeconfig), "--manage-all-nodes=false"),
                *(
                    "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                    "--node-lease-duration-seconds=40",
                ),
                *(f"--config={stage}" for stage in stages),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _server_version(kubeconfig: Path) -> str:
    kubectl = find_or_build(["kubectl"], os.environ, _note)["kubectl"]
    done = subprocess.run(
        [kubectl, "--kubeconfig", str(kubeconfig), "get", "--raw", "/version"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r'"gitVersion": "(v\d+\.\d+\.\d+)', done.stdout)
    if found is None:
        raise ControlPlaneError(f"the cluster does not say its version: {done.stderr.strip()}")
    return found[1]


def _run_tests(target: Target, arguments: Sequence[str]) -> int:
    environment = {
        **os.environ,
        **target.environment,
        "PYTHONPATH": str(ROOT),
        "WARMNODE_E2E_KUBECONFIG": str(target.kubeconfig),
        "WARMNODE_E2E_IMAGE_TAG": target.image_tag,
        "WARMNODE_E2E_SCHEDULER_TAG": target.scheduler_tag,
    }
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", str(ROOT / "tests" / "e2e"), "-p", "no:cacheprovider", *arguments]
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # as Ctrl-C, which it may have got already: it cleans up and ends
        process.wait()
        raise
    _note(f"the tests took {time.monotonic() - started:.0f} s")
    return code


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
