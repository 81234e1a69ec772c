"""Preempt: which node a preemption takes place on. Owns the order of candidates; the victims of a node never change.

On any doubt the input is echoed, which leaves the choice to the scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from extender.model import BusyVictims, OrderKey, Pod, Victims
from extender.policy.idleness import asks_not_to_be_disturbed, is_undisturbed
from extender.policy.pools import PoolsInForce
from extender.policy.scoring import PreferenceKey


class PreemptVerdict(StrEnum):
    """What was done with a preemption and why."""

    CHOSEN = "chosen"
    VETOED = "vetoed"
    NO_WORKER = "noWorker"
    UNKNOWN_NODE = "unknownNode"
    UNKNOWN_POD = "unknownPod"
    UNKNOWN_PRIORITY = "unknownPriority"
    NO_VICTIMS = "noVictims"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionView:
    """What is known when a preemption is judged: nodes by name, pods by UID, the pools' ``busyVictims``.

    ``order`` holds every known node, ``preference`` only those that are not leaving.
    """

    order: Mapping[str, OrderKey]
    preference: Mapping[str, PreferenceKey]
    pods: Mapping[str, Pod]
    pools: PoolsInForce
    now: datetime

    def pool_of(self, pod: Pod) -> str | None:
        """Name the pool that a pod counts as a worker of, None for one in the shadow too."""
        return None if self.pools.is_shadow(pod.pool) else pod.pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The candidates that stay. ``nodes`` is the whole input where it is echoed, and empty where all are vetoed."""

    nodes: tuple[str, ...]
    verdict: PreemptVerdict


def choose_preemption(*, preemptor_pool: str | None, candidates: Mapping[str, Victims], view: PreemptionView) -> Choice:
    """Choose the node where a preemption costs least. One node is returned: only that decides.

    Order: 1. fewest PDB violations; 2. fewest busy, claimed or do-not-disrupt victims; 3. lowest highest victim
    priority; 4. lowest sum of victim priorities; 5. node by age: for a worker that preempts, the oldest node, leaving
    and ending ones last; for another pod that preempts workers, the newest; 6. fewest victims; 7. node UID, which
    ends every order key. A worker that preempts workers goes by the rule for workers: it is the one that stays.

    Criterion 2 follows ``busyVictims`` of the victim's pool: ``protect`` drops the node (all dropped: the answer is
    empty, the pod stays unschedulable and Karpenter adds a node), ``lastResort`` counts, ``ignore`` does not count.

    Echoes the input where no worker is involved, and on any doubt: a node, victim or priority that is not known, or a
    candidate without victims (another extender's business since kubernetes/kubernetes#135486).
    """
    everything = tuple(candidates)
    doubt = _doubt(candidates, view)
    if doubt is not None:
        return Choice(nodes=everything, verdict=doubt)
    victims = {name: [view.pods[uid] for uid in entry.pod_uids] for name, entry in candidates.items()}
    if preemptor_pool is None and not any(view.pool_of(pod) for pods in victims.values() for pod in pods):
        return Choice(nodes=everything, verdict=PreemptVerdict.NO_WORKER)

    def cost(name: str) -> tuple[int, int, int, int, tuple[int, ...], int, str]:
        pods = victims[name]
        priorities = [pod.priority or 0 for pod in pods]
        *age, uid = view.order[name]
        if preemptor_pool is None:
            place = tuple(-part for part in age)
        else:
            going, *_ = view.preference.get(name, (2,))
            place = (going, *age)
        return (
            candidates[name].pdb_violations,
            sum(_counts_as_busy(pod, view) for pod in pods),
            max(priorities),
            sum(priorities),
            place,
            len(pods),
            uid,
        )

    allowed = [name for name in everything if not any(_is_protected(pod, view) for pod in victims[name])]
    if not allowed:
        return Choice(nodes=(), verdict=PreemptVerdict.VETOED)
    return Choice(nodes=(min(allowed, key=cost),), verdict=PreemptVerdict.CHOSEN)


def _doubt(candidates: Mapping[str, Victims], view: PreemptionView) -> PreemptVerdict | None:
    for name, entry in candidates.items():
        if name not in view.order:
            return PreemptVerdict.UNKNOWN_NODE
        if not entry.pod_uids:
            return PreemptVerdict.NO_VICTIMS
        for uid in entry.pod_uids:
            pod = view.pods.get(uid)
            if pod is None or pod.node != name:
                return PreemptVerdict.UNKNOWN_POD
            if pod.priority is None:
                return PreemptVerdict.UNKNOWN_PRIORITY
    return PreemptVerdict.NO_WORKER if not candidates else None


def _counts_as_busy(pod: Pod, view: PreemptionView) -> bool:
    """A worker counts by its pool's setting; another pod counts only when it says ``do-not-disrupt``.

    One that is being deleted goes anyway: it counts for nobody.
    """
    if pod.terminating:
        return False
    pool = view.pool_of(pod)
    if pool is None:
        return asks_not_to_be_disturbed(pod, view.now)
    return view.pools.of(pool).busy_victims is not BusyVictims.IGNORE and is_undisturbed(pod, view.now)


def _is_protected(pod: Pod, view: PreemptionView) -> bool:
    pool = view.pool_of(pod)
    if pool is None or pod.terminating:
        return False
    return view.pools.of(pool).busy_victims is BusyVictims.PROTECT and is_undisturbed(pod, view.now)
