"""The folder of one control plane: who holds it, and that nothing of it stays behind.

Owns a lock file in the folder. The holder is the process that has it locked, so a holder that died, however it died,
is known to be gone, and its folder may be emptied by whoever comes next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from scripts.tools.controlplane.errors import ControlPlaneError

LOCK = "lock"
TEMPORARY_PREFIX = "warmnode-control-plane-"


class Held(ControlPlaneError):
    """Another process holds the folder. ``pid`` is its id."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"a control plane is already running in {path} (process {pid})")
        self.pid = pid


class Workspace:
    """A folder that this process holds: empty at first, gone with all that is in it after `release`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def claim(cls, path: Path) -> Workspace:
        """Create and lock ``path``, after emptying what a killed holder left there.

        Raises Held where it is in use, ControlPlaneError where the folder has other things in it than a control plane.
        """
        path = path.absolute()
        if path.is_dir() and any(path.iterdir()) and not (path / LOCK).exists():
            raise ControlPlaneError(f"{path} has files of something else in it: name an empty or a new folder")
        while True:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if not _try_lock(lock):
                    raise Held(path, int(os.pread(lock, 32, 0) or b"0"))
                if os.fstat(lock).st_nlink:  # else it was removed by its last holder between open and lock
                    os.ftruncate(lock, 0)
                    os.write(lock, str(os.getpid()).encode())
                    _empty(path)
                    return cls(path, lock)
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)

    @classmethod
    def temporary(cls) -> Workspace:
        """Claim a new folder in the system's temporary folder, and remove those of killed processes there."""
        for stale in Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*"):
            if (stale / LOCK).exists() and stale.stat().st_uid == os.getuid():
                remove_stale(stale)
        return cls.claim(Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX)))

    def release(self) -> None:
        """Remove the folder, the lock last: an interrupted removal is finished by the next `claim` or `down`."""
        _empty(self.path)
        (self.path / LOCK).unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # a first call was interrupted here
            self.path.rmdir()
        os.close(self._lock)


def holder(path: Path) -> int | None:
    """Return the id of the process that holds ``path``, None where nobody does.

    The id in the lock file counts only if that process has the lock file open: a dead holder's id may belong to
    somebody else by now. Nothing is locked for looking, so a look never disturbs a claim.
    """
    lock = path.absolute() / LOCK
    try:
        pid = int(lock.read_text() or "0")
        opened = [each.resolve() for each in Path(f"/proc/{pid}/fd").iterdir()]
    except (FileNotFoundError, NotADirectoryError, PermissionError, ProcessLookupError):
        return None
    return pid if lock.resolve() in opened else None


def remove_stale(path: Path) -> bool:
    """Remove what a killed holder left. False where there is nothing of the kind, or somebody holds it."""
    if not (path / LOCK).exists():
        return False
    try:
        Workspace.claim(path).release()
    except Held:
        return False
    return True


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _empty(path: Path) -> None:
    for each in path.iterdir():
        if each.name == LOCK:
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
