"""Flags with their environment variables, and those that several commands share.

Owns how a flag is read. An empty variable counts as absent; a bad one stops only the command that reads it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from extender.cli.outcome import BadUsage, fail, refuse
from extender.inspect import once
from extender.inspect.explain import Look
from extender.inspect.snapshot import SnapshotError
from extender.inspect.survey.scheduler_config import SchedulerConfigError
from extender.kube.api_client import ClusterOptions
from extender.kube.errors import ConfigurationProblem, KubeError
from extender.settings import SettingsError, read_configuration


def cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Add what every command needs that looks at a cluster."""
    flag(parser, "--config", "configuration file; without one the label warmnode.dev/pool names pools", metavar="FILE")
    flag(
        parser,
        "--kubeconfig",
        "kubeconfig file; default: in a cluster its service account, else as kubectl",
        metavar="FILE",
    )
    flag(parser, "--context", "context of the kubeconfig", metavar="NAME")
    flag(
        parser,
        "--namespace",
        "where the ledger lives; default: the pod's own, else the context's, else default",
        metavar="NAME",
    )


def cluster_options(options: argparse.Namespace) -> ClusterOptions:
    """Read the flags of `cluster_flags`."""
    return ClusterOptions(kubeconfig=options.kubeconfig, context=options.context, namespace=options.namespace)


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
        if options.snapshot is not None and given and given != os.environ.get(_variable(name)):
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


def path(text: str | None) -> Path | None:
    """Read a file name; an empty one is none."""
    return Path(text) if text else None


def flag(
    parser: argparse.ArgumentParser,
    name: str,
    text: str,
    *,
    default: str | None = None,
    switch: bool = False,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
) -> None:
    """Add a flag with its environment variable. An empty variable counts as absent."""
    variable = _variable(name)
    given = os.environ.get(variable) or None
    shown = f"{text} (default: {default}) [{variable}]" if default else f"{text} [{variable}]"
    if switch:
        action = argparse.BooleanOptionalAction
        parser.add_argument(name, action=action, default=given or False, type=_truth(variable), help=shown)
    elif choices is not None:
        one_of = _one_of(variable, choices)
        parser.add_argument(name, default=given or default, choices=choices, type=one_of, metavar=metavar, help=shown)
    else:
        parser.add_argument(name, default=given or default, metavar=metavar, help=shown)


def _variable(name: str) -> str:
    return "WARMNODE_" + name.removeprefix("--").replace("-", "_").upper()


def _truth(variable: str) -> Callable[[str], bool]:
    """Read a switch from its variable. Called by argparse only for the command that was chosen."""

    def read(text: str) -> bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise argparse.ArgumentTypeError(f"{variable}: write true or false (got {text!r})")
        return text.lower() in ("true", "1")

    return read


def _one_of(variable: str, choices: Sequence[str]) -> Callable[[str], str]:
    """Check a choice that may come from its variable: argparse itself checks only what is on the command line."""

    def read(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"choose from {', '.join(choices)} (got {text!r}) [{variable}]")
        return text

    return read
