"""The processes that stay: serve, reap, run."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from extender import app
from extender.cli.flags import cluster_flags, cluster_options, flag, path
from extender.cli.outcome import CLEAN, BadUsage, fail, refuse
from extender.cli.parser import CommandParser, Commands, command
from extender.kube.errors import ConfigurationProblem
from extender.logs import set_up_logging
from extender.settings import ConfigurationFile, SettingsError
from extender.web.history_api import HISTORY_PORT
from extender.web.server import Address, ListenerProblem
from extender.web.tls import TlsProblem

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

_CLIENT_CA = "webhook: accept only clients with a certificate of this CA; claims: take it for the caller's name"


def _serve_flags(parser: CommandParser) -> None:
    command(parser, _SERVE, lambda options: _process(options, app.Role.SERVE))
    _webhook_flags(parser)
    _process_flags(parser)


def _reap_flags(parser: CommandParser) -> None:
    command(parser, _REAP, lambda options: _process(options, app.Role.REAP))
    _process_flags(parser)


def _run_flags(parser: CommandParser) -> None:
    command(parser, _RUN, lambda options: _process(options, app.Role.SERVE, app.Role.REAP))
    _webhook_flags(parser)
    _process_flags(parser)


COMMANDS: Commands = {"serve": _serve_flags, "reap": _reap_flags, "run": _run_flags}


def _webhook_flags(parser: argparse.ArgumentParser) -> None:
    flag(parser, "--webhook-listen", "address of the webhook", default="127.0.0.1:8888", metavar="HOST:PORT")
    flag(
        parser,
        "--claims-listen",
        "address of the claim API, and for workers that mark themselves idle; off by default",
        metavar="HOST:PORT",
    )
    flag(parser, "--tls-cert-file", "certificate (PEM) of the listeners; read again when it changes", metavar="FILE")
    flag(parser, "--tls-private-key-file", "its key", metavar="FILE")
    flag(parser, "--client-ca-file", _CLIENT_CA, metavar="FILE")


def _process_flags(parser: argparse.ArgumentParser) -> None:
    cluster_flags(parser)
    flag(parser, "--ops-listen", "address of probes and metrics", default="127.0.0.1:9888", metavar="HOST:PORT")
    flag(
        parser,
        "--history-listen",
        "loopback address at which `warmnode explain` reads the last decisions",
        default=f"127.0.0.1:{HISTORY_PORT}",
        metavar="HOST:PORT",
    )
    flag(parser, "--dry-run", "write nothing outside warmnode's own namespace", switch=True)
    flag(parser, "--log-format", "json or text", default="json", choices=("json", "text"))
    levels = ("debug", "info", "warning", "error")
    flag(parser, "--log-level", "debug tells every decision", default="info", choices=levels)


def _process(options: argparse.Namespace, *roles: app.Role) -> int:
    set_up_logging(form=options.log_format, level=options.log_level)
    try:
        listening = _listening(options) if app.Role.SERVE in roles else {}
        asyncio.run(
            app.run(
                app.RunOptions(
                    roles=frozenset(roles),
                    cluster=cluster_options(options),
                    configuration=ConfigurationFile(path(options.config)),
                    dry_run=options.dry_run,
                    ops_listen=_address("--ops-listen", options.ops_listen),
                    history_listen=_history_address(options.history_listen),
                    **listening,
                )
            )
        )
    except (SettingsError, ConfigurationProblem, BadUsage) as error:
        return refuse(str(error))
    except (ListenerProblem, TlsProblem) as problem:
        return fail(str(problem))
    return CLEAN


def _listening(options: argparse.Namespace) -> dict[str, Any]:
    """Read the listeners' flags. Raises `BadUsage`."""
    webhook = _address("--webhook-listen", options.webhook_listen)
    has_tls = bool(options.tls_cert_file)
    if has_tls != bool(options.tls_private_key_file):
        raise BadUsage("--tls-cert-file and --tls-private-key-file go together: give both or none")
    if options.client_ca_file and not has_tls:
        raise BadUsage("--client-ca-file needs --tls-cert-file and --tls-private-key-file")
    if not has_tls and not webhook.is_loopback:
        raise BadUsage(
            f"--webhook-listen {webhook} can be reached from other machines: give --tls-cert-file and "
            "--tls-private-key-file, or listen on 127.0.0.1 beside the scheduler"
        )
    claims = _address("--claims-listen", options.claims_listen) if options.claims_listen else None
    if claims is not None and not has_tls and not claims.is_loopback:
        raise BadUsage(
            f"--claims-listen {claims} can be reached from other machines, and tokens would cross the network in the "
            "clear: give --tls-cert-file and --tls-private-key-file"
        )
    return {
        "webhook_listen": webhook,
        "claims_listen": claims,
        "tls_cert_file": path(options.tls_cert_file),
        "tls_key_file": path(options.tls_private_key_file),
        "client_ca_file": path(options.client_ca_file),
    }


def _history_address(text: str) -> Address:
    """Read the flag. Raises `BadUsage`."""
    address = _address("--history-listen", text)
    if not address.is_loopback:
        raise BadUsage(
            f"--history-listen {address} can be reached from other machines, and nobody is asked there who he is: "
            f"listen on 127.0.0.1; `warmnode explain` comes by port-forward"
        )
    return address


def _address(flag: str, text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise BadUsage(f"{flag}: {error}") from error
