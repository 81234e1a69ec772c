"""Commands about the program itself: config check, config schema, version."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from extender import __version__
from extender.cli.flags import command
from extender.cli.outcome import CLEAN, refuse, show
from extender.settings import Configuration, SettingsError, configuration_schema, read_configuration

_CONFIG_CHECK = """\
Checks configuration files. Every mistake is one line: file:line: path: what is wrong (got X). Exit code 2 when there is
one.
"""


def add_to(commands: Any) -> None:
    """Add the commands."""
    config = commands.add_parser("config", help="check the configuration file, or print its JSON Schema")
    config_commands = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = command(config_commands, "check", "check configuration files", _CONFIG_CHECK, _config_check)
    check.add_argument("files", nargs="+", metavar="FILE", type=Path)
    command(config_commands, "schema", "print the JSON Schema, for editors", "", _config_schema)

    version = command(commands, "version", "print the version", "", _version)
    version.add_argument("--output", choices=("text", "json"), default="text", help="default: text")


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


def _version(options: argparse.Namespace) -> int:
    return show(json.dumps({"version": __version__}) if options.output == "json" else f"warmnode {__version__}")
