"""The least that a server with aiohttp can be: it reads a request and prefers no host. What the library costs.

Takes the port of 127.0.0.1 to listen at, and runs until it is ended.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    await request.read()
    return web.Response(body=b"[]", content_type="application/json")


async def _serve(port: int) -> None:
    runner = web.ServerRunner(web.Server(_answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
