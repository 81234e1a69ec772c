"""The way of one warmnode to the API server, on which everything can go wrong that does between two machines.

Owns the faults of that way, one at a time or several. A gate is a proxy with TLS of its own, so certificates can fail.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web

from scripts.tools.controlplane import ControlPlane
from scripts.tools.controlplane.certificates import Authority, KeyPair
from scripts.tools.controlplane.components import write_kubeconfig
from scripts.tools.proxy import Proxy, Refusal, Seen

HANGING_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How it is on the way. ``refusal`` answers everything; ``hangs``: nothing is answered; ``delay`` is of requests.

    ``silent``: of watches nothing comes through. ``torn``: they are cut in the middle of their next event. ``gone``:
    a watch is answered that its version is too old. ``no_ledger``: ConfigMaps are forbidden.
    """

    refusal: Refusal | None = None
    hangs: bool = False
    delay: float = 0.0
    silent: bool = False
    torn: bool = False
    gone: bool = False
    no_ledger: bool = False


FAIR = Weather()
_GONE = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": 410,
        "reason": "Expired",
        "message": "too old resource version",
    },
}


class Gate(Proxy):
    """One gate. ``weather`` may be set from any thread; ``cut`` and ``mend`` are a partition."""

    def __init__(self, plane: ControlPlane, folder: Path, client: KeyPair) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700)
        self._number = 0
        self._authority = Authority(folder, "ca")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._use(self._authority, is_expired=False)
        super().__init__(plane, client=client, tls=self._context)
        self.weather = FAIR
        self._client = client

    def write_kubeconfig(self, user: str) -> Path:
        """Write the kubeconfig that leads here."""
        return write_kubeconfig(
            self._folder / "kubeconfig",
            server_url=f"https://127.0.0.1:{self.port}",
            ca_file=self._authority.file,
            client=self._client,
            user=user,
        )

    def set_weather(self, **changed: object) -> None:
        """Change some of it."""
        self.weather = replace(self.weather, **changed)  # type: ignore[arg-type]

    def expire_certificate(self, is_expired: bool) -> None:
        """Show a certificate that is over, or a good one again; open connections break."""
        self._use(self._authority, is_expired=is_expired)
        self._reconnect()

    def replace_authority(self) -> None:
        """Show a certificate of another authority, and have it trusted: the file that the kubeconfig names changes."""
        self._number += 1
        folder = self._folder / f"ca-{self._number}"
        folder.mkdir(mode=0o700)
        new, file = Authority(folder, "ca"), self._authority.file
        self._use(new, is_expired=False)
        self._reconnect()
        content = new.file.read_bytes()
        beside = file.with_suffix(".new")
        beside.write_bytes(content)
        beside.replace(file)
        new.file = file
        self._authority = new

    def _use(self, authority: Authority, *, is_expired: bool) -> None:
        self._number += 1
        pair = authority.issue_server(f"server-{self._number}", ["127.0.0.1"], is_expired=is_expired)
        self._context.load_cert_chain(pair.certificate, pair.key)

    def _reconnect(self) -> None:
        self.cut()
        self.mend()

    # In the proxy's thread

    async def before(self, seen: Seen) -> Refusal | None:
        weather = self.weather
        if weather.hangs:
            await asyncio.sleep(HANGING_SECONDS)
        if weather.delay:
            await asyncio.sleep(weather.delay)
        if weather.no_ledger and "/configmaps" in seen.path:
            return Refusal(status=403)
        if weather.gone and seen.is_watch:
            return Refusal(status=200, body=json.dumps(_GONE).encode() + b"\n")
        return weather.refusal

    def after(self, seen: Seen, status: int) -> None:
        """Keep nothing: a soak is long."""

    async def pass_on(self, chunk: bytes, request: web.BaseRequest, response: web.StreamResponse) -> None:
        is_watch = "watch" in request.query
        if is_watch and self.weather.torn:
            await response.write(chunk[: max(1, len(chunk) // 2)])
            assert request.transport is not None
            request.transport.close()
            raise ConnectionResetError
        if is_watch and self.weather.silent:
            return
        await response.write(chunk)
