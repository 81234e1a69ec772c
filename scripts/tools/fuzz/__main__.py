"""``python -m scripts.tools.fuzz`` is scripts/fuzz."""

from scripts.tools.fuzz.command import main

raise SystemExit(main())
