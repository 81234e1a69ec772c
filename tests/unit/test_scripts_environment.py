"""The scripts: their environment is their own (`scripts/environment`), and each says what it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
ENVIRONMENT = SCRIPTS / "environment"
REQUIREMENTS = "no-such-package==0\n"


def test_scripts_leave_the_users_own_environment_alone(tmp_path: Path) -> None:
    """`.venv` is what the README's first command makes; a script that runs after it uses `.venv-dev`."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ENVIRONMENT, tmp_path / "scripts")
    for path, text in (
        ("requirements/dev.txt", REQUIREMENTS),
        (".venv/pyvenv.cfg", "made by its user"),
        (".venv-dev/installed-requirements.txt", REQUIREMENTS),
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    done = subprocess.run(
        ["bash", "-c", '. scripts/environment; printf "%s" "$python"'],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout) == tmp_path / ".venv-dev" / "bin" / "python"
    assert [path.name for path in (tmp_path / ".venv").iterdir()] == ["pyvenv.cfg"]


def python_of(script: Path) -> list[str]:
    """What a script runs of Python with the arguments that it was given; empty for one that is shell alone."""
    found = [line for line in script.read_text().splitlines() if line.endswith('"$@"') and "exec" in line]
    return [sys.executable, *found[0].partition('"$python" ')[2].split()[:-1]] if found else []


@pytest.mark.parametrize(
    "script", [each.name for each in SCRIPTS.iterdir() if os.access(each, os.X_OK) and each.is_file()]
)
def test_every_script_says_what_it_does(script: str, tmp_path: Path) -> None:
    """And does nothing of it: one that is shell alone does not even make an environment for that."""
    command = python_of(SCRIPTS / script) or [str(SCRIPTS / script)]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SCRIPTS.parent),
        "WARMNODE_VENV": str(tmp_path / "venv"),
    }
    done = subprocess.run([*command, "--help"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split()) > 10
    assert not list(tmp_path.iterdir())
