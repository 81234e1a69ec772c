"""Commands that look once and end: plan, cleanup."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from extender.cli.flags import cluster_flags, cluster_options, command, flag, look, path, snapshot_flag
from extender.cli.outcome import CLEAN, fail, refuse, show
from extender.inspect import once
from extender.inspect.plan_text import render_json, render_table
from extender.inspect.snapshot import SnapshotError
from extender.kube.errors import ConfigurationProblem, KubeError
from extender.settings import SettingsError, read_configuration

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


def add_to(commands: Any) -> None:
    """Add the commands."""
    plan = command(commands, "plan", "show what would be scored, and why", _PLAN, _plan)
    cluster_flags(plan)
    snapshot_flag(plan)
    plan.add_argument("--output", choices=("table", "json"), default="table", help="default: table")
    plan.add_argument("--all", action="store_true", help="show nodes without a score too")

    cleanup = command(commands, "cleanup", "remove everything that warmnode has written", _CLEANUP, _cleanup)
    cluster_flags(cleanup)
    flag(cleanup, "--dry-run", "say what would be removed, and remove nothing", switch=True)


def _plan(options: argparse.Namespace) -> int:
    try:
        plan = look(options).plan
    except (SettingsError, SnapshotError, ConfigurationProblem) as error:
        return refuse(str(error))
    except KubeError as error:
        return fail(f"the cluster cannot be read: {error}; or try --snapshot with what kubectl prints")
    return show(render_json(plan) if options.output == "json" else render_table(plan, all_nodes=options.all))


def _cleanup(options: argparse.Namespace) -> int:
    try:
        configuration = read_configuration(path(options.config))
        removed = asyncio.run(once.clean_up(cluster_options(options), configuration, dry_run=options.dry_run))
    except (SettingsError, ConfigurationProblem) as error:
        return refuse(str(error))
    except KubeError as error:
        return fail(f"not everything was removed: {error}; run it again")
    for line in removed:
        print(line)
    print("would be removed" if options.dry_run else "removed", len(removed), "things", flush=True)
    return CLEAN
