"""Flags with their environment variables, and those that several commands share.

Owns how a flag is read. An empty variable counts as absent; a bad one stops only the command that reads it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from extender.kube.api_client import ClusterOptions


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
    variable = variable_of(name)
    given = os.environ.get(variable) or None
    shown = f"{text} (default: {default}) [{variable}]" if default else f"{text} [{variable}]"
    if switch:
        action = argparse.BooleanOptionalAction
        flag = parser.add_argument(name, action=action, default=given or False, help=shown)
        flag.type = _truth(variable)  # for the variable's value: Python 3.14 takes it no more as a parameter
    elif choices is not None:
        one_of = _one_of(variable, choices)
        parser.add_argument(name, default=given or default, choices=choices, type=one_of, metavar=metavar, help=shown)
    else:
        parser.add_argument(name, default=given or default, metavar=metavar, help=shown)


def variable_of(name: str) -> str:
    """Name the variable that stands for a flag."""
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
