"""A stock kube-scheduler that calls `warmnode serve` over HTTPS, each with a certificate that the other demands."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme

from scripts.tools.controlplane import ControlPlane
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.serving import SCHEDULER_CONFIG, scheduler_config
from tests.integration.ground import SECONDS, Ground

pytestmark = pytest.mark.controlplane

SCHEDULER = "over-https"


class Folder:
    """PEM files, replaced whole, as a mounted Secret is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, name: str, *parts: trustme.Blob) -> str:
        new = self._path / f"{name}.new"
        new.write_bytes(b"".join(part.bytes() for part in parts))
        shutil.move(new, self._path / name)
        return str(self._path / name)


def https_config(port: int, ca: str, cert: str, key: str) -> dict[str, Any]:
    """The shipped configuration over HTTPS, under a scheduler name of its own."""
    config = scheduler_config(SCHEDULER_CONFIG, port)
    (extender,) = config["extenders"]
    extender["urlPrefix"] = f"https://localhost:{port}"
    extender["enableHTTPS"] = True
    extender["tlsConfig"] = {"caFile": ca, "certFile": cert, "keyFile": key}
    extender["httpTimeout"] = "5s"  # a handshake on a busy machine is not what is tested
    config["profiles"][0]["schedulerName"] = SCHEDULER
    return config


def test_a_scheduler_is_answered_over_https_while_certificates_are_renewed(
    control_plane: ControlPlane, ground: Ground, tmp_path: Path
) -> None:
    """The oldest node gets the worker, before and after the server's certificate was replaced; no call fails."""
    first, second = ground.nodes(2, cpu="3")
    ground.write_ledger({second: 60, first: 1})
    ca, folder = trustme.CA(), Folder(tmp_path)
    server, client = ca.issue_cert("localhost"), ca.issue_cert("scheduler")
    ca_file = folder.put("ca.crt", ca.cert_pem)
    cert = folder.put("tls.crt", *server.cert_chain_pems)
    key = folder.put("tls.key", server.private_key_pem)
    (port,) = free_ports(1)
    serve = ground.serve(
        *("--tls-cert-file", cert, "--tls-private-key-file", key, "--client-ca-file", ca_file), webhook_port=port
    )
    config = https_config(
        port,
        ca_file,
        folder.put("client.crt", *client.cert_chain_pems),
        folder.put("client.key", client.private_key_pem),
    )
    scheduler = control_plane.start_scheduler(SCHEDULER, config)
    try:
        assert ground.place("before", scheduler=SCHEDULER) == second
        renewed = ca.issue_cert("localhost")
        folder.put("tls.crt", *renewed.cert_chain_pems)
        folder.put("tls.key", renewed.private_key_pem)
        ground.wait(lambda: bool(serve.lines("TLS files reloaded")), "the new files to be taken")
        assert [ground.place(name, scheduler=SCHEDULER) for name in ("after", "later")] == [second, second]
    finally:
        scheduler.stop()
    assert serve.metric("warmnode_webhook_requests_total", verb="prioritize", outcome="scored") == 3


def test_what_a_stranger_sends_to_the_webhook_is_counted(ground: Ground) -> None:
    """Bytes that are no HTTP get a 400 in one line and show up in the metric of a running serve."""
    serve = ground.serve(own_port=True)
    with socket.create_connection(("127.0.0.1", serve.webhook_port), timeout=SECONDS) as connection:
        connection.sendall(b"hello there\r\n\r\n")
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400 ")
    assert b"\n" not in body
    assert serve.metric("warmnode_webhook_requests_total", verb="none", outcome="badRequest") == 1
