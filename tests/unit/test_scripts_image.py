"""`scripts/image` builds the image and brings it to a cluster: which programs it calls, with stand-ins for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

IMAGE = Path(__file__).parents[2] / "scripts" / "image"
DEV = "ghcr.io/warmnode/warmnode:dev"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH: what the script needs of the system, and docker and kind that only note their calls."""
    for name in ("dirname", "readlink", "mktemp", "rm", "cat"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    for name in ("docker", "kind"):
        program(tmp_path, name)
    return tmp_path


def program(folder: Path, name: str) -> None:
    (folder / name).write_text(f'#!/bin/bash\necho "{name} $*" >>"{folder}/calls"\n')
    (folder / name).chmod(0o755)


def run(programs: Path, *arguments: str) -> tuple[int, str, list[list[str]]]:
    """Give its exit code, what it says on standard error, and the calls, without absolute paths in them."""
    environment = {"PATH": str(programs), "TMPDIR": str(programs)}
    command = ["/bin/bash", str(IMAGE), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    calls = (programs / "calls").read_text().splitlines() if (programs / "calls").exists() else []
    return done.returncode, done.stderr, [[word for word in call.split() if word[0] != "/"] for call in calls]


def test_image_is_built_and_nothing_else_without_a_flag(programs: Path) -> None:
    """Under the name that the overlay for kind expects."""
    assert run(programs) == (0, "", [["docker", "build", "--tag", DEV]])
    assert DEV.rpartition(":")[0] in (IMAGE.parents[1] / "manifests/overlays/kind/kustomization.yaml").read_text()


@pytest.mark.parametrize(("arguments", "cluster"), [(("--kind",), "kind"), (("--kind", "mine"), "mine")])
def test_image_is_loaded_into_kind(programs: Path, arguments: tuple[str, ...], cluster: str) -> None:
    """As an archive, which works for docker and podman alike and is removed again."""
    code, _, (_, save, load) = run(programs, *arguments)
    assert code == 0
    assert save == ["docker", "save", "--output", DEV]
    assert load == ["kind", "load", "image-archive", "--name", cluster]
    assert not list(programs.glob("tmp.*"))


def test_image_is_pushed_where_its_name_says(programs: Path) -> None:
    """A name after --kind that has a slash is the image's."""
    name = "registry.example/warmnode:0.1.0"
    assert run(programs, "--push", name)[2] == [["docker", "build", "--tag", name], ["docker", "push", name]]
    assert run(programs, "--kind", name, "--push")[2][-2:] == [
        ["kind", "load", "image-archive", "--name", "kind"],
        ["docker", "push", name],
    ]


def test_podman_builds_where_there_is_no_docker(programs: Path) -> None:
    """And where there is neither, the script says what it needs."""
    (programs / "docker").unlink()
    assert run(programs)[:2] == (2, "image: needs docker or podman: install one of them\n")
    program(programs, "podman")
    assert run(programs)[2] == [["podman", "build", "--tag", DEV]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--push",), "--push needs a NAME"),
        (("--pull",), "there is no flag --pull"),
        (("a/b", "a/c"), "one name is enough"),
    ],
)
def test_bad_usage_is_one_line_and_builds_nothing(programs: Path, arguments: tuple[str, ...], said: str) -> None:
    """A build takes a minute: what cannot work is said before it."""
    code, error, calls = run(programs, *arguments)
    assert (code, calls) == (2, [])
    assert said in error
    assert error.count("\n") == 1


def test_failed_build_is_neither_loaded_nor_pushed(programs: Path) -> None:
    """An older image of that name would be."""
    (programs / "docker").write_text("#!/bin/bash\nexit 3\n")
    assert run(programs, "--kind", "--push", "a/b") == (3, "", [])
