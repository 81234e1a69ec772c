"""What a process is told on its command line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from extender.kube.api_client import ClusterOptions
from extender.settings import ConfigurationFile
from extender.web.server import Address

WEBHOOK, CLAIMS, HISTORY = "webhook", "claims", "history"
"""Names of listeners, as in --webhook-listen. Callers use the first two."""


class Role(StrEnum):
    """What a process does: answer kube-scheduler, reap, or both."""

    SERVE = "serve"
    REAP = "reap"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What `warmnode serve`, `reap` or `run` is told on its command line. ``claims_listen`` None: off."""

    roles: frozenset[Role]
    cluster: ClusterOptions
    configuration: ConfigurationFile
    dry_run: bool
    ops_listen: Address
    history_listen: Address
    webhook_listen: Address | None = None
    claims_listen: Address | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    client_ca_file: Path | None = None
