"""The live view in a terminal: a line for each node from oldest to newest, a cell for each worker.

Owns the drawing and the keys. Needs rich, which comes with the extra ``top``. Every sign differs without colour too.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import termios
import tty
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from extender.inspect.text import count, span
from extender.inspect.view.following import Following
from extender.inspect.view.view_model import CellState, Column, PoolFigures, View

SIGNS = {
    CellState.BUSY: ("■", "#", "blue"),
    CellState.CLAIMED: ("◆", "@", "magenta"),
    CellState.IDLE: ("□", "o", "bright_black"),
    CellState.STARTING: ("+", "+", "yellow"),
    CellState.GOING: ("×", "x", "red"),  # noqa: RUF001
}
"""A sign for each state, one where a terminal has nothing but ASCII, and a colour."""
HAPPENINGS = 6
"""So many are shown."""
NAME, AGE, TYPE = 22, 8, 17
"""Widths of columns, for a terminal of 80."""
BESIDE_CELLS = 3 + NAME + AGE + TYPE + 4


def render_view(
    view: View, *, pool: str | None, width: int = 80, height: int | None, ascii_only: bool = False
) -> RenderableType:
    """Draw a view for one pool, None: all. Where ``height`` is too small, nodes in the middle are left out.

    Where a node has more workers than ``width`` has room for, they are counted.
    """
    pools = [each for each in view.pools if pool in (None, each.name)]
    head: list[RenderableType] = [
        *_head(view),
        _pools_table(pools),
    ]
    shadow = [Text(f"{each.name} in the shadow: {each.shadow}") for each in pools if each.shadow is not None]
    tail = [Text(f"not known: {text}", style="dim", no_wrap=True, overflow="ellipsis") for text in view.unknown[:3]]
    tail += [_line(f"{each.at:%H:%M:%S}  {each.text}") for each in (view.decided or view.lately)[:HAPPENINGS]]
    legend = "  ".join(f"{_sign(state, ascii_only)} {state}" for state in SIGNS)
    others = 6 + len(head) + len(view.pools) + sum(1 + len(each) // width for each in shadow) + len(tail)
    room = None if height is None else max(4, height - others)
    nodes = _nodes_table(view, room, _Cells(pool=pool, width=max(12, width - BESIDE_CELLS), ascii_only=ascii_only))
    return Group(*head, *shadow, Text(), nodes, Text(legend, style="dim"), Text(), *tail)


def _head(view: View) -> Iterator[Text]:
    workers = sum(len(column.cells) for column in view.columns)
    money = f", ${view.dollars_an_hour:.2f} an hour" if view.dollars_an_hour is not None else ""
    told = f"{count(len(view.columns), 'node')}, {count(workers, 'worker')}{money}, {view.now:%H:%M:%S} UTC"
    yield Text(told, style="bold", no_wrap=True, overflow="ellipsis")
    for trouble in view.troubles:
        yield Text(f"{trouble.what}: not followed since {trouble.since:%H:%M:%S}: {trouble.problem}", style="bold red")


def _pools_table(pools: Iterable[PoolFigures]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("POOL", max_width=NAME, no_wrap=True, overflow="ellipsis")
    for name in ("BUSY", "IDLE", "NO NODE", "NODES", "NEEDS"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("A PASS NOW", no_wrap=True, overflow="ellipsis")
    for pool in pools:
        busy = sum(pool.counts.values()) - pool.counts.get(CellState.IDLE, 0)
        figures = map(str, (busy, pool.counts.get(CellState.IDLE, 0), pool.waiting, pool.nodes, pool.needs))
        table.add_row(Text(pool.name), *figures, Text(_pass_words(pool)))
    return table


def _pass_words(pool: PoolFigures) -> str:
    if pool.waits is not None:
        return f"waits: {pool.waits}"
    return f"evicts {pool.would_evict}" + (", but for dry-run" if pool.dry_run and pool.would_evict else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    """How workers are drawn: those of other pools than ``pool`` dim, ``width`` signs at most."""

    pool: str | None
    width: int
    ascii_only: bool

    def draw(self, column: Column) -> Text:
        """Draw a node's workers: a sign for each, or where there are too many, how many of each sign."""
        drawn = Text()
        if len(column.cells) <= self.width:
            for cell in column.cells:
                colour = SIGNS[cell.state][2] if self.pool in (None, cell.pool) else "dim"
                drawn.append(_sign(cell.state, self.ascii_only), style=colour)
        else:
            counted = Counter(cell.state for cell in column.cells)
            for state in (state for state in SIGNS if counted[state]):
                drawn.append(f"{_sign(state, self.ascii_only)}{counted[state]} ", style=SIGNS[state][2])
        if not column.needed and column.leaving is None:
            drawn.append(" not needed" if column.cells else "not needed", style="dim")
        return drawn


def _nodes_table(view: View, room: int | None, cells: _Cells) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", width=3, justify="right", no_wrap=True)
    table.add_column("NODE", width=NAME, no_wrap=True, overflow="ellipsis")
    table.add_column("SEEN", width=AGE, no_wrap=True, overflow="ellipsis")
    table.add_column("WORKERS", width=cells.width, no_wrap=True, overflow="ellipsis")
    table.add_column("TYPE", width=TYPE, no_wrap=True, overflow="ellipsis")
    oldest, newest, between = _shown(view.columns, room)
    for column in oldest:
        table.add_row(*_row(view, column, cells))
    if between:
        table.add_row("", Text(f"{count(between, 'node')} between"), "", "", "", style="dim")
    for column in newest:
        table.add_row(*_row(view, column, cells))
    return table


def _shown(columns: Sequence[Column], room: int | None) -> tuple[Sequence[Column], Sequence[Column], int]:
    """Choose the oldest and the newest nodes, so many as there are lines for, and count those between."""
    if room is None or len(columns) <= room:
        return columns, (), 0
    first = room // 2
    last = max(1, room - first - 1)
    return columns[:first], columns[-last:], len(columns) - first - last


def _row(view: View, column: Column, cells: _Cells) -> Iterator[Text | str]:
    """Rank (- while it leaves), name, since when it is seen, workers, machine and price."""
    yield "-" if column.rank is None else str(column.rank)
    yield Text(column.name)
    if column.leaving is not None:
        yield Text("leaving", style="red")
    elif column.ending is not None:
        yield Text("ending", style="yellow")
    else:
        yield span(view.now - column.first_seen) if column.first_seen is not None else "not yet"
    yield cells.draw(column)
    price = f" ${column.price:.2f}" if column.price is not None else ""
    yield Text(f"{column.instance_type or ''}{price}")


def _sign(state: CellState, ascii_only: bool) -> str:
    return SIGNS[state][1 if ascii_only else 0]


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


# -- the terminal -----------------------------------------------------------------------------------------------------


async def show_top(following: Following, stop: asyncio.Event) -> None:
    """Draw until ``stop`` or the key q; once where standard output is no terminal.

    Keys: p or Tab takes the next pool, a all pools, q ends.
    """
    console = Console()
    if not sys.stdout.isatty():  # FORCE_COLOR makes a pipe a terminal to rich
        ascii_only = console.options.ascii_only
        console.print(render_view(following.view, pool=None, width=console.width, height=None, ascii_only=ascii_only))
        return
    chosen = _Chosen(following)

    def press(key: str) -> None:
        if key in ("q", "\x03"):
            stop.set()
        chosen.press(key)

    async with _keys(press):
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while not stop.is_set():
                view = following.view
                drawn = render_view(
                    view,
                    pool=chosen.pool,
                    width=console.size.width,
                    height=console.size.height,
                    ascii_only=console.options.ascii_only,
                )
                live.update(drawn, refresh=True)
                await _first_of(stop, chosen, following, view)


async def _first_of(stop: asyncio.Event, chosen: _Chosen, following: Following, view: View) -> None:
    chosen.pressed.clear()
    waiting = [asyncio.create_task(each) for each in (stop.wait(), chosen.pressed.wait(), following.next_view(view))]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


class _Chosen:
    """Which pool is shown, by the keys that were pressed. ``pool`` None: all."""

    def __init__(self, following: Following) -> None:
        self.pool: str | None = None
        self.pressed = asyncio.Event()
        self._following = following

    def press(self, key: str) -> None:
        """Take a key."""
        names = [pool.name for pool in self._following.view.pools]
        if key == "a":
            self.pool = None
        elif key in ("p", "\t") and names:
            here = names.index(self.pool) if self.pool in names else -1
            self.pool = names[here + 1] if here + 1 < len(names) else None
        self.pressed.set()


@asynccontextmanager
async def _keys(press: Callable[[str], None]) -> AsyncIterator[None]:
    """Hand on each key as it is pressed, where standard input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    loop, file = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(file)
    tty.setcbreak(file)
    loop.add_reader(file, lambda: press(sys.stdin.read(1)))
    try:
        yield
    finally:
        loop.remove_reader(file)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(file, termios.TCSADRAIN, before)
