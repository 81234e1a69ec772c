"""A pod's port behind the fake API server: port-forward over a WebSocket, to a handler or to nothing.

Owns the frames, as a kubelet sends them. A Fault of `FakeApiServer.fail`.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import WSMsgType, web

from tests.fakes.faults import Fault


def tunnel(
    *,
    answer: bytes | Callable[[bytes], bytes] = b"",
    error: bytes = b"",
    frame: int = 7,
    asked: list[bytes] | None = None,
    port_parameter: str = "ports",
) -> Fault:
    """Answer what comes in on the data channel with ``answer``, cut in frames; or say ``error`` on the other one.

    A function makes the answer of what came in. ``port_parameter``: an API server is asked for ``ports``, and asks a
    kubelet for ``port``.
    """

    async def fault(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        port = int(request.query[port_parameter]).to_bytes(2, "little")
        await socket.send_bytes(b"\x00" + port)
        await socket.send_bytes(b"\x01" + port)
        message = await socket.receive()
        assert message.type is WSMsgType.BINARY
        if asked is not None:
            asked.append(message.data)
        if error:
            await socket.send_bytes(b"\x01" + error)
        said = answer if isinstance(answer, bytes) else answer(message.data)
        for start in range(0, len(said), frame):
            await socket.send_bytes(b"\x00" + said[start : start + frame])
        await socket.close()
        return socket

    return fault


def http(body: bytes, *, status: bytes = b"200 OK", oldest: bytes = b"") -> bytes:
    """An HTTP answer, as the history listener writes it."""
    told = b"Warmnode-Oldest: " + oldest + b"\r\n" if oldest else b""
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n" + told + b"\r\n" + body
