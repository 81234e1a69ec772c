"""Asks one worker over HTTP whether it is idle: ``GET http://ADDRESS:PORT/PATH``.

200 with ``{"idleSince": RFC 3339 time}`` is idle, 409 is busy. Everything else is busy too, with the reason.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import aiohttp
import msgspec
from yarl import URL

from extender.clock import Clock, Steady
from extender.policy.defaults import HttpProbe
from extender.policy.marks import parse_idle_mark
from extender.policy.sources import Answer, Said
from extender.sources.session import AskingSession, BodyTooLarge, read_body

BODY_LIMIT_BYTES = 4096


class _Body(msgspec.Struct, rename="camel"):
    idle_since: str | None = None


async def ask_worker(session: AskingSession, probe: HttpProbe, address: str | None, clock: Clock) -> Answer:
    """Ask the worker at ``address`` (an IP, None: it has none yet), for as long as ``probe.timeout``. Never raises."""
    asked = clock.steady()
    try:
        async with asyncio.timeout(probe.timeout.total_seconds()):
            return await _ask(session, probe, address, asked)
    except TimeoutError:
        said = Said.TIMEOUT
    except BodyTooLarge:
        said = Said.TOO_LARGE
    except (aiohttp.ClientError, OSError, ValueError):
        said = Said.FAILED
    return Answer(asked=asked, said=said)


async def _ask(session: AskingSession, probe: HttpProbe, address: str | None, asked: Steady) -> Answer:
    url = _url(address, probe) if address else None
    if url is None:
        return Answer(asked=asked, said=Said.NO_ADDRESS)
    async with session.ask(url) as response:
        match response.status:
            case 200:
                return _read(await read_body(response, limit_bytes=BODY_LIMIT_BYTES), asked)
            case 409:
                return Answer(asked=asked, said=Said.BUSY)
            case 301 | 302 | 303 | 307 | 308:
                return Answer(asked=asked, said=Said.REDIRECT)
            case _:
                return Answer(asked=asked, said=Said.BAD_STATUS)


def _url(address: str, probe: HttpProbe) -> URL | None:
    """Put the URL together, None where the address is no IP: nothing else may say where we connect."""
    try:
        ip = ip_address(address)
    except ValueError:
        return None
    host = f"[{ip}]" if ip.version == 6 else str(ip)
    return URL(f"http://{host}:{probe.port}{probe.path}", encoded=True)


def _read(body: bytes, asked: Steady) -> Answer:
    try:
        text = msgspec.json.decode(body, type=_Body).idle_since
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Answer(asked=asked, said=Said.NO_JSON)
    since = parse_idle_mark(text)
    return Answer(asked=asked, said=Said.NO_TIME if since is None else Said.IDLE, idle_since=since)
