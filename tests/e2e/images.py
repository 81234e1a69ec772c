"""Images where there is no registry: of one program, and of the Dockerfile over stand-ins for its base images.

Owns the archives that `ctr images import` takes. A stand-in has the packages of the real base image from Debian's
archive, unpacked and nothing else: it shows that the Dockerfile is right, and nothing about the real one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.tools.controlplane.binaries import ROOT, Note
from scripts.tools.controlplane.errors import ControlPlaneError

RELEASE = "trixie"
BASES = {
    "python:3.13-slim-trixie": ("base-files", "coreutils", "dash", "findutils", "libc-bin", "python3", "python3-pip"),
    "gcr.io/distroless/python3-debian13:nonroot": (
        *("base-files", "ca-certificates", "libgcc-s1", "libstdc++6", "media-types", "netbase", "python3", "tzdata"),
    ),
}


def debian_mirror() -> str:
    """The mirror of Debian's archive that this machine uses. Raises ControlPlaneError where it names none."""
    sources = [*Path("/etc/apt").glob("sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    for text in (path.read_text() for path in sources if path.suffix in (".list", ".sources")):
        found = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?) *(\S+/debian)/?(?: |$)", text, re.MULTILINE)
        if found:
            return found[1]
    raise ControlPlaneError("no mirror of Debian's archive is named in /etc/apt/sources.list*: add one")


def write_program_image(archive: Path, name: str, program: Path) -> None:
    """Write an OCI archive with one program as its entry point, and the libraries that it is linked to."""
    files = {f"/usr/local/bin/{program.name}": program, **{str(path): path for path in _libraries(program)}}
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for target, source in sorted(files.items()):
            entry = tarfile.TarInfo(target.lstrip("/"))
            entry.size, entry.mode = source.stat().st_size, 0o755
            with source.open("rb") as content:
                tar.addfile(entry, content)
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [f"/usr/local/bin/{program.name}"], "Env": ["PATH=/usr/local/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
    }
    _write_archive(archive, name, config, layer.getvalue())


def _libraries(program: Path) -> list[Path]:
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return [Path(path) for path in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", done.stdout, re.MULTILINE)]


def _write_archive(archive: Path, name: str, config: dict[str, Any], layer: bytes) -> None:
    blobs: dict[str, bytes] = {}

    def add(kind: str, content: bytes) -> dict[str, Any]:
        blobs[_digest(content)] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": _digest(content), "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add("config.v1+json", json.dumps(config).encode()),
        "layers": [add("layer.v1.tar+gzip", gzip.compress(layer, compresslevel=1, mtime=0))],
    }
    entry = add("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"io.containerd.image.name": name}
    with tarfile.open(archive, "w") as tar:
        files = {f"blobs/sha256/{digest.partition(':')[2]}": content for digest, content in blobs.items()}
        files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
        files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Builder:
    """Builds the Dockerfile with buildah and without a registry. Everything it keeps is in ``folder``."""

    def __init__(self, folder: Path, mirror: str, note: Note) -> None:
        self._folder = folder
        self._mirror = mirror
        self._note = note
        self._storage = [
            *("--root", str(folder / "storage"), "--runroot", str(folder / "runroot"), "--storage-driver", "vfs")
        ]

    def build(self, name: str, archive: Path) -> None:
        """Build the image of this repository and write it as an archive. Raises ControlPlaneError."""
        for base, packages in BASES.items():
            self._stand_in(base, packages)
        self._note(f"building {name} from the Dockerfile")
        trusted = Path(
            "/etc/ssl/certs"
        )  # a machine that reaches the package index over a proxy of its own has its CA there
        volume = ["--volume", f"{trusted}:{trusted}:ro"] if trusted.is_dir() else []
        self._buildah("build", "--pull-never", "--timestamp", "0", *volume, "--tag", name, str(ROOT))
        archive.unlink(missing_ok=True)
        self._buildah("push", "--quiet", name, f"oci-archive:{archive}:{name}")

    def _stand_in(self, base: str, packages: Sequence[str]) -> None:
        self._note(f"making a stand-in for {base}")
        context = self._folder / "stand-in"
        context.mkdir()
        wanted = ",".join(packages)
        root = context / "root.tar"
        _run("mmdebstrap", "--quiet", "--variant=extract", f"--include={wanted}", RELEASE, str(root), self._mirror)
        (context / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
        self._buildah("build", "--quiet", "--tag", base, str(context))
        shutil.rmtree(context)

    def _buildah(self, command: str, *arguments: str) -> None:
        _run("buildah", *self._storage, command, *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ControlPlaneError(f"{command[0]} failed; the end of what it says:\n{done.stdout[-3000:]}")
