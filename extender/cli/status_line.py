"""How far a long command is: one line on standard error, written over on a terminal, else a line each time."""

from __future__ import annotations

import sys


class StatusLine:
    """Tells how far it is, and nothing twice in a row. ``in_place``: a line is written over by the next."""

    def __init__(self, *, silent: bool) -> None:
        self.in_place = sys.stderr is not None and sys.stderr.isatty()
        self._silent = silent
        self._shown = ""

    def tell(self, text: str) -> None:
        """Tell, unless it is told already."""
        if self._silent or text == self._shown:
            return
        written = f"\r{text.ljust(len(self._shown))}" if self.in_place else text
        print(written, end="" if self.in_place else "\n", file=sys.stderr, flush=True)
        self._shown = text

    def end(self) -> None:
        """Leave a clean line."""
        if self.in_place and self._shown:
            print(f"\r{' ' * len(self._shown)}\r", end="", file=sys.stderr, flush=True)
