"""What a pass of the reaper would do with each pool, and which deletion costs would be written. Pure, and the same
policies as the loops: a plan differs from a pass only by what a look at one moment cannot know (which evictions a
budget refuses, when a node fell empty where Karpenter has not noted it).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from extender.cluster.state import ClusterState
from extender.model import Pod, SkipReason
from extender.policy.brakes import BrakeRecord, why_pool_waits
from extender.policy.budgets import NO_BUDGETS, Kept, PodBudgets
from extender.policy.deletion_cost import CostWrite, cost_write
from extender.policy.disruption_room import DisruptionRoom, why_stays
from extender.policy.reaping import assess_node, plan_evictions
from extender.settings import Configuration, PoolSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReap:
    """One pool: whom a pass would evict, in order, why each other idle worker stays, and the costs it would write.

    ``waits`` is why the whole pool waits, None where it does not: then nothing of ``victims`` goes now.
    ``paused_until``: until when, where it pauses, by what the reaper that leads says.
    """

    pool: str
    floor: int
    dry_run: bool
    waits: SkipReason | None
    victims: tuple[Pod, ...]
    stays: tuple[tuple[Pod, SkipReason], ...]
    costs: tuple[CostWrite, ...]
    paused_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckNode:
    """An empty node that Karpenter could have taken and has not. ``kept`` is what keeps it, None: not known."""

    node: str
    node_pool: str
    kept: Kept | None


def reap_pools(
    state: ClusterState,
    configuration: Configuration,
    now: datetime,
    brakes: Mapping[str, BrakeRecord],
    budgets: PodBudgets = NO_BUDGETS,
) -> tuple[PoolReap, ...]:
    """Plan a pass for every pool that has a worker, by name. ``brakes`` is what the reaper that leads remembers."""
    listed = {pool.name: pool for pool in configuration.pools or ()}
    return tuple(
        _reap_pool(state, listed.get(name) or configuration.pool_defaults_for(name), now, brakes.get(name), budgets)
        for name in sorted(state.where.pool_names())
    )


def stuck_nodes(state: ClusterState, now: datetime, budgets: PodBudgets = NO_BUDGETS) -> tuple[StuckNode, ...]:
    """Give the empty nodes that Karpenter could have taken and has not, by name."""
    stuck = _counted(state, now, budgets).stuck(now)
    return tuple(
        StuckNode(node=name, node_pool=state.nodes[name].node_pool or "", kept=kept)
        for name, kept in sorted(stuck.items())
    )


def _counted(state: ClusterState, now: datetime, budgets: PodBudgets) -> DisruptionRoom:
    rooms = DisruptionRoom(state, changed=set(), budgets=budgets)
    deque(rooms.counting(now), maxlen=0)
    rooms.left(now)
    return rooms


def _reap_pool(
    state: ClusterState, settings: PoolSettings, now: datetime, brake: BrakeRecord | None, budgets: PodBudgets
) -> PoolReap:
    assessments = []
    costs = []
    for name in state.nodes:
        workers = [worker for worker in state.where.workers_on(name).values() if worker.pool == settings.name]
        if not workers:
            continue
        assessments.append(
            assess_node(
                node=name,
                order_key=state.order[name],
                departure=state.departure(name),
                barred=state.why_barred(name),
                workers=workers,
                others=state.where.holders_on(name, besides=settings.name),
                rules=settings.reap,
                now=now,
                stays=why_stays(state, name, now, budgets),
                node_pool=state.nodes[name].node_pool,
            )
        )
        for worker in workers:
            write = cost_write(
                worker,
                state.order[name],
                enabled=settings.deletion_cost.enabled,
                settle=settings.deletion_cost.settle,
                now=now,
            )
            if write is not None:
                costs.append(write)
    rooms = _counted(state, now, budgets)
    plan = plan_evictions(assessments, settings.reap, rooms=rooms.left(now), key_use=state.key_use)
    until = None if brake is None else brake.paused_until
    waits = why_pool_waits(
        is_held_up=state.is_held_up(settings.name, settings.reap.pending_for),
        is_paused=until is not None and now < until,
    )
    stays = [(state.pods[uid], reason) for uid, reason in plan.skipped.items()]
    return PoolReap(
        pool=settings.name,
        floor=settings.reap.floor,
        dry_run=settings.dry_run,
        waits=waits,
        victims=plan.victims,
        stays=tuple(sorted(stays, key=lambda entry: (entry[1], entry[0].namespace, entry[0].name))),
        costs=tuple(sorted(costs, key=lambda write: (write.pod.namespace, write.pod.name))),
        paused_until=until if waits is SkipReason.POOL_PAUSED else None,
    )
