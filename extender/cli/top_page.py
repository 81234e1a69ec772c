"""Commands that show a cluster as it changes, for people: top and page. Both only list and watch."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TypeAlias

from extender.cli.flags import cluster_flags, cluster_options, flag
from extender.cli.look_source import configuration_of, looks_once, selector_flag
from extender.cli.outcome import CLEAN, BadUsage, fail
from extender.cli.parser import CommandParser, Commands, command
from extender.inspect.view.following import Following, following
from extender.inspect.view.view_page import serve_page
from extender.kube.errors import KubeError
from extender.web.server import Address, ListenerProblem

_TOP = """\
Shows the nodes from oldest to newest in the terminal, a cell for each worker: busy, claimed, idle, starting, going.
Follows the cluster by list and watch, and writes nothing. Without a terminal it prints once. Keys: p or Tab takes the
next pool, a all pools, q ends. Needs rich: pip install 'rich>=14'.
"""

_PAGE = """\
Shows the same as a web page, on loopback, at the address that it prints: nodes as columns, the oldest left, workers as
cells; a click on one says why it is there; a slider goes back over the last hour. Ends with Ctrl-C.
"""

Face: TypeAlias = Callable[[Following, asyncio.Event], Awaitable[None]]
"""Shows what is followed until the event is set."""


def _top_flags(parser: CommandParser) -> None:
    command(parser, _TOP, looks_once(_top))
    _view_flags(parser)


def _page_flags(parser: CommandParser) -> None:
    command(parser, _PAGE, looks_once(_page))
    _view_flags(parser)
    text = "address of the page, on loopback; port 0 takes a free one"
    flag(parser, "--page-listen", text, default="127.0.0.1:0", metavar="HOST:PORT")


COMMANDS: Commands = {"top": _top_flags, "page": _page_flags}


def _view_flags(parser: argparse.ArgumentParser) -> None:
    cluster_flags(parser)
    selector_flag(parser)
    parser.add_argument(
        "--price",
        action="append",
        default=[],
        metavar="TYPE=DOLLARS",
        help="what an instance type costs an hour, such as m7i.2xlarge=0.40; may be given several times",
    )


def _top(options: argparse.Namespace) -> int:
    if find_spec("rich") is None:
        raise BadUsage("top needs rich: pip install 'rich>=14'; warmnode page needs nothing")
    from extender.inspect.view.top import show_top  # rich is an extra

    return _show(options, show_top)


def _page(options: argparse.Namespace) -> int:
    try:
        address = Address.parse(options.page_listen)
    except ValueError as error:
        raise BadUsage(f"--page-listen: {error}") from error
    if not address.is_loopback:
        raise BadUsage(
            f"--page-listen {address} can be reached from other machines, and the page has no users: listen on "
            "127.0.0.1, and forward the port to where you are (ssh -L)"
        )

    async def face(followed: Following, stop: asyncio.Event) -> None:
        await serve_page(followed, address, lambda url: print(url, flush=True), stop)

    return _show(options, face)


def _show(options: argparse.Namespace, face: Face) -> int:
    try:
        asyncio.run(_follow(options, face))
    except KubeError as error:
        return fail(f"the cluster cannot be followed: {error}")
    except ListenerProblem as problem:
        return fail(str(problem))
    return CLEAN


async def _follow(options: argparse.Namespace, face: Face) -> None:
    stop = asyncio.Event()
    configuration = configuration_of(options)
    async with following(cluster_options(options), configuration, _prices(options.price)) as followed:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await face(followed, stop)


def _prices(given: list[str]) -> dict[str, float]:
    """Read what --price was given. Raises `BadUsage`."""
    prices = {}
    for text in given:
        kind, _, dollars = text.rpartition("=")
        try:
            price = float(dollars)
        except ValueError:
            price = -1.0
        if not kind or not 0 <= price < 1e6:
            raise BadUsage(f"--price: write TYPE=DOLLARS, like m7i.2xlarge=0.40 (got {text!r})")
        prices[kind] = price
    return prices
