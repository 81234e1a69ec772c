"""The claim client is a distribution of its own, `warmnode-client`: client/pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from extender import client

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(build, cwd=ROOT / "client", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("warmnode_client-*.whl")
    return made


def test_client_is_imported_as_warmnode_client_with_python_alone(wheel: Path) -> None:
    """Without site-packages and without this repository."""
    names = ", ".join(client.__all__)
    script = (
        f"import sys; sys.path.insert(0, {str(wheel)!r}); from warmnode_client import {names}; print(Client.__module__)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("warmnode_client\n", "")


def test_wheel_is_the_module_as_it_stands_here_and_no_more(wheel: Path) -> None:
    """It is not a second copy that could differ, has warmnode's version, and asks for no package."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        module = archive.read("warmnode_client/__init__.py")
        (about,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(about).decode())
    assert files == {f"warmnode_client/{name}" for name in ("__init__.py", "py.typed", "LICENSE")}
    assert module == (ROOT / "extender" / "client.py").read_bytes()
    assert f'\nversion = "{metadata["Version"]}"\n' in (ROOT / "pyproject.toml").read_text()
    assert metadata["Requires-Dist"] is None
