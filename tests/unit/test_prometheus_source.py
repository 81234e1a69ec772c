"""The prometheus source and servers that answer badly. A real one is asked in tests/integration."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from extender.policy.sources import Answer, PrometheusQuery, Said
from extender.sources.prometheus import PrometheusAnswer, ask_prometheus
from extender.sources.session import AskingSession
from scripts.tools.controlplane.processes import free_ports
from tests.answering import AnsweringWorker, Behaviour, answers, hangs, never_ends, no_http, promises_too_much, resets
from tests.builders import NOW, clock_of, steady


@pytest.fixture
async def session() -> AsyncIterator[AskingSession]:
    """The session that the leader uses."""
    made = AskingSession(user_agent="warmnode/test")
    yield made
    await made.close()


def query(url: str, *, within: float = 10) -> PrometheusQuery:
    return PrometheusQuery(
        url=url,
        query='idle_since{job="ducks"} + 0',
        interval=timedelta(seconds=15),
        timeout=timedelta(seconds=within),
        max_age=timedelta(seconds=45),
    )


async def ask(session: AskingSession, behaviour: Behaviour, *, within: float = 10) -> PrometheusAnswer:
    with AnsweringWorker(behaviour) as server:
        url = f"http://{server.host}:{server.port}/prefix/"
        return await ask_prometheus(session, query(url, within=within), clock_of(lambda: NOW))


def vector(*samples: tuple[dict[str, str], Any]) -> Behaviour:
    result = [{"metric": metric, "value": [1.5, value]} for metric, value in samples]
    tree = {"status": "success", "data": {"resultType": "vector", "result": result}}
    return answers(200, json.dumps(tree).encode())


def of(pod: str, namespace: str = "ns") -> dict[str, str]:
    return {"__name__": "idle_since", "namespace": namespace, "pod": pod, "job": "ducks"}


async def test_question_is_one_instant_query_below_the_url(session: AskingSession) -> None:
    """The query as it is written, the time that it may take, and how old a sample may be."""
    with AnsweringWorker(vector()) as server:
        await ask_prometheus(session, query(f"http://{server.host}:{server.port}/prefix/"), clock_of(lambda: NOW))
        asked = server.asked[0]
    line, _, body = asked.rpartition(" ")
    assert line == "POST /prefix/api/v1/query"
    expected = {"query": ['idle_since{job="ducks"} + 0'], "timeout": ["10000ms"], "lookback_delta": ["45000ms"]}
    assert parse_qs(body) == expected


async def test_series_become_answers_by_namespace_and_name(session: AskingSession) -> None:
    """Idle since the value; several series for one pod, and values that are no time, are busy."""
    behaviour = vector(
        (of("a"), "1793534400"),
        (of("a", "other"), "1793534400.5"),
        (of("nan"), "NaN"),
        (of("inf"), "+Inf"),
        (of("before"), "-1"),
        (of("twice"), "1793534400"),
        ({**of("twice"), "instance": "b"}, "1793534400"),
        (of("twice"), "NaN"),
    )
    found = (await ask(session, behaviour)).series
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert found.by_pod == {
        ("ns", "a"): Answer(asked=steady(NOW), said=Said.IDLE, idle_since=noon),
        ("other", "a"): Answer(asked=steady(NOW), said=Said.IDLE, idle_since=noon + timedelta(seconds=0.5)),
        ("ns", "nan"): Answer(asked=steady(NOW), said=Said.NO_TIME),
        ("ns", "inf"): Answer(asked=steady(NOW), said=Said.NO_TIME),
        ("ns", "before"): Answer(asked=steady(NOW), said=Said.NO_TIME),
        ("ns", "twice"): Answer(asked=steady(NOW), said=Said.SEVERAL_SERIES),
    }


async def test_series_that_name_no_pod_say_nothing_and_are_counted(session: AskingSession) -> None:
    """A query that sums the labels away, or values of another type."""
    behaviour = vector(({}, "1"), ({"pod": "a"}, "1"), ({"namespace": "ns"}, "1"), (of("b"), 7))
    found = await ask(session, behaviour)
    assert (found.series.by_pod, found.unnamed) == ({}, 4)


def success(data: object) -> Behaviour:
    return answers(200, json.dumps({"status": "success", "data": data}).encode())


BAD: dict[str, tuple[Behaviour, Said, str]] = {
    "bad query": (
        answers(400, b'{"status":"error","errorType":"bad_data","error":"parse error: unclosed \\u001b[31m"}'),
        Said.BAD_STATUS,
        "status 400: parse error: unclosed [31m",
    ),
    "error": (answers(503, b"<html>", content_type="text/html"), Said.BAD_STATUS, "status 503"),
    "redirect": (answers(302, b"", "Location: http://127.0.0.1:1/"), Said.REDIRECT, "redirects are not followed"),
    "html": (answers(200, b"<html>log in</html>", content_type="text/html"), Said.NO_JSON, "not what the query API"),
    "empty": (answers(200, b""), Said.NO_JSON, "not what the query API"),
    "bytes": (answers(200, b"\xff\xfe"), Said.NO_JSON, "not what the query API"),
    "no data": (answers(200, b'{"status": "success"}'), Said.NO_JSON, "not what the query API"),
    "failed": (answers(200, b'{"status": "error", "data": {}}'), Said.NO_JSON, "not what the query API"),
    "scalar": (success({"resultType": "scalar", "result": [1, "2"]}), Said.NO_JSON, "gives a scalar"),
    "matrix": (success({"resultType": "matrix", "result": []}), Said.NO_JSON, "gives a matrix"),
    "reset": (resets, Said.FAILED, ""),
    "no http": (no_http, Said.FAILED, ""),
    "slow": (hangs, Said.TIMEOUT, "no answer within 0.2 s"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_answer_says_nothing_about_any_pod(session: AskingSession, name: str) -> None:
    """Each has its reason, and one printable line for the log."""
    behaviour, said, problem = BAD[name]
    found = await ask(session, behaviour, within=0.2 if said is Said.TIMEOUT else 10)
    assert (found.series.failed, found.series.by_pod) == (said, {})
    assert problem in found.problem
    assert found.problem
    assert found.problem.isprintable()


@pytest.mark.parametrize("behaviour", [never_ends, promises_too_much])
async def test_answer_that_is_too_large_is_not_read_on(session: AskingSession, behaviour: Behaviour) -> None:
    """What is read is bounded, whatever the server says about its length."""
    assert (await ask(session, behaviour)).series.failed is Said.TOO_LARGE


async def test_native_histogram_is_no_time(session: AskingSession) -> None:
    """A series without a value."""
    result = [{"metric": of("a"), "histogram": [1.5, {"count": "1", "sum": "1"}]}]
    found = await ask(session, success({"resultType": "vector", "result": result}))
    assert found.series.by_pod == {("ns", "a"): Answer(asked=steady(NOW), said=Said.NO_TIME)}


async def test_nobody_there_says_nothing(session: AskingSession) -> None:
    """The server is away."""
    found = await ask_prometheus(session, query(f"http://127.0.0.1:{free_ports(1)[0]}"), clock_of(lambda: NOW))
    assert found.series.failed is Said.FAILED
