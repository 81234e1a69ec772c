"""`warmnode` on a machine whose time of day is wrong, as a process: ``python -m tests.shifted reap ...``.

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

_AHEAD = Path(os.environ["CLOCK_AHEAD"])


class Shifted(datetime.datetime):
    """The machine's time of day."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return datetime.datetime.now(tz) + datetime.timedelta(seconds=float(_AHEAD.read_text()))


if __name__ == "__main__":
    for module in (shared, transport):
        assert module.__dict__["datetime"] is datetime.datetime
        module.__dict__["datetime"] = Shifted
    raise SystemExit(main())
