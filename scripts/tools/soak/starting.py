"""`warmnode` as the soak starts it: with a time of day that can be set, and where it is asked for with a defect."""

from __future__ import annotations

import os

from extender.cli import main
from scripts.tools.shifted import shift
from scripts.tools.soak.defects import DEFECT, DEFECTS

if __name__ == "__main__":
    shift()
    if DEFECT in os.environ:
        DEFECTS[os.environ[DEFECT]].build_in()
    raise SystemExit(main())
