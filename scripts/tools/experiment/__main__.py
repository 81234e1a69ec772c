"""Starts the experiment. A Ctrl-C while modules load ends it without a word: there is nothing to clean up yet."""

from __future__ import annotations

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)

if __name__ == "__main__":
    from scripts.tools.experiment.command import main

    sys.exit(main())
