"""What is known of the cluster, kept up to date event by event. Owns the indexes; does no I/O.

`kube.watch` feeds it, `web` and `loops` read it. Every answer depends on this state and the request alone, so replicas
with the same state agree. The clock is a constructor argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from math import inf

from msgspec.structs import replace

from extender.clock import MOST_OFF
from extender.cluster.pod_index import PodIndex
from extender.model import (
    FOREVER,
    AgeSource,
    BusyVictims,
    Departure,
    Ending,
    Ledger,
    Node,
    NodeClaim,
    NodePool,
    OrderKey,
    Pod,
    SkipReason,
)
from extender.policy import ages
from extender.policy.affinity import KeyHistory
from extender.policy.departure import EndingRules, departure_of, ending_of, turns_at, why_barred
from extender.policy.preemption import PreemptionView
from extender.policy.scoring import Ranking, preference_key

PAST = datetime.min.replace(tzinfo=UTC)


class ClusterState:
    """Nodes, pods, first-seen times and Karpenter's objects, and the order that follows from them.

    ``preference`` (placement) has no leaving node; ``order`` has every node. Both map node names to keys, are changed
    in place, and are exact after every event. ``preference`` also changes with time, as when a node comes near its
    expiry: take it from here for each decision. ``node_claims`` are by UID, ``node_pools`` by name, and both are empty
    where there is no Karpenter, or it may not be read. ``where`` has the pods by node and by pool; it is another one
    after each list, so take it from here each time. ``keys`` counts the workers that were placed since this process
    began, by node and cache key; it begins with those that are there.
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
        self._is_clock_off = is_clock_off
        self._ranked_at = PAST  # the latest time by which a node was ranked
        self._age = age
        self._ending_rules = ending_rules or EndingRules()
        self._ranking = Ranking()
        self._claimed: dict[str, str] = {}  # name of the node of each NodeClaim, by the claim's UID
        self._turns: dict[str, datetime] = {}  # when a node's rank next changes by the time alone
        self._next_turn = FOREVER  # none does before that
        self._evicted: set[str] = set()
        self._followers: list[set[str]] = []
        self._observed: dict[str, datetime] = {}
        self._guessed: dict[str, datetime] = {}  # counts while no ledger was read, and is never recorded
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, Pod] = {}
        self.where = PodIndex()
        self.order: dict[str, OrderKey] = {}
        self.node_claims: dict[str, NodeClaim] = {}
        self.node_pools: dict[str, NodePool] = {}
        self.keys = KeyHistory()
        self.key_changes = 0
        self.ledger: Ledger | None = None
        self.synced = False

    # -- what comes in ------------------------------------------------------------------------------------------------

    def replace_nodes(self, nodes: Iterable[Node]) -> None:
        """Take a complete list of nodes in place of what was known."""
        self._tell_changed(self.nodes)
        before = self.nodes
        self.nodes = {node.name: node for node in nodes}
        same = {name for name, node in before.items() if name in self.nodes and self.nodes[name].uid == node.uid}
        self.keys.keep_only(same)
        live = {node.uid for node in self.nodes.values()}
        self._observed = {uid: seen for uid, seen in self._observed.items() if uid in live}
        self.order.clear()
        self._ranking.clear()
        self._claimed.clear()
        self._turns.clear()
        for node in self.nodes.values():
            self._tell_machine(node)
            self._observe(node)
            if node.name not in before:
                self._count_keys_on(node.name)

    def upsert_node(self, node: Node) -> None:
        """Take a new or changed node. Another UID under the same name is another node."""
        known = self.nodes.get(node.name)
        if known is not None and known.uid != node.uid:
            self._observed.pop(known.uid, None)
            self._forget_claim_of(known)
            self.keys.forget_node(node.name)
        self.nodes[node.name] = node
        self._tell_machine(node)
        self._observe(node)
        if known is None:
            self._count_keys_on(node.name)

    def delete_node(self, node: Node) -> None:
        """Forget a node, unless another one of that name has taken its place already."""
        known = self.nodes.get(node.name)
        if known is not None and known.uid == node.uid:
            del self.nodes[node.name]
            self.order.pop(node.name, None)
            self._ranking.put(node.name, None)
            self._turns.pop(node.name, None)
            self._forget_claim_of(known)
            self._tell_changed([node.name])
            self.keys.forget_node(node.name)
        self._observed.pop(node.uid, None)

    def replace_pods(self, pods: Iterable[Pod]) -> None:
        """Take a complete list of pods in place of what was known."""
        before = self.pods
        self.pods = {}
        self.where = PodIndex()
        for pod in map(self._overlaid, pods):
            self.pods[pod.uid] = pod
            self.where.put(pod)
            self._count_key(pod, before.get(pod.uid))
        self._evicted &= self.pods.keys()
        for node in self.nodes.values():
            self._observe(node)

    def upsert_pod(self, pod: Pod) -> None:
        """Take a new or changed pod."""
        pod = self._overlaid(pod)
        known = self.pods.get(pod.uid)
        self.pods[pod.uid] = pod
        if known is not None:
            self.where.take(known)
        self.where.put(pod)
        self._count_key(pod, known)
        for name in {pod.node, known.node if known is not None else None}:
            self._observe_named(name)

    def delete_pod(self, pod: Pod) -> None:
        """Forget a pod. What it showed about its node's age stays."""
        self._evicted.discard(pod.uid)
        known = self.pods.pop(pod.uid, None)
        if known is not None:
            self.where.take(known)
            self._observe_named(known.node)

    def replace_node_claims(self, claims: Iterable[NodeClaim]) -> None:
        """Take a complete list of NodeClaims in place of what was known; an empty one where they cannot be read."""
        self.node_claims = {claim.uid: claim for claim in claims}
        self._rank_all()

    def upsert_node_claim(self, claim: NodeClaim) -> None:
        """Take a new or changed NodeClaim. It may come before its node or after it."""
        self.node_claims[claim.uid] = claim
        self._rank_named(self._claimed.get(claim.uid))

    def delete_node_claim(self, claim: NodeClaim) -> None:
        """Forget a NodeClaim."""
        self.node_claims.pop(claim.uid, None)
        self._rank_named(self._claimed.get(claim.uid))

    def replace_node_pools(self, node_pools: Iterable[NodePool]) -> None:
        """Take a complete list of NodePools in place of what was known."""
        self.node_pools = {node_pool.name: node_pool for node_pool in node_pools}

    def upsert_node_pool(self, node_pool: NodePool) -> None:
        """Take a new or changed NodePool."""
        self.node_pools[node_pool.name] = node_pool

    def delete_node_pool(self, node_pool: NodePool) -> None:
        """Forget a NodePool, unless another one of that name has taken its place already."""
        known = self.node_pools.get(node_pool.name)
        if known is not None and known.uid == node_pool.uid:
            del self.node_pools[node_pool.name]

    def go_by(self, ending_rules: EndingRules) -> None:
        """Take new rules for which nodes are ending."""
        if ending_rules != self._ending_rules:
            self._ending_rules = ending_rules
            self._rank_all()

    def overlay_eviction(self, uid: str) -> None:
        """Take a pod that we evicted as terminating, until the watch shows that it is, or is gone."""
        pod = self.pods.get(uid)
        if pod is not None and not pod.terminating:
            self._evicted.add(uid)
            self.upsert_pod(pod)

    def take_ledger(self, ledger: Ledger | None) -> None:
        """Take the ledger as it is recorded now, None where there is none.

        What was observed or recorded of live nodes stays known: a ledger that is deleted or emptied meanwhile changes
        no order, and what it lacks is written again.
        """
        before = {node.uid: self.first_seen(node) for node in self.nodes.values()}
        if self.ledger is not None:
            lost = ages.missing_from(ledger.first_seen if ledger is not None else {}, self.ledger.first_seen)
            live = {node.uid: lost[node.uid] for node in self.nodes.values() if node.uid in lost}
            self._observed = ages.merge_earliest(self._observed, live)
        if ledger is None:
            self._observed = ages.merge_earliest(self._observed, self._guessed)
        self._guessed = {}
        self.ledger = ledger
        for node in self.nodes.values():
            if self.first_seen(node) != before[node.uid]:  # ranking all takes long, and most writes are of a few nodes
                self._rank(node)

    def begin(self, *, may_have_ledger: bool = False) -> None:
        """Start to answer: nodes, pods and ledger were loaded. Without a ledger, seeds the nodes that have workers.

        ``may_have_ledger``: it could not be read, so the seeds are guesses. They are recorded once it is known that
        there is none, and forgotten where there is one: recorded times move earlier only, and a guess would stay.
        """
        if self.ledger is None:
            on_them = ((name, self.where.workers_on(name).values()) for name in self.where.names_with_workers())
            occupied = [name for name, workers in on_them if any(not worker.old_machine for worker in workers)]
            seeds = ages.seeded_first_seen(self.nodes.values(), occupied)
            if may_have_ledger:
                self._guessed = seeds
            else:
                self._observed = ages.merge_earliest(self._observed, seeds)
            self._rank_all()
        self.keys = KeyHistory()
        self.synced = True
        for pod in self.pods.values():
            self._count_key(pod, None)

    # -- what is read -------------------------------------------------------------------------------------------------

    @property
    def preference(self) -> Ranking:
        """Nodes that are not leaving, most preferred first, as of now by the clock. The live one: use it at once."""
        now = self._clock()
        if now >= self._next_turn:
            self._rank_turned()
        elif now + MOST_OFF < self._ranked_at:
            self._ranked_at = now
            self._rank_all()  # the clock was set back, and what had turned by it has not
        return self._ranking

    def first_seen(self, node: Node) -> datetime | None:
        """Say when a node was first seen: the earliest of what was observed and what is recorded. None: not yet."""
        observed = self._observed.get(node.uid)
        recorded = (self.ledger.first_seen if self.ledger is not None else self._guessed).get(node.uid)
        if observed is None or recorded is None:
            return recorded if observed is None else observed
        return min(observed, recorded)

    def unrecorded(self) -> dict[str, datetime]:
        """Select the observations that the ledger lacks, by node UID. Keys that make no sense there are let be."""
        if self.ledger is None:
            return dict(self._observed)
        missing = ages.missing_from(self.ledger.first_seen, self._observed)
        return {uid: seen for uid, seen in missing.items() if uid not in self.ledger.ignored}

    @contextmanager
    def changes(self) -> Iterator[set[str]]:
        """Give a set to which the names of nodes are added that change from now on, or whose workers do."""
        changed: set[str] = set()
        self._followers.append(changed)
        try:
            yield changed
        finally:
            self._followers = [each for each in self._followers if each is not changed]

    def claim_of(self, node: Node) -> NodeClaim | None:
        """Find the NodeClaim of a node, None where it has none, or none that could be read."""
        return self.node_claims.get(node.node_claim) if node.node_claim is not None else None

    def departure(self, node_name: str) -> Departure | None:
        """Say why a node is leaving, None where it is not, or is not known."""
        node = self.nodes.get(node_name)
        return departure_of(node, self.claim_of(node)) if node is not None else None

    def ending(self, node_name: str) -> Ending | None:
        """Say why a node is ending as of now, None where it is not, or is not known."""
        node = self.nodes.get(node_name)
        if node is None:
            return None
        workers = self.where.workers_on(node_name).values()
        return ending_of(node, workers, self.claim_of(node), self._ending_rules, self._clock())

    def why_barred(self, node_name: str | None) -> SkipReason | None:
        """Say why nobody on a node can be handed out, None where that is not so, or the node is not known."""
        node = self.nodes.get(node_name or "")
        return None if node is None else why_barred(node, self.claim_of(node), self._clock())

    def key_use(self, worker: Pod) -> float:
        """Say how much a placed worker's cache key was used on its node, see `KeyHistory.use`; -inf: it has none."""
        if worker.cache_key is None or worker.node is None:
            return -inf
        return self.keys.use(worker.node, worker.cache_key)

    def preemption_view(self, modes: Mapping[str, BusyVictims], default: BusyVictims) -> PreemptionView:
        """Show the state to the preemption policy. The mappings are the live ones: use the view at once."""
        return PreemptionView(
            order=self.order,
            preference=self.preference,
            pods=self.pods,
            busy_victims=modes,
            default_busy_victims=default,
            now=self._clock(),
        )

    # -- upkeep -------------------------------------------------------------------------------------------------------

    def _tell_machine(self, node: Node) -> None:
        """Say of each worker on a node whether it ran on an earlier machine of that name."""
        for worker in list(self.where.workers_on(node.name).values()):
            if ages.is_of_old_machine(worker, node) != worker.old_machine:
                self.upsert_pod(replace(worker, old_machine=not worker.old_machine))

    def _overlaid(self, pod: Pod) -> Pod:
        node = self.nodes.get(pod.node) if pod.node is not None and pod.pool is not None else None
        if node is not None and ages.is_of_old_machine(pod, node) != pod.old_machine:
            pod = replace(pod, old_machine=not pod.old_machine)
        if pod.uid not in self._evicted:
            return pod
        if pod.terminating:
            self._evicted.discard(pod.uid)
            return pod
        return replace(pod, terminating=True)

    def _count_key(self, pod: Pod, known: Pod | None) -> None:
        """Count a worker on its node: when it is first seen there, and again when its key changes.

        Not before everything is loaded, and not on a node that is not known: its workers are counted when it comes.
        """
        if pod.cache_key is None or pod.node is None or pod.node not in self.nodes or not self.synced:
            return
        if pod.old_machine:
            return
        if known is not None and known.node == pod.node and known.cache_key is not None:
            if known.cache_key == pod.cache_key and not known.old_machine:
                return
            self.key_changes += known.cache_key != pod.cache_key
        now = self._clock()
        self.keys.record(pod.node, pod.cache_key, min(pod.created, now) if known is None else now)

    def _count_keys_on(self, node_name: str) -> None:
        for worker in self.where.workers_on(node_name).values():
            self._count_key(worker, None)

    def _observe_named(self, node_name: str | None) -> None:
        node = self.nodes.get(node_name) if node_name else None
        if node is not None:
            self._observe(node)

    def _observe(self, node: Node) -> None:
        """Move the node's first-seen time earlier where a worker on it shows that, and rank it again.

        With a clock that is off nothing is learned, a later event of the node shows it too: what is recorded too early
        stays so for ever.
        """
        now = self._clock()
        for worker in () if self._is_clock_off() else self.where.workers_on(node.name).values():
            seen = ages.observed_first_seen(node, worker, now)
            if seen is not None and (node.uid not in self._observed or seen < self._observed[node.uid]):
                self._observed[node.uid] = seen
        self._rank(node)

    def _rank(self, node: Node) -> None:
        key = ages.order_key(node, self.first_seen(node), self._age)
        self.order[node.name] = key
        self._tell_changed([node.name])
        claim, now = self.claim_of(node), self._clock()
        self._ranked_at = max(self._ranked_at, now)
        if node.node_claim is not None:
            self._claimed[node.node_claim] = node.name
        workers = self.where.workers_on(node.name).values()
        turn = turns_at(node, workers, claim, self._ending_rules, now)
        if turn == FOREVER:
            self._turns.pop(node.name, None)
        else:
            self._turns[node.name] = turn
            self._next_turn = min(self._next_turn, turn)
        ending = ending_of(node, workers, claim, self._ending_rules, now)
        self._ranking.put(node.name, preference_key(key, departure_of(node, claim), ending))

    def _rank_named(self, node_name: str | None) -> None:
        node = self.nodes.get(node_name) if node_name is not None else None
        if node is not None:
            self._rank(node)

    def _rank_all(self) -> None:
        for node in self.nodes.values():
            self._rank(node)

    def _rank_turned(self) -> None:
        """Rank the nodes again whose time has come, and find out when the next one's does."""
        now, self._next_turn = self._clock(), FOREVER
        for name in [name for name, turn in self._turns.items() if turn <= now]:
            self._rank(self.nodes[name])
        self._next_turn = min(self._turns.values(), default=FOREVER)

    def _forget_claim_of(self, node: Node) -> None:
        if node.node_claim is not None and self._claimed.get(node.node_claim) == node.name:
            del self._claimed[node.node_claim]

    def _tell_changed(self, node_names: Iterable[str]) -> None:
        for changed in self._followers:
            changed.update(node_names)
