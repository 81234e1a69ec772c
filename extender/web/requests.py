"""HTTP as every listener speaks it: routes, bodies within bounds, one-line problems.

Owns the limits on what a caller may send. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TypeVarTuple

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

BODY_LIMIT_BYTES = 64 * 1024 * 1024
"""5,000 full Node objects are about 40 MB; the names alone are 0.3 MB."""
BODY_DEADLINE_SECONDS = 10.0
CRASHED = "this is a bug of warmnode: its log has the traceback, please report it"
"""What a caller is told who met one."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Routes = Mapping[tuple[str, str], Handler]
"""(method, path) -> handler."""
PathHandler = Callable[[web.BaseRequest, Mapping[str, str]], Awaitable[web.StreamResponse]]
PathRoutes = Mapping[tuple[str, str], PathHandler]
"""(method, template) -> handler; ``{name}`` in a template is one segment of the path and goes to the handler."""

_Ts = TypeVarTuple("_Ts")
_BROKEN_BODY = (web.RequestPayloadError, HttpProcessingError, ConnectionError)


class BodyRefused(Exception):
    """A body that was not read to its end. ``status`` is what to answer."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def problem(
    status: HTTPStatus,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> web.Response:
    """Answer with one line of RFC 9457 problem+json. ``members`` are added to it, for programs to read."""
    body = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail[:500]}
    content = json.dumps({**body, **(members or {})}).encode()
    return web.Response(status=status, body=content, content_type="application/problem+json", headers=headers)


def json_response(body: bytes | msgspec.Struct, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Answer with JSON; bytes are encoded already."""
    if isinstance(body, msgspec.Struct):
        body = msgspec.json.encode(body)
    return web.Response(status=status, body=body, content_type="application/json")


def once_answered(tell: Callable[[*_Ts], object], *what: *_Ts) -> None:
    """Tell something in the next turn of the loop: nobody waits for the lines and counts of an answer.

    It is sent by then if nothing is awaited any more before it.
    """
    asyncio.get_running_loop().call_soon(tell, *what)


def route(
    routes: Routes, *, templates: PathRoutes | None = None, refused: Callable[[HTTPStatus], None] = lambda status: None
) -> Handler:
    """Make a handler that finds the route, or answers 404 or 405 in one line and tells ``refused``.

    An exact path goes before a template. Templates cost an exact path nothing: they are looked at when it is not found.
    """
    methods: dict[str, list[str]] = {}
    for method, path in routes:
        methods.setdefault(path, []).append(method)
    patterns = _compiled(templates or {})
    shown = ", ".join(sorted([*methods, *(template for template, _, _ in patterns)]))

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        handler = routes.get((request.method, request.path))
        if handler is not None:
            return await handler(request)
        allowed = methods.get(request.path)
        if allowed is None:
            for _, pattern, handlers in patterns:
                found = pattern.fullmatch(request.path)
                if found is not None:
                    if request.method in handlers:
                        return await handlers[request.method](request, found.groupdict())
                    allowed = list(handlers)
                    break
        status = HTTPStatus.NOT_FOUND if allowed is None else HTTPStatus.METHOD_NOT_ALLOWED
        refused(status)
        await _discard(request)
        if allowed is None:
            return problem(status, f"there is no {request.path[:100]!r} here; there is {shown}")
        return problem(
            status, f"{request.path[:100]} takes {' and '.join(allowed)}", headers={"Allow": ", ".join(allowed)}
        )

    return handle


def _compiled(templates: PathRoutes) -> list[tuple[str, re.Pattern[str], dict[str, PathHandler]]]:
    """Give each template with its pattern and its handlers by method, in the order in which they were named."""
    handlers: dict[str, dict[str, PathHandler]] = {}
    for (method, template), handler in templates.items():
        handlers.setdefault(template, {})[method] = handler
    return [
        (template, re.compile("/".join(map(_segment, template.split("/")))), by_method)
        for template, by_method in handlers.items()
    ]


def _segment(text: str) -> str:
    if text.startswith("{") and text.endswith("}"):
        return f"(?P<{text[1:-1]}>[^/]+)"
    return re.escape(text)


async def read_body(
    request: web.BaseRequest,
    *,
    limit_bytes: int = BODY_LIMIT_BYTES,
    deadline_seconds: float = BODY_DEADLINE_SECONDS,
    remedy: str = "set nodeCacheCapable: true on the extender",
) -> bytes:
    """Read the whole body, ``limit_bytes`` and ``deadline_seconds`` at most. ``remedy`` says how to send less.

    A body that is too large is read to its end and thrown away, up to the deadline: an answer to somebody who is still
    sending is lost with the connection.

    Raises:
        BodyRefused: it is too large, compressed, slow or broken off.
    """
    if request.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        await _discard(request)
        raise BodyRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body without Content-Encoding")
    chunks: list[bytes] = []
    size = 0
    try:
        if request.content.is_eof():  # it came with the head, as most do: no deadline is needed
            chunks.append(request.content.read_nowait())
            size = len(chunks[0])
        else:
            async with asyncio.timeout(deadline_seconds):
                while chunk := await request.content.readany():
                    size += len(chunk)
                    if size <= limit_bytes:
                        chunks.append(chunk)
                    else:
                        chunks.clear()
    except TimeoutError as error:
        raise BodyRefused(
            HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {deadline_seconds:g} s"
        ) from error
    except _BROKEN_BODY as error:
        raise BodyRefused(HTTPStatus.BAD_REQUEST, "the body broke off or is not encoded as its head says") from error
    if size > limit_bytes:
        raise BodyRefused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body has {size} bytes, {limit_bytes} are allowed; {remedy}",
        )
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _discard(request: web.BaseRequest) -> None:
    try:
        async with asyncio.timeout(BODY_DEADLINE_SECONDS):
            while await request.content.readany():
                pass
    except (TimeoutError, *_BROKEN_BODY):
        return  # the answer says what was wrong with the request; how its body ends does not matter
