"""scripts/pictures: pictures of the live view for the docs, over the demo's cluster in a burst and after it.

Owns which moments are taken. Needs a Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from scripts.tools.browser import PACKAGE, BrowserProblem, Page, browsing, find_browser
from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.controlplane.errors import ControlPlaneError
from scripts.tools.demo import tide
from scripts.tools.demo.scenario import BURST, FLOOR, TIDE
from scripts.tools.demo.stage import DemoFailed, Stage

IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1200, 700
COLUMNS, TERMINAL = 80, (800, 360)
"""The terminal, and its picture in pixels."""

_DESCRIPTION = f"""\
Makes docs/images/live-view-peak.png, live-view-after.png (the page, light and dark) and live-view-top.png
(the terminal), over the cluster of scripts/demo. Takes a minute, and needs a Chromium (the package {PACKAGE}).
"""


def main() -> int:
    """Make the pictures and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/pictures", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    program = find_browser()
    if program is None:
        print(f"scripts/pictures: no Chromium on PATH: install the package {PACKAGE}", file=sys.stderr)
        return 1
    stage = Stage.new()
    try:
        asyncio.run(_take(stage, program))
    except (DemoFailed, ControlPlaneError, BrowserProblem, OSError) as error:
        print(f"scripts/pictures: {error}", file=sys.stderr)
        return 1
    finally:
        stage.close()
    return 0


async def _take(stage: Stage, program: Path) -> None:
    await asyncio.to_thread(_set_up, stage)
    url = await asyncio.to_thread(stage.start_page)
    async with browsing(program) as page:
        await page.look_like(dark=False, width=WIDTH, height=HEIGHT)
        await page.open(url)
        added = await asyncio.to_thread(tide.rise, stage)
        busy = BURST + 6
        await page.wait(f"document.querySelectorAll('.cell.busy[data-uid]').length === {busy + TIDE}")
        await page.ask("document.querySelector('.node').click()")
        await page.wait("document.getElementById('why').textContent.includes('rank')")
        await page.picture(IMAGES / "live-view-peak.png")
        await asyncio.to_thread(tide.fall, stage)
        await page.wait(f"document.querySelectorAll('.cell.idle[data-uid]').length === {FLOOR}")
        terminal = await asyncio.to_thread(_terminal, stage)
        await asyncio.to_thread(tide.ebb, stage, added)
        await page.look_like(dark=True, width=WIDTH, height=HEIGHT)
        await page.wait("document.querySelectorAll('.node').length === 8")
        await page.picture(IMAGES / "live-view-after.png")
        await _picture_of(page, terminal)


def _set_up(stage: Stage) -> None:
    stage.start(lambda line: print(line, file=sys.stderr))
    stage.populate()
    stage.start_warmnode()
    stage.deploy("warmnode")
    stage.scale(BURST)


def _terminal(stage: Stage) -> str:
    """What `warmnode top` prints, coloured, as a page."""
    command = [sys.executable, "-m", "extender", "top", "--kubeconfig", str(stage.cluster.kubeconfig)]
    environment = {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise DemoFailed(f"warmnode top ended with code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


async def _picture_of(page: Page, text: str) -> None:
    """Draw what a terminal was sent."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(text))
    body = console.export_html(theme=MONOKAI, inline_styles=True)
    await page.look_like(dark=True, width=TERMINAL[0], height=TERMINAL[1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "terminal.html"
        await asyncio.to_thread(file.write_text, body)
        await page.open(file.as_uri())
        await page.picture(IMAGES / "live-view-top.png")


if __name__ == "__main__":
    sys.exit(main())
