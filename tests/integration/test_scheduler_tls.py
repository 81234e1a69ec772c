"""The scheduler calls over HTTPS, with the configuration of the component tls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
import yaml

from scripts.tools.controlplane import ControlPlane, Json
from scripts.tools.controlplane.processes import Process, free_ports
from scripts.tools.manifests.rendering import MANIFESTS
from scripts.tools.serving import Serve
from tests.integration.ground import Ground
from tests.integration.test_doctor import doctor, last_call, put_configuration

NAME = "warmnode.warmnode.svc"
SCHEDULER = "warmnode-tls"


class Secret:
    """The files that the component mounts, and their renewal."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key, self.ca_file = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        self.renew()

    def renew(self, ends: datetime | None = None) -> None:
        """A new key and a new certificate of the same authority."""
        issued = self._ca.issue_cert(NAME, not_after=ends)
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
def start(control_plane: ControlPlane, https_serve: Serve, secret: Secret) -> Iterator[Callable[..., None]]:
    """Starts a stock kube-scheduler with the shipped file, pointed at this test's port, in place of the one before.

    ``tls`` are changes of the extender's tlsConfig.
    """
    running: list[Process] = []

    def start(**tls: str) -> None:
        stop()
        config: Json = yaml.safe_load((MANIFESTS / "components/tls/kube-scheduler-config.yaml").read_text())
        config["leaderElection"] = {"leaderElect": False}
        config["profiles"][0]["schedulerName"] = SCHEDULER
        (extender,) = config["extenders"]
        assert extender["urlPrefix"].startswith("https://127.0.0.1:")
        assert extender["tlsConfig"]["serverName"] == NAME
        extender["urlPrefix"] = f"https://127.0.0.1:{https_serve.webhook_port}"
        extender["tlsConfig"] |= {"caFile": str(secret.ca_file), **tls}
        running.append(control_plane.start_scheduler(SCHEDULER, config))

    def stop() -> None:
        while running:
            running.pop().stop()

    yield start
    stop()


def test_certificates_are_renewed_without_a_failed_call(
    ground: Ground, https_serve: Serve, secret: Secret, start: Callable[..., None]
) -> None:
    """Every pod is asked about: before the renewal, after it, and over a connection that sees the new certificate."""
    start()
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


def test_an_expired_certificate_is_told(
    ground: Ground, https_serve: Serve, secret: Secret, start: Callable[..., None]
) -> None:
    """The scheduler refuses it does a wrong CA, and logs nothing. Our log, a metric and doctor say which."""
    ground.nodes(2, cpu="8")
    put_configuration(ground)
    ends = datetime.now(UTC).replace(microsecond=0) - timedelta(days=27, hours=1)
    secret.renew(ends)
    expired = "the TLS certificate has expired: callers refuse it"
    ground.wait(lambda: https_serve.lines(expired), "the log to say so")
    start()
    assert ground.place("unasked", scheduler=SCHEDULER)
    assert (
        https_serve.metric("warmnode_tls_certificate_expiry_timestamp_seconds", listener="webhook") == ends.timestamp()
    )
    ground.wait(lambda: "expired 27d" in doctor(ground)[1]["schedulerCalls"]["summary"], "doctor to say how long ago")
    secret.renew()
    ground.wait(lambda: https_serve.lines("the TLS certificate is valid"), "the new one to be taken")


@pytest.mark.parametrize("wrong", ["caFile", "serverName"])
def test_a_certificate_that_the_scheduler_does_not_accept_is_told(
    ground: Ground, https_serve: Serve, start: Callable[..., None], tmp_path: Path, wrong: str
) -> None:
    """Pods are placed all the same; a metric counts, the log and doctor say why, until the scheduler is mended."""
    ground.nodes(2, cpu="8")
    put_configuration(ground)
    other_ca = tmp_path / "other.crt"
    trustme.CA().cert_pem.write_to_path(str(other_ca))
    start(**{"caFile": {"caFile": str(other_ca)}, "serverName": {"serverName": "elsewhere"}}[wrong])
    assert ground.place("unasked", scheduler=SCHEDULER)
    labels = {"listener": "webhook", "reason": "certificateRefused"}
    assert https_serve.metric("warmnode_tls_handshake_failures_total", **labels) >= 1
    assert https_serve.lines("TLS handshake failed")[0]["problem"].endswith("does not accept warmnode's certificate")
    found = ground.wait(lambda: schedulers_calls(ground, "problem"), "doctor to find it")
    assert "TLS handshake failed: the caller does not accept warmnode's certificate" in found["summary"]
    assert "caFile" in found["remedy"]
    start()
    ground.place("asked", scheduler=SCHEDULER)
    ground.wait(lambda: last_call(ground), "the Lease to tell of a call")
    assert schedulers_calls(ground, "ok")


def schedulers_calls(ground: Ground, verdict: str) -> Json | None:
    """What doctor says of the scheduler's calls, None where the verdict is another."""
    _, found = doctor(ground)
    return found["schedulerCalls"] if found["schedulerCalls"]["verdict"] == verdict else None
