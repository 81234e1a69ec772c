"""Judging: which workers are evicted and why each other one stays, as one value for all pools of a moment.

Whoever wants to know why something is so starts here; the closed set of reasons is `model.SkipReason`. Each is decided
in one place: of a worker in `idleness`, of its node in `departure` and `node_pool_room`, of its pool in `brakes`, by
the floor and the limits of a pass in `reaping`, and a moment later, right before the eviction, in `recheck`.

A reaper carries a `Judgement` out, `plan` prints it, `explain` looks things up in it, metrics show the last one. Owns
how pools share what a moment has: the walk over the nodes, and the room that NodePools' budgets leave.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter

from msgspec import structs

from extender.model import Pod, SkipReason
from extender.policy.brakes import holds_up
from extender.policy.claims import claimable_on
from extender.policy.cluster_view import ClusterView
from extender.policy.defaults import ReapRules
from extender.policy.deletion_cost import CostWrite, cost_write, karpenter_on, stances
from extender.policy.departure import why_barred
from extender.policy.idleness import RulesNow
from extender.policy.node_pool_budgets import NO_BUDGETS, Kept
from extender.policy.node_pool_room import why_stays
from extender.policy.reaping import Assessment, EvictionPlan, Skips, assess_node, at_once, planning
from extender.policy.recheck import Circumstances, PoolRules, Standing, is_held_up


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCounts:
    """Placed workers, each once; how many the floor counts; how many wait for a node and hold up nothing any more."""

    idle: int
    busy: int
    claimed: int
    claimable: int
    unplaced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolJudgement:
    """One pool: whom to evict, in this order, and by UID why each other idle worker stays.

    ``waits`` is why the whole pool waits, None where it does not: then none of ``victims`` goes now. ``paused_until``:
    until when, where it waits because it is paused. ``claimable`` are the workers that can be handed out, first the one
    that a claim gets, and ``costs`` the deletion costs to write: both are given by `judge` only, as those who act on
    them do so worker by worker.
    """

    pool: str
    floor: int
    dry_run: bool
    waits: SkipReason | None
    paused_until: datetime | None
    victims: tuple[Pod, ...]
    skipped: Skips
    counts: PoolCounts
    claimable: tuple[Pod, ...] = ()
    costs: tuple[CostWrite, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The pools that were judged, by name, and the empty nodes that nobody takes, with what keeps them."""

    pools: Mapping[str, PoolJudgement]
    stuck: Mapping[str, Kept | None]


def judge(view: ClusterView, circumstances: Circumstances, pools: Iterable[str], now: datetime) -> Judgement:
    """Judge pools at once and in full, for who has the time; see `judging`."""
    judgement = at_once(judging(Standing(view, circumstances), pools, now))
    claimable = _claimable(view, judgement.pools, now)
    costs = _costs(view, {pool: circumstances.rules(pool) for pool in judgement.pools}, now)
    full = {
        pool: replace(judged, claimable=tuple(claimable[pool]), costs=tuple(costs[pool]))
        for pool, judged in judgement.pools.items()
    }
    return replace(judgement, pools=full)


def judging(standing: Standing, pools: Iterable[str], now: datetime) -> Generator[None, None, Judgement]:
    """Judge pools, in steps of one node. ``standing`` is a new one, and can be asked for single workers afterwards.

    Pools are judged by name, as if what was decided before were done: the victims of an earlier one hold no node any
    more, and a node that is empty without them has used its NodePool's room. The victims of a pool that waits stay, and
    those of a pool in dry-run are gone only for others in dry-run.
    """
    view, given = standing.view, standing.circumstances
    rules = {pool: given.rules(pool) for pool in sorted(pools)}
    assessed = yield from _assessing(standing, rules, now)
    yield from standing.room.counting(now)
    standing.count(assessed)
    left = standing.room.left(now)
    real, preview = _Aftermath(left), _Aftermath(left)
    judged = {}
    for pool, each in rules.items():
        after = preview if each.dry_run else real
        waits = _why_waits(standing, pool, each.reap, now)
        plan = yield from planning(after.of(assessed[pool]), each.reap, given.held, after.room, view.key_use)
        if waits is None:
            preview.take(plan)
            if not each.dry_run:
                real.take(plan)
        judged[pool] = PoolJudgement(
            pool=pool,
            floor=each.reap.floor,
            dry_run=each.dry_run,
            waits=waits,
            paused_until=given.paused.get(pool) if waits is SkipReason.POOL_PAUSED else None,
            victims=plan.victims,
            skipped=plan.skipped,
            counts=_counts(standing, pool, assessed[pool], now),
        )
        yield
    return Judgement(pools=judged, stuck=standing.room.stuck(now))


def cost_of(
    view: ClusterView,
    worker: Pod,
    rules: PoolRules,
    now: datetime,
    *,
    karpenter_writes: bool = False,
) -> CostWrite | None:
    """Decide what to write on one worker, None for nothing. Whether a pool is in dry-run is for the caller to ask.

    ``karpenter_writes``: it writes deletion costs itself, see `deletion_cost.stances`.
    """
    costs = rules.deletion_cost
    karpenter = karpenter_on(view.nodes.get(worker.node or ""), writes=karpenter_writes)
    wanted = stances(costs, worker, karpenter)
    return cost_write(worker, view.order.get(worker.node or ""), wanted, settle=costs.settle, now=now)


def _claimable(view: ClusterView, pools: Collection[str], now: datetime) -> Mapping[str, list[Pod]]:
    """Put the workers that can be handed out in order, by pool: 1. node by preference; 2. idle longest; 3. pod UID."""
    found: defaultdict[str, list[Pod]] = defaultdict(list)
    for name in view.preferred(now):
        node = view.nodes[name]
        barred = why_barred(node, view.claim_of(node), now)
        for pool, workers in _by_pool(view.where.workers_on(name).values(), pools).items():
            found[pool] += claimable_on(workers, pool, barred, now)
    return found


def _costs(view: ClusterView, rules: Mapping[str, PoolRules], now: datetime) -> Mapping[str, list[CostWrite]]:
    """Find the deletion costs to write, by pool, on the workers that are on a node."""
    found: defaultdict[str, list[CostWrite]] = defaultdict(list)
    for name in view.nodes:
        for pool, workers in _by_pool(view.where.workers_on(name).values(), rules).items():
            found[pool] += (write for worker in workers if (write := cost_of(view, worker, rules[pool], now)))
    return found


class _Aftermath:
    """What is left once the victims that were taken are gone: ``room`` by NodePool, and how many each node lost."""

    def __init__(self, room: Mapping[str, int]) -> None:
        self.room = dict(room)
        self._lost: Counter[str] = Counter()

    def take(self, plan: EvictionPlan) -> None:
        self._lost.update(victim.node or "" for victim in plan.victims)
        for node_pool in plan.emptied:
            self.room[node_pool] = max(0, self.room[node_pool] - 1)

    def of(self, assessed: Sequence[Assessment]) -> Sequence[Assessment]:
        if not self._lost:
            return assessed
        return [
            structs.replace(each, others=each.others - lost) if (lost := self._lost[each.node]) else each
            for each in assessed
        ]


def _assessing(
    standing: Standing, rules: Mapping[str, PoolRules], now: datetime
) -> Generator[None, None, dict[str, list[Assessment]]]:
    """Look at each node once, for all pools that have a worker there."""
    view, budgets = standing.view, standing.circumstances.budgets or NO_BUDGETS
    asked = {pool: RulesNow.of(each.reap, now) for pool, each in rules.items()}
    found: dict[str, list[Assessment]] = {pool: [] for pool in rules}
    for name in list(view.nodes):
        node = view.nodes.get(name)
        if node is not None and (by_pool := _by_pool(view.where.workers_on(name).values(), rules)):
            barred = why_barred(node, view.claim_of(node), now)
            stays = why_stays(view, name, now, budgets)
            for pool, workers in by_pool.items():
                found[pool].append(
                    assess_node(
                        node=name,
                        order_key=view.order[name],
                        barred=barred,
                        workers=standing.circumstances.workers(pool, workers),
                        others=view.where.holders_on(name, besides=pool),
                        asked=asked[pool],
                        stays=stays,
                        node_pool=node.node_pool,
                    )
                )
        yield
    return found


_POOL = attrgetter("pool")


def _by_pool(workers: Collection[Pod], pools: Collection[str]) -> dict[str, list[Pod]]:
    names = set(map(_POOL, workers))
    if len(names) == 1:  # most nodes
        (name,) = names
        return {name: list(workers)} if name in pools and name is not None else {}
    return {name: [worker for worker in workers if worker.pool == name] for name in names if name and name in pools}


def _why_waits(standing: Standing, pool: str, reap: ReapRules, now: datetime) -> SkipReason | None:
    """Say why nothing of a pool is evicted now, None where nothing forbids it.

    1. the clock here is off; 2. a worker that waits for a node holds it up (`brakes.holds_up`); 3. it is paused:
    workers came back after evictions, again and again; something recreates them, and evicting only moves them about;
    4. nobody knows which nodes budgets keep.
    """
    given, until = standing.circumstances, standing.circumstances.paused.get(pool)
    if given.is_clock_off:
        return SkipReason.CLOCK_OFF
    if is_held_up(standing.view, pool, reap, now):
        return SkipReason.PENDING_WORKERS
    if until is not None and now < until:
        return SkipReason.POOL_PAUSED
    return SkipReason.BACKING_OFF if given.budgets is None else None


def _counts(standing: Standing, pool: str, assessed: Iterable[Assessment], now: datetime) -> PoolCounts:
    where, pending_for = standing.view.where, standing.circumstances.rules(pool).reap.pending_for
    schedulers = where.schedulers(pool)
    nodes = list(assessed)
    return PoolCounts(
        idle=sum(each.idle for each in nodes),
        busy=sum(each.busy for each in nodes),
        claimed=sum(each.claimed for each in nodes),
        claimable=sum(each.claimable for each in nodes),
        unplaced=sum(not holds_up(each, schedulers, pending_for, now) for each in where.waiting(pool).values()),
    )
