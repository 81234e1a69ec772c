"""What a live view shows, as one value: nodes from oldest to newest, a cell for each worker, the pools. Pure.

Both faces draw this and nothing else. Names come from the cluster and may be anything, so what a terminal or a page
might act on is taken out here, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from extender.cluster.state import ClusterState
from extender.inspect.packing import packed
from extender.inspect.plan import PoolReap
from extender.inspect.reason_words import words_of
from extender.inspect.text import printable
from extender.model import Departure, Ending, Pod, SkipReason
from extender.policy.idleness import is_claimed, reports_idle


class CellState(StrEnum):
    """What a worker is doing, the first of these that is so: going, claimed, starting (not Ready), idle, busy."""

    GOING = "going"
    CLAIMED = "claimed"
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One worker on a node. ``key`` says whose cache it uses, None where that is not known."""

    uid: str
    pod: str
    pool: str
    state: CellState
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One node. ``rank`` counts from 1, None for a leaving node; ``first_seen`` None: no worker was Ready there yet.

    ``needed``: the pools' workers, packed oldest first, would need it. ``price`` is dollars an hour, None where nobody
    said what such a machine costs. ``others`` counts pods of no pool that keep it.
    """

    uid: str
    name: str
    rank: int | None
    created: datetime
    first_seen: datetime | None
    leaving: Departure | None
    ending: Ending | None
    needed: bool
    instance_type: str | None
    node_pool: str | None
    price: float | None
    others: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFigures:
    """One pool. ``needs`` counts the nodes that it would need if packed, ``nodes`` those that it is on.

    ``waiting`` workers have no node yet. ``waits`` is in words why nothing of the pool is evicted now, ``shadow`` how
    warmnode would have placed it, None where nobody told.
    """

    name: str
    counts: Mapping[CellState, int]
    waiting: int
    nodes: int
    needs: int
    floor: int
    dry_run: bool
    would_evict: int
    waits: str | None
    shadow: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened, in a sentence."""

    at: datetime
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What cannot be followed, since when, and why: what is drawn is as old as that."""

    what: str
    since: datetime
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The cluster at ``now``, ``columns`` from the oldest node to the newest.

    ``lately`` is what was seen to happen, ``decided`` what replicas of warmnode told of their decisions, the last
    first. ``unknown`` names what could not be read and what that leaves open.
    """

    now: datetime
    columns: tuple[Column, ...]
    pools: tuple[PoolFigures, ...]
    lately: tuple[Happening, ...] = ()
    decided: tuple[Happening, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    unknown: tuple[str, ...] = ()
    dollars_an_hour: float | None = None
    """For the nodes whose price is known, None where none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a view shows beside the state: what a pass of the reaper would do, what replicas told of their decisions and
    of pools in the shadow, what is not known, prices by machine."""

    reaps: tuple[PoolReap, ...] = ()
    decided: tuple[Happening, ...] = ()
    shadow: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    prices: Mapping[str, float] = field(default_factory=dict)


def view_of(state: ClusterState, now: datetime, beside: Beside, before: View | None = None) -> View:
    """Show a state. Columns that are as they were ``before`` are the same objects, and ``lately`` goes on from there.

    Nodes stand by their order key, also leaving ones: a node keeps its place while it goes.
    """
    ranks = {name: rank for rank, name in enumerate(state.ranking.as_of(now), 1)}
    pools = sorted(state.where.pool_names() | {reap.pool for reap in beside.reaps})
    needed = {pool: packed(state, pool, now) for pool in pools}
    wanted = {name for names in needed.values() for name in names}
    known = {column.uid: column for column in before.columns} if before is not None else {}
    columns = []
    for name in sorted(state.nodes, key=state.order.__getitem__):
        column = _column(state, name, now, ranks.get(name), name in wanted, beside.prices)
        same = known.get(column.uid)
        columns.append(same if same == column else column)
    prices = [column.price for column in columns if column.price is not None]
    return View(
        now=now,
        columns=tuple(columns),
        pools=tuple(_pools(state, columns, pools, needed, beside)),
        decided=beside.decided,
        troubles=beside.troubles,
        unknown=tuple(map(printable, beside.unknown)),
        dollars_an_hour=sum(prices) if prices else None,
    )


def cell_state(worker: Pod, now: datetime) -> CellState:
    """Say what a worker is doing."""
    if worker.terminating:
        return CellState.GOING
    if is_claimed(worker, now):
        return CellState.CLAIMED
    if worker.ready_since is None:
        return CellState.STARTING
    return CellState.IDLE if reports_idle(worker, now) else CellState.BUSY


def _column(
    state: ClusterState, name: str, now: datetime, rank: int | None, needed: bool, prices: Mapping[str, float]
) -> Column:
    node = state.nodes[name]
    workers = sorted(state.where.workers_on(name).values(), key=lambda worker: (worker.created, worker.uid))
    kind = node.instance_type
    return Column(
        uid=node.uid,
        name=printable(name),
        rank=rank,
        created=node.created,
        first_seen=state.ages.first_seen(node),
        leaving=state.departure(name),
        ending=state.ranking.ending(name, now),
        needed=needed,
        instance_type=printable(kind) if kind is not None else None,
        node_pool=printable(node.node_pool) if node.node_pool is not None else None,
        price=prices.get(kind) if kind is not None else None,
        others=state.where.holders_on(name, besides="") - sum(not each.terminating for each in workers),
        cells=tuple(
            Cell(
                uid=worker.uid,
                pod=printable(f"{worker.namespace}/{worker.name}"),
                pool=printable(worker.pool or ""),
                state=cell_state(worker, now),
                key=printable(worker.cache_key) if worker.cache_key is not None else None,
            )
            for worker in workers
        ),
    )


def _pools(
    state: ClusterState,
    columns: Iterable[Column],
    names: Sequence[str],
    needed: Mapping[str, Sequence[str]],
    beside: Beside,
) -> Iterable[PoolFigures]:
    counts: dict[str, Counter[CellState]] = {}
    nodes: Counter[str] = Counter()
    for column in columns:
        for cell in column.cells:
            counts.setdefault(cell.pool, Counter())[cell.state] += 1
        nodes.update({cell.pool for cell in column.cells})
    judged = {reap.pool: reap for reap in beside.reaps}
    for pool in names:
        shown, reap = printable(pool), judged.get(pool)
        yield PoolFigures(
            name=shown,
            counts=dict(counts.get(shown, {})),
            waiting=len(state.where.waiting(pool)),
            nodes=nodes[shown],
            needs=len(needed[pool]),
            floor=reap.floor if reap is not None else 0,
            dry_run=reap is not None and reap.dry_run,
            would_evict=len(reap.victims) if reap is not None and reap.waits is None else 0,
            waits=_waits(reap) if reap is not None else None,
            shadow=printable(beside.shadow[pool]) if pool in beside.shadow else None,
        )


def _waits(reap: PoolReap) -> str | None:
    if reap.waits is None:
        return None
    is_paused = reap.waits is SkipReason.POOL_PAUSED and reap.paused_until is not None
    return words_of(reap.waits) + (f", until {reap.paused_until:%H:%M:%S} UTC" if is_paused else "")
