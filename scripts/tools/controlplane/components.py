"""The command lines of etcd, the Kubernetes programs, KWOK and Karpenter.

Owns every flag and the reason for it. Starts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from scripts.tools.controlplane.certificates import Authority, KeyPair, write_private, write_signing_key

SERVICE_RANGE = "10.96.0.0/16"
FIRST_SERVICE_ADDRESS = "10.96.0.1"
POD_RANGE = "10.128.0.0/9"
STAGES = Path(__file__).parent / "stages"
QPS, BURST = 2000, 4000
"""Client limits, in requests a second: far above what two cores do, so that nothing in a run is throttled."""


class Component(StrEnum):
    """The parts of a control plane by name, in the order in which they start."""

    ETCD = "etcd"
    API_SERVER = "kube-apiserver"
    CONTROLLER_MANAGER = "kube-controller-manager"
    SCHEDULER = "kube-scheduler"
    KWOK = "kwok"
    KARPENTER = "karpenter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Everything secret of one instance, written into one folder by `write_credentials`."""

    authority: Authority
    etcd_authority: Authority
    server: KeyPair
    etcd_server: KeyPair
    etcd_client: KeyPair
    admin: KeyPair
    signing_key: Path


def write_credentials(directory: Path) -> Credentials:
    """Make the authorities and the certificates. etcd has its own: no user of the API server is a user of etcd."""
    authority = Authority(directory, "ca")
    etcd_authority = Authority(directory, "etcd-ca")
    return Credentials(
        authority=authority,
        etcd_authority=etcd_authority,
        server=authority.issue_server("server", ["127.0.0.1", FIRST_SERVICE_ADDRESS]),
        etcd_server=etcd_authority.issue_server("etcd-server", ["127.0.0.1"]),
        etcd_client=etcd_authority.issue_client("etcd-client", user="kube-apiserver"),
        admin=authority.issue_client("admin", user="kubernetes-admin", groups=["system:masters"]),
        signing_key=write_signing_key(directory / "service-accounts.key"),
    )


def write_kubeconfig(path: Path, *, server_url: str, ca_file: Path, client: KeyPair, user: str) -> Path:
    """Write a kubeconfig that names the certificate files; its context has no namespace."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {"server": server_url, "certificate-authority": str(ca_file)}}],
        "users": [
            {
                "name": user,
                "user": {"client-certificate": str(client.certificate), "client-key": str(client.key)},
            }
        ],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": user}}],
        "current-context": "local",
    }
    return write_private(path, yaml.safe_dump(content, sort_keys=False).encode())


def etcd_arguments(data: Path, port: int, credentials: Credentials) -> list[str]:
    """Return etcd's flags: one member, client certificates only, no fsync (the data is thrown away)."""
    url = f"https://127.0.0.1:{port}"
    return [
        f"--data-dir={data}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        "--listen-peer-urls=http://127.0.0.1:0",
        f"--cert-file={credentials.etcd_server.certificate}",
        f"--key-file={credentials.etcd_server.key}",
        f"--trusted-ca-file={credentials.etcd_authority.file}",
        "--client-cert-auth=true",
        "--unsafe-no-fsync=true",
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
    ]


def apiserver_arguments(
    port: int, etcd_port: int, credentials: Credentials, directory: Path, extra: Sequence[str]
) -> list[str]:
    """Return the API server's flags: RBAC on, request limits so high that a 2,000-pod run does not meet them."""
    return [
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={directory}",
        f"--tls-cert-file={credentials.server.certificate}",
        f"--tls-private-key-file={credentials.server.key}",
        f"--client-ca-file={credentials.authority.file}",
        f"--etcd-servers=https://127.0.0.1:{etcd_port}",
        f"--etcd-cafile={credentials.etcd_authority.file}",
        f"--etcd-certfile={credentials.etcd_client.certificate}",
        f"--etcd-keyfile={credentials.etcd_client.key}",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={credentials.signing_key}",
        f"--service-account-signing-key-file={credentials.signing_key}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--endpoint-reconciler-type=none",  # a loopback address cannot be an endpoint
        "--allow-privileged=true",
        "--enable-priority-and-fairness=false",
        "--max-requests-inflight=4000",
        "--max-mutating-requests-inflight=2000",
        "--profiling=false",
        *extra,
    ]


def controller_manager_arguments(
    port: int, kubeconfig: Path, credentials: Credentials, directory: Path, extra: Sequence[str]
) -> list[str]:
    """Return kube-controller-manager's flags. It acts as an administrator: no token per controller to wait for."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={directory}",
        f"--tls-cert-file={credentials.server.certificate}",
        f"--tls-private-key-file={credentials.server.key}",
        f"--root-ca-file={credentials.authority.file}",
        f"--service-account-private-key-file={credentials.signing_key}",
        "--leader-elect=false",
        "--use-service-account-credentials=false",
        f"--kube-api-qps={QPS}",
        f"--kube-api-burst={BURST}",
        "--concurrent-replicaset-syncs=20",
        "--concurrent-deployment-syncs=20",
        "--min-resync-period=1h",
        "--profiling=false",
        *extra,
    ]


def scheduler_arguments(
    port: int, config: Path, kubeconfig: Path, credentials: Credentials, directory: Path, extra: Sequence[str]
) -> list[str]:
    """Return kube-scheduler's flags. Its metrics, at its port, are open to the admin certificate."""
    return [
        f"--config={config}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={directory}",
        f"--client-ca-file={credentials.authority.file}",
        f"--tls-cert-file={credentials.server.certificate}",
        f"--tls-private-key-file={credentials.server.key}",
        *extra,
    ]


def scheduler_config(given: dict[str, Any], kubeconfig: Path) -> dict[str, Any]:
    """Return ``given`` with what it leaves open: kubeconfig, client limits, and no leader election."""
    connection = {"kubeconfig": str(kubeconfig), "qps": QPS, "burst": BURST, **given.get("clientConnection", {})}
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        **given,
        "clientConnection": connection,
        "leaderElection": {"leaderElect": False, **given.get("leaderElection", {})},
    }


def kwok_arguments(kubeconfig: Path, port: int, extra: Sequence[str]) -> list[str]:
    """Return KWOK's flags: every node is its own, nodes and pods get ready at once (see the stage files)."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--server-address=127.0.0.1:{port}",
        "--manage-all-nodes=true",
        "--node-lease-duration-seconds=40",
        f"--cidr={POD_RANGE}",
        *(f"--config={stage}" for stage in sorted(STAGES.glob("*.yaml"))),
        *extra,
    ]


def karpenter_environment(kubeconfig: Path, metrics_port: int, health_port: int) -> dict[str, str]:
    """Return the environment of Karpenter's KWOK build, which takes no --kubeconfig flag."""
    return {
        "KUBECONFIG": str(kubeconfig),
        "DISABLE_LEADER_ELECTION": "true",
        "METRICS_PORT": str(metrics_port),
        "HEALTH_PROBE_PORT": str(health_port),
    }
