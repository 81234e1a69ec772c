"""The scheduler calls over HTTPS, with the configuration of the component tls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import yaml

from tests.controlplane import ControlPlane, Json
from tests.controlplane.processes import free_ports
from tests.integration.ground import Ground
from tests.manifests.rendering import MANIFESTS
from tests.serving import Serve

NAME = "warmnode.warmnode.svc"
SCHEDULER = "warmnode-tls"


class Secret:
    """The files that the component mounts, and their renewal."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key, self.ca_file = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        self.renew()

    def renew(self) -> None:
        """A new key and a new certificate of the same authority."""
        issued = self._ca.issue_cert(NAME)
        issued.private_key_pem.write_to_path(str(self.key))
        self.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    return Secret(tmp_path)


@pytest.fixture
def https_serve(ground: Ground, secret: Secret) -> Serve:
    """`warmnode serve` with the arguments of the component."""
    files = ("--tls-cert-file", str(secret.cert), "--tls-private-key-file", str(secret.key))
    return ground.serve(*files, webhook_port=free_ports(1)[0])


@pytest.fixture
def https_scheduler(control_plane: ControlPlane, https_serve: Serve, secret: Secret) -> Iterator[Json]:
    """A stock kube-scheduler with the shipped file, pointed at the port and the CA of this test."""
    config: Json = yaml.safe_load((MANIFESTS / "components/tls/kube-scheduler-config.yaml").read_text())
    config["leaderElection"] = {"leaderElect": False}
    config["profiles"][0]["schedulerName"] = SCHEDULER
    (extender,) = config["extenders"]
    assert extender["urlPrefix"].startswith("https://127.0.0.1:")
    assert extender["tlsConfig"]["serverName"] == NAME
    extender["urlPrefix"] = f"https://127.0.0.1:{https_serve.webhook_port}"
    extender["tlsConfig"]["caFile"] = str(secret.ca_file)
    process = control_plane.start_scheduler(SCHEDULER, config)
    yield config
    process.stop()


def test_certificates_are_renewed_without_a_failed_call(
    ground: Ground, https_serve: Serve, secret: Secret, https_scheduler: Json
) -> None:
    """Every pod is asked about: before the renewal, after it, and over a connection that sees the new certificate."""
    oldest, other = ground.nodes(2, cpu="8")
    ground.write_ledger({oldest: 60, other: 5})
    placed = [ground.place(f"before-{number}", scheduler=SCHEDULER) for number in range(2)]
    secret.renew()
    ground.wait(lambda: https_serve.lines("TLS files reloaded"), "the new files to be taken")
    placed += [ground.place(f"after-{number}", scheduler=SCHEDULER) for number in range(2)]
    https_serve.stop()
    https_serve.start()
    placed += [ground.place(f"anew-{number}", scheduler=SCHEDULER) for number in range(2)]
    assert len(https_serve.lines("prioritize")) == len(placed) == 6
    assert placed[-2:] == [oldest, oldest]
