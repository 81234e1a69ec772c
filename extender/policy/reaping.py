"""Reaping: which idle workers are evicted, from the newest node first, down to a floor.

Owns the order of victims and the limits of a pass. Every idle worker that stays has a reason. Works node by node, so
that a caller who also serves can do something else between nodes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import inf
from typing import TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from extender.model import FOREVER, OrderKey, Pod, SkipReason
from extender.policy.defaults import ReapRules
from extender.policy.idleness import RulesNow, idle_since, is_claimed, why_idle_not_reapable

T = TypeVar("T")


def at_once(steps: Generator[None, None, T]) -> T:
    """Take all steps of what works in steps, and give what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


class Skips(Mapping[str, SkipReason]):
    """Why idle workers stay, by UID. Kept as who was found for which reason: there may be many, and few are asked for.

    ``groups`` has each worker once.
    """

    def __init__(self, groups: Iterable[tuple[SkipReason, Sequence[Pod]]] = ()) -> None:
        self.groups = tuple(groups)

    @cached_property
    def _by_uid(self) -> dict[str, SkipReason]:
        return {worker.uid: reason for reason, workers in self.groups for worker in workers}

    def __getitem__(self, uid: str) -> SkipReason:
        return self._by_uid[uid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_uid)

    def __len__(self) -> int:
        return sum(len(workers) for _, workers in self.groups)

    def count(self) -> Counter[SkipReason]:
        """Count them by reason."""
        found = Counter[SkipReason]()
        for reason, workers in self.groups:
            found[reason] += len(workers)
        return found


class Assessment(Struct, frozen=True, kw_only=True, gc=False):
    """One node as a pass sees it, for one pool.

    ``reapable`` are the workers that may go, in any order, ``uncounted`` the UIDs of those among them that the floor
    does not count; ``skipped`` the idle ones that must stay, by reason. ``keeps`` is true where one of the pool's
    own workers that are not reapable holds the node, ``others`` counts the pods of no pool or another one that do.
    ``claimable`` counts the workers that the floor counts, ``waiting`` those of them that only have to be idle or alive
    for longer before they may go; ``idle``, ``busy`` and ``claimed`` count them all, each once. ``node_pool`` names the
    NodePool whose budget the node counts in, None where there is none.
    """

    node: str
    order_key: OrderKey
    is_leaving: bool
    reapable: tuple[Pod, ...]
    claimable: int
    waiting: int = 0
    uncounted: frozenset[str] = frozenset()
    skipped: Mapping[SkipReason, Sequence[Pod]] = msgspec.field(default_factory=dict)
    keeps: bool = False
    others: int = 0
    idle: int = 0
    busy: int = 0
    claimed: int = 0
    node_pool: str | None = None

    @property
    def is_kept(self) -> bool:
        """The node would not be empty without the reapable workers."""
        return self.keeps or self.others > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionPlan:
    """Workers to evict, in this order, and the reason for each idle one that stays, by UID.

    ``emptied`` has the NodePool of each node that is empty then and counts in a budget.
    """

    victims: tuple[Pod, ...]
    skipped: Skips
    emptied: tuple[str, ...] = ()


def assess_node(
    *,
    node: str,
    order_key: OrderKey,
    barred: SkipReason | None = None,
    workers: Iterable[Pod],
    others: int,
    asked: RulesNow,
    stays: SkipReason | None = None,
    node_pool: str | None = None,
) -> Assessment:
    """Judge the workers of one pool on one node.

    ``barred`` is why nobody on the node can be handed out, such as that it is leaving; None where that is not so.
    ``others`` counts the node's pods that hold it and are not of this pool: neither DaemonSet pods, nor finished, nor
    terminating. ``stays`` is why the node would stay without its workers: then to evict them would gain nothing, unless
    it is leaving after all.
    """
    is_leaving, is_open = barred is SkipReason.LEAVING_NODE, barred is None
    stays, marks_until = None if is_leaving else stays, asked.marks_until
    reapable: list[Pod] = []
    uncounted: set[str] = set()
    skipped: defaultdict[SkipReason, list[Pod]] = defaultdict(list)
    keeps = False
    busy = claimed = claimable = waiting = 0
    for worker in workers:
        mark = worker.idle_since
        if mark is None or mark > marks_until:
            is_held = is_claimed(worker, asked.now)
            claimed += is_held
            busy += not is_held
            keeps = keeps or not worker.terminating
            continue
        reason = why_idle_not_reapable(worker, asked)
        # What `why_not_claimable` says of those that report idle, without a call for each of 100,000 workers
        is_counted = (
            is_open
            and worker.ready_since is not None
            and not worker.old_machine
            and (reason is None or reason not in _NOBODYS)
        )
        claimable += is_counted
        if reason is None:
            reason = stays
        if reason is None:
            reapable.append(worker)
            if not is_counted:
                uncounted.add(worker.uid)
            continue
        waiting += is_counted and reason in _BY_TIME
        keeps = keeps or reason is not SkipReason.TERMINATING
        skipped[reason].append(worker)
    held = len(skipped.get(SkipReason.CLAIMED, ()))
    return Assessment(
        node=node,
        order_key=order_key,
        is_leaving=is_leaving,
        reapable=tuple(reapable),
        claimable=claimable,
        waiting=waiting,
        uncounted=frozenset(uncounted),
        skipped=skipped,
        keeps=keeps,
        others=others,
        idle=len(reapable) + sum(map(len, skipped.values())) - held,
        busy=busy,
        claimed=claimed + held,
        node_pool=node_pool,
    )


_NOBODYS = frozenset({SkipReason.CLAIMED, SkipReason.TERMINATING})
"""Reasons that come before all others, and for which nobody can be handed out either."""
_BY_TIME = frozenset({SkipReason.IDLE_TOO_SHORT, SkipReason.TOO_YOUNG, SkipReason.NODE_NOT_INITIALIZED})

KeyUse: TypeAlias = Callable[[Pod], float]
"""How much a worker's cache key is used on its node, to be compared on one node only; -inf: it has none."""


def _no_key(worker: Pod) -> float:
    return -inf


def planning(
    assessments: Iterable[Assessment],
    limits: ReapRules,
    held: Mapping[str, SkipReason] | None = None,
    rooms: Mapping[str, int] | None = None,
    key_use: KeyUse = _no_key,
) -> Generator[None, None, EvictionPlan]:
    """Choose idle workers to evict, newest node first, in steps of one node.

    Order: 1. on leaving nodes; 2. node by order key, newest first (a node not seen yet counts as new); 3. idle
    longest; 4. its cache key used least on the node, as ``key_use`` says; 5. pod UID. Keeps ``limits.floor`` claimable
    workers: those left are on the oldest nodes. Workers on leaving nodes neither use the floor up nor hold it up. Idle
    ones that are not Ready do not count for it either, and stay while it is not reached: after an outage all workers
    may be unready for a moment.

    With ``whole_node`` only nodes are chosen that are empty then, all of a node's workers at once: past
    ``max_per_pass`` for the last node, regardless of ``max_per_node``, and a node whose workers would take the pool
    below the floor is passed over. Leaving nodes go anyway and are emptied as far as possible.

    A worker that only has to be idle for longer, or whose node Karpenter has not initialized yet, counts for the floor
    as if it had gone: else one on an older node would go in its place, and the floor would be kept on the newest node.

    ``held`` are workers, by UID, that would be refused now, such as by a budget. They stay, and count for the floor as
    if they went: else older nodes would be emptied in their place. They do not count for the limits of a pass.

    ``rooms`` says how many more nodes of each NodePool may be emptied; where one is not in it, any number. A node that
    would be empty and finds no room keeps all its workers, who count for the floor as if they went, as held ones do.
    """
    held, left = held or {}, dict(rooms or {})
    idle_longest = _idle_longest(key_use)
    nodes = sorted(assessments, key=lambda each: each.order_key, reverse=True)
    nodes.sort(key=lambda each: not each.is_leaving)
    spare = sum(each.claimable for each in nodes) - limits.floor
    victims: list[Pod] = []
    skipped: list[tuple[SkipReason, Sequence[Pod]]] = []
    emptied: list[str] = []
    for each in nodes:
        yield
        skipped.extend(each.skipped.items())
        stuck = [worker for worker in each.reapable if worker.uid in held] if held else []
        free = [worker for worker in each.reapable if worker.uid not in held] if stuck else each.reapable
        skipped.extend((held[worker.uid], (worker,)) for worker in stuck)
        taken: Sequence[Pod] = ()
        if limits.whole_node and not each.is_leaving:
            reason = _why_not_whole(each, limits, spare, len(victims), keeps=each.is_kept or bool(stuck))
            if reason is None:
                taken = sorted(free, key=idle_longest)
        else:
            spare -= sum(worker.uid not in each.uncounted for worker in stuck)
            reason = _why_none(each, limits, spare, len(victims))
            if reason is None:
                taken, stay = _one_by_one(each, sorted(free, key=idle_longest), limits, spare, len(victims))
                skipped.extend(stay)
        if each.node_pool in left and _empties(each, taken):
            if left[each.node_pool] > 0:
                left[each.node_pool] -= 1
                emptied.append(each.node_pool)
            else:
                spare -= sum(worker.uid not in each.uncounted for worker in taken)
                taken, reason = (), SkipReason.EMPTY_BUDGET
        if reason is not None:
            skipped.append((reason, free))
        victims.extend(taken)
        spare -= sum(worker.uid not in each.uncounted for worker in taken)
        spare -= min(each.waiting, max(spare, 0))
    return EvictionPlan(victims=tuple(victims), skipped=Skips(skipped), emptied=tuple(emptied))


def _idle_longest(key_use: KeyUse) -> Callable[[Pod], tuple[datetime, float, str]]:
    return lambda worker: (idle_since(worker) or FOREVER, key_use(worker), worker.uid)


def _empties(each: Assessment, taken: Sequence[Pod]) -> bool:
    """True where nothing holds the node once these are gone. A leaving node goes anyway."""
    return bool(taken) and not each.is_leaving and not each.is_kept and len(taken) == len(each.reapable)


def _why_not_whole(
    each: Assessment, limits: ReapRules, spare: int, taken_before: int, *, keeps: bool
) -> SkipReason | None:
    """Say why a node is not emptied, None where it is."""
    if keeps:
        return SkipReason.NODE_KEEPS_OTHERS
    if limits.max_per_pass and taken_before >= limits.max_per_pass:
        return SkipReason.MAX_PER_PASS
    if spare < 0 or len(each.reapable) - len(each.uncounted) > spare:
        return SkipReason.FLOOR
    return None


def _why_none(each: Assessment, limits: ReapRules, spare: int, taken_before: int) -> SkipReason | None:
    """Say why nobody of a node may go, None where each one is to be looked at. Most nodes are done with here."""
    keeps_floor = not each.is_leaving
    if keeps_floor and spare <= 0 and (spare < 0 or not each.uncounted):
        return SkipReason.FLOOR
    if limits.max_per_pass and taken_before >= limits.max_per_pass and (spare > 0 or not keeps_floor):
        return SkipReason.MAX_PER_PASS
    return None


def _one_by_one(
    each: Assessment, free: Sequence[Pod], limits: ReapRules, spare: int, taken_before: int
) -> tuple[list[Pod], list[tuple[SkipReason, Sequence[Pod]]]]:
    """Take what may go of a node, and say why the rest stays."""
    taken: list[Pod] = []
    skipped: list[tuple[SkipReason, Sequence[Pod]]] = []
    for worker in free:
        counts = worker.uid not in each.uncounted
        if not each.is_leaving and (spare < 0 or (counts and spare == 0)):
            skipped.append((SkipReason.FLOOR, (worker,)))
        elif limits.max_per_pass and taken_before + len(taken) >= limits.max_per_pass:
            skipped.append((SkipReason.MAX_PER_PASS, (worker,)))
        elif limits.max_per_node and len(taken) >= limits.max_per_node:
            skipped.append((SkipReason.MAX_PER_NODE, (worker,)))
        else:
            taken.append(worker)
            spare -= counts
    return taken, skipped
