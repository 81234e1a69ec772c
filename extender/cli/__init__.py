"""The command line: flags and environment to options, errors to one line and an exit code. Decides nothing else."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from extender.cli import configuring, examining, looking, processes, simulating
from extender.cli.outcome import BAD_USAGE, CLEAN, FAILURE

__all__ = ["BAD_USAGE", "CLEAN", "FAILURE", "main"]

_DESCRIPTION = """\
Keeps the oldest nodes of a Kubernetes worker pool full and its newest nodes empty, so that caches on nodes stay in
use and Karpenter can take back the nodes of a burst.

Try it on your own cluster, without installing anything:

  kubectl get nodes,pods -A -o json | warmnode plan --snapshot -

Every flag is an environment variable too: --webhook-listen is WARMNODE_WEBHOOK_LISTEN.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; only bugs leave a traceback."""
    options = _parser(Path(sys.argv[0]).name).parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to fail
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return FAILURE
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, as with `| head`; nobody is left to tell
        return FAILURE
    return code


def _parser(program: str) -> argparse.ArgumentParser:
    name = "kubectl warmnode" if program == "kubectl-warmnode" else "warmnode"
    parser = argparse.ArgumentParser(
        prog=name, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (processes, looking, examining, configuring, simulating):
        module.add_to(commands)
    return parser
