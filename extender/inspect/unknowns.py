"""What one look at a cluster leaves open, in words. Owns what is said of it; a plan and an explanation show it."""

from __future__ import annotations

from collections.abc import Iterator

from extender.cluster.state import ClusterState
from extender.inspect.snapshot import Snapshot
from extender.model import AgeSource
from extender.settings import Configuration
from extender.settings.in_force import InForce


def what_is_unknown(
    snapshot: Snapshot, state: ClusterState, configuration: Configuration, *, evicts: bool
) -> Iterator[str]:
    """Name what could not be read or cannot be seen, each with what that leaves open. ``evicts``: a pass would."""
    yield from snapshot.doubts
    if snapshot.ledger is None and configuration.age is AgeSource.FIRST_SEEN:
        yield "when each node's first worker was ready (no ledger): nodes with workers go by their creation"
    if why := snapshot.unread.get("Node"):
        yield f"the order of nodes, and so what a pass does with a worker (no Node: {why})"
    if snapshot.only is not None:
        yield f"workers of other namespaces than {snapshot.only} (none were read): counts are of this one alone"
    if not state.pods:
        yield "which workers run where (no Pod)"
    yield from _unknown_of_karpenter(snapshot, state)
    if any(pool.cache_key is not None for pool in (configuration.pool_defaults, *(configuration.pools or ()))):
        yield "which cache keys ran before and have gone: only the workers that are there count"
    if evicts:
        if snapshot.brakes is None:
            yield f"which pools pause because evicted workers came back ({_no('Lease', snapshot)})"
        yield "which evictions a PodDisruptionBudget would refuse (only the API server says)"
    yield from _asked_outside(state, configuration)


def _unknown_of_karpenter(snapshot: Snapshot, state: ClusterState) -> Iterator[str]:
    """Name what is not known without Karpenter's objects, where there are nodes of Karpenter's."""
    if any(node.node_claim for node in state.nodes.values()) and not state.node_claims:
        yield f"which nodes Karpenter has begun to take ({_no('NodeClaim', snapshot)})"
    if any(node.node_pool for node in state.nodes.values()) and not state.node_pools:
        yield f"which empty nodes Karpenter would take ({_no('NodePool', snapshot)})"
    if state.node_pools and "PodDisruptionBudget" in snapshot.unread:
        yield f"which nodes a PodDisruptionBudget holds ({_no('PodDisruptionBudget', snapshot)})"


def _no(kind: str, snapshot: Snapshot) -> str:
    why = snapshot.unread.get(kind)
    return f"no {kind}: {why}" if why else f"no {kind}"


def _asked_outside(state: ClusterState, configuration: Configuration) -> Iterator[str]:
    """Name the pools whose workers only the reaper's leader can ask: what is known of them here is a mark of its."""
    in_force = InForce(configuration)
    for pool in sorted(state.where.pool_names()):
        rules = in_force.sources(pool)
        if not rules.outside:
            continue
        kinds = " and ".join(sorted({source.kind for source in rules.outside}))
        marks = "and it notes nothing in dry-run" if rules.dry_run else "its marks on the workers count here"
        yield f"which workers of pool {pool} are idle right now ({kinds}: only the reaper's leader asks, {marks})"
