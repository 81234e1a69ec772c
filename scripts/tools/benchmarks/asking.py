"""An HTTP client that costs next to nothing: on a machine that clients and servers share, they measure each other.

Owns one keep-alive connection of HTTP/1.1. Knows nothing of what is asked, and takes an answer for what it is.
"""

from __future__ import annotations

import asyncio
import json
import ssl

from scripts.tools.controlplane import ControlPlane, ControlPlaneError, Json


class Caller:
    """One connection to a port of this machine. Calls are made one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext | None = None) -> Caller:
        """Open the connection."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

    @classmethod
    async def at_api_server(cls, plane: ControlPlane) -> Caller:
        """Open a connection to the API server, with the administrator's certificate."""
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        context.load_cert_chain(plane.client_certificate, plane.client_key)
        return await cls.connect(int(plane.server_url.rpartition(":")[2]), context)

    async def call(
        self, method: str, path: str, body: Json | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Call: the status and the body that came back."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}"
        self._writer.write(head.encode() + b"\r\n\r\n" + content)
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        return int(first.split(" ", 2)[1]), await self._body(headers)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self._reader.readexactly(int(headers.get("content-length", "0")))
        found = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            found += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return found

    async def must(self, wanted: int, method: str, path: str, body: Json | None = None, kind: str = "") -> bytes:
        """Call, and raise where the answer is not of this status."""
        status, answer = await self.call(method, path, body, kind or "application/json")
        if status != wanted:
            raise ControlPlaneError(f"{method} {path}: {status} {answer[:300].decode(errors='replace')}")
        return answer

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
