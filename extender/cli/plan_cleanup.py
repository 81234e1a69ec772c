"""Commands that look once and end: plan, cleanup."""

from __future__ import annotations

import argparse
import asyncio

from extender.cli.flags import cluster_flags, cluster_options, flag, path
from extender.cli.look_source import look, looks_once, selector_flag, snapshot_flag
from extender.cli.outcome import CLEAN, columns, fail, show, show_page
from extender.cli.parser import CommandParser, Commands, command, output_flag
from extender.inspect import commands
from extender.inspect.plan_text import render_json, render_table
from extender.kube.errors import KubeError
from extender.settings import read_configuration

_PLAN = """\
Shows every node in the order in which workers would be placed, with its score and the reason. Reads the cluster once,
or a snapshot; writes nothing. Examples:

  kubectl get nodes,pods -A -o json | warmnode plan --snapshot -
  warmnode plan --snapshot snapshot.json --output json
  warmnode plan --context my-cluster
"""

_CLEANUP = """\
Removes what warmnode has written: its deletion costs, marks and other annotations on pods, the ledger and the Leases.
Stop warmnode first: it is refused while a reaper leads. Values that others wrote stay.
"""


def _plan_flags(parser: CommandParser) -> None:
    command(parser, _PLAN, looks_once(_plan))
    cluster_flags(parser)
    snapshot_flag(parser)
    selector_flag(parser)
    output_flag(parser, "table", "json")
    parser.add_argument("--all", action="store_true", help="show nodes without a score too")


def _cleanup_flags(parser: CommandParser) -> None:
    command(parser, _CLEANUP, looks_once(_cleanup))
    cluster_flags(parser)
    flag(parser, "--dry-run", "say what would be removed, and remove nothing", switch=True)


COMMANDS: Commands = {"plan": _plan_flags, "cleanup": _cleanup_flags}


def _plan(options: argparse.Namespace) -> int:
    plan = look(options).plan
    if options.output == "json":
        return show(render_json(plan))
    return show_page(render_table(plan, all_nodes=options.all, width=columns()))


def _cleanup(options: argparse.Namespace) -> int:
    configuration = read_configuration(path(options.config))
    try:
        removed = asyncio.run(commands.clean_up(cluster_options(options), configuration, dry_run=options.dry_run))
    except KubeError as error:
        return fail(f"not everything was removed: {error}; run it again")
    for line in removed:
        print(line)
    print("would be removed" if options.dry_run else "removed", len(removed), "things", flush=True)
    return CLEAN
