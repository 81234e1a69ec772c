"""Commands about the configuration file: config check, config schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from extender.cli.outcome import CLEAN, refuse, show
from extender.cli.parser import CommandParser, Commands, command
from extender.settings import Configuration, SettingsError, configuration_schema, read_configuration

_CONFIG_CHECK = """\
Checks configuration files. Every mistake is one line: file:line: path: what is wrong (got X). Exit code 2 when there is
one.
"""


def _config_flags(parser: CommandParser) -> None:
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = commands.add_parser("check", help="check configuration files")
    command(check, _CONFIG_CHECK, _config_check)
    check.add_argument("files", nargs="+", metavar="FILE", type=Path)
    schema = commands.add_parser("schema", help="print the JSON Schema, for editors")
    command(schema, "Prints the JSON Schema, for editors.", _config_schema)


COMMANDS: Commands = {"config": _config_flags}


def _config_check(options: argparse.Namespace) -> int:
    code = CLEAN
    for file in options.files:
        try:
            configuration = read_configuration(file)
        except SettingsError as error:
            code = refuse(str(error), bare=True)
        else:
            print(f"{file}: good, {_pools_in_words(configuration)}")
    return code


def _pools_in_words(configuration: Configuration) -> str:
    if configuration.pools is None:
        return "pools by the label warmnode.dev/pool"
    count = len(configuration.pools)
    return f"{count} pool{'' if count == 1 else 's'}: {', '.join(pool.name for pool in configuration.pools)}"


def _config_schema(options: argparse.Namespace) -> int:
    return show(json.dumps(configuration_schema(), indent=2))
