"""What can go wrong between us and an API server, as scripted answers of the fake.

Each function makes a Fault: called with the request, it answers in the server's place, or returns None to let the
request pass after it has done its damage.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec
from aiohttp import web

from tests.fakes.store import Refusal

Fault: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class Where(StrEnum):
    """Which requests a fault waits for."""

    ANY = "any"
    LIST = "list"
    NEXT_PAGE = "nextPage"
    WATCH = "watch"
    WRITE = "write"


def matches(where: Where, request: web.Request) -> bool:
    """Whether the request is of this sort; a next page is a list too."""
    watch, page = request.query.get("watch"), request.query.get("continue")
    match where:
        case Where.ANY:
            return True
        case Where.LIST:
            return request.method == "GET" and not watch
        case Where.NEXT_PAGE:
            return request.method == "GET" and bool(page)
        case Where.WATCH:
            return request.method == "GET" and bool(watch)
        case Where.WRITE:
            return request.method != "GET"


def answer(
    code: int, reason: str = "", *, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Fault:
    """Answer with a Status, or with ``body``."""

    async def fault(request: web.Request) -> web.StreamResponse:
        content = msgspec.json.encode(Refusal(code, reason, f"scripted {code}").status()) if body is None else body
        return web.Response(status=code, body=content, headers=headers, content_type="application/json")

    return fault


def reset() -> Fault:
    """Close the connection with a TCP reset and no answer."""

    async def fault(request: web.Request) -> web.StreamResponse:
        return _abort(request, web.Response())

    return fault


def silence() -> Fault:
    """Accept the request and never answer, as behind a half-open connection."""

    async def fault(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return fault


def slow(seconds: float) -> Fault:
    """Wait before the request is served as usual."""

    async def fault(request: web.Request) -> None:
        await asyncio.sleep(seconds)

    return fault


def truncated(body: bytes) -> Fault:
    """Promise more than ``body`` and close."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(body) + 1000)})
        await response.prepare(request)
        await response.write(body)
        return _abort(request, response, linger=True)

    return fault


class Then(StrEnum):
    """How a scripted stream ends."""

    CLOSE = "close"
    RESET = "reset"
    HANG = "hang"


def stream(*chunks: bytes, after: asyncio.Event | None = None, then: Then = Then.CLOSE) -> Fault:
    """Open a watch, send ``chunks`` in separate packets, where that is given ``after`` it is set, and end it."""

    async def fault(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        if after is not None:
            await after.wait()
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0)
        match then:
            case Then.CLOSE:
                await response.write_eof()
            case Then.RESET:
                _abort(request, response, linger=True)
            case Then.HANG:
                await asyncio.Event().wait()
        return response

    return fault


def _abort(request: web.Request, response: web.StreamResponse, *, linger: bool = False) -> web.StreamResponse:
    """Drop the connection: at once with a reset, or after what was written has gone out (``linger``)."""
    transport = request.transport
    assert transport is not None
    if linger:
        transport.close()
        return response
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return response
