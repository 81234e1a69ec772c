"""Asks a Prometheus server which workers are idle: one instant query about all of them.

One series for each pod, by its labels ``namespace`` and ``pod``; its value is idle since, in seconds of the epoch. The
API is https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries; others speak it too.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
import msgspec
from msgspec import Raw, Struct
from yarl import URL

from extender.clock import Clock, Steady
from extender.logs import one_line
from extender.policy.sources import Answer, PrometheusQuery, Said, Series, series_answer
from extender.sources.session import AskingSession, BodyTooLarge, read_body

BODY_LIMIT_BYTES = 32 * 1024 * 1024
"""A series of an answer is about 200 bytes: room for 100,000 pods."""
SERIES_BETWEEN_YIELDS = 1000
"""About three milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusAnswer:
    """What came of a query. ``problem`` is one line about a failure, empty without one.

    ``unnamed`` counts series without the labels ``namespace`` and ``pod``: the query is not what it should be.
    """

    series: Series
    problem: str = ""
    unnamed: int = 0


class _Metric(Struct):
    namespace: str = ""
    pod: str = ""


class _Sample(Struct):
    metric: _Metric
    value: tuple[float, str] | None = None
    """None for a native histogram."""


class _Result(Struct, rename="camel"):
    result_type: str = ""
    result: list[Raw] | None = None


class _Vector(Struct, rename="camel"):
    status: str = ""
    error: str = ""
    data: _Result | None = None


async def ask_prometheus(session: AskingSession, query: PrometheusQuery, clock: Clock) -> PrometheusAnswer:
    """Ask the server, for as long as ``query.timeout``. Never raises."""
    asked = clock.steady()
    try:
        async with asyncio.timeout(query.timeout.total_seconds()):
            status, body = await _ask(session, query)
    except TimeoutError:
        return _failed(asked, Said.TIMEOUT, f"no answer within {query.timeout.total_seconds():g} s")
    except BodyTooLarge:
        return _failed(asked, Said.TOO_LARGE, f"the answer is larger than {BODY_LIMIT_BYTES // 2**20} MiB")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return _failed(asked, Said.FAILED, one_line(error) or type(error).__name__)
    return await _read(status, body, asked)


async def _ask(session: AskingSession, query: PrometheusQuery) -> tuple[int, bytes]:
    form = {
        "query": query.query,
        "timeout": _milliseconds(query.timeout),
        # How old a sample may be, five minutes unless told. A server that has just come back would show what it knew
        # before. Servers that do not know the parameter (Prometheus before 2.44) ignore it.
        "lookback_delta": _milliseconds(query.max_age),
    }
    url = URL(f"{query.url.rstrip('/')}/api/v1/query", encoded=True)
    async with session.ask(url, form) as response:
        return response.status, await read_body(response, limit_bytes=BODY_LIMIT_BYTES)


async def _read(status: int, body: bytes, asked: Steady) -> PrometheusAnswer:
    try:
        answer = msgspec.json.decode(body, type=_Vector)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = None
    if status != 200:
        if 300 <= status < 400:
            return _failed(asked, Said.REDIRECT, f"status {status}: redirects are not followed; write the final url")
        return _failed(asked, Said.BAD_STATUS, f"status {status}{f': {answer.error}' if answer else ''}")
    if answer is None or answer.status != "success" or answer.data is None or answer.data.result is None:
        return _failed(asked, Said.NO_JSON, "the answer is not what the query API of Prometheus gives")
    if answer.data.result_type != "vector":
        return _failed(
            asked, Said.NO_JSON, f"the query gives a {answer.data.result_type[:20]}, not one series for each pod"
        )
    by_pod: dict[tuple[str, str], Answer] = {}
    unnamed = 0
    for position, raw in enumerate(answer.data.result, 1):
        if position % SERIES_BETWEEN_YIELDS == 0:
            await asyncio.sleep(0)
        try:
            sample = msgspec.json.decode(raw, type=_Sample)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unnamed += 1
            continue
        key = (sample.metric.namespace, sample.metric.pod)
        if not all(key):
            unnamed += 1
        elif key in by_pod:
            by_pod[key] = Answer(asked=asked, said=Said.SEVERAL_SERIES)
        elif sample.value is None:
            by_pod[key] = Answer(asked=asked, said=Said.NO_TIME)
        else:
            by_pod[key] = series_answer(sample.value[1], asked)
    return PrometheusAnswer(series=Series(asked=asked, by_pod=by_pod), unnamed=unnamed)


def _failed(asked: Steady, said: Said, problem: str) -> PrometheusAnswer:
    return PrometheusAnswer(series=Series(asked=asked, by_pod={}, failed=said), problem=one_line(problem, 300))


def _milliseconds(duration: timedelta) -> str:
    return f"{duration // timedelta(milliseconds=1)}ms"
