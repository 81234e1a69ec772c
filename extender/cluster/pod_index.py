"""Where pods are: workers and others by node, workers that wait for one, how many a pool has, and who claimed which.

Owns the indexes over pods and nothing else. Finished pods are in none of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from extender.model import Pod
from extender.policy.claims import Claimant
from extender.policy.idleness import is_bound_to_its_node

_Key = TypeVar("_Key")


class PodIndex:
    """Pods by node and by pool, kept pod by pod: to change one, take the old one out and put the new one in.

    It is a `PodsView`, which says what policies may ask it.
    """

    def __init__(self) -> None:
        self._workers_on: dict[str, dict[str, Pod]] = {}
        self._marked_on: dict[str, dict[str, Pod]] = {}
        self._strangers_on: dict[str, dict[str, Pod]] = {}
        self._bound_on: dict[str, dict[str, Pod]] = {}
        self._waiting: dict[str, dict[str, Pod]] = {}
        self._schedulers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._placed: Counter[str] = Counter()
        self._needed: defaultdict[str, NeededRoom] = defaultdict(NeededRoom)
        self._with_claim: dict[str, Pod] = {}
        self._with_left_cost: dict[str, Pod] = {}
        self._by_claimant: dict[Claimant, dict[str, Pod]] = {}
        self._by_claim_id: dict[str, dict[str, Pod]] = {}

    def put(self, pod: Pod) -> None:
        """Take a pod in."""
        if pod.finished:
            return
        if pod.claim is not None:
            self._with_claim[pod.uid] = pod
            self._by_claimant.setdefault(Claimant.of(pod.claim), {})[pod.uid] = pod
            self._by_claim_id.setdefault(pod.claim.id, {})[pod.uid] = pod
        if pod.pool is None and (pod.cost_mark is not None or pod.disruption_mark is not None):
            self._with_left_cost[pod.uid] = pod
        if pod.node is None:
            if pod.pool is not None and not pod.terminating and not pod.gated:
                self._waiting.setdefault(pod.pool, {})[pod.uid] = pod
        elif pod.pool is not None:
            self._workers_on.setdefault(pod.node, {})[pod.uid] = pod
            if pod.idle_since is not None:
                self._marked_on.setdefault(pod.node, {})[pod.uid] = pod
            self._placed[pod.pool] += 1
            self._needed[pod.pool].add(pod, 0 if pod.terminating else 1)
            self._schedulers[pod.pool][pod.scheduler] += 1
        else:
            index = self._bound_on if is_bound_to_its_node(pod) else self._strangers_on
            index.setdefault(pod.node, {})[pod.uid] = pod

    def take(self, pod: Pod) -> None:
        """Take a pod out, as it was when it was put in."""
        self._with_left_cost.pop(pod.uid, None)
        if pod.claim is not None and self._with_claim.pop(pod.uid, None) is not None:
            _drop(self._by_claimant, Claimant.of(pod.claim), pod.uid)
            _drop(self._by_claim_id, pod.claim.id, pod.uid)
        if pod.node is None:
            _drop(self._waiting, pod.pool or "", pod.uid)
        elif pod.pool is None:
            _drop(self._strangers_on, pod.node, pod.uid)
            _drop(self._bound_on, pod.node, pod.uid)
        else:
            _drop(self._marked_on, pod.node, pod.uid)
            if _drop(self._workers_on, pod.node, pod.uid):
                self._placed[pod.pool] -= 1
                if not pod.terminating:
                    self._needed[pod.pool].add(pod, -1)
                if not self._placed[pod.pool]:
                    del self._placed[pod.pool], self._needed[pod.pool]
                schedulers = self._schedulers[pod.pool]
                schedulers[pod.scheduler] -= 1
                if not schedulers[pod.scheduler]:
                    del schedulers[pod.scheduler]
                if not schedulers:
                    del self._schedulers[pod.pool]

    def workers_on(self, node_name: str) -> Mapping[str, Pod]:
        return self._workers_on.get(node_name, {})

    def marked_on(self, node_name: str) -> Mapping[str, Pod]:
        """Give those of `workers_on` that carry an idle mark: the only ones that a claim has to look at."""
        return self._marked_on.get(node_name, {})

    def strangers_on(self, node_name: str) -> Mapping[str, Pod]:
        """Give the pods on a node that are no workers and would hold it, by UID, terminating ones included."""
        return self._strangers_on.get(node_name, {})

    def others_on(self, node_name: str) -> Iterator[Pod]:
        """Go through all pods on a node that are no workers: `strangers_on`, DaemonSets' and static ones."""
        yield from self.strangers_on(node_name).values()
        yield from self._bound_on.get(node_name, {}).values()

    def is_held(self, node_name: str, *, without: str | None = None) -> bool:
        for pods in (self.workers_on(node_name), self.strangers_on(node_name)):
            for pod in pods.values():
                if not pod.terminating and pod.uid != without:
                    return True
        return False

    def holders_on(self, node_name: str, *, besides: str) -> int:
        """Count pods that hold a node and are not of pool ``besides``. DaemonSet, static, terminating ones do not."""
        holders = 0
        for pod in self.strangers_on(node_name).values():
            holders += not pod.terminating
        for worker in self.workers_on(node_name).values():
            if worker.pool != besides and not worker.terminating:
                holders += 1
        return holders

    @property
    def with_claim(self) -> Mapping[str, Pod]:
        """Give the pods that carry a claim, in force or not, by UID: of any pool or none."""
        return self._with_claim

    @property
    def with_left_cost(self) -> Mapping[str, Pod]:
        """Give the pods of no pool that carry a price with our mark, by UID: they were workers."""
        return self._with_left_cost

    def claimed_by(self, claimant: Claimant) -> Mapping[str, Pod]:
        """Give the pods that carry a claim of this claimant, in force or not, by UID: one as a rule, or none."""
        return self._by_claimant.get(claimant, {})

    def claimed_as(self, claim_id: str) -> Mapping[str, Pod]:
        """Give the pods that carry a claim of this ID, in force or not, by UID: one, or none."""
        return self._by_claim_id.get(claim_id, {})

    def names_with_workers(self) -> frozenset[str]:
        return frozenset(self._workers_on)

    def waiting(self, pool: str) -> Mapping[str, Pod]:
        return self._waiting.get(pool, {})

    def schedulers(self, pool: str) -> Collection[str]:
        return self._schedulers.get(pool, {}).keys()

    @property
    def placed(self) -> Mapping[str, int]:
        """Count the workers on nodes by pool, terminating ones included, finished ones not."""
        return self._placed

    def names_with_marks(self) -> Collection[str]:
        """Name the nodes that have a worker with an idle mark: the live collection."""
        return self._marked_on.keys()

    def needed(self, pool: str) -> NeededRoom:
        """Give the room that a pool's workers take."""
        return self._needed.get(pool, _NOTHING)

    def pool_names(self) -> set[str]:
        return self._placed.keys() | self._waiting.keys()


class NeededRoom:
    """The room that the workers of one pool take, without those that are terminating or finished: by node, and in all.

    ``idle`` are those with an idle mark and no claim, ``at_work`` counts the others. ``revision`` counts changes.
    """

    def __init__(self) -> None:
        self.on: Counter[str] = Counter()
        self.idle: Counter[str] = Counter()
        self.workers = 0
        self.at_work = 0
        self.revision = 0
        self._changed: deque[str] = deque(maxlen=_MOST_CHANGES)

    def add(self, pod: Pod, sign: int) -> None:
        """Add a placed worker, or with -1 take it off."""
        node = pod.node or ""
        is_idle = pod.idle_since is not None and pod.claim is None
        for counts in (self.on, self.idle) if is_idle else (self.on,):
            counts[node] += sign
            if not counts[node]:
                del counts[node]
        self.workers += sign
        self.at_work += sign * (not is_idle)
        self.revision += 1
        self._changed.append(node)

    def changed_since(self, revision: int) -> set[str] | None:
        """Name the nodes that have changed since this revision; None where that is too long ago to be known."""
        changes = self.revision - revision
        return set(islice(reversed(self._changed), changes)) if changes <= len(self._changed) else None


_MOST_CHANGES = 256
"""So many changes are known: between two requests there are fewer, and else all is looked at anew."""
_NOTHING = NeededRoom()


def _drop(index: dict[_Key, dict[str, Pod]], key: _Key, uid: str) -> bool:
    """Take a pod out of one of the indexes; False where it was not there."""
    there = index.get(key, {})
    if there.pop(uid, None) is None:
        return False
    if not there:
        del index[key]
    return True
