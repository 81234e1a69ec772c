"""`python -m extender` is `warmnode`."""

from extender.cli import main

raise SystemExit(main())
