"""The operations listener: is it alive, is it ready and why not, and its metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from extender.telemetry import Metrics
from extender.web.requests import Handler, json_response, route


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Ready when ``reasons`` is empty. ``collections`` shows each collection's state, ages in seconds.

    ``api_server`` is why the API server cannot be reached, None while it answers. Answers go on without it for a while:
    by itself it is no reason.
    """

    reasons: tuple[str, ...]
    api_server: str | None = None
    collections: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def operations(metrics: Metrics, readiness: Callable[[], Readiness]) -> Handler:
    """Make the handler of ``/healthz``, ``/readyz`` and ``/metrics``."""

    async def healthz(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def readyz(request: web.BaseRequest) -> web.StreamResponse:
        now = readiness()
        body = {
            "ready": not now.reasons,
            "reasons": list(now.reasons),
            "apiServer": now.api_server or "answers",
            "collections": now.collections,
        }
        return json_response(
            json.dumps(body, indent=2).encode() + b"\n",
            HTTPStatus.SERVICE_UNAVAILABLE if now.reasons else HTTPStatus.OK,
        )

    async def show_metrics(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    gets = {"/healthz": healthz, "/readyz": readyz, "/metrics": show_metrics}
    return route({(method, path): handler for path, handler in gets.items() for method in ("GET", "HEAD")})
