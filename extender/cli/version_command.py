"""The command that says which program this is: version. Loads nothing of it."""

from __future__ import annotations

import argparse
import json

from extender import __version__
from extender.cli.outcome import show
from extender.cli.parser import CommandParser, Commands, command, output_flag


def _version_flags(parser: CommandParser) -> None:
    command(parser, "Prints the version.", _version)
    output_flag(parser, "text", "json")


COMMANDS: Commands = {"version": _version_flags}


def _version(options: argparse.Namespace) -> int:
    return show(json.dumps({"version": __version__}) if options.output == "json" else f"warmnode {__version__}")
