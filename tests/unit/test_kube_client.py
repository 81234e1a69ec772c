"""The client reaches the API server as kubectl would, and says in one line why it cannot."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from extender.kube.api_client import KubeClient
from extender.kube.api_request import CONNECTIONS, Lane
from extender.kube.claim_store import ClaimStore
from extender.kube.credentials import Access, Credential, PrivateFiles, TlsContexts, TokenFile, in_cluster_access
from extender.kube.errors import (
    Blocked,
    ConfigurationProblem,
    Conflict,
    Forbidden,
    Gone,
    KubeError,
    NotFound,
    Throttled,
    Unavailable,
    failure,
)
from extender.kube.exec_plugin import ExecConfig, ExecCredentials
from extender.kube.lease import LeaseStore
from extender.kube.proxy import bypasses_proxy, environment_proxy
from extender.kube.transport import Transport
from extender.logs import one_line
from tests.builders import by_label, worker
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Then, Where, answer, reset, silence, slow, stream, truncated
from tests.fakes.proxy import FakeProxy
from tests.fakes.store import NODES, Refusal

AGENT = "warmnode/test"
NODES_PATH = "/api/v1/nodes"
SOON = 2.5
"""Seconds. A fourth of the renewDeadline: what one request about the Lease may take."""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of this machine reaches a test."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as running:
        yield running


@asynccontextmanager
async def connected(kubeconfig: Path, **options: Any) -> AsyncIterator[KubeClient]:
    client = await KubeClient.connect(kubeconfig=str(kubeconfig), user_agent=AGENT, **options)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def client(server: FakeApiServer, tmp_path: Path) -> AsyncIterator[KubeClient]:
    async with connected(server.write_kubeconfig(tmp_path / "config")) as running:
        yield running


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


# --- requests -----------------------------------------------------------------------------------------------------


async def test_read_returns_the_body_and_sends_who_we_are(server: FakeApiServer, client: KubeClient) -> None:
    server.store.create(NODES, "", {"metadata": {"name": "a"}})
    body = await client.get_bytes(NODES_PATH, params={"labelSelector": "!x,y in (1,2)"})
    assert json.loads(body)["kind"] == "NodeList"
    request = server.requests[-1]
    assert request.headers["User-Agent"] == AGENT
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.params == {"labelSelector": "!x,y in (1,2)"}


async def test_write_sends_body_and_content_type(server: FakeApiServer, client: KubeClient) -> None:
    server.store.create(NODES, "", {"metadata": {"name": "a"}})
    patch = b'{"metadata":{"labels":{"x":"1"}}}'
    body = await client.send("PATCH", f"{NODES_PATH}/a", patch, content_type="application/merge-patch+json")
    assert json.loads(body)["metadata"]["labels"] == {"x": "1"}
    assert server.requests[-1].headers["Content-Type"] == "application/merge-patch+json"


async def test_a_server_below_a_path_is_reached(server: FakeApiServer, tmp_path: Path) -> None:
    """Rancher and others put API servers below a path."""
    config = server.write_kubeconfig(tmp_path / "config", cluster={"server": f"{server.url}/k8s/clusters/c-1/"})
    async with connected(config) as client:
        with pytest.raises(NotFound):
            await client.get_bytes(NODES_PATH)
    assert server.requests[-1].path == f"/k8s/clusters/c-1{NODES_PATH}"


@pytest.mark.looptime
async def test_read_without_an_answer_is_unavailable_after_its_timeout(
    server: FakeApiServer, client: KubeClient
) -> None:
    server.fail(Where.ANY, silence(), slow(15))
    started = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match=r"API server http://.* did not answer for 5 s"):
        await client.get_bytes(NODES_PATH, timeout=timedelta(seconds=5))
    assert asyncio.get_running_loop().time() - started == pytest.approx(5, abs=0.5)
    await client.get_bytes(NODES_PATH, timeout=timedelta(seconds=25))


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a connection and say nothing, not even in a TLS handshake."""
    await reader.read()
    writer.close()


def problem_of(client: KubeClient) -> str | None:
    """What it is now: type checkers take a property for a constant."""
    return client.problem


@pytest.mark.looptime
async def test_a_server_that_never_answers_is_a_problem_within_half_a_minute(server: FakeApiServer) -> None:
    """Whatever becomes of the request: a caller may have given it up. The next answer ends it."""
    loop = asyncio.get_running_loop()
    access = Access(server=server.url, namespace="default")
    client = KubeClient(Transport(access, user_agent="test", monotonic=loop.time), namespace="default")
    assert problem_of(client) is None
    server.fail(Where.ANY, silence(), silence())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await client.get_bytes(NODES_PATH)
    assert problem_of(client) is None
    await asyncio.sleep(14)
    assert problem_of(client) == f"the API server {server.url} has not answered for 16 s"
    with pytest.raises(Unavailable):
        await client.send("POST", NODES_PATH, b"{}", timeout=timedelta(seconds=5))
    assert problem_of(client) == f"POST {NODES_PATH}: the API server {server.url} did not answer for 5 s (Timeout)"
    with pytest.raises(NotFound):
        await client.get_bytes(f"{NODES_PATH}/a")
    assert problem_of(client) is None
    await client.close()


@pytest.mark.looptime
async def test_a_connection_that_does_not_come_about_is_told_after_ten_seconds() -> None:
    """As where egress is blocked: packets get lost and nobody refuses anything."""
    listening = await asyncio.start_server(deaf, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    access = Access(server=url, namespace="default", verify=False)
    client = KubeClient(Transport(access, user_agent="test"), namespace="default")
    with pytest.raises(Unavailable) as caught:
        await client.get_bytes(NODES_PATH)
    assert str(caught.value) == f"GET {NODES_PATH}: the API server {url} took no connection for 10 s (Timeout)"
    await client.close()
    listening.close()
    await asyncio.sleep(1)  # the end of the connection reaches the other side


@pytest.mark.parametrize("fault", [truncated(b'{"kind":'), answer(502, body=b"<html>Bad\ngateway</html>")])
async def test_answer_cut_short_or_from_a_gateway_is_unavailable(
    server: FakeApiServer, client: KubeClient, fault: Any
) -> None:
    server.fail(Where.ANY, fault)
    with pytest.raises(Unavailable) as caught:
        await client.get_bytes(NODES_PATH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_write_is_never_sent_twice(server: FakeApiServer, client: KubeClient, method: str) -> None:
    """Not by us after a 401, and not by aiohttp, which repeats PUT and DELETE on a broken connection."""
    await client.get_bytes(NODES_PATH)  # a kept-alive connection
    server.fail(Where.WRITE, reset(), answer(401, "Unauthorized"))
    before = len(server.requests)
    with pytest.raises(Unavailable):
        await client.send(method, f"{NODES_PATH}/a", b"{}")
    with pytest.raises(Forbidden):
        await client.send(method, f"{NODES_PATH}/a", b"{}")
    assert len(server.requests) - before == 2


async def test_redirect_is_not_followed(server: FakeApiServer, client: KubeClient) -> None:
    """It would carry the token elsewhere."""
    server.fail(Where.ANY, answer(307, headers={"Location": "/elsewhere"}, body=b""))
    with pytest.raises(Unavailable):
        await client.get_bytes(NODES_PATH)
    assert len(server.requests) == 1


async def test_refused_connection_is_unavailable(server: FakeApiServer, client: KubeClient) -> None:
    await server.__aexit__(None, None, None)
    with pytest.raises(Unavailable, match=f"GET /api/v1/nodes: the API server {server.url}: no connection to 127"):
        await client.get_bytes(NODES_PATH)
    assert "GET /api/v1/nodes" in (client.problem or "")
    await server.__aenter__()


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_no_object_of_python_is_in_an_error(server: FakeApiServer, scheme: str) -> None:
    """Such as the TLS context, which the library shows by its address."""
    url = server.url.replace("http", scheme)
    if scheme == "http":
        await server.__aexit__(None, None, None)
    access = Access(server=url, namespace="default")
    client = KubeClient(Transport(access, user_agent="test"), namespace="default")
    with pytest.raises(Unavailable) as caught:
        await client.get_bytes(NODES_PATH)
    assert "object at" not in str(caught.value)
    assert "SSLContext" not in str(caught.value)
    assert url in str(caught.value)
    await client.close()
    if scheme == "http":
        await server.__aenter__()


SECRET = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"  # noqa: S105


@pytest.mark.parametrize(
    "body",
    [f"Authorization: Bearer {SECRET}", f"<pre>authorization: bearer {SECRET}</pre>", f'{{"token": "{SECRET}"}}'],
)
async def test_a_page_that_shows_what_it_was_sent_shows_no_credentials(
    server: FakeApiServer, client: KubeClient, body: str
) -> None:
    """Proxies do that on their pages about errors."""
    server.fail(Where.ANY, answer(502, body=body.encode()))
    with pytest.raises(Unavailable) as caught:
        await client.get_bytes(NODES_PATH)
    for part in SECRET.split("."):
        assert part not in str(caught.value)


@pytest.mark.parametrize("header", ["Bearer a\nb", "Bearer a\r\nX: y", "Bearer \x00", "Bearer ä", "Bearer \udc80"])
async def test_a_token_that_no_header_may_hold_is_refused_in_words_without_it(
    server: FakeApiServer, header: str
) -> None:
    """Never a bare error of the HTTP library, which ends the process."""
    credentials = Credential(authorization=header)
    access = Access(server=server.url, namespace="default", credentials=credentials)
    client = KubeClient(Transport(access, user_agent="test"), namespace="default")
    with pytest.raises(Unavailable, match="the token holds a line break") as caught:
        await client.get_bytes(NODES_PATH)
    assert header.removeprefix("Bearer ") not in str(caught.value)
    await client.close()


@given(st.text(), st.integers(3, 700))
def test_what_a_library_says_is_one_line_of_bounded_length(text: str, limit: int) -> None:
    """It goes to logs, answers and Events."""
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n  b\tc", "a b c"),
        ("x" * 20, "xxxxxxx..."),
        ("no <ssl.SSLContext object at 0x7f00> here", "no ... here"),
        ("407, url=http://me:secret@proxy:1", "407, url=http://...proxy:1"),
        ("sent 'Basic bWU6c2VjcmV0'", "sent '...'"),
        ("the basics of bearers", "the basics of bearers"),
    ],
)
def test_a_line_keeps_what_helps(text: str, line: str) -> None:
    assert one_line(text, 10 if text.startswith("xx") else 600) == line


async def test_clock_skew_is_read_from_the_answer(server: FakeApiServer) -> None:
    clock = Clock()
    access = Access(server=server.url, namespace="default")
    transport = Transport(access, user_agent=AGENT, now=clock.now, monotonic=clock.monotonic)
    client = KubeClient(transport, namespace="default")
    assert client.clock_skew is None
    dated = answer(200, headers={"Date": "Thu, 01 Jan 2026 00:01:30 GMT"}, body=b"{}")
    right = answer(200, headers={"Date": "Thu, 01 Jan 2026 00:00:00 GMT"}, body=b"{}")
    nonsense = ("nonsense", "Fri, 31 Dec 9999 23:59:59 -2300", "Fri, 31 Dec 9999 23:59:59 GMT")
    server.fail(Where.ANY, dated, *(answer(200, headers={"Date": each}, body=b"{}") for each in nonsense), right)
    for _ in (dated, *nonsense):
        await client.get_bytes(NODES_PATH)
        assert client.clock_skew == timedelta(seconds=90)
    await client.get_bytes(NODES_PATH)
    assert client.clock_skew == timedelta(0)  # none at all is a reading too
    await client.close()


async def test_clock_skew_shows_a_jump_before_the_next_answer(server: FakeApiServer) -> None:
    """The server's time is counted on; and a skew of nothing at all replaces one that was."""
    clock, ahead = Clock(), [timedelta(0)]
    access = Access(server=server.url, namespace="default")
    transport = Transport(access, user_agent=AGENT, now=lambda: clock.now() + ahead[0], monotonic=clock.monotonic)
    client = KubeClient(transport, namespace="default")
    dates = ("00:01:30", "00:00:00")
    server.fail(Where.ANY, *(answer(200, headers={"Date": f"Thu, 01 Jan 2026 {at} GMT"}, body=b"{}") for at in dates))
    await client.get_bytes(NODES_PATH)
    assert client.clock_skew == timedelta(seconds=90)
    ahead[0] = timedelta(hours=1)
    assert client.clock_skew == timedelta(seconds=90) - timedelta(hours=1)
    ahead[0] = timedelta(0)
    await client.get_bytes(NODES_PATH)
    assert client.clock_skew == timedelta(0)
    await client.close()


async def test_a_second_that_is_told_again_counts_from_when_it_was_first_told(server: FakeApiServer) -> None:
    """Reading a date takes as long as finding a worker does, and a busy replica is told the same one many times."""
    clock = Clock()
    access = Access(server=server.url, namespace="default")
    transport = Transport(access, user_agent=AGENT, now=clock.now, monotonic=clock.monotonic)
    client = KubeClient(transport, namespace="default")
    dated = answer(200, headers={"Date": "Thu, 01 Jan 2026 00:01:30 GMT"}, body=b"{}")
    server.fail(Where.ANY, dated, dated)
    await client.get_bytes(NODES_PATH)
    clock.seconds = 0.9
    await client.get_bytes(NODES_PATH)
    assert client.clock_skew == timedelta(seconds=90)
    await client.close()


# --- streams ------------------------------------------------------------------------------------------------------


async def read_all(client: KubeClient) -> bytes:
    limit = timedelta(seconds=70)
    async with client.watch_stream(NODES_PATH, params={"watch": "1"}, silence_limit=limit) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_stream_gives_what_comes_until_the_server_ends_it(server: FakeApiServer, client: KubeClient) -> None:
    server.fail(Where.WATCH, stream(b"one", b"two\n"))
    assert await read_all(client) == b"onetwo\n"


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("fault", "reason"), [(stream(b"x", then=Then.HANG), "Silent"), (stream(b"x", then=Then.RESET), "Connection")]
)
async def test_broken_or_silent_stream_is_unavailable(
    server: FakeApiServer, client: KubeClient, fault: Any, reason: str
) -> None:
    server.fail(Where.WATCH, fault)
    with pytest.raises(Unavailable) as caught:
        await read_all(client)
    assert caught.value.reason == reason


async def test_refused_stream_raises_its_error(server: FakeApiServer, client: KubeClient) -> None:
    server.fail(Where.WATCH, answer(410, "Expired"))
    with pytest.raises(Gone):
        await read_all(client)


# --- errors -------------------------------------------------------------------------------------------------------


def status(code: int, reason: str, cause: str | None = None, field: str = "") -> bytes:
    return json.dumps(Refusal(code, reason, "a message", cause=cause, field=field).status()).encode()


@pytest.mark.parametrize(
    ("http", "body", "expected"),
    [
        (401, status(401, "Unauthorized"), Forbidden),
        (403, status(403, "Forbidden"), Forbidden),
        (404, status(404, "NotFound"), NotFound),
        (404, b"404 page not found\n", NotFound),
        (409, status(409, "Conflict"), Conflict),
        (409, status(409, "AlreadyExists"), Conflict),
        (410, status(410, "Expired"), Gone),
        (200, status(410, "Gone"), Gone),
        (400, status(400, "Expired"), Gone),
        (422, status(422, "Invalid"), KubeError),
        (422, status(422, "Invalid", "FieldValueInvalid", "metadata.uid"), Conflict),
        (422, status(422, "Invalid", "FieldValueInvalid", "metadata.name"), KubeError),
        (429, status(429, "TooManyRequests", "DisruptionBudget"), Blocked),
        (429, status(429, "TooManyRequests"), Throttled),
        (429, b"slow down", Throttled),
        (408, b"", Unavailable),
        (500, status(500, "InternalError"), Unavailable),
        (503, b"<html>", Unavailable),
        (302, b"", Unavailable),
        (201, status(409, "Conflict"), Conflict),
        (201, status(429, "TooManyRequests", "DisruptionBudget"), Blocked),
        (200, b'{"kind":"Status","status":"Failure"}', Unavailable),
    ],
)
def test_answer_becomes_its_error(http: int, body: bytes, expected: type[KubeError]) -> None:
    assert type(failure(http, body, {})) is expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"Status","status":"Success"}',
        b'{"kind":"Pod","status":{"reason":"Failure"}}',
        b'{"kind":"PodList","items":[{"status":"Failure"}]}',
        b'"Failure"',
        b"",
    ],
)
def test_success_is_no_error(body: bytes) -> None:
    assert failure(200, body, {}) is None


@pytest.mark.parametrize(
    ("headers", "details", "expected"),
    [
        ({"Retry-After": "7"}, {}, 7),
        ({}, {"retryAfterSeconds": 3}, 3),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}, {}, None),
        ({}, {}, None),
        ({"Retry-After": "300"}, {}, 300),
        ({"Retry-After": "301"}, {}, 300),
        ({"Retry-After": "86400"}, {}, 300),
        ({"Retry-After": "9" * 30}, {}, 300),
        ({"Retry-After": "9" * 5000}, {}, 300),
        ({}, {"retryAfterSeconds": 10**15}, 300),
    ],
)
def test_wish_for_patience_is_read(headers: dict[str, str], details: dict[str, int], expected: int | None) -> None:
    """Never more than five minutes: nothing would be reaped for as long as anything in between asks."""
    body = json.dumps({"kind": "Status", "status": "Failure", "code": 429, "details": details}).encode()
    error = failure(429, body, headers)
    assert error is not None
    assert error.retry_after == (None if expected is None else timedelta(seconds=expected))


# --- lanes -------------------------------------------------------------------------------------------------------


async def test_slow_claims_delay_neither_the_lease_nor_the_watches_nor_anything_else(
    server: FakeApiServer, client: KubeClient
) -> None:
    """More claims than there are connections in one lane want one each: so many are under way, and no more."""
    pod = worker("a", node="n")
    claims, held = ClaimStore(client, by_label), asyncio.Semaphore(0)

    async def slow_write(request: web.Request) -> None:
        held.release()
        await asyncio.Event().wait()

    server.fail(Where.WRITE, *[slow_write] * 3 * CONNECTIONS)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(claims.free(pod, None)) for _ in range(3 * CONNECTIONS)]
        for _ in range(CONNECTIONS):
            await held.acquire()
        async with asyncio.timeout(SOON):
            assert await LeaseStore(client, namespace="default", name="lease").read() is None
            await client.on(Lane.FEED).get_bytes(NODES_PATH)
            await client.get_bytes(NODES_PATH)
        assert held.locked()
        for each in waiting:
            each.cancel()


# --- tokens -------------------------------------------------------------------------------------------------------


async def test_static_token_is_sent(server: FakeApiServer, tmp_path: Path) -> None:
    server.tokens = {"secret"}
    async with connected(server.write_kubeconfig(tmp_path / "config", user={"token": "secret"})) as client:
        await client.get_bytes(NODES_PATH)


async def test_token_file_is_read_again_each_minute(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "token"
    file.write_text("first\n")
    tokens = TokenFile(file, clock=clock.monotonic)
    assert (await tokens.get()).authorization == "Bearer first"
    file.write_text("second")
    clock.seconds = 59
    assert (await tokens.get()).authorization == "Bearer first"
    clock.seconds = 60
    assert (await tokens.get()).authorization == "Bearer second"


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_text(""), lambda path: path.write_bytes(b"\xff")]
)
async def test_unreadable_token_file_leaves_the_last_token_in_use(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    tokens = TokenFile(file)
    await tokens.get()
    damage(file)
    assert (await tokens.get(refresh=True)).authorization == "Bearer first"
    with pytest.raises(ConfigurationProblem):
        await TokenFile(file).get()


async def test_refused_read_is_repeated_with_a_renewed_token(server: FakeApiServer, tmp_path: Path) -> None:
    """A tokenFile next to the kubeconfig; the official loader reads it once."""
    (tmp_path / "token").write_text("old")
    server.tokens = {"old"}
    async with connected(server.write_kubeconfig(tmp_path / "config", user={"tokenFile": "token"})) as client:
        await client.get_bytes(NODES_PATH)
        (tmp_path / "token").write_text("new")
        server.tokens = {"new"}
        await client.get_bytes(NODES_PATH)
        assert len(server.requests) == 3


async def test_refused_write_renews_the_token_for_the_next_request(server: FakeApiServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    server.tokens = {"old"}
    async with connected(server.write_kubeconfig(tmp_path / "config", user={"tokenFile": "token"})) as client:
        await client.get_bytes(NODES_PATH)
        (tmp_path / "token").write_text("new")
        server.tokens = {"new"}
        with pytest.raises(Forbidden):
            await client.send("POST", NODES_PATH, b'{"metadata":{"name":"a"}}')
        await client.send("POST", NODES_PATH, b'{"metadata":{"name":"a"}}')


async def test_lasting_refusal_is_not_hammered(server: FakeApiServer) -> None:
    """One repetition for each read, and no refresh more often than every ten seconds."""

    class Counting:
        refreshed = 0

        async def get(self, *, refresh: bool = False) -> Credential:
            self.refreshed += refresh
            return Credential(authorization="Bearer wrong")

    server.tokens = {"right"}
    clock, credentials = Clock(), Counting()
    access = Access(server=server.url, namespace="default", credentials=credentials)
    client = KubeClient(Transport(access, user_agent=AGENT, monotonic=clock.monotonic), namespace="default")
    for _ in range(5):
        with pytest.raises(Forbidden):
            await client.get_bytes(NODES_PATH)
    assert (len(server.requests), credentials.refreshed) == (10, 1)
    clock.seconds = 10
    with pytest.raises(Forbidden):
        await client.get_bytes(NODES_PATH)
    assert credentials.refreshed == 2
    await client.close()


# --- in a cluster -------------------------------------------------------------------------------------------------


def test_service_account_is_used_in_a_cluster(tmp_path: Path) -> None:
    for name, content in {"token": "secret", "ca.crt": "pem", "namespace": "warm\n"}.items():
        (tmp_path / name).write_text(content)
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443", "HTTPS_PROXY": "proxy:3128"}
    access = in_cluster_access(environ, tmp_path)
    assert access.server == "https://[fd00::1]:6443"
    assert access.namespace == "warm"
    assert access.ca_file == tmp_path / "ca.crt"
    assert access.proxy == "http://proxy:3128"
    assert in_cluster_access(environ | {"NO_PROXY": "10.0.0.0/8,fd00::/8"}, tmp_path).proxy is None


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_incomplete_service_account_is_a_configuration_problem(tmp_path: Path, missing: str) -> None:
    for name in {"token", "ca.crt"} - {missing}:
        (tmp_path / name).write_text("x")
    with pytest.raises(ConfigurationProblem, match="automountServiceAccountToken"):
        in_cluster_access({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path)


async def test_cluster_is_chosen_only_without_any_kubeconfig(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ConfigurationProblem, match="KUBERNETES_SERVICE_HOST is set"):
        await KubeClient.connect(user_agent=AGENT)
    config = server.write_kubeconfig(tmp_path / "config", namespace="here")
    async with connected(config) as client:
        assert client.namespace == "here"
    monkeypatch.setenv("KUBECONFIG", str(config))
    client = await KubeClient.connect(user_agent=AGENT)
    assert client.namespace == "here"
    await client.close()


def test_official_package_is_not_imported() -> None:
    """It costs most of a second and 20 MiB."""
    program = "import sys, extender.cli; sys.exit('kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- kubeconfig ---------------------------------------------------------------------------------------------------


def tree(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> str:
    """A kubeconfig with context c, cluster k and user u."""
    return json.dumps(
        {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": "https://x", **(cluster or {})}}],
            "users": [{"name": "u", "user": user or {}}],
        }
    )


@pytest.mark.parametrize(
    ("content", "context", "expected"),
    [
        (None, None, "no kubeconfig at .*config: pass --kubeconfig FILE or set KUBECONFIG"),
        ("", None, "no current-context: pass --context with one of: .*none"),
        ("token: s3cret: c", None, r"not valid YAML \(line 1\)"),
        ("[]", None, "not a usable kubeconfig"),
        ("{clusters: [], contexts: [], users: []}", None, "no current-context: pass --context with one of: .*none"),
        (tree(), "other", "no context 'other': pass --context with one of: c"),
        (tree().replace('"k"', '"z"', 1), None, "names the cluster 'z', which is not there"),
        (tree({"certificate-authority": "no.crt"}), None, "no.crt cannot be read: No such file"),
        (tree({"certificate-authority-data": "AAA"}), None, "not base64"),
        (tree({"certificate-authority-data": "YWJj"}), None, "TLS files cannot be used"),
        (tree(user={"tokenFile": "no-token"}), None, "No such file or directory: .*no-token"),
        (tree(user={"exec": {"command": "x"}}), None, "missing required field `apiVersion`"),
        (tree({"proxy-url": "socks5://y"}), None, "only http:// and https:// proxies"),
    ],
)
async def test_unusable_kubeconfig_is_one_line_with_the_remedy(
    tmp_path: Path, content: str | None, context: str | None, expected: str
) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationProblem, match=expected) as caught:
        await KubeClient.connect(kubeconfig=str(file), context=context, user_agent=AGENT)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_context_is_chosen_and_gives_the_namespace(server: FakeApiServer, tmp_path: Path) -> None:
    file = server.write_kubeconfig(tmp_path / "config")
    tree = json.loads(file.read_text())
    tree["contexts"].append({"name": "other", "context": {"cluster": "fake", "user": "", "namespace": "there"}})
    file.write_text(json.dumps(tree))
    async with connected(file) as client:
        assert client.namespace == "default"
    async with connected(file, context="other") as client:
        assert client.namespace == "there"
        await client.get_bytes(NODES_PATH)


async def test_basic_authentication_and_several_files_work(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = server.write_kubeconfig(tmp_path / "one", user={"username": "u", "password": "p"})
    tree = json.loads(one.read_text())
    users = {"users": tree.pop("users")}
    one.write_text(json.dumps(tree))
    (tmp_path / "two").write_text(json.dumps(users))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{one}:{tmp_path / 'two'}")
    client = await KubeClient.connect(user_agent=AGENT)
    await client.get_bytes(NODES_PATH)
    assert server.requests[-1].headers["Authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
    await client.close()


# --- exec plugins -------------------------------------------------------------------------------------------------

EXEC_API = "client.authentication.k8s.io/v1"


def plugin(tmp_path: Path, program: str) -> dict[str, Any]:
    """``users[].user`` with a plugin: ``program`` is Python and may use `json`, `os`, `sys` and `say(status)`."""
    script = tmp_path / "plugin.py"
    script.write_text(
        "import json, os, sys, pathlib\n"
        f"def say(**status): print(json.dumps(dict(apiVersion='{EXEC_API}', kind='ExecCredential', status=status)))\n"
        f"os.chdir({str(tmp_path)!r})\n{program}\n"
    )
    command = {"command": sys.executable, "args": [str(script)]}
    return {"exec": {"apiVersion": EXEC_API, "interactiveMode": "Never", **command}}


COUNTING = """
count = pathlib.Path("count"); number = int(count.read_text() or 0) + 1 if count.exists() else 1
count.write_text(str(number)); life = pathlib.Path("life").read_text() if pathlib.Path("life").exists() else None
say(token=f"token-{number}", **({"expirationTimestamp": life} if life else {}))
"""


async def test_exec_plugin_token_is_kept_and_renewed_after_a_refusal(server: FakeApiServer, tmp_path: Path) -> None:
    server.tokens = {"token-1"}
    async with connected(server.write_kubeconfig(tmp_path / "config", user=plugin(tmp_path, COUNTING))) as client:
        await client.get_bytes(NODES_PATH)
        await client.get_bytes(NODES_PATH)
        assert (tmp_path / "count").read_text() == "1"
        server.tokens = {"token-2"}
        await client.get_bytes(NODES_PATH)
        assert (tmp_path / "count").read_text() == "2"


def exec_credentials(tmp_path: Path, program: str, clock: Clock, **more: Any) -> ExecCredentials:
    tree = plugin(tmp_path, program)["exec"]
    config = ExecConfig(command=tree["command"], api_version=EXEC_API, args=tree["args"], interactive_mode="Never")
    return ExecCredentials(config=config, directory=tmp_path, files=PrivateFiles(), now=clock.now, **more)


async def test_exec_plugin_runs_again_a_minute_before_expiry(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "life").write_text("2026-01-01T00:15:00Z")
    credentials = exec_credentials(tmp_path, COUNTING, clock)
    headers = []
    for clock.seconds in (0, 839, 840):
        headers.append((await credentials.get()).authorization)
    assert headers == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


async def test_failed_early_renewal_keeps_the_old_token_until_it_expires(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "life").write_text("2026-01-01T00:15:00Z")
    credentials = exec_credentials(tmp_path, "if os.path.exists('down'): sys.exit('no network')\n" + COUNTING, clock)
    await credentials.get()
    (tmp_path / "down").touch()
    clock.seconds = 870
    assert (await credentials.get()).authorization == "Bearer token-1"
    clock.seconds = 901
    with pytest.raises(ConfigurationProblem, match="no network"):
        await credentials.get()


async def test_an_answer_that_is_refused_does_not_change_when_the_old_one_expires(tmp_path: Path) -> None:
    """An early renewal that gives a time of no zone: the old token stays, as with any other that fails."""
    clock = Clock()
    (tmp_path / "life").write_text("2026-01-01T00:15:00Z")
    credentials = exec_credentials(tmp_path, COUNTING, clock)
    await credentials.get()
    (tmp_path / "life").write_text("2026-01-01T00:30:00")
    clock.seconds = 870
    assert (await credentials.get()).authorization == "Bearer token-1"


async def test_concurrent_requests_run_the_plugin_once(tmp_path: Path) -> None:
    credentials = exec_credentials(tmp_path, COUNTING, Clock())
    await asyncio.gather(*[credentials.get() for _ in range(5)])
    await asyncio.gather(*[credentials.get(refresh=True) for _ in range(5)])
    assert (tmp_path / "count").read_text() == "2"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("sys.exit('please log in')", "exit code 1: please log in"),
        ("print('hello')", "no ExecCredential"),
        ("say()", "neither a token nor a client certificate"),
        ("print(json.dumps(dict(apiVersion='x/v1', kind='ExecCredential')))", "x/v1 and the kubeconfig names"),
        ("say(token='x', expirationTimestamp='2026-01-01T00:00:00')", "no time zone"),
    ],
)
async def test_failing_plugin_is_a_configuration_problem_in_its_own_words(
    server: FakeApiServer, tmp_path: Path, program: str, expected: str
) -> None:
    config = server.write_kubeconfig(tmp_path / "config", user=plugin(tmp_path, program))
    with pytest.raises(ConfigurationProblem, match=expected):
        await KubeClient.connect(kubeconfig=str(config), user_agent=AGENT)


async def test_absent_plugin_says_how_to_install_it(server: FakeApiServer, tmp_path: Path) -> None:
    user = {"exec": {"apiVersion": EXEC_API, "command": "./none", "installHint": "get it\nfrom there"}}
    config = server.write_kubeconfig(tmp_path / "config", user=user)
    with pytest.raises(ConfigurationProblem, match="No such file or directory: get it from there"):
        await KubeClient.connect(kubeconfig=str(config), user_agent=AGENT)


async def test_plugin_that_needs_a_terminal_is_refused_without_one(tmp_path: Path) -> None:
    config = ExecConfig(command="true", api_version=EXEC_API, interactive_mode="Always")
    with pytest.raises(ConfigurationProblem, match="needs a terminal"):
        await ExecCredentials(config=config, directory=tmp_path, files=PrivateFiles()).get()


async def test_plugin_failing_later_is_unavailable(server: FakeApiServer, tmp_path: Path) -> None:
    """The reflectors retry that; only at the start it ends the program."""
    program = "if os.path.exists('count'): sys.exit('gone')\n" + COUNTING
    async with connected(server.write_kubeconfig(tmp_path / "config", user=plugin(tmp_path, program))) as client:
        server.tokens = {"other"}
        with pytest.raises(Unavailable, match="gone"):
            await client.get_bytes(NODES_PATH)


async def test_plugin_gets_cluster_environment_and_a_relative_command(server: FakeApiServer, tmp_path: Path) -> None:
    program = (
        "cluster = json.loads(os.environ['KUBERNETES_EXEC_INFO'])['spec']['cluster']\n"
        "say(token=cluster['config']['a'] + os.environ['B'])"
    )
    user = plugin(tmp_path, program)
    script = tmp_path / "bin" / "plugin"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\nexec {sys.executable} {user['exec']['args'][0]}\n")
    script.chmod(0o755)
    user["exec"] |= {
        "command": "bin/plugin",
        "args": None,
        "env": [{"name": "B", "value": "-b"}],
        "provideClusterInfo": True,
    }
    cluster = {"extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"a": "config"}}]}
    server.tokens = {"config-b"}
    async with connected(server.write_kubeconfig(tmp_path / "config", user=user, cluster=cluster)) as client:
        await client.get_bytes(NODES_PATH)


# --- TLS ----------------------------------------------------------------------------------------------------------


class Authority:
    """A CA, a server that has a certificate for one name and demands one of its clients, and client certificates."""

    def __init__(self, directory: Path, server_name: str) -> None:
        self._ca = trustme.CA()
        self.ca_file, self.cert_file, self.key_file = (directory / name for name in ("ca.crt", "tls.crt", "tls.key"))
        self._ca.cert_pem.write_to_path(self.ca_file)
        self.server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(server_name).configure_cert(self.server_context)
        self._ca.configure_trust(self.server_context)
        self.server_context.verify_mode = ssl.CERT_REQUIRED

    def issue(self, name: str) -> None:
        """Write a client certificate with this common name over the last one."""
        leaf = self._ca.issue_cert(f"{name}.example", common_name=name)
        leaf.cert_chain_pems[0].write_to_path(self.cert_file)
        leaf.private_key_pem.write_to_path(self.key_file)

    @property
    def ca_data(self) -> str:
        return base64.b64encode(self.ca_file.read_bytes()).decode()

    @property
    def user(self) -> dict[str, str]:
        return {"client-certificate": str(self.cert_file), "client-key": str(self.key_file)}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path, "api.test")
    made.issue("first")
    return made


@pytest.fixture
async def tls_server(authority: Authority) -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer(tls=authority.server_context) as running:
        yield running


async def test_client_certificate_and_server_name_are_used(
    tls_server: FakeApiServer, authority: Authority, tmp_path: Path
) -> None:
    cluster = {"certificate-authority": "ca.crt", "tls-server-name": "api.test"}
    async with connected(tls_server.write_kubeconfig(tmp_path / "c", user=authority.user, cluster=cluster)) as client:
        await client.get_bytes(NODES_PATH)
    assert tls_server.requests[-1].peer == "first"


async def test_an_answer_that_is_given_up_leaves_no_connection(authority: Authority) -> None:
    """Cut at once: the server need not say goodbye, which one that is silent never does."""
    asked = threading.Event()

    def take_and_never_answer(listening: socket.socket) -> None:
        plain, _ = listening.accept()
        with authority.server_context.wrap_socket(plain, server_side=True) as connection:
            connection.recv(65536)
            asked.set()
            with socket.socket(fileno=os.dup(connection.fileno())) as below:
                below.settimeout(5)
                with suppress(ConnectionResetError):
                    while below.recv(65536):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        server = asyncio.create_task(asyncio.to_thread(take_and_never_answer, listening))
        credential = Credential(cert_file=authority.cert_file, key_file=authority.key_file)
        access = Access(server=url, namespace="default", credentials=credential, verify=False)
        client = KubeClient(Transport(access, user_agent="test"), namespace="default")
        asking = asyncio.create_task(client.get_bytes(NODES_PATH))
        await asyncio.to_thread(asked.wait)
        asking.cancel()
        await server
        await client.close()


async def test_embedded_certificates_are_used(tls_server: FakeApiServer, authority: Authority, tmp_path: Path) -> None:
    cert, key = (base64.b64encode(file.read_bytes()).decode() for file in (authority.cert_file, authority.key_file))
    user = {"client-certificate-data": cert, "client-key-data": key}
    cluster = {"certificate-authority-data": authority.ca_data, "tls-server-name": "api.test"}
    async with connected(tls_server.write_kubeconfig(tmp_path / "c", user=user, cluster=cluster)) as client:
        await client.get_bytes(NODES_PATH)
    assert tls_server.requests[-1].peer == "first"


@pytest.mark.parametrize(
    "cluster", [{"tls-server-name": "api.test"}, {"certificate-authority": "ca.crt"}], ids=["authority", "name"]
)
async def test_server_that_cannot_be_verified_is_unavailable(
    tls_server: FakeApiServer, authority: Authority, tmp_path: Path, cluster: dict[str, str]
) -> None:
    config = tls_server.write_kubeconfig(tmp_path / "c", user=authority.user, cluster=cluster)
    async with connected(config) as client:
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await client.get_bytes(NODES_PATH)


async def test_verification_can_be_switched_off(
    tls_server: FakeApiServer, authority: Authority, tmp_path: Path
) -> None:
    config = tls_server.write_kubeconfig(
        tmp_path / "c", user=authority.user, cluster={"insecure-skip-tls-verify": True}
    )
    async with connected(config) as client:
        await client.get_bytes(NODES_PATH)


async def test_rotated_client_certificate_is_used_for_new_connections(
    tls_server: FakeApiServer, authority: Authority, tmp_path: Path
) -> None:
    """Half of a rotation (a certificate without its key) leaves the old pair in use."""
    cluster = {"certificate-authority": "ca.crt", "tls-server-name": "api.test"}
    async with connected(tls_server.write_kubeconfig(tmp_path / "c", user=authority.user, cluster=cluster)) as client:
        await client.get_bytes(NODES_PATH)
        old_key = authority.key_file.read_bytes()
        authority.issue("second")
        new_key = authority.key_file.read_bytes()
        authority.key_file.write_bytes(old_key)
        await client.get_bytes(NODES_PATH)
        authority.key_file.write_bytes(new_key)
        await client.get_bytes(NODES_PATH)
    assert [each.peer for each in tls_server.requests] == ["first", "first", "second"]


async def test_exec_plugin_may_give_a_client_certificate(
    tls_server: FakeApiServer, authority: Authority, tmp_path: Path
) -> None:
    program = (
        "say(clientCertificateData=pathlib.Path('tls.crt').read_text(),"
        " clientKeyData=pathlib.Path('tls.key').read_text())"
    )
    cluster = {"certificate-authority": "ca.crt", "tls-server-name": "api.test"}
    config = tls_server.write_kubeconfig(tmp_path / "c", user=plugin(tmp_path, program), cluster=cluster)
    async with connected(config) as client:
        await client.get_bytes(NODES_PATH)
        authority.issue("second")
        tls_server.fail(Where.ANY, answer(401, "Unauthorized"))
        await client.get_bytes(NODES_PATH)
    assert [each.peer for each in tls_server.requests] == ["first", "first", "second"]


def test_authorities_without_key_identifiers_are_accepted(authority: Authority) -> None:
    """Python 3.13 refuses them by default; kubectl does not, and old clusters have them."""
    access = Access(server="https://x", namespace="", ca_file=authority.ca_file)
    context = TlsContexts(access).context(Credential())
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


# --- proxies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["kubeconfig", "environment"])
async def test_proxy_tunnels_with_verified_tls_to_the_api_server(
    tls_server: FakeApiServer, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    async with FakeProxy(tls_server.port).running() as proxy:
        cluster = {"server": "https://api.test:6443", "certificate-authority": "ca.crt"}
        if source == "kubeconfig":
            cluster["proxy-url"] = proxy.url
            monkeypatch.setenv("NO_PROXY", "*")  # as with kubectl, that is not asked for a proxy-url
        else:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
        config = tls_server.write_kubeconfig(tmp_path / "c", user=authority.user, cluster=cluster)
        async with connected(config) as client:
            await client.get_bytes(NODES_PATH)
        assert proxy.targets == ["api.test:6443"]
    assert tls_server.requests[-1].peer == "first"


@pytest.mark.parametrize(
    ("server", "no_proxy", "direct"),
    [
        ("https://10.96.0.1:443", "10.96.0.0/12", True),
        ("https://10.96.0.1:443", "10.97.0.0/16", False),
        ("https://10.96.0.1", "10.96.0.1", True),
        ("https://[fd00::1]:6443", "fd00::/8", True),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", True),
        ("https://[fd00::1]:6443", "fd00::1", True),
        ("https://api.corp.example", "corp.example", True),
        ("https://api.corp.example", ".corp.example", True),
        ("https://api.corp.example", "*.corp.example", True),
        ("https://corp.example", ".corp.example", False),
        ("https://corp.example", "CORP.example", True),
        ("https://notcorp.example", "corp.example", False),
        ("https://api.corp.example:6443", "api.corp.example:6443", True),
        ("https://api.corp.example:6443", "api.corp.example:443", False),
        ("https://api.corp.example", "other, api.corp.example", True),
        ("https://api.corp.example", "10.0.0.0/8,nonsense/99,,", False),
        ("https://api.corp.example", "*", True),
        ("https://api.corp.example", "", False),
        ("https://127.0.0.1:6443", "", True),
        ("https://[::1]:6443", "", True),
        ("https://localhost:6443", "", True),
    ],
)
def test_no_proxy_is_read_as_kubectl_reads_it(server: str, no_proxy: str, direct: bool) -> None:
    assert bypasses_proxy(server, no_proxy) is direct
    environ = {"https_proxy": "http://proxy", "no_proxy": no_proxy}
    assert environment_proxy(server, environ) == (None if direct else "http://proxy")


def test_proxy_of_another_scheme_is_not_used() -> None:
    assert environment_proxy("https://api.test", {"HTTP_PROXY": "http://proxy"}) is None
    assert environment_proxy("https://api.test", {"ALL_PROXY": "proxy:1"}) == "http://proxy:1"
