"""Mistakes in a configuration: one line each, all of them at once.

Owns how a mistake is written and how a value is shown in it. Knows neither YAML nor the models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value is: keys of mappings and positions in lists, from the top of the file."""

LONGEST_SHOWN = 60

_CREDENTIALS = re.compile(r"://.*@", re.DOTALL)
_SIMPLE_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """``source:line: path: problem (got X)``. Without a line (None) the file itself is wrong; without a path, its text.

    ``got`` is the value as `shown` writes it, None where the value says nothing.
    """

    source: str
    problem: str
    line: int | None = None
    path: KeyPath = ()
    got: str | None = None

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        path = f"{written_path(self.path)}: " if self.path else ""
        got = "" if self.got is None else f" (got {self.got})"
        return f"{place}: {path}{self.problem}{got}"


class SettingsError(Exception):
    """A configuration that cannot be used. ``mistakes`` is never empty, and sorted by line. ``str()`` has all."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: (mistake.line or 0, written_path(mistake.path))))
        super().__init__("\n".join(map(str, self.mistakes)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMistake:
    """What is wrong with a value, or with several that do not fit together.

    ``fields`` are all that take part, below the model that found it; ``with_value``: the first one's value helps to see
    it.
    """

    fields: tuple[KeyPath, ...]
    problem: str
    with_value: bool = False


class Inconsistent(ValueError):
    """Raised by a model whose fields are right one by one and wrong together: all conflicts at once."""

    def __init__(self, conflicts: Iterable[FieldMistake]) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__("; ".join(conflict.problem for conflict in self.conflicts))


def refuse(conflicts: Iterable[FieldMistake]) -> None:
    """Raise `Inconsistent` when there are conflicts, else do nothing."""
    found = tuple(conflicts)
    if found:
        raise Inconsistent(found)


def shown(text: str, *, quoted: bool = True) -> str:
    """A value for a message: on one line, at most 60 characters, and without the user and password of a URL."""
    text = _CREDENTIALS.sub("://***@", text)
    if len(text) > LONGEST_SHOWN:
        text = text[: LONGEST_SHOWN - 1] + "…"
    if quoted or not text.isprintable():
        return json.dumps(text, ensure_ascii=not text.isprintable())
    return text


def written_path(path: KeyPath) -> str:
    """``pools[0].selector.matchLabels["example.com/app"]``."""
    written = ""
    for step in path:
        if isinstance(step, int):
            written += f"[{step}]"
        elif _SIMPLE_KEY.fullmatch(step):
            written += f".{step}" if written else step
        else:
            written += f"[{shown(step)}]"
    return written
