"""The folder of a control plane belongs to one process, and is gone after it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.tools.controlplane.errors import ControlPlaneError
from scripts.tools.controlplane.workspace import LOCK, Held, Workspace, holder, remove_stale


def leave_behind(path: Path) -> None:
    """Make what a killed process leaves: files, and a lock file with an id that holds nothing."""
    (path / "logs").mkdir(parents=True)
    (path / "logs" / "etcd.log").write_text("...")
    (path / LOCK).write_text(str(os.getpid()))


def test_release_removes_everything(tmp_path: Path) -> None:
    """After release there is no folder, with whatever was in it."""
    workspace = Workspace.claim(tmp_path / "one")
    (workspace.path / "pki").mkdir()
    (workspace.path / "pki" / "ca.crt").write_text("...")
    workspace.release()
    assert not (tmp_path / "one").exists()


def test_claim_is_refused_while_another_holds_it(tmp_path: Path) -> None:
    """One folder, one holder; the refusal names the holder."""
    workspace = Workspace.claim(tmp_path / "one")
    try:
        assert holder(tmp_path / "one") == os.getpid()
        with pytest.raises(Held, match=f"process {os.getpid()}"):
            Workspace.claim(tmp_path / "one")
    finally:
        workspace.release()
    assert holder(tmp_path / "one") is None


def test_claim_takes_over_what_a_killed_holder_left(tmp_path: Path) -> None:
    """A lock that nobody has is no lock: the folder is emptied and taken."""
    leave_behind(tmp_path / "one")
    workspace = Workspace.claim(tmp_path / "one")
    try:
        assert [each.name for each in workspace.path.iterdir()] == [LOCK]
    finally:
        workspace.release()


def test_claim_refuses_a_folder_with_files_of_something_else(tmp_path: Path) -> None:
    """A folder that is not ours is never emptied."""
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ControlPlaneError, match="files of something else"):
        Workspace.claim(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "..."


def test_holder_does_not_trust_an_id_alone(tmp_path: Path) -> None:
    """An id in the lock file of a process that does not have it open is somebody else's by now."""
    leave_behind(tmp_path / "one")
    assert holder(tmp_path / "one") is None


def test_remove_stale_leaves_a_folder_in_use_alone(tmp_path: Path) -> None:
    """What somebody holds is not stale."""
    workspace = Workspace.claim(tmp_path / "one")
    try:
        assert remove_stale(tmp_path / "one") is False
        assert workspace.path.is_dir()
    finally:
        workspace.release()


def test_remove_stale_leaves_a_folder_without_lock_alone(tmp_path: Path) -> None:
    """Without a lock file it was never a control plane's."""
    assert remove_stale(tmp_path) is False
    assert tmp_path.is_dir()
