"""The working set of a pool: the nodes that it needs anyway, so that a worker may go to any of them at no cost.

Owns how far it reaches; `scoring` says in which order its nodes come. Reads no clock and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, repeat


def working_set_size(holds: Iterable[int], workers: int, slack: float) -> int:
    """Count the nodes of the working set: the shortest prefix that has room for these workers, one more, and the slack.

    ``holds`` are the workers that each node can hold, in the order in which nodes are preferred. ``workers`` have a
    node now and are neither terminating nor finished. Room is wanted for (``workers`` + 1) x (1 + ``slack``); all nodes
    where they have less.
    """
    wanted = (workers + 1) * (1 + slack) - _ROUNDING
    size = 0
    for reached in accumulate(holds):
        size += 1
        if reached >= wanted:
            break
    return size


_ROUNDING = 1e-6
"""40 x 1.1 is a little more than 44 where numbers are binary, and must not take one more node."""


def capacities(
    nodes: Sequence[str], fits: Sequence[int], workers: Mapping[str, int], feasible: Collection[str]
) -> Iterator[int]:
    """Say how many workers each node holds when it is full, as far as one can know.

    1. A node that is not feasible for the next worker is full: the workers on it. 2. Any other: as many as there are in
    ``fits``, which counts them for an empty one, and at least one more than it has. A wrong number is a wrong slack and
    nothing worse.
    """
    there = map(workers.get, nodes, repeat(0))
    return (
        on if name not in feasible else fit if fit > on else on + 1
        for name, fit, on in zip(nodes, fits, there, strict=True)
    )
