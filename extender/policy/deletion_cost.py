"""Deletion cost: the same order, told to ReplicaSets and Karpenter by ``controller.kubernetes.io/pod-deletion-cost``.

Owns the values and when one is written. A value depends on the pod's own node and state only: no pod is written because
another node came or went.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pydantic import StrictBool

from extender.model import OrderKey, Pod
from extender.policy.ages import SLOTS
from extender.policy.durations import Duration
from extender.policy.idleness import idle_since, is_claimed, reports_idle

EPOCH_MINUTE = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) // 60
LAST_STEP = 7305 * 24 * 60
"""Twenty years in minutes: no idle value is below -84,200,000."""
BUSY = 100_000_000
"""Busy is idle plus this. All values stay within +-100,000,000: at -134,217,728 and less Karpenter 1.14 counts a pod as
free, and a node that has only free pods as Empty."""


class CostState(StrEnum):
    """Whose the annotation is."""

    NONE = "none"
    OURS = "ours"
    FOREIGN = "foreign"
    OVERWRITTEN = "overwritten"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCosts:
    """The annotation controller.kubernetes.io/pod-deletion-cost, by which ReplicaSets and Karpenter follow."""

    enabled: StrictBool = True
    """Write `controller.kubernetes.io/pod-deletion-cost`. `false`: remove what was written, and write none."""
    settle: Duration = timedelta(seconds=30)
    """Write an idle worker's cost only after it was idle for this long. `0s`: at once. `30s` spares a write per short
    job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostWrite:
    """One annotation to write, or to remove where ``value`` is None."""

    pod: Pod
    value: int | None


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


def node_seen_of(value: int) -> datetime:
    """Read out of a value of ours when the node was first seen: to the minute, and as it was clamped."""
    idle = value if value < 0 else value - BUSY
    return datetime.fromtimestamp(0, UTC) + timedelta(minutes=EPOCH_MINUTE + (-1 - idle) // SLOTS)


def cost_state(pod: Pod) -> CostState:
    """Say whose the pod's cost is. Ours is a value equal to the mark that was written with it.

    A mark with another value, or with none, was overwritten by somebody else.
    """
    if pod.cost_mark is None:
        return CostState.NONE if pod.deletion_cost is None else CostState.FOREIGN
    return CostState.OURS if pod.deletion_cost == pod.cost_mark else CostState.OVERWRITTEN


def is_untouched(pod: Pod) -> bool:
    """No cost stands on the pod and it has no idle mark: nothing is to be written, whatever the settings and the time.

    Most workers of a busy pool are, so that a look at all of them is quick.
    """
    return pod.idle_since is None and pod.cost_mark is None and pod.deletion_cost is None


def cost_write(pod: Pod, key: OrderKey | None, *, enabled: bool, settle: timedelta, now: datetime) -> CostWrite | None:
    """Decide what to write on one worker, None for nothing. ``key`` is its node's order key, None for an unknown node.

    1. a foreign or overwritten value is left alone; 2. switched off: ours is removed; 3. a terminating or finished pod,
    or one on a node that was not seen, is left as it is; 4. idle for ``settle``: the idle cost; 5. busy or claimed: the
    busy cost if it has one of ours, nothing if it has none, because 0 ranks above every idle one.
    """
    state = cost_state(pod)
    if state in (CostState.FOREIGN, CostState.OVERWRITTEN):
        return None
    if not enabled:
        return CostWrite(pod=pod, value=None) if state is CostState.OURS else None
    if pod.terminating or pod.finished or key is None or key[0] != 0:
        return None
    if reports_idle(pod, now) and not is_claimed(pod, now):
        since = idle_since(pod)
        settled = since is not None and now - since >= settle
        value = idle_cost(key) if settled else None
    else:
        value = busy_cost(key) if state is CostState.OURS else None
    if value is None or str(value) == pod.deletion_cost:
        return None
    return CostWrite(pod=pod, value=value)


def removals(pods: Iterable[Pod]) -> list[CostWrite]:
    """Select what cleaning up removes: every value of ours, and marks whose value somebody else has overwritten."""
    return [CostWrite(pod=pod, value=None) for pod in pods if pod.cost_mark is not None]
