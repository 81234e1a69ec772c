"""`warmnode` on a machine whose time of day is wrong, as a process: ``python -m scripts.tools.shifted reap ...``.

The file that ``CLOCK_AHEAD`` names says by how many seconds it is ahead, and is read at each look at the clock. Only
what reads the real clock is changed: no rule knows of it.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from extender.app import shared
from extender.cli import main
from extender.kube import transport

AHEAD = "CLOCK_AHEAD"


class SetClock:
    """The time of day of the processes that are started with ``environment``. ``file`` is new, in a folder that is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environment = {AHEAD: str(file)}
        self.ahead(0)

    def ahead(self, seconds: float) -> None:
        """Set it so far ahead of the API server's, at one stroke."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)


class Shifted(datetime.datetime):
    """The machine's time of day."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        ahead = float(Path(os.environ[AHEAD]).read_text())
        return datetime.datetime.now(tz) + datetime.timedelta(seconds=ahead)


def shift() -> None:
    """Have this process read the shifted clock from now on."""
    for module in (shared, transport):
        assert module.__dict__["datetime"] is datetime.datetime
        module.__dict__["datetime"] = Shifted


if __name__ == "__main__":
    shift()
    raise SystemExit(main())
