"""Says which nodes leave, in the log: one line for each, where people look for why workers went elsewhere.

Decides nothing: `policy.departure` does. Nodes that were leaving when everything was loaded are in the metric only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import timedelta

from extender.cluster.state import ClusterState
from extender.logs import fields
from extender.model import Departure

log = logging.getLogger("warmnode.nodes")

LOOK = timedelta(seconds=2)


async def tell_departures(state: ClusterState) -> None:
    """Look every two seconds at the nodes that changed. Ends only by cancellation."""
    told: dict[str, Departure] | None = None
    with state.ranking.changes() as changed:
        while True:
            await asyncio.sleep(LOOK.total_seconds())
            if not state.synced:
                continue
            if told is None:
                leaving = ((name, state.departure(name)) for name in state.nodes)
                told = {name: reason for name, reason in leaving if reason is not None}
                changed.clear()
                continue
            names = set(changed)
            changed.clear()
            tell_changes(state, names, told)


def tell_changes(state: ClusterState, names: Iterable[str], told: dict[str, Departure]) -> None:
    """Say of these nodes which ones leave, and which stay after all; ``told`` is what was said last, and is kept."""
    for name in sorted(names):
        reason, before = state.departure(name), told.get(name)
        if reason is None:
            told.pop(name, None)
            if before is not None and name in state.nodes:
                log.info("node stays after all", extra=fields(node=name, was=before))
            continue
        told[name] = reason
        if before is None:
            workers = len(state.where.workers_on(name))
            log.info("node leaves", extra=fields(node=name, reason=reason, workers=workers))
