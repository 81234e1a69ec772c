"""The page's listener: to whom it answers, what it sends, and that everything on it is its own."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.resources import files

import aiohttp
import pytest

from extender.inspect.plan import Look, plan_for
from extender.inspect.snapshot import Snapshot
from extender.inspect.view.frames import Past
from extender.inspect.view.view_model import Beside, View, view_of
from extender.inspect.view.view_page import is_loopback_host, serve_page
from extender.model import Node, Pod
from extender.settings import read_configuration
from extender.web.server import Address
from tests.builders import NOW, node, worker
from tests.listening import synced_state


class Still:
    """A cluster that changes when a test says so."""

    def __init__(self, nodes: list[Node], pods: list[Pod]) -> None:
        self.state = synced_state(nodes, pods)
        self.past = Past()
        self.view = view_of(self.state, NOW, Beside())
        self.past.note(self.view)
        self._changed = asyncio.Event()

    def turn(self, seconds: float = 1) -> None:
        """Make a new view, so much later."""
        self.view = view_of(self.state, self.view.now + timedelta(seconds=seconds), Beside(), self.view)
        self.past.note(self.view)
        self._changed.set()

    async def next_view(self, after: View | None) -> View:
        while self.view is after:
            self._changed.clear()
            await self._changed.wait()
        return self.view

    def look(self) -> Look:
        configuration = read_configuration(None)
        snapshot = Snapshot(nodes=(), pods=(), ledger=None, taken=NOW)
        plan = plan_for(self.state, snapshot, configuration, source="a test")
        return Look(state=self.state, plan=plan, configuration=configuration)


@asynccontextmanager
async def served(cluster: Still) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """The page's address, and a client."""
    told, stop = asyncio.Queue[str](), asyncio.Event()
    serving = asyncio.create_task(serve_page(cluster, Address("127.0.0.1", 0), told.put_nowait, stop))
    try:
        async with aiohttp.ClientSession() as session:
            yield await told.get(), session
    finally:
        stop.set()
        await asyncio.sleep(0)
        cluster.turn()  # as the cluster's own clock does
        await serving


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:80", True),
        ("localhost", True),
        ("[::1]:9", True),
        ("127.9.9.9", True),
        ("evil.example:80", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1", False),
        ("", False),
        ("[", False),
        ("user@localhost:x", False),
    ],
)
def test_only_loopback_is_a_name_of_ours(host: str, is_ours: bool) -> None:
    """Another name that points here was made to, so that a foreign page can read the answer."""
    assert is_loopback_host(host) is is_ours


async def test_it_answers_get_at_its_address_only() -> None:
    """Another host, another method, or an address without the secret: nothing, and no name of a pod."""
    async with served(Still([node()], [worker()])) as (url, session):
        root = url.rsplit("/", 2)[0] + "/"
        for method, address, headers, status in (
            ("GET", url, {}, 200),
            ("GET", url, {"Host": "evil.example"}, 421),
            ("GET", url + "events", {"Host": "evil.example"}, 421),
            ("POST", url, {}, 405),
            ("PUT", url + "explain", {}, 405),
            ("OPTIONS", url, {}, 405),
            ("GET", root, {}, 404),
            ("GET", root + "events", {}, 404),
            ("GET", root + "wrong/events", {}, 404),
            ("GET", url + "../../etc/passwd", {}, 404),
            ("GET", url + "past?ago=x", {}, 400),
            ("GET", url + "past?ago=99999999999", {}, 400),
        ):
            async with session.request(method, address, headers=headers) as answer:
                text = await answer.text()
                assert (method, address, answer.status) == (method, address, status)
                assert status == 200 or "worker-1" not in text


async def test_everything_comes_with_a_strict_policy() -> None:
    """Scripts and styles are its own files; nothing may frame it, and nothing is kept."""
    async with served(Still([node()], [])) as (url, session):
        for path in ("", "live-view.css", "live-view.js", "past?ago=0", "explain?node=none", "nothing"):
            async with session.get(url + path) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Cache-Control"] == "no-store"


def test_the_files_name_nothing_from_elsewhere() -> None:
    """And make no markup from text."""
    folder = files("extender.inspect.view")
    for name in ("live-view.html", "live-view.css", "live-view.js"):
        text = folder.joinpath(name).read_text()
        assert "//" not in re.sub(r"^\s*//.*$|\) // .*$|; // .*$", "", text, flags=re.MULTILINE), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|style=|onclick=", text)


async def test_a_reader_gets_the_whole_and_then_changes() -> None:
    """One event each; a reader that was away for some gets them together."""
    cluster = Still([node()], [])
    async with served(cluster) as (url, session), session.get(url + "events") as stream:
        assert stream.content_type == "text/event-stream"
        first = json.loads((await stream.content.readline()).removeprefix(b"data: "))
        assert first["order"] == ["uid-of-node-a"]
        await stream.content.readline()
        cluster.state.upsert_pod(worker("one"))
        cluster.turn()
        cluster.state.upsert_pod(worker("two"))
        cluster.turn()
        second = json.loads((await stream.content.readline()).removeprefix(b"data: "))
        assert second["order"] is None
        assert [cell["pod"] for cell in second["columns"][0]["cells"]] == ["default/one", "default/two"]


async def test_one_can_go_back() -> None:
    """To a view that was kept."""
    cluster = Still([node()], [worker("early")])
    cluster.turn(20)
    cluster.state.delete_pod(worker("early"))
    cluster.turn(20)
    async with served(cluster) as (url, session):
        for ago, there in ((0, []), (15, ["default/early"]), (3000, ["default/early"])):
            async with session.get(f"{url}past?ago={ago}") as answer:
                frame = await answer.json()
                assert [cell["pod"] for column in frame["columns"] for cell in column["cells"]] == there


async def test_a_click_says_what_explain_says() -> None:
    """By UID, so that no name is asked for; of what is gone it says so."""
    async with served(Still([node()], [worker(pool=None)])) as (url, session):
        for query, status, text in (
            ("pod=uid-of-worker-1", 200, "pod default/worker-1"),
            ("node=uid-of-node-a", 200, "rank"),
            ("pod=gone", 404, "not there any more"),
            ("node=gone", 404, "not there any more"),
            ("", 404, "not there any more"),
        ):
            async with session.get(f"{url}explain?{query}") as answer:
                assert answer.status == status
                assert answer.content_type == "text/plain"
                assert text in await answer.text()
