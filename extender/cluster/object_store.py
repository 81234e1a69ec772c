"""The objects that are known: nodes, pods, NodeClaims and NodePools, and where the pods are. Reads no clock.

Owns what is laid over a pod before it is kept: that it was evicted, and that it ran on an earlier machine of its node's
name.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from extender.cluster.pod_index import PodIndex
from extender.model import Departure, Node, NodeClaim, NodePool, Pod, SkipReason
from extender.policy.ages import is_of_old_machine
from extender.policy.departure import departure_of, why_barred


class ClusterObjects:
    """Nodes and NodePools by name, pods and NodeClaims by UID.

    Karpenter's are empty where there is none, or they may not be read. ``where`` has the pods by node and by pool; it
    is another one after each list, so take it from here each time. Nobody but this class changes any of them.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, Pod] = {}
        self.node_claims: dict[str, NodeClaim] = {}
        self.node_pools: dict[str, NodePool] = {}
        self._claimed: dict[str, str] = {}  # name of the node of each NodeClaim, by the claim's UID
        self._evicted: set[str] = set()
        self.where = PodIndex()

    # -- what comes in ------------------------------------------------------------------------------------------------

    def replace_nodes(self, nodes: Iterable[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self._claimed = {node.node_claim: node.name for node in self.nodes.values() if node.node_claim is not None}

    def put_node(self, node: Node) -> Node | None:
        """Take a new or changed node; return the one that had its name."""
        known = self.nodes.get(node.name)
        if known is not None and known.uid != node.uid:
            self._forget_claim_of(known)
        self.nodes[node.name] = node
        if node.node_claim is not None:
            self._claimed[node.node_claim] = node.name
        return known

    def take_node(self, node: Node) -> bool:
        """Forget a node; False where another one has taken its place already, or it was not known."""
        known = self.nodes.get(node.name)
        if known is None or known.uid != node.uid:
            return False
        del self.nodes[node.name]
        self._forget_claim_of(known)
        return True

    def replace_pods(self, pods: Iterable[Pod]) -> None:
        self.pods = {pod.uid: pod for pod in map(self._overlaid, pods)}
        self.where = PodIndex()
        for pod in self.pods.values():
            self.where.put(pod)
        self._evicted &= self.pods.keys()

    def put_pod(self, pod: Pod) -> tuple[Pod, Pod | None]:
        """Take a new or changed pod; return it is kept, and as it was known before."""
        pod = self._overlaid(pod)
        known = self.pods.get(pod.uid)
        self.pods[pod.uid] = pod
        if known is not None:
            self.where.take(known)
        self.where.put(pod)
        return pod, known

    def take_pod(self, pod: Pod) -> Pod | None:
        """Forget a pod; return it was known."""
        self._evicted.discard(pod.uid)
        known = self.pods.pop(pod.uid, None)
        if known is not None:
            self.where.take(known)
        return known

    def overlay_eviction(self, uid: str) -> Pod | None:
        """Take a pod that we evicted as terminating from the next time on that it is put; return it, None: needless."""
        pod = self.pods.get(uid)
        if pod is None or pod.terminating:
            return None
        self._evicted.add(uid)
        return pod

    def replace_node_claims(self, claims: Iterable[NodeClaim]) -> None:
        self.node_claims = {claim.uid: claim for claim in claims}

    def put_node_claim(self, claim: NodeClaim) -> None:
        self.node_claims[claim.uid] = claim

    def take_node_claim(self, claim: NodeClaim) -> None:
        self.node_claims.pop(claim.uid, None)

    def replace_node_pools(self, node_pools: Iterable[NodePool]) -> None:
        self.node_pools = {node_pool.name: node_pool for node_pool in node_pools}

    def put_node_pool(self, node_pool: NodePool) -> None:
        self.node_pools[node_pool.name] = node_pool

    def take_node_pool(self, node_pool: NodePool) -> None:
        """Forget a NodePool, unless another one of that name has taken its place already."""
        known = self.node_pools.get(node_pool.name)
        if known is not None and known.uid == node_pool.uid:
            del self.node_pools[node_pool.name]

    # -- what is read -------------------------------------------------------------------------------------------------

    def claim_of(self, node: Node) -> NodeClaim | None:
        """Find the NodeClaim of a node, None where it has none, or none that could be read."""
        return self.node_claims.get(node.node_claim) if node.node_claim is not None else None

    def node_of(self, claim: NodeClaim) -> Node | None:
        """Find the node of a NodeClaim, None where it has none yet."""
        return self.nodes.get(self._claimed.get(claim.uid, ""))

    def departure(self, node_name: str) -> Departure | None:
        """Say why a node is leaving, None where it is not, or is not known."""
        node = self.nodes.get(node_name)
        return departure_of(node, self.claim_of(node)) if node is not None else None

    def why_barred(self, node_name: str | None, now: datetime) -> SkipReason | None:
        """Say why nobody on a node can be handed out, None where that is not so, or the node is not known."""
        node = self.nodes.get(node_name or "")
        return None if node is None else why_barred(node, self.claim_of(node), now)

    def misjudged_on(self, node: Node) -> list[Pod]:
        """Find the workers on a node that have to be put again: this is another machine than they were put for."""
        workers = self.where.workers_on(node.name).values()
        return [worker for worker in workers if is_of_old_machine(worker, node) != worker.old_machine]

    def _overlaid(self, pod: Pod) -> Pod:
        node = self.nodes.get(pod.node) if pod.node is not None and pod.pool is not None else None
        if node is not None and is_of_old_machine(pod, node) != pod.old_machine:
            pod = replace(pod, old_machine=not pod.old_machine)
        if pod.uid not in self._evicted:
            return pod
        if pod.terminating:
            self._evicted.discard(pod.uid)
            return pod
        return replace(pod, terminating=True)

    def _forget_claim_of(self, node: Node) -> None:
        if node.node_claim is not None and self._claimed.get(node.node_claim) == node.name:
            del self._claimed[node.node_claim]
