"""One look at a cluster or at a snapshot: the flag, the look, and what is answered when there is nothing to look at."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable

from extender.cli.flags import cluster_options, path, variable_of
from extender.cli.outcome import BadUsage, fail, refuse
from extender.inspect import once
from extender.inspect.explain import Look
from extender.inspect.snapshot import SnapshotError
from extender.inspect.survey.scheduler_config import SchedulerConfigError
from extender.kube.errors import ConfigurationProblem, KubeError
from extender.settings import SettingsError, read_configuration


def snapshot_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag of commands that can look at a file in place of a cluster."""
    parser.add_argument(
        "--snapshot", metavar="FILE", help="read this List in JSON instead of the cluster; - is standard input"
    )


def look(options: argparse.Namespace) -> Look:
    """Look at what `cluster_flags` and `snapshot_flag` name. Raises what `looks_once` answers."""
    check_place(options)
    configuration = read_configuration(path(options.config))
    if options.snapshot is not None:
        return once.look_at_snapshot(options.snapshot, configuration)
    return asyncio.run(once.look_live(cluster_options(options), configuration))


def check_place(options: argparse.Namespace) -> None:
    """Refuse a cluster beside a snapshot, unless it is a variable that names it. Raises `BadUsage`."""
    for name in ("kubeconfig", "context"):
        given = getattr(options, name)
        if options.snapshot is not None and given and given != os.environ.get(variable_of(name)):
            raise BadUsage(f"--{name} and --snapshot do not go together: a snapshot is read in place of the cluster")


def looks_once(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Answer in one line, with an exit code, what may go wrong with a look at a cluster or a snapshot."""

    def answer(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except (SettingsError, SnapshotError, SchedulerConfigError, ConfigurationProblem, BadUsage) as error:
            return refuse(str(error))
        except KubeError as error:
            return fail(f"the cluster cannot be read: {error}; or try --snapshot with what kubectl prints")

    return answer
