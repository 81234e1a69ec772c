"""The environment of the scripts is their own: `scripts/environment`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ENVIRONMENT = Path(__file__).parents[2] / "scripts" / "environment"
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
