"""An HTTP proxy that tunnels every CONNECT to one fixed port of 127.0.0.1, whatever name was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FakeProxy:
    """``targets``: what clients asked to be connected to, as host:port."""

    def __init__(self, port: int) -> None:
        self.targets: list[str] = []
        self.url = ""
        self._port = port

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeProxy]:
        """Listen on a free port; `url` says where."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as listener:
            self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.targets.append(head.split()[1].decode())
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as pipes:
            pipes.create_task(_pipe(reader, target_writer))
            pipes.create_task(_pipe(target_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
