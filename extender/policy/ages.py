"""Node age: when a node was first seen, and the one order that every decision uses.

Owns the order key and the rules that turn observations into first-seen times. Reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from zlib import crc32

from extender.model import FOREVER, AgeSource, Node, OrderKey, Pod

SLOTS = 8
"""Nodes first seen in the same minute are ordered by slot, then UID: a batch fills one node after the other."""


def slot(uid: str) -> int:
    """Place a node UID in one of eight slots: CRC-32 modulo 8, the same in every process and for ever."""
    return crc32(uid.encode()) % SLOTS


def order_key(node: Node, first_seen: datetime | None, age: AgeSource = AgeSource.FIRST_SEEN) -> OrderKey:
    """Order nodes by age; the smaller key is the older node.

    1. seen before not seen yet; 2. first seen in whole minutes, or for a node not seen yet its creation in seconds;
    3. slot; 4. UID. With ``AgeSource.CREATED`` every node counts as first seen at its creation.
    """
    seen = node.created if age is AgeSource.CREATED else first_seen
    if seen is not None:
        return (0, int(seen.timestamp() // 60), slot(node.uid), node.uid)
    return (1, int(node.created.timestamp()), slot(node.uid), node.uid)


def is_of_old_machine(worker: Pod, node: Node) -> bool:
    """A worker says nothing of this machine when: 1. it was created and bound before the Node was; 2. it became Ready
    before that too.

    Its name was another machine's then. A pod waits for a new node, so creation alone says nothing, and a Ready time of
    a kubelet's clock does not either. Once the kubelet of this machine has started it, it is a worker like others.
    """
    if worker.created >= node.created or worker.bound is None or worker.bound >= node.created:
        return False
    if node.created == FOREVER:  # nobody says when
        return False
    return worker.ready_since is None or worker.ready_since < node.created


def observed_first_seen(node: Node, worker: Pod, now: datetime) -> datetime | None:
    """Say when this worker shows that its node was seen: its Ready time, None while it is not Ready on this machine.

    Held between the node's creation and ``now``: the Ready time comes from the kubelet's clock, and one node with a
    clock of 1970 must not become the oldest for ever.
    """
    if worker.ready_since is None or worker.finished or worker.old_machine:
        return None
    return max(node.created, min(worker.ready_since, now))


def seeded_first_seen(nodes: Iterable[Node], names_with_workers: Iterable[str]) -> dict[str, datetime]:
    """Seed a first installation, by node UID: a node that has workers counts as seen at its creation.

    Nobody knows better, and it is the same for every replica and after every restart.
    """
    occupied = frozenset(names_with_workers)
    return {node.uid: node.created for node in nodes if node.name in occupied}
