"""Which programs a control plane takes from where, and what it says when it cannot have them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts.tools.controlplane.binaries import (
    TOOL_MODULES,
    Binary,
    cache_directory,
    cache_key,
    known_binaries,
    locate,
    parse_version,
)
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.controlplane.errors import ControlPlaneError, MissingTool


def write_program(path: Path, *, prints: str) -> Path:
    """Write an executable that prints one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """An environment with an empty cache and an empty PATH."""
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tmp_path / "path"), **more}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Kubernetes v1.36.3\n", (1, 36)),
        ("Client Version: v1.36.3\nKustomize Version: v5.8.1\n", (1, 36)),
        ("etcd Version: 3.6.16\nGit SHA: none\n", (3, 6)),
        ("kwok version v0.8.0 go1.26.8 (linux/amd64)\n", (0, 8)),
        ("usage: something else", None),
    ],
)
def test_parse_version_reads_what_the_programs_print(text: str, version: tuple[int, int] | None) -> None:
    """The first full version in a program's output is its own."""
    assert parse_version(text) == version


def test_known_binaries_take_their_versions_from_the_tool_modules() -> None:
    """What may come from PATH is the minor version that the tool module pins; Karpenter never comes from there."""
    known = known_binaries()
    assert known["kube-apiserver"].accepts == ((1, 37),)
    assert known["kwok"].accepts == ((0, 8),)
    assert known["karpenter-1.14.3"].accepts == ()
    assert "gitVersion=v1.37." in known["kubectl"].ldflags
    assert known["kube-scheduler-1.34"].accepts == ()
    assert "gitVersion=v1.34." in known["kube-scheduler-1.34"].ldflags


@pytest.mark.parametrize("binary", known_binaries().values(), ids=lambda binary: binary.name)
def test_known_binaries_have_a_tool_module(binary: Binary) -> None:
    """Every program is pinned by a committed module with checksums."""
    assert (TOOL_MODULES / binary.module / "go.sum").is_file()


def test_locate_prefers_kubebuilder_assets_over_path(tmp_path: Path) -> None:
    """KUBEBUILDER_ASSETS comes before PATH."""
    write_program(tmp_path / "path" / "kube-apiserver", prints="Kubernetes v1.37.1")
    wanted = write_program(tmp_path / "assets" / "kube-apiserver", prints="Kubernetes v1.37.0")
    values = environment(tmp_path, KUBEBUILDER_ASSETS=str(tmp_path / "assets"))
    assert locate(known_binaries()["kube-apiserver"], values, print) == wanted


def test_locate_passes_over_another_minor_version_and_says_so(tmp_path: Path) -> None:
    """A program of another minor version is not used, and the reason names both versions."""
    found = write_program(tmp_path / "path" / "kube-apiserver", prints="Kubernetes v1.34.1")
    said: list[str] = []
    assert locate(known_binaries()["kube-apiserver"], environment(tmp_path), said.append) is None
    assert said == [f"{found} is 1.34, not 1.37: not used"]


def test_locate_uses_the_cache_silently_where_path_has_another_version(tmp_path: Path) -> None:
    """With a build of our own there is nothing to say about what else is in PATH."""
    values = environment(tmp_path)
    write_program(tmp_path / "path" / "kwok", prints="kwok version v0.6.1")
    kwok = known_binaries()["kwok"]
    built = write_program(kwok.directory(cache_directory(values)) / "kwok", prints="")
    said: list[str] = []
    assert locate(kwok, values, said.append) == built
    assert said == []


def test_locate_never_takes_karpenter_from_path(tmp_path: Path) -> None:
    """A karpenter in PATH is a provider's build, or another version: it is not even asked."""
    write_program(tmp_path / "path" / "karpenter-1.14.3", prints="v1.14.3")
    assert locate(known_binaries()["karpenter-1.14.3"], environment(tmp_path), print) is None


def test_cached_ignores_a_file_that_cannot_be_executed(tmp_path: Path) -> None:
    """Only a finished, executable file counts as built."""
    kwok = known_binaries()["kwok"]
    write_program(kwok.directory(tmp_path) / "kwok", prints="").chmod(0o644)
    assert kwok.cached(tmp_path) is None


@pytest.mark.parametrize("changed", ["go.mod", "go.sum"])
def test_cache_key_changes_with_the_tool_module(tmp_path: Path, changed: str) -> None:
    """Another pinned version or checksum is another folder: an old build is never taken for a new one."""
    module = tmp_path / "module"
    shutil.copytree(TOOL_MODULES / "kwok", module)
    before = cache_key(module, "-s")
    assert cache_key(TOOL_MODULES / "kwok", "-s") == before
    with (module / changed).open("a") as file:
        file.write("\n")
    assert cache_key(module, "-s") != before


def test_cache_key_changes_with_the_linker_flags() -> None:
    """The flags carry the version that a program reports: they are part of what was built."""
    assert cache_key(TOOL_MODULES / "kwok", "-s") != cache_key(TOOL_MODULES / "kwok", "-w")


def test_find_or_build_without_go_says_what_to_install_in_one_line(tmp_path: Path) -> None:
    """No program and no Go: one line with the programs, the Go version and the other way out."""
    with pytest.raises(MissingTool) as refusal:
        find_or_build(["etcd", "karpenter-1.14.3"], environment(tmp_path), print)
    message = str(refusal.value)
    assert "\n" not in message
    assert "etcd, karpenter-1.14.3" in message
    assert "install Go 1.26.10 or newer" in message
    assert "KUBEBUILDER_ASSETS" in message
    assert not (tmp_path / "cache").exists()


def test_find_or_build_with_an_old_go_names_the_version_needed(tmp_path: Path) -> None:
    """A go command that refuses the module's go line is too old; what it said is passed on."""
    go = tmp_path / "path" / "go"
    write_program(go, prints="")
    go.write_text("#!/bin/sh\necho 'go: go.mod requires go >= 1.26.10 (running go 1.24.1)' >&2\nexit 1\n")
    with pytest.raises(MissingTool, match=r"install Go 1\.26\.10 or newer .*running go 1\.24\.1") as refusal:
        find_or_build(["karpenter-1.14.3"], environment(tmp_path), print)
    assert "\n" not in str(refusal.value)


def test_find_or_build_takes_a_newer_go_for_the_module_that_needs_it(tmp_path: Path) -> None:
    """Where the machine's own is older, even with GOTOOLCHAIN=local: for that build alone, and it says so."""
    said: list[str] = []
    go = tmp_path / "path" / "go"
    write_program(go, prints="")
    script = f'#!/bin/sh\necho "$GOTOOLCHAIN $*" >>{tmp_path}/calls\n'
    go.write_text(script + 'if [ "$GOTOOLCHAIN" = local ]; then echo go1.24.1; else echo go1.26.9; fi\n')
    with pytest.raises(ControlPlaneError, match=r"cannot download"):
        find_or_build(["karpenter-1.15.0"], {**environment(tmp_path), "GOTOOLCHAIN": "local"}, said.append)
    (line,) = said
    assert "karpenter-1.15 needs Go 1.26.9, this machine has 1.24.1" in line
    assert (tmp_path / "calls").read_text().splitlines()[1:] == [
        "auto env GOVERSION",
        "auto mod download -json sigs.k8s.io/karpenter",
    ]


def test_find_or_build_needs_no_go_where_everything_is_there(tmp_path: Path) -> None:
    """With the right programs in PATH there is nothing to build, and Go is not looked for."""
    etcd = write_program(tmp_path / "path" / "etcd", prints="etcd Version: 3.5.21")
    assert find_or_build(["etcd"], environment(tmp_path), print) == {"etcd": etcd}
