"""What a large cluster costs the live page: the time of a frame in a real browser, and CPU of `warmnode page`.

The API server is the fake one, see `fake_cluster`; the browser is a headless Chromium.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.tools.benchmarks import machine
from scripts.tools.benchmarks.figures import shown, spread
from scripts.tools.benchmarks.memory import fake_cluster, send_events
from scripts.tools.benchmarks.report import Report, Table, Target
from scripts.tools.browser import PACKAGE, Page, browsing, find_browser
from scripts.tools.controlplane import ControlPlaneError
from scripts.tools.live_page import LivePage

Note = Callable[[str], None]
LONGEST_FRAME_MS = 50.0

_RECORD = """
window.draws_ms = [];
const draw_as_it_is = window.draw;
window.draw = () => {
  const before = performance.now();
  draw_as_it_is();
  document.body.offsetHeight; // styles and layout belong to it
  window.draws_ms.push(performance.now() - before);
};
window.frames_ms = [];
window.last_frame = performance.now();
requestAnimationFrame(function tick(now) {
  window.frames_ms.push(now - window.last_frame);
  window.last_frame = now;
  requestAnimationFrame(tick);
});
"""
_FRAMES = "(() => {const found = window.frames_ms.slice(1); window.frames_ms = []; return found;})()"
_DRAWS = "window.draws_ms"
_SCROLL = "document.getElementById('grid').scrollBy(400, 0)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. ``rate`` is in events a second."""

    nodes: int
    pods: int
    rate: int
    seconds: float
    rounds: int


FULL = Size(nodes=1000, pods=10_000, rate=100, seconds=20.0, rounds=3)
QUICK = Size(nodes=100, pods=1000, rate=100, seconds=5.0, rounds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One page that was watched. Frames in milliseconds, CPU in per cent of a core."""

    first_drawn: float
    """Seconds from opening the page until every worker is drawn."""
    middle: float
    slow: float
    """Of a hundred frames one took longer."""
    slow_still: float
    """The same while nothing changes: what the browser and the machine do to it."""
    drawing: float
    """What the page itself needs of a frame in which something has changed: script, styles and layout; the longest."""
    worst: float
    page_cpu: float
    page_resident: float


FIGURES = {
    "first_drawn": ("page opened to all workers drawn, s", 2),
    "middle": ("time of a frame, median, ms", 1),
    "slow": ("time of a frame, 99 of 100, ms", 1),
    "slow_still": ("the same while nothing changes, ms", 1),
    "drawing": ("drawing a change (script, styles, layout), the longest, ms", 1),
    "worst": ("the longest frame, ms", 1),
    "page_cpu": ("CPU of warmnode page, % of a core", 1),
    "page_resident": ("resident memory of warmnode page, MiB", 0),
}


def measure(size: Size, note: Note) -> Report:
    """Measure and report."""
    neighbours = machine.Neighbours()
    cores = machine.cores()
    found: list[Watched] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kubeconfig = folder / "kubeconfig"
        with fake_cluster(nodes=size.nodes, pods=size.pods, kubeconfig=kubeconfig, core=cores.client) as (server, _):
            for turn in range(size.rounds):
                with LivePage(kubeconfig, folder / "page.log") as live:
                    found.append(asyncio.run(_watch(size, live, server)))
                note(f"round {turn + 1} of {size.rounds}: the longest frame took {found[-1].worst:.0f} ms")
    return _report(size, found, machine.conditions(neighbours=neighbours, versions={}, rounds=size.rounds))


async def _watch(size: Size, live: LivePage, server: subprocess.Popen[str]) -> Watched:
    """Open the page, let workers change, and scroll through the nodes meanwhile."""
    program = find_browser()
    if program is None:
        raise ControlPlaneError(f"no Chromium on PATH: install the package {PACKAGE}")
    async with browsing(program) as page:
        await page.look_like(dark=False, width=1400, height=900)
        opened = time.monotonic()
        await page.open(live.url)
        cells = "document.querySelectorAll('.cell[data-uid]').length"
        await page.wait(f"{cells} >= {size.pods}")
        first_drawn = time.monotonic() - opened
        await page.ask(_RECORD)
        await page.ask(_FRAMES)
        await _scroll(page, size.seconds / 2)
        still = sorted(await page.ask(_FRAMES))
        before = machine.usage(live.pid)
        await asyncio.gather(
            _scroll(page, size.seconds), asyncio.to_thread(send_events, server, size.rate, size.seconds)
        )
        after = machine.usage(live.pid)
        frames: list[float] = sorted(await page.ask(_FRAMES))
        draws: list[float] = await page.ask(_DRAWS)
        return Watched(
            first_drawn=first_drawn,
            middle=frames[len(frames) // 2],
            slow=frames[len(frames) * 99 // 100],
            slow_still=still[len(still) * 99 // 100],
            drawing=max(draws),
            worst=frames[-1],
            page_cpu=100 * (after.cpu_seconds - before.cpu_seconds) / size.seconds,
            page_resident=after.resident_mib,
        )


async def _scroll(page: Page, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await page.ask(_SCROLL)
        await asyncio.sleep(0.5)


def _report(size: Size, found: list[Watched], conditions: tuple[str, ...]) -> Report:
    def values(figure: str) -> list[float]:
        return [float(asdict(each)[figure]) for each in found]

    rows = tuple((words, shown(values(figure), digits)) for figure, (words, digits) in FIGURES.items())
    title = f"{size.nodes:,} nodes, {size.pods:,} workers, {size.rate:,} events/s, in a headless Chromium"
    slow = spread(values("slow")).median
    target = Target(
        what="99 of 100 frames",
        wanted=f"< {LONGEST_FRAME_MS:g} ms",
        measured=f"{shown(values('slow'), 1)} ms",
        met=slow < LONGEST_FRAME_MS,
    )
    return Report(
        name="page",
        conditions=conditions,
        tables=(Table(title=title, head=("what", "measured"), rows=rows),),
        targets=(target,),
        notes=("The browser draws without a graphics card, and shares two cores with all the rest.",),
        raw={"rounds": [asdict(each) for each in found]},
    )
