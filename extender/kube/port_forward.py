"""HTTP to a port on a pod's loopback, through the API server and the pod's kubelet, with the caller's own rights.

Owns the tunnel: WebSocket frames whose first byte is a channel, as kubectl's port-forward used them before SPDY was
tunnelled too (kubernetes pkg/kubelet, cri/streaming/portforward/websocket.go). Whoever may `create pods/portforward`
there may use it, nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from extender.kube.api_client import KubeClient
from extender.kube.errors import Unavailable
from extender.logs import one_line

if TYPE_CHECKING:  # as in api_client
    import aiohttp

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
PORT_BYTES = 2
"""Each channel begins with its port, little endian."""
TIMEOUT = timedelta(seconds=10)
LONGEST_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PortAnswer:
    """What a pod answered with 200. Names of headers are in lower case."""

    headers: Mapping[str, str]
    body: bytes


async def get_from_pod(client: KubeClient, *, namespace: str, pod: str, port: int, target: str) -> PortAnswer:
    """GET ``target``, a path with its query, from ``port`` of a pod.

    Raises:
        KubeError: it is not allowed, the pod is not there, or nothing answers on that port.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
    try:
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            async with client.websocket(path, params={"ports": str(port)}, protocol=PROTOCOL) as socket:
                request = f"GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
                await socket.send_bytes(bytes([DATA]) + request.encode())
                return _answer(await _read(socket, f"port {port} of pod {namespace}/{pod}"), path)
    except TimeoutError as error:
        raise Unavailable(0, "Timeout", f"{path}: no answer for {TIMEOUT.total_seconds():g} s") from error


async def _read(socket: aiohttp.ClientWebSocketResponse, name: str) -> bytes:
    """Read until the answer is complete, or the tunnel ends. Raises Unavailable where the kubelet says why it fails."""
    from aiohttp import WSMsgType

    channels = {DATA: bytearray(), ERROR: bytearray()}
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channels.setdefault(message.data[0], bytearray()).extend(message.data[1:])
        failed = bytes(channels[ERROR][PORT_BYTES:])
        if failed:
            raise Unavailable(0, "PortForward", f"{name}: {one_line(failed.decode(errors='replace'), 200)}")
        data = bytes(channels[DATA][PORT_BYTES:])
        if _is_complete(data):
            return data
        if len(data) > LONGEST_BYTES:
            break
    return bytes(channels[DATA][PORT_BYTES:])


def _is_complete(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    length = _headers(head).get("content-length", "") if found else ""
    return length.isdigit() and len(body) >= int(length[:12])


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _answer(data: bytes, path: str) -> PortAnswer:
    head, _, body = data.partition(b"\r\n\r\n")
    first = head.split(b"\r\n", 1)[0].decode("latin-1")
    if not first.startswith("HTTP/1.1 200 ") or not _is_complete(data):
        said = one_line(first, 100) or "nothing"
        raise Unavailable(0, "PortForward", f"{path}: the answer is no decisions: {said}")
    return PortAnswer(headers=_headers(head), body=body)
