"""The live view in a terminal: it fits into 80 columns, and says with signs what it says with colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs
from rich.console import Console

from extender.inspect.view.top import render_view
from extender.inspect.view.view_model import Beside, Happening, Trouble, View, view_of
from extender.model import Node, Pod
from tests.builders import AN_HOUR_AGO, NOW, claim, minutes_ago, node, worker
from tests.listening import synced_state

WORKERS = (
    worker("busy"),
    worker("idle", idle_since=AN_HOUR_AGO),
    worker("claimed", claim=claim()),
    worker("starting", ready_since=None),
    worker("going", terminating=True),
)


def view(nodes: Sequence[Node], pods: Sequence[Pod]) -> View:
    return view_of(synced_state(nodes, pods), NOW, Beside(prices={"big": 0.4}))


def lines(view: View, *, pool: str | None = None, height: int | None = None, ascii_only: bool = False) -> list[str]:
    """What a terminal of 80 columns without colours shows."""
    console = Console(width=80, height=height, color_system=None)
    with console.capture() as captured:
        console.print(render_view(view, pool=pool, height=height, ascii_only=ascii_only))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_each_state_has_a_sign_of_its_own() -> None:
    """Also where a terminal has nothing but ASCII."""
    order = [structs.replace(pod, created=minutes_ago(40 - place)) for place, pod in enumerate(WORKERS)]
    seen = view([node(instance_type="big")], order)
    line = "  1 node-a                 1h       {}                      big $0.40"
    assert line.format("■□◆+\N{MULTIPLICATION SIGN}") in lines(seen)
    assert line.format("#o@+x") in lines(seen, ascii_only=True)
    assert all(line.isascii() for line in lines(seen, ascii_only=True))


def test_it_fits_into_80_columns_whatever_names_are_like() -> None:
    """A long name is cut, and says so; many workers are counted."""
    name = "n" * 253
    pods = [worker(f"w-{number}", node=name, pool="p" * 63) for number in range(300)]
    seen = view([node(name, instance_type="t" * 63)], pods)
    seen = replace(seen, lately=(Happening(at=NOW, text="x" * 500),), unknown=("y" * 500,))
    shown = lines(seen)
    assert max(map(len, shown)) <= 80
    assert any("■300" in line for line in shown)


def test_a_short_terminal_shows_the_oldest_and_the_newest() -> None:
    """And counts those between; a pipe gets all."""
    many = view([node(f"n-{number:03}", created=minutes_ago(500 - number)) for number in range(100)], [])
    shown = lines(many, height=24)
    assert len(shown) <= 24
    text = "\n".join(shown)
    assert "n-000" in text
    assert "n-099" in text
    assert "nodes between" in text
    assert sum("n-0" in line for line in lines(many)) == 100


def test_trouble_says_since_when() -> None:
    """In the lines at the top."""
    seen = replace(view([node()], []), troubles=(Trouble(what="pods", since=NOW, problem="connection refused"),))
    assert "pods: not followed since 12:00:00: connection refused" in lines(seen)


def test_a_name_is_no_markup() -> None:
    """Square brackets are styles to the library that draws."""
    seen = view([node("[red]n")], [worker("x", pool="[bold]p", node="[red]n")])
    text = "\n".join(lines(seen))
    assert "[red]n" in text
    assert "[bold]p" in text


def test_decisions_take_the_place_of_what_was_seen_and_the_shadow_stands_below_its_pool() -> None:
    """Where nobody told any, what was seen is shown. A terminal of 24 lines is not overrun."""
    told = (Happening(at=NOW, text="decided"),) * 20
    beside = Beside(decided=told, shadow={"ducks": "3 workers bound: " + "x " * 70})
    nodes = [node(f"n-{number}") for number in range(50)]
    seen = replace(
        view_of(synced_state(nodes, [worker(pool="ducks")]), NOW, beside), lately=(Happening(at=NOW, text="seen"),)
    )
    shown = lines(seen, height=24)
    assert len(shown) <= 24
    assert sum(line.endswith("  decided") for line in shown) == 6
    assert not any(line.endswith("  seen") for line in shown)
    assert any(line.startswith("ducks in the shadow: 3 workers bound: ") for line in shown)
    assert any(line.endswith("  seen") for line in lines(replace(seen, decided=())))
