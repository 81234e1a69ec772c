"""Building the missing programs once, from the tool modules in scripts/tools, into the user's cache.

Owns `go build`: its lock, its progress lines and its clean-up. An interrupted build leaves no file that looks complete:
programs are built beside their place and renamed.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from scripts.tools.controlplane.binaries import (
    ROOT,
    TOOL_MODULES,
    Binary,
    Note,
    cache_directory,
    known_binaries,
    locate,
)
from scripts.tools.controlplane.errors import ControlPlaneError, MissingTool
from scripts.tools.controlplane.processes import Process, Spawner, log_tail

PROGRESS_SECONDS = 15.0
POLL_SECONDS = 0.1


def find_or_build(names: Sequence[str], environment: Mapping[str, str], note: Note) -> dict[str, Path]:
    """Return the path of each named program, building the ones that are missing (minutes, the first time).

    Raises MissingTool where something has to be built and there is no Go that can do it, ControlPlaneError where a
    build fails.
    """
    known = known_binaries()
    found = {name: locate(known[name], environment, note) for name in names}
    missing = [known[name] for name, path in found.items() if path is None]
    if missing:
        go = _go(missing, environment, note)
        cache = cache_directory(environment)
        cache.mkdir(parents=True, exist_ok=True)
        for binary in missing:
            found[binary.name] = _build_once(binary, cache, go, environment, note)
    return {name: path for name, path in found.items() if path is not None}


def _go(missing: Sequence[Binary], environment: Mapping[str, str], note: Note) -> str:
    """Return the go command, after checking that it can build every module in ``missing``, if need be with a newer Go.

    A newer one comes from the module proxy (see `_building`), and ``note`` is told so.
    """
    required = {each.module: _required_go(TOOL_MODULES / each.module) for each in missing}
    newest = max(required.values(), key=_numbers)
    names = ", ".join(each.name for each in missing)
    go = shutil.which("go", path=environment.get("PATH"))
    if go is None:
        raise MissingTool(
            f"{names}: not found and cannot be built without Go; install Go {newest} or newer and put its bin folder "
            "into PATH, or put the programs themselves into PATH or KUBEBUILDER_ASSETS"
        )
    own = re.match(r"go(\d+(?:\.\d+)*)", _go_version(go, ROOT, {**environment, "GOTOOLCHAIN": "local"}).stdout)
    for module, wanted in sorted(required.items()):
        if own is not None and _numbers(own[1]) < _numbers(wanted):
            note(f"{module} needs Go {wanted}, this machine has {own[1]}: taking the proxy's, for this build alone")
        done = _go_version(go, TOOL_MODULES / module, _building(environment))
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise MissingTool(
                f"{names}: cannot be built, {module} needs Go {wanted}: install Go {newest} or newer "
                f"(go says: {said[-1] if said else 'nothing'})"
            )
    return go


def _go_version(go: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [go, "env", "GOVERSION"], cwd=folder, env=dict(environment), capture_output=True, text=True, check=False
    )


def _building(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` in which the go command fetches a newer Go for a module whose go line asks for one.

    The proxy serves toolchains like modules, with checksums. Where the machine's Go is new enough it is used; where it
    is not, `GOTOOLCHAIN=local`, which many installations set, would only fail.
    """
    return {**environment, "GOTOOLCHAIN": "auto"}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _required_go(module: Path) -> str:
    found = re.search(r"^go (\d+(?:\.\d+)*)", (module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ControlPlaneError(f"{module / 'go.mod'} has no go line")
    return found[1]


def _build_once(binary: Binary, cache: Path, go: str, environment: Mapping[str, str], note: Note) -> Path:
    with locked(cache / f".{binary.module}.lock", note):
        if path := binary.cached(cache):  # another caller was quicker
            return path
        directory = binary.directory(cache)
        directory.mkdir(exist_ok=True)
        work = cache / f".building-{binary.module}"
        shutil.rmtree(work, ignore_errors=True)  # of a build that was killed; the lock is ours now
        work.mkdir()
        try:
            _copy_assets(binary, directory, go, environment)
            _go_build(binary, work, go, environment, note)
            (work / binary.name).rename(directory / binary.name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return directory / binary.name


def _go_build(binary: Binary, work: Path, go: str, environment: Mapping[str, str], note: Note) -> None:
    flags = f"{environment.get('GOFLAGS', '')} -mod=readonly -buildvcs=false".strip()
    command = [go, "build", "-trimpath", "-ldflags", binary.ldflags, "-o", str(work / binary.name), binary.package]
    started = time.monotonic()
    note(f"building {binary.name} (once; minutes)")
    spawner = Spawner()
    try:
        build = spawner.start(
            "go build",
            command,
            log=work / "log",
            environment={**_building(environment), "GOFLAGS": flags, "GOTMPDIR": str(work)},
            directory=TOOL_MODULES / binary.module,
        )
        try:
            _follow(build, binary.name, started, note)
        except BaseException:
            build.stop()
            raise
    finally:
        spawner.close()
    if build.exit_code:
        raise ControlPlaneError(
            f"building {binary.name} failed; the end of what go says:\n{log_tail(work / 'log', 15)}\n"
            "If it could not reach the network: set GOPROXY to a module proxy that this machine can reach."
        )
    note(f"built {binary.name} in {time.monotonic() - started:.0f} s")


def _follow(build: Process, name: str, started: float, note: Note) -> None:
    said = started
    while build.exit_code is None:
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
        if now - said >= PROGRESS_SECONDS:
            said = now
            note(f"building {name}: {now - started:.0f} s so far")


def _copy_assets(binary: Binary, directory: Path, go: str, environment: Mapping[str, str]) -> None:
    if not binary.asset_module:
        return
    done = subprocess.run(
        [go, "mod", "download", "-json", binary.asset_module],
        cwd=TOOL_MODULES / binary.module,
        env=_building(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r'"Dir": "([^"]+)"', done.stdout)
    if done.returncode or found is None:
        raise ControlPlaneError(f"cannot download {binary.asset_module}: {(done.stdout + done.stderr).strip()}")
    for pattern in binary.asset_patterns:
        for source in sorted(Path(found[1]).glob(pattern)):
            target = directory / "crds" / source.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)


@contextmanager
def locked(path: Path, note: Note) -> Iterator[None]:
    started = said = time.monotonic()
    with path.open("w") as lock:
        while not _try_lock(lock):
            now = time.monotonic()
            if now - said >= PROGRESS_SECONDS or said == started:
                said = now
                note(f"another build holds {path}: waiting for it, {now - started:.0f} s so far")
            time.sleep(POLL_SECONDS)
        yield


def _try_lock(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
