"""The live view as a web page, for the one who started it: on loopback, by GET only, at an address nobody can guess.

Owns what is answered and to whom. The page is three files beside this one, with nothing from elsewhere and nothing to
build; names in what it is sent are text, and a strict content security policy sees to that as well.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from importlib.resources import files
from typing import Protocol

from aiohttp import web

from extender.inspect.explain import NotThere, Subject, explain
from extender.inspect.explain_text import render_explanation
from extender.inspect.plan import Look
from extender.inspect.text import printable
from extender.inspect.view.frames import Past, frame_of
from extender.inspect.view.view_model import View
from extender.web.requests import Handler, problem, route
from extender.web.server import Address, Listener

_FILES = {
    "": ("live-view.html", "text/html"),
    "live-view.css": ("live-view.css", "text/css"),
    "live-view.js": ("live-view.js", "text/javascript"),
}
_HOST = re.compile(r"(?P<name>localhost|[0-9.]+|\[[0-9a-f:]+\])(:[0-9]+)?")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Followed(Protocol):
    """The part of `Following` that a page shows, with the same promises."""

    view: View
    past: Past

    async def next_view(self, after: View | None) -> View: ...
    def look(self) -> Look: ...


def page_handler(following: Followed, secret: str, stopping: asyncio.Event) -> Handler:
    """Make the handler. Without the secret in the path there is nothing: other users of this machine reach loopback."""

    async def events(request: web.BaseRequest) -> web.StreamResponse:
        return await _events(request, following, stopping)

    async def past(request: web.BaseRequest) -> web.StreamResponse:
        seconds = request.query.get("ago", "")
        if not seconds.isascii() or not seconds.isdigit() or len(seconds) > 6:
            return problem(HTTPStatus.BAD_REQUEST, "say ?ago=SECONDS", headers=HEADERS)
        view = following.past.ago(timedelta(seconds=int(seconds))) or following.view
        return _answer(_frame(following, view, None), "application/json")

    async def explained(request: web.BaseRequest) -> web.StreamResponse:
        return _explained(following, request.query.get("pod"), request.query.get("node"))

    routes = {
        ("GET", f"/{secret}/events"): events,
        ("GET", f"/{secret}/past"): past,
        ("GET", f"/{secret}/explain"): explained,
        **{("GET", f"/{secret}/{path}"): _file(*file) for path, file in _FILES.items()},
    }
    inner = route(routes)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if not is_loopback_host(request.host):
            return problem(HTTPStatus.MISDIRECTED_REQUEST, "open it at the printed address", headers=HEADERS)
        if request.method != "GET":
            return problem(HTTPStatus.METHOD_NOT_ALLOWED, "GET only", headers={**HEADERS, "Allow": "GET"})
        if (request.method, request.path) not in routes:
            return problem(HTTPStatus.NOT_FOUND, "there is nothing here", headers=HEADERS)
        return await inner(request)

    return handle


def is_loopback_host(host: str) -> bool:
    """True for localhost and loopback addresses, with a port or without.

    Any other name was made to point here: a foreign page could read what is answered under it (DNS rebinding).
    """
    found = _HOST.fullmatch(host)
    return found is not None and Address(found["name"].strip("[]"), 0).is_loopback


def _file(name: str, content_type: str) -> Handler:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return _answer(files("extender.inspect.view").joinpath(name).read_bytes(), content_type)

    return answer


def _answer(body: bytes, content_type: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, body=body, headers=HEADERS, content_type=content_type, charset="utf-8")


async def _events(request: web.BaseRequest, following: Followed, stopping: asyncio.Event) -> web.StreamResponse:
    """Send frames as they come. A reader that is slow gets fewer of them, and the last one always."""
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
    await response.prepare(request)
    sent: View | None = None
    try:
        while not stopping.is_set():
            view = following.view
            await response.write(b"data: " + _frame(following, view, sent) + b"\n\n")
            sent = view
            await following.next_view(sent)
    except ConnectionError:
        pass  # the reader has gone
    return response


def _frame(following: Followed, view: View, before: View | None) -> bytes:
    return frame_of(view, before=before, begun=following.past.begun or view)


def _explained(following: Followed, pod: str | None, node: str | None) -> web.Response:
    """Say what `warmnode explain` says, of a pod or a node by its UID."""
    look = following.look()
    if pod is not None:
        found = look.state.pods.get(pod)
        subject, name = Subject.POD, f"{found.namespace}/{found.name}" if found is not None else ""
    else:
        subject = Subject.NODE
        name = next((each.name for each in look.state.nodes.values() if each.uid == node), "")
    if not name:
        return _answer(b"It is not there any more.", "text/plain", HTTPStatus.NOT_FOUND)
    try:
        text = render_explanation(explain(look, subject, name), look.plan)
    except NotThere as error:
        text = printable(str(error))
    return _answer(text.encode(), "text/plain")


async def serve_page(following: Followed, address: Address, tell: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve until ``stop``. ``tell`` is told where to look. Raises `ListenerProblem`."""
    secret, stopping = secrets.token_urlsafe(16), asyncio.Event()
    listener = Listener(name="page", address=address, handler=page_handler(following, secret, stopping))
    await listener.start()
    try:
        tell(f"http://{listener.address}/{secret}/")
        await stop.wait()
    finally:
        stopping.set()
        await listener.stop()
