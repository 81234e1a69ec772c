"""Decisions read through a real API server: `explain` asks for a port, the API server asks the node's kubelet.

The kubelet is ours: it answers as the real one does (tests/fakes/tunnel.py), and reaches the port of a real `serve`.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.request import urlopen

import pytest
import trustme
from aiohttp import web

from extender.inspect.recall import recall
from extender.kube.api_client import KubeClient
from scripts.tools.controlplane import ControlPlane, Options
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.serving import Serve
from tests.fakes.tunnel import http, tunnel
from tests.integration.ground import POOL, POOL_LABEL

pytestmark = pytest.mark.controlplane

ALONE = Options(scheduler=False, controller_manager=False, kwok=False)


async def test_decisions_come_through_a_real_api_server(require_binaries: RequireBinaries, tmp_path: Path) -> None:
    """By a WebSocket of the protocol that is asked for, with the rights of the kubeconfig."""
    require_binaries(ALONE.binaries())
    certificate = trustme.CA().issue_cert("127.0.0.1")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    history_port, kubelet_port = free_ports(2)
    asked: list[str] = []

    async def kubelet(request: web.Request) -> web.StreamResponse:
        asked.append(request.path_qs)

        def read() -> bytes:
            with urlopen(f"http://127.0.0.1:{history_port}/decisions?pod=default/w") as response:
                content: bytes = response.read()
            return content

        answer = http(await asyncio.to_thread(read))
        return await tunnel(answer=answer, port_parameter="port")(request) or web.Response(status=500)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", kubelet)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", kubelet_port, ssl_context=tls).start()
    with ControlPlane(ALONE) as plane:
        serve = Serve(
            kubeconfig=plane.kubeconfig,
            log=tmp_path / "serve.log",
            arguments=["--history-listen", f"127.0.0.1:{history_port}"],
        )
        try:
            await asyncio.to_thread(_arrange, plane, serve, kubelet_port)
            client = await KubeClient.connect(kubeconfig=str(plane.kubeconfig), user_agent="test")
            try:
                history = await recall(client, pod="default/w")
            finally:
                await client.close()
        finally:
            serve.close()
            await runner.cleanup()
    assert [each.problem for each in history.replicas] == [None]
    assert [(each.pod, each.pool) for each in history.decisions] == [("w", POOL)]
    assert asked[0].startswith("/portForward/default/warmnode-0")
    assert "port=9889" in asked[0]


def _arrange(plane: ControlPlane, serve: Serve, kubelet_port: int) -> None:
    """A node with that kubelet, a pod of warmnode on it, and a decision."""
    plane.create_node("real")
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
    }
    plane.api("PATCH", "/api/v1/nodes/real/status", {"status": status})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "warmnode-0", "namespace": "default", "labels": {"app.kubernetes.io/name": "warmnode"}},
        "spec": {"nodeName": "real", "containers": [{"name": "warmnode", "image": "none", "args": ["serve"]}]},
    }
    plane.create(pod)
    plane.api("PATCH", "/api/v1/namespaces/default/pods/warmnode-0/status", {"status": {"phase": "Running"}})
    serve.start()
    worker = {"metadata": {"name": "w", "namespace": "default", "uid": "u", "labels": {POOL_LABEL: POOL}}}
    assert serve.post("/prioritize", {"Pod": worker, "NodeNames": ["real"]})[0] == 200
