"""``python -m scripts.tools.soak`` is scripts/soak."""

from scripts.tools.soak.command import main

raise SystemExit(main())
