"""A headless Chromium, driven over its DevTools protocol: open a page, ask it, press keys, take a picture.

Owns the process and the protocol (https://chromedevtools.github.io/devtools-protocol/). Only loopback is reached.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PACKAGE = "chromium"
"""Debian's package."""
SECONDS = 60.0
LARGEST_MESSAGE = 64 * 1024 * 1024


class BrowserProblem(Exception):
    """The browser did not start, or a page failed. The message is for people."""


def find_browser() -> Path | None:
    """Find a Chromium on PATH, None where there is none."""
    return next((Path(found) for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """One tab. ``errors`` are exceptions, failed assertions and refusals of the content security policy so far."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()

    async def listen(self) -> None:
        """Read what the browser says, for ever."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if not answer.done():
                    answer.set_result(said)
            elif said["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif said["method"] == "Runtime.exceptionThrown":
                details = said["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details["text"])
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                entry = said["params"]["entry"]
                self.errors.append(f"{entry['text']} {entry.get('url', '')}")

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol. Raises `BrowserProblem` with what it says."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(SECONDS):
            said = await answer
        if "error" in said:
            raise BrowserProblem(f"{method}: {said['error']['message']}")
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(SECONDS):
            await self._loaded.wait()

    async def ask(self, script: str) -> Any:
        """Give the value of an expression; a promise is awaited. Raises `BrowserProblem` for an exception."""
        said = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in said:
            raise BrowserProblem(f"{script}: {said['exceptionDetails']['exception'].get('description')}")
        return said["result"].get("value")

    async def wait(self, script: str, is_so: Callable[[Any], object] = bool) -> Any:
        """Wait until an expression is as asked, and give its value."""
        value = None
        try:
            async with asyncio.timeout(SECONDS):
                while not is_so(value := await self.ask(script)):  # noqa: ASYNC110 - a page tells nobody
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise BrowserProblem(f"{script} is still {value!r} after {SECONDS:g} s; errors: {self.errors}") from error
        return value

    async def press(self, key: str) -> None:
        """Press a key, such as ArrowRight."""
        codes = {"Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key])

    async def look_like(self, *, dark: bool, width: int, height: int) -> None:
        """Take a size and a colour scheme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)

    async def picture(self, file: Path) -> None:
        """Write what is seen as a PNG."""
        said = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(said["data"]))


@asynccontextmanager
async def browsing(program: Path) -> AsyncIterator[Page]:
    """Start a browser with one empty page; it ends, and its folder goes, with the block."""
    folder = Path(tempfile.mkdtemp(prefix="warmnode-browser-"))
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless=new",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # it refuses to run as root with one
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--no-proxy-server",
        "about:blank",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        port = await _port(folder, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = await answer.json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=LARGEST_MESSAGE) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                try:
                    yield page
                finally:
                    listening.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _port(folder: Path, process: Process) -> int:
    """Wait until the browser has written where it listens."""
    file = folder / "DevToolsActivePort"
    try:
        async with asyncio.timeout(SECONDS):
            while not file.exists() or not (text := file.read_text()):
                if process.returncode is not None:
                    raise BrowserProblem(f"the browser ended with code {process.returncode}")
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise BrowserProblem(f"the browser did not listen within {SECONDS:g} s") from error
    return int(text.splitlines()[0])
