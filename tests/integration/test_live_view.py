"""The live page in a real browser: what is drawn is what the API server has, and names are text.

Needs a Chromium. Without one these tests are skipped, and fail where WARMNODE_REQUIRE_BROWSER is set.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from extender.policy.decisions import EvictionDecision, encode_decision
from scripts.tools.browser import PACKAGE, Page, browsing, find_browser
from scripts.tools.live_page import LivePage
from tests.builders import minutes_ago
from tests.drawn import drawn_of, in_order
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Fault, Then, Where, answer, stream
from tests.fakes.store import NODES, PODS
from tests.fakes.tunnel import http, tunnel
from tests.integration.ground import POOL_LABEL, Ground

DRAWN = """
[...document.querySelectorAll(".node")].map((node) =>
  [node.dataset.uid, [...node.querySelectorAll(".cell")].map((cell) => [cell.dataset.uid, cell.classList[1]])])
"""
WIDE, HIGH = 1200, 800
LABELS = {POOL_LABEL: "ducks"}
IDLE = {"warmnode.dev/idle-since": "2026-01-01T00:00:00Z"}
MARKUP = "<img src=x onerror=document.title='hacked'>"
BIDI = "n\u202egnp.exe"
REPLICA = {
    "metadata": {
        "name": "serve-0",
        "namespace": "default",
        "uid": "replica",
        "labels": {"app.kubernetes.io/name": "warmnode"},
    },
    "spec": {"containers": [{"args": ["serve"]}]},
    "status": {"phase": "Running"},
}


@pytest.fixture
def program() -> Path:
    found = find_browser()
    if found is None:
        why = f"no Chromium on PATH: install the package {PACKAGE}"
        if os.environ.get("WARMNODE_REQUIRE_BROWSER") == "1":
            pytest.fail(why)
        pytest.skip(why)
    return found


@asynccontextmanager
async def looking(program: Path, url: str) -> AsyncIterator[Page]:
    """A browser at a page that has drawn something."""
    async with browsing(program) as page:
        await page.look_like(dark=False, width=WIDE, height=HIGH)
        await page.open(url)
        await page.wait("document.querySelectorAll('.node').length > 0")
        yield page


@asynccontextmanager
async def page_over(server: FakeApiServer, program: Path, folder: Path) -> AsyncIterator[tuple[LivePage, Page]]:
    """A page over the fake API server, which runs in this loop, and a browser at it."""
    made = LivePage(server.write_kubeconfig(folder / "kubeconfig"), folder / "page.log")
    live = await asyncio.to_thread(made.__enter__)
    try:
        async with looking(program, live.url) as page:
            yield live, page
    finally:
        await asyncio.to_thread(live.close)


def create_node(server: FakeApiServer, name: str, **metadata: Any) -> None:
    server.store.create(NODES, "", {"metadata": {"name": name, **metadata}})


def create_worker(server: FakeApiServer, name: str, node: str, *, ready: bool = True, **metadata: Any) -> None:
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}
    server.store.create(
        PODS,
        "default",
        {
            "metadata": {"name": name, "labels": LABELS, **metadata},
            "spec": {"nodeName": node},
            "status": {"conditions": [condition]},
        },
    )


async def test_what_is_drawn_is_what_the_api_server_has(ground: Ground, program: Path, tmp_path: Path) -> None:
    """Every node with every worker on it, while workers come, fall idle and go."""

    def is_as_expected(drawn: Any) -> bool:
        api = ground.control_plane.api
        nodes, workers = api("GET", "/api/v1/nodes"), api("GET", "/api/v1/pods", params={"labelSelector": POOL_LABEL})
        return in_order(drawn) == drawn_of(nodes["items"], workers["items"])

    first, second = ground.nodes(2, cpu="8")
    for number in range(3):
        ground.run(f"early-{number}", node=first)
    with LivePage(ground.control_plane.kubeconfig, tmp_path / "page.log") as live:
        async with looking(program, live.url) as page:
            await page.wait(DRAWN, is_as_expected)
            ground.create_pod("idle", node=second, idle=True)
            ground.create_pod("starting", node=second, ready=False)
            ground.delete_pod("early-1")
            await page.wait(DRAWN, is_as_expected)
            ground.nodes(1, wait=False)
            await page.wait(DRAWN, is_as_expected)
            said = await page.wait("document.getElementById('lately').textContent")
            assert f"{ground.namespace}/early-1 left {first}" in said
            assert page.errors == []
        assert live.close() == 0


def pod_tree(name: str, node: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-of-{name}", "labels": {POOL_LABEL: name}},
        "spec": {"nodeName": node},
    }


def hostile(leave: asyncio.Event) -> Fault:
    """Answer for nodes and pods as no API server does that checks names: one node and one worker of each name.

    The workers are gone once ``leave`` is set.
    """
    names = (MARKUP, BIDI, "n" * 253)
    labels = {"node.kubernetes.io/instance-type": MARKUP}
    pods = [pod_tree(f"of-{name}", name) for name in names]
    lists = {
        "/api/v1/nodes": [{"metadata": {"name": name, "uid": f"uid-of-{name}", "labels": labels}} for name in names],
        "/api/v1/pods": pods,
    }
    gone = [json.dumps({"type": "DELETED", "object": pod}).encode() + b"\n" for pod in pods]

    def answered(request: web.Request) -> Awaitable[web.StreamResponse | None]:
        if request.path.endswith("/portforward"):
            evicted = EvictionDecision(at=minutes_ago(1), namespace=MARKUP, pod=BIDI, node="n" * 253, outcome="evicted")
            shadow = [{"pool": f"of-{MARKUP}", "verdicts": {}, "spared": 0}]
            both = {True: json.dumps(shadow).encode(), False: encode_decision(evicted) + b"\n"}
            return tunnel(answer=lambda asked: http(both[b"/shadow" in asked]), frame=4096)(request)
        is_of_warmnode = "name=warmnode" in request.query.get("labelSelector", "") and request.path.endswith("/pods")
        items = [REPLICA] if is_of_warmnode else lists.get(request.path)
        if items is None:
            return nothing(request)
        if "watch" not in request.query:
            body = {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}
            return answer(200, body=json.dumps(body).encode())(request)
        return stream(*(gone if items is pods else ()), after=leave, then=Then.HANG)(request)

    return answered


async def nothing(request: web.Request) -> None:
    """Let a request pass."""


async def test_names_are_text_whatever_they_are(program: Path, tmp_path: Path) -> None:
    """Markup, text that turns its direction, 253 characters: nothing acts, nothing overflows."""
    leave = asyncio.Event()
    async with FakeApiServer() as server:
        server.fail(Where.ANY, *[hostile(leave)] * 1000)
        async with page_over(server, program, tmp_path) as (_, page):
            await page.wait("document.querySelectorAll('.cell[data-uid]').length >= 3")
            titles = await page.ask("[...document.querySelectorAll('.node')].map((node) => node.title).join(' ')")
            assert MARKUP in titles
            assert "\u202e" not in titles
            why = "document.getElementById('why').textContent"
            for selector in (".cell[data-uid]", ".node"):
                for place in range(3):
                    told = await page.ask(why)
                    await page.ask(f"document.querySelectorAll('{selector}')[{place}].click()")
                    await page.wait(f"{why} !== {json.dumps(told)} && {why}.includes('rank')")
            await page.wait("document.getElementById('decided').textContent.includes('<img')")
            await page.wait("document.getElementById('pools').textContent.includes('in the shadow: ')")
            leave.set()
            names = (f"of-{MARKUP}", "of-n?gnp.exe", "of-" + "n" * 253)
            said = "document.getElementById('lately').textContent"
            await page.wait(said, lambda text: all(f"default/{name} left " in text for name in names))
            assert await page.ask("document.querySelectorAll('img, iframe, svg, object').length") == 0
            assert await page.ask("document.title") == "warmnode"
            assert await page.ask("document.documentElement.scrollWidth <= window.innerWidth")
            assert page.errors == []


async def test_keys_do_what_the_mouse_does(program: Path, tmp_path: Path) -> None:
    """Arrows choose a node and a worker on it, Enter says why; what is chosen is said to a screen reader."""
    async with FakeApiServer() as server:
        create_node(server, "old", creationTimestamp="2026-01-01T00:00:00Z")
        create_node(server, "new", creationTimestamp="2026-01-02T00:00:00Z")
        create_worker(server, "one", "new")
        async with page_over(server, program, tmp_path) as (_, page):
            await page.ask("document.getElementById('grid').focus()")
            for key in ("ArrowRight", "ArrowLeft", "Enter"):
                await page.press(key)
            first = await page.ask("document.querySelector('.node').title.split(':')[0]")
            await page.wait(f"document.getElementById('why').textContent.startsWith('node {first}')")
            while await page.ask("document.querySelector('.node.chosen .cell') === null"):
                await page.press("ArrowRight")
                await page.wait("document.querySelector('.chosen') !== null")
            for key in ("ArrowUp", "Enter"):
                await page.press(key)
            await page.wait("document.getElementById('why').textContent.startsWith('pod default/one')")
            active = "document.getElementById(document.getElementById('grid').getAttribute('aria-activedescendant'))"
            assert (await page.ask(f"{active}.getAttribute('aria-label')")).startswith("default/one: busy")


async def test_states_differ_without_colour_and_there_are_two_schemes(program: Path, tmp_path: Path) -> None:
    """By shape, line and sign."""
    looks = """[...document.querySelectorAll("#legend .cell")].map((cell) => {
      const style = getComputedStyle(cell);
      const isFilled = style.backgroundColor !== "rgba(0, 0, 0, 0)";
      return [isFilled, style.borderRadius, style.borderStyle, getComputedStyle(cell, "::before").content].join();
    })"""
    async with FakeApiServer() as server:
        create_node(server, "old")
        async with page_over(server, program, tmp_path) as (_, page):
            assert len(set(await page.ask(looks))) == 5
            ground = "getComputedStyle(document.body).backgroundColor"
            light = await page.ask(ground)
            await page.look_like(dark=True, width=WIDE, height=HIGH)
            assert await page.ask(ground) != light


async def test_one_goes_back_and_comes_to_the_present_again(program: Path, tmp_path: Path) -> None:
    """The slider shows what was; at its end the page goes on."""
    slide = """(value) => {
      const time = document.getElementById("time");
      time.value = value;
      time.dispatchEvent(new Event("input"));
    }"""
    cells = "document.querySelectorAll('.cell[data-uid]').length"
    async with FakeApiServer() as server:
        create_node(server, "old")
        async with page_over(server, program, tmp_path) as (_, page):
            create_worker(server, "late", "old")
            await page.wait(f"{cells} === 1")
            await page.wait("Number(document.getElementById('time').min) <= -10")
            await page.ask(f"({slide})(-10)")
            await page.wait(f"{cells} === 0 && document.getElementById('when').textContent.endsWith('ago')")
            create_worker(server, "later", "old")
            await page.ask(f"({slide})(0)")
            await page.wait(f"{cells} === 2 && document.getElementById('when').textContent.startsWith('live')")


async def test_it_says_since_when_nothing_is_known(program: Path, tmp_path: Path) -> None:
    """Of an API server that is gone, with what was last drawn; and of warmnode page itself."""
    trouble = "document.getElementById('trouble').hidden ? '' : document.getElementById('trouble').textContent"
    async with FakeApiServer() as server:
        create_node(server, "old")
        create_worker(server, "one", "old")
        async with page_over(server, program, tmp_path) as (live, page):
            await page.wait("document.querySelectorAll('.cell[data-uid]').length === 1")
            assert await page.ask(trouble) == ""
            await server.__aexit__(None, None, None)
            await page.wait(trouble, lambda text: "pods not followed since " in text)
            assert await page.ask("document.querySelectorAll('.cell[data-uid]').length") == 1
            await server.__aenter__()
            await asyncio.to_thread(live.close)
            await page.wait(trouble, lambda text: "warmnode page is not reached since " in text)
