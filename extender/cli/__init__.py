"""The command line: flags and environment to options, errors to one line and an exit code. Decides nothing else."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from extender import __version__
from extender.cli.outcome import BAD_USAGE, CLEAN, FAILURE
from extender.cli.parser import CommandParser

__all__ = ["BAD_USAGE", "CLEAN", "FAILURE", "command_line", "main"]

_DESCRIPTION = """\
Keeps the oldest nodes of a Kubernetes worker pool full and its newest nodes empty, so that caches on nodes stay in
use and Karpenter can take back the nodes of a burst.

Try it on your own cluster, without installing anything:

  kubectl get nodes,pods -A -o json | warmnode plan --snapshot -

Every flag is an environment variable too: --webhook-listen is WARMNODE_WEBHOOK_LISTEN.
"""

_COMMANDS = {
    "serve": ("serve_reap", "answer kube-scheduler (the extender webhook)"),
    "reap": ("serve_reap", "evict idle workers, newest nodes first"),
    "run": ("serve_reap", "serve and reap in one process"),
    "plan": ("plan_cleanup", "show what would be scored, and why"),
    "explain": ("explain_doctor", "say why a pod, a node or a pool is where it is"),
    "top": ("top_page", "show nodes and workers as they change, in the terminal"),
    "page": ("top_page", "show nodes and workers as they change, as a web page"),
    "doctor": ("explain_doctor", "check the installation and the cluster around it"),
    "record": ("record_command", "write down what workers and nodes do, to be simulated"),
    "simulate": ("simulate_command", "show what each rule would cost, and how warm it would be"),
    "config": ("config_command", "check the configuration file, or print its JSON Schema"),
    "cleanup": ("plan_cleanup", "remove everything that warmnode has written"),
    "completion": ("completion_command", "print what completes command lines in your shell"),
    "version": ("version_command", "print the version"),
}
"""The commands, in the order of the help: the module that has each, and what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; only bugs leave a traceback."""
    options = command_line().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to fail
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return FAILURE
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, as with `| head`; nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else what is buffered makes it exit with 120
        return FAILURE
    return code


def command_line() -> CommandParser:
    """Make the parser of all commands."""
    program = Path(sys.argv[0]).name
    parser = CommandParser(
        prog="kubectl warmnode" if program == "kubectl-warmnode" else "warmnode", description=_DESCRIPTION
    )
    parser.add_argument("--version", action="version", version=f"warmnode {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (module, summary) in _COMMANDS.items():
        commands.add_parser(name, help=summary, fill=partial(_fill, module, name))
    return parser


def _fill(module: str, name: str, parser: CommandParser) -> None:
    import_module(f"extender.cli.{module}").COMMANDS[name](parser)
