"""What policies read of the cluster: a small protocol, so that none of them knows who keeps it up to date.

`cluster` implements it for the live state and for one look. Everything in it is read-only to a policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Protocol

from extender.model import Departure, Node, NodeClaim, NodePool, OrderKey, Pod


class PodsView(Protocol):
    """Where pods are: by node and by pool. Finished pods are nowhere."""

    def workers_on(self, node_name: str) -> Mapping[str, Pod]:
        """Give the workers on a node by UID, of every pool, terminating ones included."""
        ...

    def others_on(self, node_name: str) -> Iterable[Pod]:
        """Give the pods on a node that are no workers."""
        ...

    def is_held(self, node_name: str, *, without: str | None = None) -> bool:
        """True while a pod other than ``without`` holds a node: of any pool or none, and not terminating."""
        ...

    def holders_on(self, node_name: str, *, besides: str) -> int:
        """Count pods that hold a node and are not of pool ``besides``."""
        ...

    def waiting(self, pool: str) -> Mapping[str, Pod]:
        """Give the workers of a pool that wait for a node, by UID; not those that wait for a gate's removal."""
        ...

    def schedulers(self, pool: str) -> Collection[str]:
        """Name the schedulers that placed a worker of the pool that is still there."""
        ...

    def pool_names(self) -> set[str]:
        """Name the pools that have a worker, placed or not."""
        ...


class ClusterView(Protocol):
    """The cluster at a moment. ``node_claims`` are by UID, everything else is by name, pods are by UID."""

    @property
    def nodes(self) -> Mapping[str, Node]: ...
    @property
    def pods(self) -> Mapping[str, Pod]: ...
    @property
    def order(self) -> Mapping[str, OrderKey]: ...
    @property
    def node_claims(self) -> Mapping[str, NodeClaim]: ...
    @property
    def node_pools(self) -> Mapping[str, NodePool]: ...
    @property
    def where(self) -> PodsView: ...

    def claim_of(self, node: Node) -> NodeClaim | None:
        """Find the NodeClaim of a node, None where it has none, or none that could be read."""
        ...

    def departure(self, node_name: str) -> Departure | None:
        """Say why a node is leaving, None where it is not, or is not known."""
        ...

    def key_use(self, worker: Pod) -> float:
        """Say how much a placed worker's cache key was used on its node; -inf: it has none."""
        ...

    def preferred(self, now: datetime) -> Iterable[str]:
        """Name the nodes that are not leaving, in the order in which work goes to them as of ``now``."""
        ...
