"""How many nodes a pool would need if its workers were packed, oldest node first. Pure.

No list of nodes and pods says how many more workers fit on a node: so many as the fullest node of its instance type
has. A wrong guess makes the set a little too long or too short, and decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from extender.cluster.state import ClusterState
from extender.policy.working_set import Reach, wanted_room


def packed(state: ClusterState, pool: str, now: datetime) -> Sequence[str]:
    """Name the nodes that the pool's workers need where each goes to the most preferred node that has room.

    Workers that wait for a node count, those that are going do not. Shorter than needed where no node ever had a worker
    and all wait.
    """
    left = state.where.needed(pool).workers + len(state.where.waiting(pool))
    needed = []
    for name, room in _rooms(state, pool, now).items():
        if left <= 0:
            break
        if room:
            needed.append(name)
            left -= room
    return needed


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSet:
    """A pool's working set: the first so many ``nodes`` by preference, up to the one that is ``last`` in it."""

    nodes: int
    last: str


def working_set_of(state: ClusterState, pool: str, slack: float, now: datetime) -> PoolSet | None:
    """Find the pool's working set (`policy.working_set`), with the same guess of what a node holds; None: no node."""
    rooms, needed = _rooms(state, pool, now), state.where.needed(pool)
    reach = Reach(room - needed.on[name] for name, room in rooms.items())
    nodes = reach.nodes(wanted_room(needed.workers, slack))
    return PoolSet(nodes=nodes, last=list(rooms)[nodes - 1]) if nodes else None


def _rooms(state: ClusterState, pool: str, now: datetime) -> Mapping[str, int]:
    """Guess how many workers of the pool each node holds, the most preferred node first."""
    on = state.where.needed(pool).on
    fullest: Counter[str | None] = Counter()
    for name, node in state.nodes.items():
        fullest[node.instance_type] = max(fullest[node.instance_type], on[name])
    return {name: fullest[state.nodes[name].instance_type] for name in state.ranking.as_of(now)}
