"""Which nodes are going away: *leaving* (certain and soon) and *ending* (known, not soon).

Owns the closed sets of reasons and their precedence. Only the scheduler and Karpenter act on a departure; we rank.
"""

from __future__ import annotations

from collections.abc import Iterable

from extender.model import Departure, Ending, Node, Pod


def departure_of(node: Node) -> Departure | None:
    """Say why a node is leaving, None where it is not.

    1. the Node is being deleted; 2. Karpenter's disruption taint, which may still be taken back; 3. a cordon.
    """
    if node.deleting:
        return Departure.NODE_DELETING
    if node.disrupted:
        return Departure.DISRUPTED
    if node.unschedulable:
        return Departure.CORDONED
    return None


def ending_of(workers: Iterable[Pod]) -> Ending | None:
    """Say why a node is ending, from the workers on it: there are some and every one of them is terminating."""
    terminating = [worker.terminating for worker in workers]
    return Ending.WORKERS_TERMINATING if terminating and all(terminating) else None
