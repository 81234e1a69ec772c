"""Why one pod, node or pool is where it is: the same policies as a plan, asked about one thing. Pure.

`explain_text` shows the values; docs/explain.md describes their JSON form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from enum import StrEnum

from extender.cluster.state import ClusterState
from extender.inspect.packing import PoolSet
from extender.inspect.plan import Look, NodeLine, Plan, PoolLine, PoolReap
from extender.inspect.text import count, some
from extender.model import Node, NodeClaim, OrderKey, Pod, SkipReason
from extender.policy.deletion_cost import (
    CostState,
    Price,
    as_deletion_cost,
    as_number,
    cost_state,
    node_seen_of,
    standing,
)
from extender.policy.idleness import is_claimed, reports_idle, why_not_claimable, why_not_reapable
from extender.settings import Configuration, PoolSettings
from extender.settings.in_force import InForce


class Subject(StrEnum):
    POD = "pod"
    NODE = "node"
    POOL = "pool"


class NotThere(Exception):
    """There is nothing of that name, or more than one. The message is one line with what there is instead."""


class Fate(StrEnum):
    """What a pass of the reaper would do with a worker now."""

    EVICTED = "evicted"
    STAYS = "stays"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFate:
    """A worker and what a pass would do: ``reason`` is why it stays, None for a busy or an evicted one.

    ``position`` counts from 1 among those that a pass evicts. ``not_claimable`` None: it can be handed out.
    """

    pod: Pod
    fate: Fate
    reason: SkipReason | None
    position: int | None
    not_claimable: SkipReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CostMeaning:
    """A price of a worker. ``node_first_seen`` is what the value says of the node; None where it says nothing.

    ``lower_in_pool`` counts the pool's other workers whose price is lower: a ReplicaSet takes those first, as far as
    they are its own. ``to_write`` is what would be written now, None for nothing.
    """

    value: str | None
    whose: CostState
    says_idle: bool | None
    node_first_seen: datetime | None
    lower_in_pool: int
    to_write: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodExplanation:
    """A pod. Everything but ``pod`` and ``node`` is None or empty for one of no pool, and ``no_pool`` says why."""

    pod: Pod
    node: NodeLine | None
    no_pool: str | None = None
    worker: WorkerFate | None = None
    not_reapable: SkipReason | None = None
    waits: SkipReason | None = None
    paused_until: datetime | None = None
    evictions: int = 0
    before: tuple[Pod, ...] = ()
    cost: CostMeaning | None = None
    disruption: CostMeaning | None = None
    """What Karpenter alone reads; None where it neither stands there nor is to be written."""
    settings: PoolSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeExplanation:
    """A node: its place in the order, who stands before and after it, and what holds it.

    ``ranked`` counts the nodes that have a rank. ``key`` is its order key. ``others`` counts pods of no pool that would
    keep it. ``empties``: a pass would leave nothing on it that keeps it. ``sets`` are the working sets of pools, each
    with its name and whether this node is in it.
    """

    line: NodeLine
    node: Node
    claim: NodeClaim | None
    key: OrderKey
    ranked: int
    before: NodeLine | None
    after: NodeLine | None
    workers: tuple[WorkerFate, ...]
    others: int
    empties: bool
    sets: tuple[tuple[str, PoolSet, bool], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolExplanation:
    """A pool: settings, what a pass would do, and who would be handed out, the first one first."""

    line: PoolLine
    settings: PoolSettings
    reap: PoolReap
    schedulers: tuple[tuple[str, int], ...]


Explanation = PodExplanation | NodeExplanation | PoolExplanation


def explain(look: Look, subject: Subject, name: str) -> Explanation:
    """Explain one thing. A pod is named as NAME, or as NAMESPACE/NAME where several have that name.

    Raises:
        NotThere: there is none, or more than one.
    """
    match subject:
        case Subject.POD:
            return explain_pod(look, name)
        case Subject.NODE:
            return explain_node(look, name)
        case Subject.POOL:
            return explain_pool(look, name)


# -- a pod ------------------------------------------------------------------------------------------------------------


def explain_pod(look: Look, name: str) -> PodExplanation:
    pod = _find_pod(look.state, name)
    node = next((line for line in look.plan.nodes if line.name == pod.node), None)
    if pod.pool is None:
        return PodExplanation(pod=pod, node=node, no_pool=_why_no_pool(look.configuration))
    if pod.finished:
        return PodExplanation(pod=pod, node=node, no_pool="it has finished: such a pod is no worker any more")
    settings = InForce(look.configuration).settings(pod.pool)
    reap = _reap_of(look.plan, pod.pool)
    fate = _fate(look, pod, reap)
    disruption = _cost(look, pod, reap, Price.DISRUPTION)
    before = reap.victims if fate.position is None else reap.victims[: fate.position - 1]
    return PodExplanation(
        pod=pod,
        node=node,
        worker=fate,
        not_reapable=why_not_reapable(pod, settings.reap, look.plan.now),
        waits=reap.waits,
        paused_until=reap.paused_until,
        evictions=len(reap.victims),
        before=before,
        cost=_cost(look, pod, reap, Price.DELETION),
        disruption=disruption if disruption.value is not None or disruption.to_write is not None else None,
        settings=settings,
    )


def _find_pod(state: ClusterState, name: str) -> Pod:
    namespace, slash, short = name.rpartition("/")
    found = [
        pod
        for pod in state.pods.values()
        if pod.name == (short if slash else name) and (not slash or pod.namespace == namespace)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        places = some(sorted(f"{pod.namespace}/{pod.name}" for pod in found), most=5)
        raise NotThere(f"{count(len(found), 'pod')} have the name {name}: {places}; give NAMESPACE/NAME")
    near = get_close_matches(short, (pod.name for pod in state.pods.values()), n=3)
    raise NotThere(f"there is no pod {name} among {count(len(state.pods), 'pod')}{_did_you_mean(near)}")


def _did_you_mean(near: Iterable[str]) -> str:
    names = some(sorted(set(near)))
    return f"; did you mean {names}?" if names else ""


def _why_no_pool(configuration: Configuration) -> str:
    if configuration.pools is None:
        return "it has no label warmnode.dev/pool, and no pool is configured that would select it"
    if not configuration.pools:
        return "the configuration has no pool"
    return f"none of the configured pools selects it: {some(pool.name for pool in configuration.pools)}"


def _reap_of(plan: Plan, pool: str) -> PoolReap:
    return next(reap for reap in plan.reaps if reap.pool == pool)


def _fate(look: Look, pod: Pod, reap: PoolReap) -> WorkerFate:
    position = next((place for place, victim in enumerate(reap.victims, 1) if victim.uid == pod.uid), None)
    because = next((reason for stays, reason in reap.stays if stays.uid == pod.uid), None)
    if position is not None:
        fate, because = (Fate.EVICTED, None) if reap.waits is None else (Fate.STAYS, reap.waits)
    elif because is not None:
        fate = Fate.STAYS
    elif is_claimed(pod, look.plan.now):
        fate, because = Fate.STAYS, SkipReason.CLAIMED
    else:
        fate = Fate.BUSY if pod.node is None or not reports_idle(pod, look.plan.now) else Fate.STAYS
    return WorkerFate(
        pod=pod,
        fate=fate,
        reason=because,
        position=position,
        not_claimable=why_not_claimable(pod, look.state.objects.why_barred(pod.node, look.plan.now), look.plan.now),
    )


def _cost(look: Look, pod: Pod, reap: PoolReap, price: Price) -> CostMeaning:
    state = cost_state(pod, price)
    text = standing(pod, price)[0]
    value = as_number(text)
    said = value if state is CostState.OURS else None
    if said is not None and price is Price.DISRUPTION:
        said = as_deletion_cost(said, pod.priority)
    members = [other for other in look.state.pods.values() if other.pool == pod.pool and not other.finished]
    mine = value or 0
    lower = sum((as_number(standing(other, price)[0]) or 0) < mine for other in members if other.uid != pod.uid)
    return CostMeaning(
        value=text,
        whose=state,
        says_idle=None if said is None else said < 0,
        node_first_seen=None if said is None else node_seen_of(said),
        lower_in_pool=lower,
        to_write=next((write.values.get(price) for write in reap.costs if write.pod.uid == pod.uid), None),
    )


# -- a node -----------------------------------------------------------------------------------------------------------


def explain_node(look: Look, name: str) -> NodeExplanation:
    state, plan = look.state, look.plan
    node = state.nodes.get(name)
    if node is None:
        near = get_close_matches(name, state.nodes, n=3)
        raise NotThere(f"there is no node {name} among {count(len(state.nodes), 'node')}{_did_you_mean(near)}")
    place = next(position for position, line in enumerate(plan.nodes) if line.name == name)
    line = plan.nodes[place]
    ranked = [each for each in plan.nodes if each.rank is not None]
    workers = tuple(
        _fate(look, pod, _reap_of(plan, pod.pool))
        for pod in sorted(
            state.where.workers_on(name).values(), key=lambda pod: (pod.pool or "", pod.namespace, pod.name)
        )
        if pod.pool is not None
    )
    staying = [worker for worker in workers if worker.fate is not Fate.EVICTED and not worker.pod.terminating]
    others = state.where.holders_on(name, besides="") - sum(not worker.pod.terminating for worker in workers)
    return NodeExplanation(
        line=line,
        node=node,
        claim=state.claim_of(node),
        key=state.order[name],
        ranked=len(ranked),
        before=ranked[line.rank - 2] if line.rank is not None and line.rank > 1 else None,
        after=ranked[line.rank] if line.rank is not None and line.rank < len(ranked) else None,
        workers=workers,
        others=others,
        empties=not staying and not others,
        sets=tuple(
            (pool.name, pool.working_set, line.rank is not None and line.rank <= pool.working_set.nodes)
            for pool in plan.pools
            if pool.working_set is not None
        ),
    )


# -- a pool -----------------------------------------------------------------------------------------------------------


def explain_pool(look: Look, name: str) -> PoolExplanation:
    state, plan = look.state, look.plan
    line = next((each for each in plan.pools if each.name == name), None)
    configured = {pool.name for pool in look.configuration.pools or ()}
    if line is None and name not in configured:
        known = sorted(configured | {each.name for each in plan.pools})
        there = f"there are {some(known, most=10)}" if known else "no pod belongs to a pool"
        raise NotThere(f"there is no pool {name}: {there}")
    settings = InForce(look.configuration).settings(name)
    workers = [pod for pod in state.pods.values() if pod.pool == name and not pod.finished]
    schedulers = Counter(pod.scheduler for pod in workers)
    unused = PoolReap(pool=name, floor=settings.reap.floor, dry_run=settings.dry_run)
    reap = next((reap for reap in plan.reaps if reap.pool == name), unused)
    return PoolExplanation(
        line=line or PoolLine(name=name, idle=0, busy=0, claimed=0, pending=0, nodes=0),
        settings=settings,
        reap=reap,
        schedulers=tuple(sorted(schedulers.items())),
    )
