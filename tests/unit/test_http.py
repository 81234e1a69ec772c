"""HTTP as every listener speaks it: routes, one-line problems, and bodies within bounds. Virtual time throughout."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from extender.web.requests import BODY_LIMIT_BYTES, BodyRefused, json_response, once_answered, problem, read_body, route

pytestmark = pytest.mark.looptime
MEGABYTE = 1024 * 1024


def stream() -> StreamReader:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    return StreamReader(protocol, 2**30, loop=loop)


def request(
    *chunks: bytes, method: str = "POST", path: str = "/here", ended: bool = True, **headers: str
) -> tuple[web.Request, StreamReader]:
    """A request whose body came in these chunks, and where more of it may come."""
    content = stream()
    for chunk in chunks:
        content.feed_data(chunk)
    if ended:
        content.feed_eof()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request(method, path, headers=names, payload=content), content


def text_of(response: web.StreamResponse) -> str:
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    return str(json.loads(response.body)["detail"])


# -- problems ---------------------------------------------------------------------------------------------------------


@given(st.sampled_from([status for status in HTTPStatus if status >= 400]), st.text())
def test_a_problem_is_one_line_of_json_whatever_the_detail(status: HTTPStatus, detail: str) -> None:
    """RFC 9457, and never longer than a log line should be."""
    response = problem(status, detail)
    assert isinstance(response.body, bytes)
    assert response.status == status
    assert response.content_type == "application/problem+json"
    assert b"\n" not in response.body
    content = json.loads(response.body)
    assert content == {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail[:500]}


def test_json_is_answered_as_it_is() -> None:
    """What is encoded already is not encoded again."""
    response = json_response(b"[1]", HTTPStatus.CREATED)
    assert (response.status, response.content_type, response.body) == (201, "application/json", b"[1]")


# -- routes -----------------------------------------------------------------------------------------------------------


def routed() -> tuple[Callable[[web.BaseRequest], object], list[HTTPStatus]]:
    refused: list[HTTPStatus] = []

    async def here(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=f"{request.method} here")

    handlers = {("POST", "/here"): here, ("PUT", "/here"): here, ("POST", "/there"): here}
    return route(handlers, refused=refused.append), refused


async def ask(method: str, path: str) -> tuple[web.Response, list[HTTPStatus]]:
    handle, refused = routed()
    asked, content = request(b"some body", method=method, path=path)
    response = await handle(asked)  # type: ignore[misc]
    assert isinstance(response, web.Response)
    if response.status >= 400:
        assert content.at_eof(), "the body was left unread, and the connection with it"
    return response, refused


async def test_a_route_is_found_by_method_and_path() -> None:
    for method in ("POST", "PUT"):
        response, refused = await ask(method, "/here?with=query")
        assert (response.text, refused) == (f"{method} here", [])


@pytest.mark.parametrize("path", ["/", "/Here", "/here/", "/elsewhere", "/" + "x" * 5000])
async def test_an_unknown_path_is_404_and_says_what_there_is(path: str) -> None:
    response, refused = await ask("POST", path)
    assert response.status == 404
    assert text_of(response).endswith("there is /here, /there")
    assert len(text_of(response)) < 200
    assert refused == [HTTPStatus.NOT_FOUND]


async def test_a_wrong_method_is_405_and_says_what_is_allowed() -> None:
    response, refused = await ask("GET", "/here")
    assert (response.status, response.headers["Allow"]) == (405, "POST, PUT")
    assert text_of(response) == "/here takes POST and PUT"
    assert refused == [HTTPStatus.METHOD_NOT_ALLOWED]


async def test_a_lost_request_whose_body_never_ends_is_answered_after_ten_seconds() -> None:
    handle, _ = routed()
    asked, _ = request(b"some", path="/nowhere", ended=False)
    before = asyncio.get_running_loop().time()
    response = await handle(asked)  # type: ignore[misc]
    assert response.status == 404
    assert asyncio.get_running_loop().time() - before == pytest.approx(10, abs=0.5)


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [(), (b"",), (b"{}",), (b"{", b"}"), (b"a" * MEGABYTE,) * 3])
async def test_a_body_is_the_sum_of_its_chunks(chunks: tuple[bytes, ...]) -> None:
    asked, _ = request(*(chunk for chunk in chunks if chunk))
    assert await read_body(asked) == b"".join(chunks)


async def test_a_body_at_the_limit_is_read_and_one_byte_more_is_413() -> None:
    asked, _ = request(*[b" " * MEGABYTE] * 64)
    assert len(await read_body(asked)) == BODY_LIMIT_BYTES == 64 * MEGABYTE
    asked, content = request(*[b" " * MEGABYTE] * 64, b" ")
    with pytest.raises(BodyRefused, match="the body has 67108865 bytes, 67108864 are allowed") as refusal:
        await read_body(asked)
    assert refusal.value.status == 413
    assert content.at_eof()


async def test_a_body_that_is_too_large_is_read_to_its_end() -> None:
    """Who is answered while still sending loses the answer: what comes after the limit is read and thrown away."""
    asked, content = request(ended=False)
    reading = asyncio.create_task(read_body(asked))
    for _ in range(70):
        content.feed_data(b" " * MEGABYTE)
        await asyncio.sleep(0.01)
    content.feed_eof()
    with pytest.raises(BodyRefused, match=f"the body has {70 * MEGABYTE} bytes"):
        await reading
    assert content.at_eof()


async def test_a_body_that_comes_while_it_is_read_is_waited_for() -> None:
    asked, content = request(b"a", ended=False)
    reading = asyncio.create_task(read_body(asked))
    await asyncio.sleep(9)
    content.feed_data(b"b")
    content.feed_eof()
    assert await reading == b"ab"


@pytest.mark.parametrize("pause", [1.0, 100.0])
async def test_a_body_that_is_not_there_after_ten_seconds_is_408(pause: float) -> None:
    """Silence and a byte now and then are the same: the deadline is for the whole."""
    asked, content = request(b"a", ended=False)

    async def drip() -> None:
        while True:
            await asyncio.sleep(pause)
            content.feed_data(b"b")

    dripping = asyncio.create_task(drip())
    before = asyncio.get_running_loop().time()
    with pytest.raises(BodyRefused, match="did not arrive within 10 s") as refusal:
        await read_body(asked)
    assert refusal.value.status == 408
    assert asyncio.get_running_loop().time() - before == pytest.approx(10, abs=0.5)
    dripping.cancel()


async def test_a_body_that_breaks_off_is_400() -> None:
    asked, content = request(b"a", ended=False)
    content.set_exception(web.RequestPayloadError("cut"))
    with pytest.raises(BodyRefused, match="broke off") as refusal:
        await read_body(asked)
    assert refusal.value.status == 400


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip"])
async def test_a_compressed_body_is_415_and_read_to_its_end(coding: str) -> None:
    asked, content = request(b"\x1f\x8b", Content_Encoding=coding)
    with pytest.raises(BodyRefused, match="without Content-Encoding") as refusal:
        await read_body(asked)
    assert refusal.value.status == 415
    assert content.at_eof()


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
async def test_a_body_that_is_said_not_to_be_compressed_is_read(coding: str) -> None:
    asked, _ = request(b"{}", Content_Encoding=coding)
    assert await read_body(asked) == b"{}"


async def test_what_is_told_of_an_answer_waits_for_the_next_turn_of_the_loop() -> None:
    told: list[str] = []
    once_answered(told.append, "claimed")
    assert not told
    await asyncio.sleep(0)
    assert told == ["claimed"]
