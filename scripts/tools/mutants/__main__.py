"""`python -m scripts.tools.mutants`: see scripts/mutants."""

from __future__ import annotations

import sys

from scripts.tools.mutants.command import main

if __name__ == "__main__":
    sys.exit(main())
