"""One look at a cluster or at a snapshot: the flag, the look, and what is answered when there is nothing to look at."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable

from extender.cli.flags import cluster_options, path, variable_of
from extender.cli.outcome import BadUsage, fail, refuse
from extender.inspect import commands
from extender.inspect.doctor.scheduler_config import SchedulerConfigError
from extender.inspect.plan import Look
from extender.inspect.snapshot import SnapshotError
from extender.kube.errors import ConfigurationProblem, KubeError
from extender.settings import Configuration, SettingsError, load_configuration, read_configuration


def snapshot_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag of commands that can look at a file in place of a cluster."""
    parser.add_argument(
        "--snapshot", metavar="FILE", help="read this List in JSON instead of the cluster; - is standard input"
    )


def selector_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that takes workers by labels that they have, where nobody has named a pool yet."""
    text = "take pods with these labels as the workers of one pool, without a configuration file"
    parser.add_argument("--selector", "-l", metavar="LABEL=VALUE[,...]", help=text)


def configuration_of(options: argparse.Namespace) -> Configuration:
    """Read --config, or make the configuration that --selector means. Raises `SettingsError` and `BadUsage`."""
    selector = getattr(options, "selector", None)
    if selector is None:
        return read_configuration(path(options.config))
    if options.config:
        raise BadUsage("--selector and --config do not go together: the file names the pools")
    pairs = [pair.partition("=") for pair in selector.split(",")]
    if not all(name and equals and "=" not in value for name, equals, value in pairs):
        raise BadUsage(f"--selector: write LABEL=VALUE, several with commas between (got {selector!r})")
    labels = {name.strip(): value.strip() for name, _, value in pairs}
    pools = [{"name": "selected", "selector": {"matchLabels": labels}}]
    head = {"apiVersion": "warmnode.dev/v1alpha1", "kind": "Configuration"}
    return load_configuration(json.dumps({**head, "pools": pools}), source="--selector")


def look(options: argparse.Namespace, *, home: str | None = None) -> Look:
    """Look at what `cluster_flags` and `snapshot_flag` name. Raises what `looks_once` answers.

    ``home``: the namespace that is looked at where not all may be, None for the context's.
    """
    check_place(options)
    configuration = configuration_of(options)
    if options.snapshot is not None:
        return commands.look_at_snapshot(options.snapshot, configuration)
    return asyncio.run(commands.look_live(cluster_options(options), configuration, home))


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
