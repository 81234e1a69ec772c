"""The command line: flags and environment to options, errors to one line and an exit code.

Exit codes: 0 clean stop, 1 failure, 2 bad usage or settings. Decides nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from extender import __version__, app, once
from extender.kube.errors import ConfigurationProblem, KubeError
from extender.plan.render import render_json, render_table
from extender.plan.snapshot import SnapshotError
from extender.settings import Configuration, ConfigurationFile, SettingsError, configuration_schema, read_configuration
from extender.telemetry import set_up_logging
from extender.web.server import Address, ListenerProblem

CLEAN, FAILURE, BAD_USAGE = 0, 1, 2

_DESCRIPTION = """\
Keeps the oldest nodes of a Kubernetes worker pool full and its newest nodes empty, so that caches on nodes stay in
use and Karpenter can take back the nodes of a burst.

Try it on your own cluster, without installing anything:

  kubectl get nodes,pods -A -o json | warmnode plan --snapshot -

Every flag is an environment variable too: --webhook-listen is WARMNODE_WEBHOOK_LISTEN.
"""

_SERVE = """\
Answers kube-scheduler: POST /prioritize and POST /preempt on the webhook listener; /healthz, /readyz and /metrics on
the operations listener. Stops in order on SIGTERM. A scheduler goes on without us when we are gone: see
manifests/base/kube-scheduler-config.yaml for the configuration that makes it call us.
"""

_REAP = """\
Evicts idle workers from the newest nodes first, down to a floor, and writes controller.kubernetes.io/pod-deletion-cost
so that ReplicaSets and Karpenter take the same pods. One of several replicas leads. A worker is idle when it carries
the annotation warmnode.dev/idle-since; see docs/workers.md. Look first: with --dry-run nothing is
evicted, and the log says what would be.
"""

_RUN = """\
serve and reap in one process: for one-replica installs and for development.
"""

_CLEANUP = """\
Removes what warmnode has written: its deletion costs, marks and other annotations on pods, the ledger and the Leases.
Stop warmnode first, or it writes again. Values that others wrote stay.
"""

_PLAN = """\
Shows every node in the order in which workers would be placed, with its score and the reason. Reads the cluster once,
or a snapshot; writes nothing. Examples:

  kubectl get nodes,pods -A -o json | warmnode plan --snapshot -
  warmnode plan --snapshot snapshot.json --output json
  warmnode plan --context my-cluster
"""

_CONFIG_CHECK = """\
Checks configuration files. Every mistake is one line: file:line: path: what is wrong (got X). Exit code 2 when there is
one.
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

    serve = _command(commands, "serve", "answer kube-scheduler (the extender webhook)", _SERVE, _serve)
    _webhook_flags(serve)
    _process_flags(serve)
    reap = _command(commands, "reap", "evict idle workers, newest nodes first", _REAP, _reap)
    _process_flags(reap)
    run = _command(commands, "run", "serve and reap in one process", _RUN, _run)
    _webhook_flags(run)
    _process_flags(run)

    plan = _command(commands, "plan", "show what would be scored, and why", _PLAN, _plan)
    _cluster_flags(plan)
    plan.add_argument(
        "--snapshot", metavar="FILE", help="read this List in JSON instead of the cluster; - is standard input"
    )
    plan.add_argument("--output", choices=("table", "json"), default="table", help="default: table")
    plan.add_argument("--all", action="store_true", help="show nodes without a score too")

    cleanup = _command(commands, "cleanup", "remove everything that warmnode has written", _CLEANUP, _cleanup)
    _cluster_flags(cleanup)
    _flag(cleanup, "--dry-run", "say what would be removed, and remove nothing", switch=True)

    config = commands.add_parser("config", help="check the configuration file, or print its JSON Schema")
    config_commands = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = _command(config_commands, "check", "check configuration files", _CONFIG_CHECK, _config_check)
    check.add_argument("files", nargs="+", metavar="FILE", type=Path)
    _command(config_commands, "schema", "print the JSON Schema, for editors", "", _config_schema)

    version = _command(commands, "version", "print the version", "", _version)
    version.add_argument("--output", choices=("text", "json"), default="text", help="default: text")
    return parser


def _command(
    commands: Any, name: str, summary: str, text: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=text or summary, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _webhook_flags(parser: argparse.ArgumentParser) -> None:
    _flag(parser, "--webhook-listen", "address of the webhook", default="127.0.0.1:8888", metavar="HOST:PORT")
    _flag(
        parser, "--claims-listen", "address for workers that mark themselves idle; off by default", metavar="HOST:PORT"
    )
    _flag(parser, "--tls-cert-file", "certificate (PEM) of the listeners; read again when it changes", metavar="FILE")
    _flag(parser, "--tls-private-key-file", "its key", metavar="FILE")
    _flag(parser, "--client-ca-file", "accept only clients with a certificate of this CA", metavar="FILE")


def _process_flags(parser: argparse.ArgumentParser) -> None:
    _cluster_flags(parser)
    _flag(parser, "--ops-listen", "address of probes and metrics", default="127.0.0.1:9888", metavar="HOST:PORT")
    _flag(parser, "--dry-run", "write nothing outside warmnode's own namespace", switch=True)
    _flag(parser, "--log-format", "json or text", default="json", choices=("json", "text"))
    levels = ("debug", "info", "warning", "error")
    _flag(parser, "--log-level", "debug tells every decision", default="info", choices=levels)


def _cluster_flags(parser: argparse.ArgumentParser) -> None:
    _flag(parser, "--config", "configuration file; without one the label warmnode.dev/pool names pools", metavar="FILE")
    _flag(
        parser,
        "--kubeconfig",
        "kubeconfig file; default: in a cluster its service account, else as kubectl",
        metavar="FILE",
    )
    _flag(parser, "--context", "context of the kubeconfig", metavar="NAME")
    _flag(
        parser,
        "--namespace",
        "where the ledger lives; default: the pod's own, else the context's, else default",
        metavar="NAME",
    )


def _flag(
    parser: argparse.ArgumentParser,
    flag: str,
    text: str,
    *,
    default: str | None = None,
    switch: bool = False,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
) -> None:
    """Add a flag with its environment variable. An empty variable counts as absent."""
    variable = "WARMNODE_" + flag.removeprefix("--").replace("-", "_").upper()
    given = os.environ.get(variable) or None
    shown = f"{text} (default: {default}) [{variable}]" if default else f"{text} [{variable}]"
    if switch:
        action = argparse.BooleanOptionalAction
        parser.add_argument(flag, action=action, default=given or False, type=_truth(variable), help=shown)
    elif choices is not None:
        one_of = _one_of(variable, choices)
        parser.add_argument(flag, default=given or default, choices=choices, type=one_of, metavar=metavar, help=shown)
    else:
        parser.add_argument(flag, default=given or default, metavar=metavar, help=shown)


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


def _serve(options: argparse.Namespace) -> int:
    return _process(options, app.Role.SERVE)


def _reap(options: argparse.Namespace) -> int:
    return _process(options, app.Role.REAP)


def _run(options: argparse.Namespace) -> int:
    return _process(options, app.Role.SERVE, app.Role.REAP)


def _process(options: argparse.Namespace, *roles: app.Role) -> int:
    set_up_logging(form=options.log_format, level=options.log_level)
    try:
        listening = _listening(options) if app.Role.SERVE in roles else {}
        asyncio.run(
            app.run(
                app.RunOptions(
                    roles=frozenset(roles),
                    cluster=_cluster(options),
                    configuration=ConfigurationFile(_path(options.config)),
                    dry_run=options.dry_run,
                    ops_listen=_address("--ops-listen", options.ops_listen),
                    **listening,
                )
            )
        )
    except (SettingsError, ConfigurationProblem, _BadUsage) as error:
        return _refuse(str(error))
    except ListenerProblem as problem:
        return _fail(str(problem))
    return CLEAN


class _BadUsage(ValueError):
    """Flags that do not go together. The message is one line with the remedy."""


def _address(flag: str, text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise _BadUsage(f"{flag}: {error}") from error


def _listening(options: argparse.Namespace) -> dict[str, Any]:
    """Read the listeners' flags. Raises `_BadUsage`."""
    webhook = _address("--webhook-listen", options.webhook_listen)
    has_tls = bool(options.tls_cert_file)
    if has_tls != bool(options.tls_private_key_file):
        raise _BadUsage("--tls-cert-file and --tls-private-key-file go together: give both or none")
    if options.client_ca_file and not has_tls:
        raise _BadUsage("--client-ca-file needs --tls-cert-file and --tls-private-key-file")
    if not has_tls and not webhook.is_loopback:
        raise _BadUsage(
            f"--webhook-listen {webhook} can be reached from other machines: give --tls-cert-file and "
            "--tls-private-key-file, or listen on 127.0.0.1 beside the scheduler"
        )
    claims = _address("--claims-listen", options.claims_listen) if options.claims_listen else None
    if claims is not None and not has_tls and not claims.is_loopback:
        raise _BadUsage(
            f"--claims-listen {claims} can be reached from other machines, and tokens would cross the network in the "
            "clear: give --tls-cert-file and --tls-private-key-file"
        )
    return {
        "webhook_listen": webhook,
        "claims_listen": claims,
        "tls_cert_file": _path(options.tls_cert_file),
        "tls_key_file": _path(options.tls_private_key_file),
        "client_ca_file": _path(options.client_ca_file),
    }


def _plan(options: argparse.Namespace) -> int:
    try:
        configuration = read_configuration(_path(options.config))
        if options.snapshot is not None:
            plan = once.plan_snapshot(options.snapshot, configuration)
        else:
            plan = asyncio.run(once.plan_live(_cluster(options), configuration))
    except (SettingsError, SnapshotError, ConfigurationProblem) as error:
        return _refuse(str(error))
    except KubeError as error:
        return _fail(f"the cluster cannot be read: {error}; or try --snapshot with what kubectl prints")
    return _show(render_json(plan) if options.output == "json" else render_table(plan, all_nodes=options.all))


def _cleanup(options: argparse.Namespace) -> int:
    try:
        configuration = read_configuration(_path(options.config))
        removed = asyncio.run(once.clean_up(_cluster(options), configuration, dry_run=options.dry_run))
    except (SettingsError, ConfigurationProblem) as error:
        return _refuse(str(error))
    except KubeError as error:
        return _fail(f"not everything was removed: {error}; run it again")
    for line in removed:
        print(line)
    print("would be removed" if options.dry_run else "removed", len(removed), "things", flush=True)
    return CLEAN


def _config_check(options: argparse.Namespace) -> int:
    code = CLEAN
    for file in options.files:
        try:
            configuration = read_configuration(file)
        except SettingsError as error:
            code = _refuse(str(error), bare=True)
        else:
            print(f"{file}: good, {_pools_in_words(configuration)}")
    return code


def _pools_in_words(configuration: Configuration) -> str:
    if configuration.pools is None:
        return "pools by the label warmnode.dev/pool"
    count = len(configuration.pools)
    return f"{count} pool{'' if count == 1 else 's'}: {', '.join(pool.name for pool in configuration.pools)}"


def _config_schema(options: argparse.Namespace) -> int:
    return _show(json.dumps(configuration_schema(), indent=2))


def _version(options: argparse.Namespace) -> int:
    return _show(json.dumps({"version": __version__}) if options.output == "json" else f"warmnode {__version__}")


def _cluster(options: argparse.Namespace) -> once.ClusterOptions:
    return once.ClusterOptions(kubeconfig=options.kubeconfig, context=options.context, namespace=options.namespace)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _show(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(f"the output cannot be written: {(error.strerror or str(error)).lower()}")
    return CLEAN


def _refuse(text: str, *, bare: bool = False) -> int:
    print(text if bare else f"warmnode: {text}", file=sys.stderr, flush=True)
    return BAD_USAGE


def _fail(text: str) -> int:
    print(f"warmnode: {text}", file=sys.stderr, flush=True)
    return FAILURE
