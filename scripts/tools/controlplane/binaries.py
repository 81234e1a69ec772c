"""Which programs a control plane needs, and where they are: KUBEBUILDER_ASSETS, PATH, or the user's cache.

Owns the names, the accepted versions and the cache key. Builds nothing: that is `building`.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.tools.controlplane.errors import ControlPlaneError

ROOT = Path(__file__).resolve().parents[3]
TOOL_MODULES = ROOT / "scripts" / "tools" / "programs"
HELM = (4, 3)
KARPENTER_MODULES = {"1.15.0": "karpenter-1.15", "1.14.3": "karpenter-1.14", "1.13.0": "karpenter-1.13"}
OLDER_SCHEDULERS = {"1.34": "kube-scheduler-1.34"}
"""kube-schedulers beside the newest one, each with a tool module of its own. Built when asked for, never looked for in
PATH: up to 1.34 ties are broken at random."""
KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kube-proxy",
)
VERSION_SECONDS = 20.0

Note = Callable[[str], None]
"""Takes one line for people: progress, or why something was not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """One program, the tool module that pins it, and how it is recognised.

    ``accepts`` are the (major, minor) versions that may come from elsewhere, empty: only our own build will do.
    ``asset_patterns`` are files of the Go module ``asset_module`` that the cache holds beside the program.
    """

    name: str
    module: str
    package: str
    version_arguments: tuple[str, ...] = ("--version",)
    accepts: tuple[tuple[int, int], ...] = ()
    ldflags: str = "-s -w"
    asset_module: str = ""
    asset_patterns: tuple[str, ...] = ()

    def directory(self, cache: Path) -> Path:
        """Return the folder for this binary's build: it changes with whatever the build depends on."""
        return cache / f"{self.module}-{cache_key(TOOL_MODULES / self.module, self.ldflags)}"

    def cached(self, cache: Path) -> Path | None:
        """Return the built program, None where it was not built (a half-done build has no file of this name)."""
        path = self.directory(cache) / self.name
        return path if os.access(path, os.X_OK) else None


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Return ``$XDG_CACHE_HOME/warmnode/bin``, by default under ``~/.cache``."""
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "warmnode" / "bin"


def cache_key(module: Path, ldflags: str) -> str:
    """Return 12 hex digits over go.mod, go.sum, the linker flags and the machine's architecture."""
    digest = hashlib.sha256()
    for part in ((module / "go.mod").read_bytes(), (module / "go.sum").read_bytes(), ldflags.encode()):
        digest.update(hashlib.sha256(part).digest())
    digest.update(f"{platform.system()}-{platform.machine()}".encode())
    return digest.hexdigest()[:12]


def required_version(module: Path, path: str) -> str:
    """Return the version, such as ``v1.37.2``, at which the tool module ``module`` requires the Go module ``path``."""
    found = re.search(rf"^(?:require)?\s*{re.escape(path)} (v\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ControlPlaneError(f"{module / 'go.mod'} does not require {path}")
    return found[1]


def parse_version(text: str) -> tuple[int, int] | None:
    """Return (major, minor) of the first version in what a program prints, None where there is none."""
    found = re.search(r"\bv?(\d+)\.(\d+)\.\d+", text)
    return (int(found[1]), int(found[2])) if found else None


def known_binaries() -> dict[str, Binary]:
    """Return every program by name. Versions come from the tool modules, so that they stand in one place."""
    kubernetes = required_version(TOOL_MODULES / "kubernetes", "k8s.io/kubernetes")
    minor = parse_version(kubernetes)
    kwok = parse_version(required_version(TOOL_MODULES / "kwok", "sigs.k8s.io/kwok"))
    if minor is None or kwok is None:
        raise ControlPlaneError(f"cannot read the versions in {TOOL_MODULES}")
    ldflags = _kubernetes_ldflags(kubernetes)
    found = [
        Binary(
            name=name,
            module="kubernetes",
            package=f"k8s.io/kubernetes/cmd/{name}",
            version_arguments=("version", "--client") if name == "kubectl" else ("--version",),
            accepts=(minor,),
            ldflags=ldflags,
        )
        for name in KUBERNETES_PROGRAMS
    ]
    found.append(Binary(name="etcd", module="etcd", package="go.etcd.io/etcd/server/v3", accepts=((3, 5), (3, 6))))
    found.append(
        Binary(
            name="helm",
            module="helm",
            package="helm.sh/helm/v4/cmd/helm",
            version_arguments=("version", "--short"),
            accepts=(HELM,),
        )
    )
    found.append(Binary(name="kwok", module="kwok", package="sigs.k8s.io/kwok/cmd/kwok", accepts=(kwok,)))
    found += [
        Binary(
            name=f"karpenter-{version}",
            module=module,
            package="sigs.k8s.io/karpenter/kwok",
            asset_module="sigs.k8s.io/karpenter",
            asset_patterns=("kwok/charts/crds/*.yaml", "kwok/apis/crds/*.yaml"),
        )
        for version, module in KARPENTER_MODULES.items()
    ]
    found += [
        Binary(
            name=f"kube-scheduler-{version}",
            module=module,
            package="k8s.io/kubernetes/cmd/kube-scheduler",
            ldflags=_kubernetes_ldflags(required_version(TOOL_MODULES / module, "k8s.io/kubernetes")),
        )
        for version, module in OLDER_SCHEDULERS.items()
    ]
    return {each.name: each for each in found}


def _kubernetes_ldflags(version: str) -> str:
    """Without these stamps a build from a module calls itself v0.0.0, and clients and API server go by that."""
    major, minor, _ = version.removeprefix("v").split(".")
    stamps = {
        "k8s.io/component-base/version.gitVersion": version,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/component-base/version.gitTreeState": "clean",
        "k8s.io/client-go/pkg/version.gitVersion": version,
    }
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in stamps.items())])


def locate(binary: Binary, environment: Mapping[str, str], note: Note) -> Path | None:
    """Return the program to use: KUBEBUILDER_ASSETS, then PATH, then the cache; None where it has to be built.

    One of another minor version is passed over; ``note`` is told so where that means a build.
    """
    refused: list[str] = []
    if binary.accepts:
        for candidate in _candidates(binary.name, environment):
            version = reported_version(binary, candidate)
            if version in binary.accepts:
                return candidate
            wanted = " or ".join(f"{major}.{minor}" for major, minor in binary.accepts)
            reported = f"{version[0]}.{version[1]}" if version else "of an unknown version"
            refused.append(f"{candidate} is {reported}, not {wanted}: not used")
    cached = binary.cached(cache_directory(environment))
    if cached is None:
        for line in dict.fromkeys(refused):
            note(line)
    return cached


def reported_version(binary: Binary, path: Path) -> tuple[int, int] | None:
    """Run the program and return the (major, minor) that it reports, None where it reports nothing of the kind."""
    try:
        done = subprocess.run(
            [path, *binary.version_arguments], capture_output=True, text=True, timeout=VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(done.stdout + done.stderr) if done.returncode == 0 else None


def _candidates(name: str, environment: Mapping[str, str]) -> Iterable[Path]:
    for folders in (environment.get("KUBEBUILDER_ASSETS"), environment.get("PATH")):
        if folders and (found := shutil.which(name, path=folders)):
            yield Path(found).absolute()
