"""How a command line is read: a command is filled when it is chosen, so that it loads what it needs and no more.

Owns help that fits the terminal, and what is said about a word that nobody knows.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias


class _Help(argparse.HelpFormatter):
    """Fills paragraphs to the width of the terminal, and leaves indented lines as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip().split("\n\n")
        filled = (each if each.startswith(" ") else textwrap.fill(" ".join(each.split()), width) for each in paragraphs)
        return textwrap.indent("\n\n".join(filled), indent)


class CommandParser(argparse.ArgumentParser):
    """Reads a command line. ``fill`` adds the flags, once the command is chosen."""

    def __init__(self, *, fill: Callable[[CommandParser], None] | None = None, **given: Any) -> None:
        super().__init__(formatter_class=_Help, **given)
        self._fill = fill

    def actions(self) -> list[argparse.Action]:
        """Give what may be written, filled."""
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill(self)
        return self._actions

    def tree(self, *path: str) -> Iterator[tuple[tuple[str, ...], CommandParser]]:
        """Give this parser and all below it, each with the words that lead to it."""
        yield path, self
        for action in self.actions():
            if isinstance(action, argparse._SubParsersAction):
                for name, parser in action.choices.items():
                    yield from parser.tree(*path, name)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is not known here, where the command's own flags can be told."""
        self.actions()
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            flag = rest[0].partition("=")[0]
            self.error(f"unrecognized arguments: {' '.join(rest)}{_did_you_mean(flag, self._option_string_actions)}")
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _did_you_mean(str(value), map(str, action.choices or ()))
            raise


Commands: TypeAlias = Mapping[str, Callable[[CommandParser], None]]
"""What fills the parser of each command of a module."""


def command(parser: argparse.ArgumentParser, text: str, run: Callable[[argparse.Namespace], int]) -> None:
    """Make a parser a command's. ``text`` is its help, ``run`` takes the options and returns the exit code."""
    parser.description = text
    parser.set_defaults(run=run)


def output_flag(parser: argparse.ArgumentParser, *forms: str) -> None:
    """Add the flag that chooses a form, the first one by default."""
    parser.add_argument("-o", "--output", choices=forms, default=forms[0], help=f"default: {forms[0]}")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    (near, *_) = get_close_matches(word, list(known), n=1) or [""]
    return f"; did you mean {near}?" if near else ""
