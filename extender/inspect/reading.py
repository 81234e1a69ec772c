"""Reads what a command line names: a file, or standard input for ``-``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path


def source_name(source: str) -> str:
    """Say in words what is read."""
    return "standard input" if source == "-" else source


def read_source(source: str, refused: Callable[[str, str], Exception]) -> bytes:
    """Read all of it. ``refused`` makes of the source's name and a problem what is raised when it cannot be read."""
    name = source_name(source)
    if source == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise refused(name, "nothing is piped into it")
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise refused(name, (error.strerror or str(error)).lower()) from error
    except ValueError as error:
        raise refused(name, f"it is no file name: {error}") from error
