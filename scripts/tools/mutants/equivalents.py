"""Mutants that no test can kill, each with the reason: `tests/equivalent-mutants.txt`, which says how it is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.tools.mutants.changes import Change
from scripts.tools.mutants.targets import Unusable, functions_of

LIST = "tests/equivalent-mutants.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalent:
    """A change after which everything is as before, as far as anybody can see, and why.

    Without lines that are ``now`` it stands for every change of those that were.
    """

    line: int
    change: Change
    reason: str

    def covers(self, change: Change) -> bool:
        return self.change in (change, replace(change, now=()))


def read_equivalents(text: str) -> list[Equivalent]:
    """Entries stand apart by an empty line. Each: file and function; ``-`` what was; ``+`` what is; the reason."""
    entries, block = [], list[tuple[int, str]]()
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.startswith("#"):
            continue
        if line.strip():
            block.append((number, line.strip()))
        elif block:
            entries.append(_entry(block))
            block = []
    return entries


def _entry(block: list[tuple[int, str]]) -> Equivalent:
    number, head = block[0]
    file, _, function = head.partition(" ")
    lines = [line for _, line in block[1:]]
    was = tuple(line[1:].strip() for line in lines if line.startswith("-"))
    now = tuple(line[1:].strip() for line in lines if line.startswith("+"))
    reason = " ".join(line for line in lines if line[0] not in "-+")
    if not (file.endswith(".py") and function and reason and was):
        raise Unusable(f"{LIST}:{number}: an entry is file and function, lines with - and +, and a reason")
    return Equivalent(line=number, change=Change(file=file, function=function, was=was, now=now), reason=reason)


def stale(root: Path, entries: Iterable[Equivalent]) -> list[str]:
    """Those whose function, or whose line in it, is there no more; and those that stand there twice."""
    found, seen = [], set[Change]()
    for each in entries:
        change = each.change
        path = root / change.file
        functions = functions_of(root, change.file) if path.is_file() else []
        lines = {
            line.strip()
            for function in functions
            if function.name == change.function
            for line in path.read_text().splitlines()[function.first - 1 : function.last]
        }
        if not lines or not lines.issuperset(change.was):
            found.append(f"{LIST}:{each.line}: {change.file} {change.function} has no such line any more")
        if change in seen:
            found.append(f"{LIST}:{each.line}: stands there already")
        seen.add(change)
    return found
