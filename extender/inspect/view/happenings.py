"""What happened between two views, in sentences: who went where, what left, which nodes came and which are gone. Pure.

Equal things of one moment are one sentence: a burst of two hundred workers is a line for each node, not for each pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from extender.inspect.text import count
from extender.inspect.view.view_model import Cell, CellState, Column, Happening, View

KEPT = 50
"""So many happenings are kept."""


def with_happenings(view: View, before: View | None) -> View:
    """Say in ``lately`` what happened since ``before``, the last first."""
    if before is None:
        return view
    new = [Happening(at=view.now, text=text) for text in _sentences(before, view)]
    return replace(view, lately=(*reversed(new), *before.lately)[:KEPT])


def _sentences(before: View, view: View) -> Iterator[str]:
    """Nodes that came, then node by node from the oldest what happened there, then nodes that are gone."""
    known = {column.uid: column for column in before.columns}
    ranked = sum(column.rank is not None for column in view.columns)
    for column in view.columns:
        if column.uid not in known:
            yield f"node {column.name} came"
    for column in view.columns:
        if (then := known.get(column.uid)) is not column:
            yield from _on_node(then, column, ranked)
    gone = known.keys() - {column.uid for column in view.columns}
    for column in before.columns:
        if column.uid in gone:
            yield f"node {column.name} is gone; {count(len(column.cells), 'worker')} were on it"


def _on_node(before: Column | None, column: Column, ranked: int) -> Iterator[str]:
    then = {cell.uid: cell for cell in before.cells} if before is not None else {}
    now = {cell.uid: cell for cell in column.cells}
    where = f"{column.name}, {f'rank {column.rank} of {ranked}' if column.rank is not None else 'which is leaving'}"
    if placed := [cell for uid, cell in now.items() if uid not in then]:
        yield f"{_who(placed)} went to {where}"
    changed = [cell for uid, cell in now.items() if uid in then and then[uid].state is not cell.state]
    if claimed := [cell for cell in changed if cell.state is CellState.CLAIMED]:
        yield f"{_who(claimed)} on {column.name} {_is_or_are(claimed)} claimed"
    leaving = [cell for cell in changed if cell.state is CellState.GOING]
    leaving += [cell for uid, cell in then.items() if uid not in now and cell.state is not CellState.GOING]
    if leaving:
        idle = sum(then[cell.uid].state is CellState.IDLE for cell in leaving)
        yield f"{_who(leaving)} left {where}; {idle} of {len(leaving)} idle"
    if before is not None and before.leaving is None and column.leaving is not None:
        yield f"node {column.name} is leaving ({column.leaving})"


def _who(cells: Iterable[Cell]) -> str:
    listed = list(cells)
    return listed[0].pod if len(listed) == 1 else count(len(listed), "worker")


def _is_or_are(cells: list[Cell]) -> str:
    return "is" if len(cells) == 1 else "are"
