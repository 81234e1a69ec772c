"""The HTTP session for questions to workers and to Prometheus: no redirects, no cookies, no proxy, no credentials.

Owns what is trusted of an answer: so many bytes of its body, in the time that the caller allows, and nothing that
it asks for. Whoever answers may be anybody's pod.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL


class BodyTooLarge(Exception):
    """The body of an answer has more bytes than were allowed."""


class AskingSession:
    """Sends questions. Make it inside a running loop; close it when done.

    A connection is closed after its answer: ten thousand workers would be ten thousand open sockets. How many
    questions are on their way at once is the caller's to limit.
    """

    def __init__(self, *, user_agent: str) -> None:
        self._session = aiohttp.ClientSession(
            headers={"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"},
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a kilobyte of gzip may be a gigabyte of zeros
            trust_env=False,
            timeout=aiohttp.ClientTimeout(),  # the callers' asyncio.timeout is the one that counts
        )

    @asynccontextmanager
    async def ask(self, url: URL, form: Mapping[str, str] | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a question, by GET or with a ``form`` by POST: the answer's head, whatever its status.

        A redirect is an answer like others.

        Raises:
            aiohttp.ClientError, OSError: no answer, or none that is HTTP.
            ValueError: the URL is none.
        """
        async with self._session.request(
            "GET" if form is None else "POST", url, data=form, allow_redirects=False
        ) as response:
            yield response

    async def close(self) -> None:
        await self._session.close()


async def read_body(response: aiohttp.ClientResponse, *, limit_bytes: int) -> bytes:
    """Read the body, at most ``limit_bytes``. Raises BodyTooLarge, and what breaks the connection."""
    if (response.content_length or 0) > limit_bytes:
        raise BodyTooLarge
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise BodyTooLarge
    return bytes(body)
