"""Where the files of one instance are, and how each of its components is started from them.

Owns the folder's structure, the kubeconfigs and which port goes where. Starts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scripts.tools.controlplane import components
from scripts.tools.controlplane.certificates import KeyPair
from scripts.tools.controlplane.client import Json
from scripts.tools.controlplane.components import Component, Credentials
from scripts.tools.controlplane.launching import Launch
from scripts.tools.controlplane.processes import free_ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The folder of an instance with its certificates, and the ports of its etcd and its API server."""

    directory: Path
    credentials: Credentials
    etcd_port: int
    server_port: int

    @classmethod
    def create(cls, directory: Path) -> Self:
        """Fill an empty folder: subfolders, certificates, kubeconfigs; and choose two ports."""
        for each in ("pki", "logs", "config"):
            (directory / each).mkdir(mode=0o700)
        etcd_port, server_port = free_ports(2)
        layout = cls(
            directory=directory,
            credentials=components.write_credentials(directory / "pki"),
            etcd_port=etcd_port,
            server_port=server_port,
        )
        layout.write_kubeconfig("admin", layout.credentials.admin, "admin")
        # The schedulers get the rights of the real one, so that a test sees what RBAC lets a scheduler do.
        user = "system:kube-scheduler"
        layout.write_kubeconfig(
            "kube-scheduler", layout.credentials.authority.issue_client("scheduler", user=user), user
        )
        return layout

    @property
    def server_url(self) -> str:
        return f"https://127.0.0.1:{self.server_port}"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    def kubeconfig(self, name: str) -> Path:
        """Return where `write_kubeconfig` writes the one called ``name``."""
        return self.directory / f"{name}.kubeconfig"

    def write_kubeconfig(self, name: str, client: KeyPair, user: str) -> Path:
        """Write a kubeconfig for this API server and return its path."""
        return components.write_kubeconfig(
            self.kubeconfig(name),
            server_url=self.server_url,
            ca_file=self.credentials.authority.file,
            client=client,
            user=user,
        )

    def etcd(self, binary: Path) -> Launch:
        """etcd has no probe: the API server's readiness includes it."""
        flags = components.etcd_arguments(self.directory / "etcd", self.etcd_port, self.credentials)
        return Launch(name=Component.ETCD, command=(str(binary), *flags), port=self.etcd_port)

    def api_server(self, binary: Path, extra: Sequence[str]) -> Launch:
        flags = components.apiserver_arguments(self.server_port, self.etcd_port, self.credentials, self.pki, extra)
        return Launch(
            name=Component.API_SERVER,
            command=(str(binary), *flags),
            port=self.server_port,
            probe=f"{self.server_url}/readyz",
        )

    def controller_manager(self, binary: Path, extra: Sequence[str]) -> Launch:
        (port,) = free_ports(1)
        flags = components.controller_manager_arguments(
            port, self.kubeconfig("admin"), self.credentials, self.pki, extra
        )
        return Launch(
            name=Component.CONTROLLER_MANAGER,
            command=(str(binary), *flags),
            port=port,
            probe=f"https://127.0.0.1:{port}/healthz",
        )

    def scheduler(
        self, name: str, binary: Path, given: Json, extra: Sequence[str], environment: Mapping[str, str]
    ) -> Launch:
        """``given`` is a KubeSchedulerConfiguration; it is written to config/NAME.json with what it leaves open."""
        (port,) = free_ports(1)
        kubeconfig = self.kubeconfig("kube-scheduler")
        config = self.directory / "config" / f"{name}.json"
        config.write_text(json.dumps(components.scheduler_config(given, kubeconfig), indent=2))
        flags = components.scheduler_arguments(port, config, kubeconfig, self.credentials, self.pki, extra)
        return Launch(
            name=name,
            command=(str(binary), *flags),
            port=port,
            probe=f"https://127.0.0.1:{port}/readyz",
            environment=environment,
        )

    def kwok(self, binary: Path, extra: Sequence[str]) -> Launch:
        (port,) = free_ports(1)
        return Launch(
            name=Component.KWOK,
            command=(str(binary), *components.kwok_arguments(self.kubeconfig("admin"), port, extra)),
            port=port,
            probe=f"http://127.0.0.1:{port}/readyz",
        )

    def karpenter(self, binary: Path, environment: Mapping[str, str]) -> Launch:
        """``port`` is the one of its metrics."""
        metrics_port, health_port = free_ports(2)
        own = components.karpenter_environment(self.kubeconfig("admin"), metrics_port, health_port)
        return Launch(
            name=Component.KARPENTER,
            command=(str(binary),),
            port=metrics_port,
            probe=f"http://127.0.0.1:{health_port}/readyz",
            environment=own | dict(environment),
        )
