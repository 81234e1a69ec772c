"""Routes: an exact path first, then templates, and one line for everything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from extender.web.requests import Handler, route


def telling(text: str) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=text)

    return handle


async def tell_place(request: web.BaseRequest, place: Mapping[str, str]) -> web.StreamResponse:
    return web.json_response(dict(place))


REFUSED: list[HTTPStatus] = []


@pytest.fixture
def handler() -> Handler:
    REFUSED.clear()
    return route(
        {("POST", "/exact"): telling("exact"), ("GET", "/v1/a/me"): telling("me")},
        templates={
            ("PUT", "/v1/a/{one}/b/{two}"): tell_place,
            ("DELETE", "/v1/a/{one}/b/{two}"): tell_place,
            ("GET", "/v1/a/{one}"): tell_place,
            ("GET", "/v1/a.b/{one}"): tell_place,
        },
        refused=REFUSED.append,
    )


async def answer(handler: Handler, method: str, path: str) -> tuple[int, str, Mapping[str, str]]:
    response = await handler(make_mocked_request(method, path))
    assert isinstance(response, web.Response)
    return response.status, response.text or "", response.headers


async def test_a_template_gives_its_segments_by_name(handler: Handler) -> None:
    for method in ("PUT", "DELETE"):
        status, text, _ = await answer(handler, method, "/v1/a/x-1/b/y.2?query=z")
        assert (status, json.loads(text)) == (200, {"one": "x-1", "two": "y.2"})
    assert REFUSED == []


async def test_an_exact_path_goes_before_a_template(handler: Handler) -> None:
    assert (await answer(handler, "GET", "/v1/a/me"))[1] == "me"
    assert (await answer(handler, "POST", "/exact"))[1] == "exact"


@pytest.mark.parametrize(
    "path", ["/v1/a/x/b", "/v1/a/x/b/", "/v1/a//b/y", "/v1/a/x/b/y/z", "/v1/a/x/b/y%2Fz", "/v1/aXb/x", "x/v1/a/x", "/"]
)
async def test_a_segment_is_one_and_not_empty(handler: Handler, path: str) -> None:
    status, text, _ = await answer(handler, "GET", path)
    assert status == 404
    assert "/v1/a/{one}/b/{two}" in json.loads(text)["detail"]
    assert REFUSED == [HTTPStatus.NOT_FOUND]


@pytest.mark.parametrize(("path", "allowed"), [("/v1/a/x/b/y", "PUT, DELETE"), ("/v1/a/me", "GET"), ("/exact", "POST")])
async def test_another_method_is_told_which_ones_there_are(handler: Handler, path: str, allowed: str) -> None:
    status, _, headers = await answer(handler, "PATCH", path)
    assert (status, headers["Allow"]) == (405, allowed)
    assert REFUSED == [HTTPStatus.METHOD_NOT_ALLOWED]
