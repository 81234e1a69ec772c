"""What is known of the cluster, kept up to date event by event. Owns which part hears of which event; does no I/O.

`kube.watch` feeds it, `web` and `loops` read it. Every answer depends on this state and the request alone, so replicas
with the same state agree. The clock is a constructor argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from extender.cluster.node_ages import NodeAges
from extender.cluster.node_ranking import NodeRanking
from extender.cluster.object_store import ClusterObjects
from extender.cluster.placed_keys import PlacedKeys
from extender.cluster.pod_index import PodIndex
from extender.model import AgeSource, Departure, Ledger, Node, NodeClaim, NodePool, OrderKey, Pod
from extender.policy.ages import seeded_first_seen
from extender.policy.defaults import EndingRules
from extender.policy.departure import says_the_same


class ClusterState:
    """Its parts, each to be read by whoever needs it: ``objects``, ``ages``, ``ranking`` and ``keys``.

    It is itself the view that policies read (`policy.cluster_view`). ``synced``: everything was loaded.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime],
        age: AgeSource = AgeSource.FIRST_SEEN,
        ending_rules: EndingRules | None = None,
        is_clock_off: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self.objects = ClusterObjects()
        self.ages = NodeAges(is_clock_off)
        self.ranking = NodeRanking(self.objects, self.ages, age=age, ending_rules=ending_rules)
        self.keys = PlacedKeys(self.objects)
        self.synced = False
        self._written: dict[str, list[str]] = {}  # by UID, versions that our writes made and no event showed yet

    # -- what comes in ------------------------------------------------------------------------------------------------

    def replace_nodes(self, nodes: Iterable[Node]) -> None:
        """Take a complete list of nodes in place of what was known."""
        before = self.nodes
        self.objects.replace_nodes(nodes)
        same = {name for name, node in before.items() if name in self.nodes and self.nodes[name].uid == node.uid}
        self.keys.history.keep_only(same)
        self.ages.keep_only({node.uid for node in self.nodes.values()})
        self.ranking.clear()
        for node in self.nodes.values():
            self._take_changed(node, is_new=node.name not in before)

    def upsert_node(self, node: Node) -> None:
        """Take a new or changed node. Another UID under the same name is another node."""
        known = self.objects.put_node(node)
        if known is not None and known.uid != node.uid:
            self.ages.forget(known)
            self.keys.history.forget_node(node.name)
        self._take_changed(node, is_new=known is None)

    def delete_node(self, node: Node) -> None:
        """Forget a node, unless another one of that name has taken its place already."""
        if self.objects.take_node(node):
            self.ranking.forget(node.name)
            self.keys.history.forget_node(node.name)
        self.ages.forget(node)

    def replace_pods(self, pods: Iterable[Pod]) -> None:
        """Take a complete list of pods in place of what was known."""
        before = self.pods
        self.objects.replace_pods(pods)
        self._written.clear()
        now = self._clock()
        for pod in self.pods.values():
            self.keys.count(pod, before.get(pod.uid), now)
        for node in self.nodes.values():
            self._observe(node)

    def upsert_pod(self, pod: Pod) -> None:
        """Take a new or changed pod."""
        pod, known = self.objects.put_pod(pod)
        now = self._clock()
        self.keys.count(pod, known, now)
        if known is not None and known.node != pod.node:
            self._rank_named(known.node)
        node = self.nodes.get(pod.node or "")
        if node is None:
            return
        is_older = pod.pool is not None and self.ages.observe(node, (pod,), now)
        if is_older or not says_the_same(pod, known, stays=self.ranking.stays(node.name)):
            self.ranking.rank(node, now)
        else:
            self.ranking.tell_changed((node.name,))

    def delete_pod(self, pod: Pod) -> None:
        """Forget a pod. What it showed about its node's age stays."""
        self._written.pop(pod.uid, None)
        known = self.objects.take_pod(pod)
        if known is not None:
            self._rank_named(known.node)

    def take_written(self, before: Pod, after: Pod) -> None:
        """Take what a write of ours made of a pod, unless a watch has told more of it already.

        One that changed nothing has no event by which it could be forgotten.
        """
        known = self.pods.get(before.uid)
        if known is not None and known.resource_version == before.resource_version:
            if after.resource_version != before.resource_version:
                self._written.setdefault(before.uid, []).append(after.resource_version)
            self.upsert_pod(after)

    def take_event(self, pod: Pod) -> bool:
        """Take a pod as a watch shows it; False where it shows what a later write of ours has changed already.

        Where it is what the answer to a write has shown, nothing changes; it is True, for others are to be told of it.
        """
        written = self._written.get(pod.uid, [])
        if pod.resource_version in written:
            if pod.resource_version != written[-1]:
                return False
            del self._written[pod.uid]
            known = self.pods.get(pod.uid)
            if known is not None and known.resource_version == pod.resource_version:
                return True
        self.upsert_pod(pod)
        return True

    def overlay_eviction(self, uid: str) -> None:
        """Take a pod that we evicted as terminating, until the watch shows that it is, or is gone."""
        pod = self.objects.overlay_eviction(uid)
        if pod is not None:
            self.upsert_pod(pod)

    def replace_node_claims(self, claims: Iterable[NodeClaim]) -> None:
        """Take a complete list of NodeClaims in place of what was known; an empty one where they cannot be read."""
        self.objects.replace_node_claims(claims)
        self.ranking.rank_all(self._clock())

    def upsert_node_claim(self, claim: NodeClaim) -> None:
        """Take a new or changed NodeClaim. It may come before its node or after it."""
        self.objects.put_node_claim(claim)
        self._rank_node_of(claim)

    def delete_node_claim(self, claim: NodeClaim) -> None:
        """Forget a NodeClaim."""
        self.objects.take_node_claim(claim)
        self._rank_node_of(claim)

    def go_by(self, ending_rules: EndingRules) -> None:
        """Take new rules for which nodes are ending."""
        self.ranking.go_by(ending_rules, self._clock())

    def take_ledger(self, ledger: Ledger | None) -> None:
        """Take the ledger as it is recorded now, None where there is none; rank the nodes whose age that changes."""
        before = {node.uid: self.ages.first_seen(node) for node in self.nodes.values()}
        self.ages.take_ledger(ledger, before.keys())
        for node in self.nodes.values():
            if self.ages.first_seen(node) != before[node.uid]:  # ranking all takes long, most writes are of a few nodes
                self.ranking.rank(node, self._clock())

    def begin(self, *, may_have_ledger: bool = False) -> None:
        """Start to answer: nodes, pods and ledger were loaded. Without a ledger, seeds the nodes that have workers.

        ``may_have_ledger``: it could not be read, so the seeds are guesses, see `NodeAges.seed`.
        """
        if self.ages.ledger is None:
            on_them = ((name, self.where.workers_on(name).values()) for name in self.where.names_with_workers())
            occupied = [name for name, workers in on_them if any(not worker.old_machine for worker in workers)]
            self.ages.seed(seeded_first_seen(self.nodes.values(), occupied), as_guesses=may_have_ledger)
            self.ranking.rank_all(self._clock())
        self.keys.begin(self._clock())
        self.synced = True

    # -- what policies read: `policy.cluster_view` says what each is -------------------------------------------------

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self.objects.nodes

    @property
    def pods(self) -> Mapping[str, Pod]:
        return self.objects.pods

    @property
    def node_claims(self) -> Mapping[str, NodeClaim]:
        return self.objects.node_claims

    @property
    def node_pools(self) -> Mapping[str, NodePool]:
        return self.objects.node_pools

    @property
    def where(self) -> PodIndex:
        """Where the pods are; another one after each list."""
        return self.objects.where

    @property
    def order(self) -> Mapping[str, OrderKey]:
        return self.ranking.by_age

    def claim_of(self, node: Node) -> NodeClaim | None:
        return self.objects.claim_of(node)

    def preferred(self, now: datetime) -> Iterable[str]:
        return self.ranking.as_of(now)

    def departure(self, node_name: str) -> Departure | None:
        return self.objects.departure(node_name)

    def key_use(self, worker: Pod) -> float:
        return self.keys.use(worker)

    # -- upkeep -------------------------------------------------------------------------------------------------------

    def _take_changed(self, node: Node, *, is_new: bool) -> None:
        for worker in self.objects.misjudged_on(node):
            self.upsert_pod(worker)
        self._observe(node)
        if is_new:
            self.keys.count_on(node.name, self._clock())

    def _observe(self, node: Node) -> None:
        """Learn of a node's age from all workers on it, and rank it again."""
        now = self._clock()
        self.ages.observe(node, self.where.workers_on(node.name).values(), now)
        self.ranking.rank(node, now)

    def _rank_named(self, node_name: str | None) -> None:
        node = self.nodes.get(node_name or "")
        if node is not None:
            self.ranking.rank(node, self._clock())

    def _rank_node_of(self, claim: NodeClaim) -> None:
        node = self.objects.node_of(claim)
        if node is not None:
            self.ranking.rank(node, self._clock())
