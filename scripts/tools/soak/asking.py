"""How the soak's programs ask: a replica of warmnode, any of them, or the API server.

Owns the connections. No answer is an answer too: nothing here raises for what a fault does.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from random import Random

import aiohttp

from scripts.tools.controlplane import Json

ANSWER_SECONDS = 10.0
"""How long a worker and a claimant wait for an answer, as the documentation has it."""

KEPT_SECONDS = 2.0
"""How long a connection is kept that nobody uses: a server's open files are to tell of the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where everything is: the API server, the workers' namespace, the pods' path there, and the claims listeners."""

    server: str
    namespace: str
    pods: str
    tls: ssl.SSLContext
    listeners: tuple[str, ...]

    def mark_of(self, worker: str) -> str:
        """The path of a worker's idle mark, at a replica."""
        return f"/v1/pods/{self.namespace}/{worker}/idle"


class Asking:
    """Use it as an asynchronous context manager."""

    def __init__(self, places: Places, random: Random) -> None:
        self.places, self._random = places, random

    async def __aenter__(self) -> Asking:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_SECONDS),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def replica(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json | None]:
        """Ask any replica: the status, 0 where there was no answer, and the JSON."""
        url = self._random.choice(self.places.listeners) + path
        try:
            async with self._session.request(method, url, json=body) as response:
                content = await response.read()
                return response.status, json.loads(content) if content else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            await asyncio.sleep(0.2)
            return 0, None

    async def server(self, method: str, path: str, body: Json | None = None) -> Json | None:
        """Ask the API server: None where it says no or nothing. A PATCH is merged."""
        url = self.places.server + path
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
        try:
            async with self._session.request(method, url, json=body, headers=headers, ssl=self.places.tls) as response:
                found: Json = await response.json()
                return found if response.status < 300 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
