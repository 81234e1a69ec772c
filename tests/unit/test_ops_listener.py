"""The operations listener: what a kubelet, Prometheus and people get from it."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from extender.telemetry import Metrics
from extender.web.ops_listener import Readiness, operations


async def ask(path: str, readiness: Readiness, *, method: str = "GET") -> tuple[int, str, bytes]:
    """Status, content type and body."""
    response = await operations(Metrics(), lambda: readiness)(make_mocked_request(method, path))
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    return response.status, response.headers["Content-Type"], response.body


READY = Readiness(reasons=(), collections={"nodes": {"synced": True, "ageSeconds": 1.5}})
NOT_READY = Readiness(reasons=("nodes: not listed yet", "pods: not listed yet"), api_server="connection refused")


@pytest.mark.parametrize("readiness", [READY, NOT_READY])
async def test_a_process_is_alive_whether_it_is_ready_or_not(readiness: Readiness) -> None:
    """A kubelet that restarted it would make the outage of an API server worse."""
    assert await ask("/healthz", readiness) == (200, "text/plain; charset=utf-8", b"ok\n")


async def test_readiness_says_what_is_missing_and_what_is_known() -> None:
    status, kind, body = await ask("/readyz", READY)
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {
        "ready": True,
        "reasons": [],
        "apiServer": "answers",
        "collections": {"nodes": {"synced": True, "ageSeconds": 1.5}},
    }
    status, _, body = await ask("/readyz", NOT_READY)
    assert status == 503
    assert json.loads(body) == {
        "ready": False,
        "reasons": ["nodes: not listed yet", "pods: not listed yet"],
        "apiServer": "connection refused",
        "collections": {},
    }


async def test_an_api_server_that_is_away_is_by_itself_no_reason() -> None:
    """Answers go on from what is known."""
    status, _, body = await ask("/readyz", Readiness(reasons=(), api_server="connection refused"))
    assert (status, json.loads(body)["apiServer"]) == (200, "connection refused")


async def test_metrics_come_as_prometheus_reads_them() -> None:
    status, kind, body = await ask("/metrics", READY)
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert b"# TYPE warmnode_webhook_requests_total counter" in body


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_may_ask_with_head_and_nobody_writes(path: str) -> None:
    assert (await ask(path, READY, method="HEAD"))[0] == 200
    assert (await ask(path, READY, method="POST"))[0] == 405
