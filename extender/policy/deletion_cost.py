"""Two prices of a worker, which tell the same order to others: who goes first where pods, or nodes, have to go.

``controller.kubernetes.io/pod-deletion-cost`` is read by the ReplicaSet, and by Karpenter where nothing else stands
there; ``karpenter.sh/disruption-cost`` by Karpenter alone, from 1.15 on. Owns the values and when one is written. A
value depends on the pod's own node and state only: no pod is written because another node came or went.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from extender.model import Node, OrderKey, Pod
from extender.policy.ages import SLOTS
from extender.policy.defaults import DisruptionCostUse, PoolCosts
from extender.policy.idleness import idle_since, is_claimed, reports_idle

EPOCH_MINUTE = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) // 60
LAST_STEP = 7305 * 24 * 60
"""Twenty years in minutes: no idle value is below -84,200,000."""
BUSY = 100_000_000
"""A deletion cost of a busy worker is the idle one plus this. All stay within +-100,000,000: at -134,217,728 and less
Karpenter, from 1.14 on, counts a pod as free, and a node that has only free pods as Empty."""
DEAR = 1_200_000_000
"""A disruption cost of a busy worker is the idle one plus this: to Karpenter it weighs nearly 10, the most that a pod
can weigh, and an idle one 1 at most."""
PRIORITY_WEIGHT = 4
"""Karpenter adds a pod's priority / 2^25 to its value / 2^27 (pkg/utils/disruption/disruption.go, EvictionCost)."""
INT32 = (-(2**31), 2**31 - 1)
FREE_AT = -(2**25)
"""At this priority and below a pod of no price is free to Karpenter, from 1.14 on, busy or not."""
LOW_PRIORITY = -12_500_000
"""Below this the lowest deletion cost makes an idle worker free: so the disruption cost is written, which evens the
priority out."""
LOWEST_HELD = -570_000_000
"""Down to this priority the highest disruption cost keeps a busy worker from being free."""
REPLICA_SET = "ReplicaSet.apps"
KARPENTERS_NAME = "karpenter"
"""The name that its own writer has on the API server."""


class Price(StrEnum):
    """The two annotations."""

    DELETION = "deletionCost"
    DISRUPTION = "disruptionCost"


class CostState(StrEnum):
    """Whose an annotation is."""

    NONE = "none"
    OURS = "ours"
    FOREIGN = "foreign"
    OVERWRITTEN = "overwritten"


class KarpenterPart(StrEnum):
    """What Karpenter has to do with the workers of a node: nothing, it reads their prices, or writes some itself."""

    NONE = "none"
    READS = "reads"
    WRITES = "writes"


class Stance(StrEnum):
    """What is done about one price of a worker. Never over a value of somebody else.

    ``write``: as its state wants it. ``follow``: one of ours is kept up to date, and none is begun. ``remove``: ours
    goes.
    """

    WRITE = "write"
    FOLLOW = "follow"
    REMOVE = "remove"


Prices: TypeAlias = Mapping[Price, int | None]
"""The prices that change, each with its new value, None to remove it."""
NO_CHANGE: Prices = {}
Stances: TypeAlias = Mapping[Price, Stance]
"""What is done about each price."""
ALL_GO: Stances = {Price.DELETION: Stance.REMOVE, Price.DISRUPTION: Stance.REMOVE}


@dataclass(frozen=True, slots=True, kw_only=True)
class CostWrite:
    """One patch."""

    pod: Pod
    values: Prices

    @property
    def removes(self) -> bool:
        """Nothing is written, and something is taken away."""
        return all(value is None for value in self.values.values())

    @property
    def is_urgent(self) -> bool:
        """A removal, or a worker that is busy and still looks cheap to take."""
        return any(value is None or value >= 0 for value in self.values.values())


def idle_cost(key: OrderKey) -> int:
    """Cost of an idle worker on a node that was seen: the newer the node, the lower. ``key`` is the node's order key.

    -1 - (8 x step + slot), where step is minutes from 2026-01-01, clamped to 0..20 years.
    """
    _, minute, slot, _ = key
    step = min(max(minute - EPOCH_MINUTE, 0), LAST_STEP)
    return -1 - (SLOTS * step + slot)


def busy_cost(key: OrderKey) -> int:
    """Cost of a busy worker: above every idle one, and the newer the node, the lower."""
    return BUSY + idle_cost(key)


def disruption_cost(key: OrderKey, priority: int | None, *, is_busy: bool) -> int:
    """Price of a worker to Karpenter: the idle cost, `DEAR` more where it is busy, and what evens out its priority.

    So workers of all priorities weigh the same, as far as an int32 reaches.
    """
    lowest, highest = INT32
    value = idle_cost(key) + (DEAR if is_busy else 0) - PRIORITY_WEIGHT * (priority or 0)
    return max(lowest, min(value, highest))


def eviction_cost(value: int, priority: int | None) -> float:
    """Weigh a pod as Karpenter does: free at 0 and below, and between -10 and 10."""
    return max(-10.0, min(1 + value / 2**27 + (priority or 0) / 2**25, 10.0))


def as_deletion_cost(value: int, priority: int | None) -> int | None:
    """Give the deletion cost that says the same as a disruption cost of ours, None where an int32 cut it short."""
    if value in INT32:
        return None
    even = value + PRIORITY_WEIGHT * (priority or 0)
    return even if even < 0 else even - DEAR + BUSY


def node_seen_of(value: int) -> datetime:
    """Read out of a deletion cost of ours when the node was first seen: to the minute, and as it was clamped."""
    idle = value if value < 0 else value - BUSY
    return datetime.fromtimestamp(0, UTC) + timedelta(minutes=EPOCH_MINUTE + (-1 - idle) // SLOTS)


def standing(pod: Pod, price: Price) -> tuple[str | None, str | None]:
    """Give a price as it stands on a pod, and the mark that was written with it."""
    if price is Price.DELETION:
        return pod.deletion_cost, pod.cost_mark
    return pod.disruption_cost, pod.disruption_mark


def as_number(price: str | None) -> int | None:
    """Read a price as it stands. None where there is none, or somebody wrote what is no number."""
    try:
        return None if price is None else int(price)
    except ValueError:
        return None


def cost_state(pod: Pod, price: Price = Price.DELETION) -> CostState:
    """Say whose a pod's price is. Ours is a value equal to the mark that was written with it.

    A mark with another value, or with none, was overwritten by somebody else.
    """
    value, mark = standing(pod, price)
    if mark is None:
        return CostState.NONE if value is None else CostState.FOREIGN
    return CostState.OURS if value == mark else CostState.OVERWRITTEN


def is_untouched(pod: Pod) -> bool:
    """No price stands on the pod and it has no idle mark: no deletion cost is to be written, whatever the settings.

    Most workers of a busy pool are, so that a look at all of them is quick.
    """
    return (
        pod.idle_since is None
        and pod.cost_mark is None
        and pod.deletion_cost is None
        and pod.disruption_cost is None
        and pod.disruption_mark is None
    )


def karpenter_on(node: Node | None, *, writes: bool) -> KarpenterPart:
    """Say what Karpenter has to do with the workers of a node. ``writes``: it writes deletion costs in this cluster."""
    if node is None or node.node_pool is None:
        return KarpenterPart.NONE
    return KarpenterPart.WRITES if writes else KarpenterPart.READS


def wants_disruption_cost(costs: PoolCosts, pod: Pod, karpenter: KarpenterPart) -> bool:
    """Say whether a worker is to have the price that Karpenter alone reads."""
    if costs.disruption_cost is not DisruptionCostUse.AUTO:
        return costs.disruption_cost is DisruptionCostUse.ALWAYS
    if karpenter is KarpenterPart.READS:
        return pod.priority is not None and pod.priority < LOW_PRIORITY
    return karpenter is KarpenterPart.WRITES


def stances(costs: PoolCosts, pod: Pod, karpenter: KarpenterPart) -> Stances:
    """Say what the leader does about the prices of a worker.

    Switched off: ours go. Where Karpenter prices the pods of ReplicaSets itself, their deletion costs are given up.
    """
    if not costs.enabled:
        return ALL_GO
    is_given_up = karpenter is KarpenterPart.WRITES and pod.owner == REPLICA_SET
    is_wanted = wants_disruption_cost(costs, pod, karpenter)
    return {
        Price.DELETION: Stance.REMOVE if is_given_up else Stance.WRITE,
        Price.DISRUPTION: Stance.WRITE if is_wanted else Stance.REMOVE,
    }


def claim_stances(costs: PoolCosts) -> Stances:
    """Say what whoever claims a worker does about its prices: ours follow, and none is begun."""
    stance = Stance.FOLLOW if costs.enabled else Stance.REMOVE
    return {Price.DELETION: stance, Price.DISRUPTION: stance}


def cost_write(
    pod: Pod, key: OrderKey | None, stances: Stances, *, settle: timedelta, now: datetime
) -> CostWrite | None:
    """Decide what to write on one worker, None for nothing. ``key`` is its node's order key, None for an unknown node.

    Of each price: 1. a foreign or overwritten value is left alone; 2. what is not wanted is removed where it is ours;
    3. a terminating or finished pod, or one on a node that was not seen, is left as it is; 4. idle for ``settle``: the
    idle cost; 5. busy or claimed: the busy cost. Where none of ours stands there, a busy worker gets no deletion cost,
    because 0 ranks above every idle one; and with ``follow`` nobody gets any.
    """
    values: dict[Price, int | None] = {}
    for price, stance in stances.items():
        state = cost_state(pod, price)
        if state in (CostState.FOREIGN, CostState.OVERWRITTEN):
            continue
        if stance is Stance.REMOVE:
            if state is CostState.OURS:
                values[price] = None
            continue
        if pod.terminating or pod.finished or key is None or key[0] != 0:
            continue
        if state is CostState.NONE and stance is Stance.FOLLOW:
            continue
        value = _value(pod, key, price, is_begun=state is CostState.OURS, settle=settle, now=now)
        if value is not None and str(value) != standing(pod, price)[0]:
            values[price] = value
    return CostWrite(pod=pod, values=values) if values else None


def _value(pod: Pod, key: OrderKey, price: Price, *, is_begun: bool, settle: timedelta, now: datetime) -> int | None:
    """Give what a price is to be, None where it may stay as it is."""
    is_busy = not reports_idle(pod, now) or is_claimed(pod, now)
    if not is_busy:
        since = idle_since(pod)
        if since is None or now - since < settle:
            return None
    if price is Price.DISRUPTION:
        return disruption_cost(key, pod.priority, is_busy=is_busy)
    if is_busy:
        return busy_cost(key) if is_begun else None
    return idle_cost(key)
