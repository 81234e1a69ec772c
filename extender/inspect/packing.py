"""How many nodes a pool would need if its workers were packed, oldest node first. Pure.

No list of nodes and pods says how many more workers fit on a node: so many as the fullest node of its instance type
has. A wrong guess makes the set a little too long or too short, and decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from extender.cluster.state import ClusterState


def packed(state: ClusterState, pool: str, now: datetime) -> Sequence[str]:
    """Name the nodes that the pool's workers need where each goes to the most preferred node that has room.

    Workers that wait for a node count, those that are going do not. Shorter than needed where no node ever had a worker
    and all wait.
    """
    here = {name: _staying(state, name, pool) for name in state.nodes}
    fullest: Counter[str | None] = Counter()
    for name, node in state.nodes.items():
        fullest[node.instance_type] = max(fullest[node.instance_type], here[name])
    left = sum(here.values()) + len(state.where.waiting(pool))
    needed = []
    for name in state.ranking.as_of(now):
        if left <= 0:
            break
        room = max(here[name], fullest[state.nodes[name].instance_type])
        if room:
            needed.append(name)
            left -= room
    return needed


def _staying(state: ClusterState, node: str, pool: str) -> int:
    return sum(worker.pool == pool and not worker.terminating for worker in state.where.workers_on(node).values())
