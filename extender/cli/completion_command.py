"""The command completion: a script for a shell that knows every command, flag and choice, made of the parsers.

Owns what is said to each shell. Where a script knows no word, the shell offers files.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from extender.cli.outcome import show
from extender.cli.parser import CommandParser, Commands, command

_COMPLETION = """\
Prints a script that completes commands, flags and their values. Keep it where your shell finds it:

  warmnode completion bash > ~/.local/share/bash-completion/completions/warmnode
  warmnode completion fish > ~/.config/fish/completions/warmnode.fish
  warmnode completion zsh > ~/.warmnode.zsh  # ~/.zshrc: source ~/.warmnode.zsh
"""

_BASH = """\
_warmnode() {{
    local word=$2 last=$3 at= words= flags= each
    if [ "$word" = = ]; then word=; fi
    if [ "$last" = = ]; then last=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    for each in "${{COMP_WORDS[@]:1:$((COMP_CWORD - 1))}}"; do
        case "$at $each" in
            {commands}) at="$at $each" ;;
        esac
    done
    case "$at" in
        {words}
    esac
    case "$word" in
        -*) words=$flags ;;
    esac
    case "$at $last" in
        {values}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _warmnode warmnode
"""

_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A command or a flag, ``names`` with its short form. ``values``: what may follow a flag, None where nothing does.

    Empty ``values`` are those that nobody can list.
    """

    names: tuple[str, ...]
    text: str
    values: tuple[str, ...] | None = None

    @property
    def is_flag(self) -> bool:
        """It begins with a dash."""
        return self.names[0].startswith("-")


def _completion_flags(parser: CommandParser) -> None:
    command(parser, _COMPLETION, _completion)
    parser.add_argument("shell", choices=_SHELLS, help="your shell")


def _completion(options: argparse.Namespace) -> int:
    from extender.cli import command_line  # this module is loaded by it

    return show(_SHELLS[options.shell](command_line()).rstrip("\n"))


def _words(parser: CommandParser) -> Iterator[Word]:
    """Give what may come next: commands and other choices, then flags."""
    for action in parser.actions():
        if not action.option_strings:
            commands = action._choices_actions if isinstance(action, argparse._SubParsersAction) else ()
            told = {each.dest: each.help for each in commands}
            for name in action.choices or ():
                yield Word(names=(str(name),), text=told.get(name) or "")
    for action in parser.actions():
        if action.option_strings:
            text = re.split(r"[;(\[]", action.help or "")[0].strip()
            values = None if action.nargs == 0 else tuple(map(str, action.choices or ()))
            yield Word(names=tuple(action.option_strings), text=text, values=values)


def _bash(root: CommandParser) -> str:
    """Flags are offered once a dash is there; after one whose values nobody can list, files are."""
    tree = {"".join(f" {name}" for name in path): list(_words(parser)) for path, parser in root.tree()}
    words = [f"'{at}') words='{_names(each, False)}' flags='{_names(each, True)}' ;;" for at, each in tree.items()]
    values: dict[tuple[str, ...], list[str]] = {}
    for at, each in tree.items():
        for word in each:
            if word.values is not None:
                values.setdefault(word.values, []).extend(f"'{at} {name}'" for name in word.names)
    return _BASH.format(
        commands=" | ".join(f"'{at}'" for at in tree if at),
        words="\n        ".join(words),
        values="\n        ".join(
            f"{' | '.join(places)}) words='{' '.join(listed)}' ;;" for listed, places in values.items()
        ),
    )


def _names(words: Iterable[Word], are_flags: bool) -> str:
    return " ".join(name for word in words for name in word.names if word.is_flag == are_flags)


def _fish(root: CommandParser) -> str:
    return "".join(f"{line}\n" for path, parser in root.tree() for line in _fish_lines(path, parser))


def _fish_lines(path: tuple[str, ...], parser: CommandParser) -> Iterator[str]:
    words = list(_words(parser))
    seen = [f"__fish_seen_subcommand_from {name}" for name in path]
    last = f"not __fish_seen_subcommand_from {_names(words, False)}" if path else "__fish_use_subcommand"
    for word in words:
        if word.is_flag:
            there = "; and ".join(seen) or last
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in word.names)
        else:
            there, names = "; and ".join((*seen, last)), f"-f -a {word.names[0]}"
        values = "" if word.values is None else f" -x -a '{' '.join(word.values)}'" if word.values else " -r"
        text = word.text.replace("\\", "\\\\").replace("'", "\\'")
        yield f"complete -c warmnode -n '{there}' {names}{values} -d '{text}'"


_SHELLS = {"bash": _bash, "zsh": lambda root: _ZSH + _bash(root), "fish": _fish}

COMMANDS: Commands = {"completion": _completion_flags}
