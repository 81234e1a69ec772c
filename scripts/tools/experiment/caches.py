"""The caches of the nodes while a run goes on: a task loads its model from the one of its node, or waits for it.

Owns what a miss costs. Each node has a cache of its own, empty when the node is new and lost with it.
"""

from __future__ import annotations

from collections import defaultdict

from extender.simulate.cache import BlockCache
from scripts.tools.experiment.record import Attempt
from scripts.tools.experiment.traffic import Task

WARM_SECONDS, COLD_SECONDS = 1.0, 10.9
"""What a task takes longer for loading a model that its node has, and one that it has not."""


class NodeCaches:
    """The least recently used caches of all nodes, each for ``models`` models."""

    def __init__(self, models: int) -> None:
        self._by_node: defaultdict[str, BlockCache] = defaultdict(lambda: BlockCache(models))

    def start(self, task: Task, now: float, *, node: str, pod: str) -> Attempt:
        """Load the task's model on a node, where it is from now on, and return the attempt that begins there."""
        hit = self._by_node[node].read(task.model)
        return Attempt(
            task=task.number,
            model=task.model,
            arrived=task.at,
            work=task.work,
            hit=hit,
            loading=WARM_SECONDS if hit else COLD_SECONDS,
            started=now,
            node=node,
            pod=pod,
        )
