"""How a command ends: its exit code, what stands on standard output, and the one line of an error.

Exit codes: 0 clean stop, 1 failure, 2 bad usage or settings.
"""

from __future__ import annotations

import os
import re
import sys
from shutil import get_terminal_size

CLEAN, FAILURE, BAD_USAGE = 0, 1, 2

_COLOURS = {"bold": 1, "red": 31, "green": 32, "yellow": 33, "magenta": 35}
_COLOURED = re.compile(
    r"(?P<bold>^[A-Z]+(?: +[A-Z]+)+$)"  # the head of a table
    r"|(?P<red>^problem\b|(?<=  )(?:would be )?evicted\b.*$)"
    r"|(?P<green>^ok\b|(?<=  )yes\b)"
    r"|(?P<yellow>^warning\b|^not known:|\b(?:leaving|ending) \(\w+\)|(?<=  )no(?=:))"
    r"|(?P<magenta>^unknown\b)",
    re.MULTILINE,
)
"""What is coloured of a page. The words stay as they are, and say it alone."""


class BadUsage(ValueError):
    """Flags that do not go together. The message is one line with the remedy."""


def show(text: str) -> int:
    """Print a result."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        return fail(f"the output cannot be written: {(error.strerror or str(error)).lower()}")
    return CLEAN


def show_page(text: str) -> int:
    """Print a page for people: with colours on a terminal that takes them, unless NO_COLOR is set (no-color.org)."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        text = _COLOURED.sub(lambda found: f"\x1b[{_COLOURS[found.lastgroup or '']}m{found[0]}\x1b[0m", text)
    return show(text)


def columns() -> int:
    """Say how wide lines may be: as the terminal, 80 without one, and no wider than one likes to read."""
    return max(60, min(get_terminal_size().columns, 120))


def refuse(text: str, *, bare: bool = False) -> int:
    """Say in one line what is wrong with what was given; ``bare`` where the text says it all."""
    print(text if bare else f"warmnode: {text}", file=sys.stderr, flush=True)
    return BAD_USAGE


def fail(text: str) -> int:
    """Say in one line what went wrong."""
    print(f"warmnode: {text}", file=sys.stderr, flush=True)
    return FAILURE
