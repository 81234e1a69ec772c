"""What may be set for every pool, with units, defaults and their reasons.

Owns the part of the file below ``poolDefaults``. Says what is wanted; the policies say what follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StrictBool, StrictInt, model_validator

from extender.model import BusyVictims, ScaleIn
from extender.settings.durations import Duration, Interval, PositiveDuration, format_duration
from extender.settings.idle import IdleSettings
from extender.settings.mistakes import Conflict, refuse
from extender.settings.names import LabelKey, OwnerKind
from extender.settings.section import Count, Section


class ReapSettings(Section):
    """When idle workers are too many, and how fast they are evicted: from the newest node first."""

    enabled: StrictBool = True
    """false: never evict workers of the pool."""
    floor: Count = 1
    """Claimable workers to keep. 0 keeps none; 1, so that the next caller never finds an empty pool."""
    idle_timeout: Duration = timedelta(minutes=5)
    """Evict only what has been idle for longer. 0s: at once. 5m: a burst that pauses finds its workers again."""
    interval: Interval = timedelta(seconds=30)
    """Time between two passes, at least 1s. Short against idleTimeout is enough."""
    min_pod_age: Duration = timedelta(minutes=1)
    """Never evict a younger pod. 0s: no limit. 1m: a worker that has just started has not had its chance yet."""
    pending_for: Duration = timedelta(minutes=15)
    """While a worker waits for a node, evict nothing, but no longer than this for one. 0s: no limit. 15m: a node is
    there by then, and one worker that fits nowhere must not hold the pool for ever."""
    max_per_pass: Count = 50
    """Evictions in one pass. 0: no limit. 50 empties large pools in minutes, and a mistake stays small."""
    max_per_node: Count = 0
    """Evictions on one node in one pass. 0: no limit, so that a node gets empty quickly."""
    whole_node: StrictBool = False
    """true: evict only where nothing but DaemonSet pods is left then, all of the node's even past maxPerPass."""
    scale_in: ScaleIn = ScaleIn.AUTO
    """auto, annotate or evict. auto: a pod whose owner would make a new one is not evicted."""
    evict_owners: tuple[OwnerKind, ...] = ()
    """With scaleIn auto: owners, as Kind.group, that do not make a new pod for an evicted one. None by default."""


class DeletionCostSettings(Section):
    """The annotation controller.kubernetes.io/pod-deletion-cost, by which ReplicaSets and Karpenter follow."""

    enabled: StrictBool = True
    """false: write none, and remove what was written."""
    settle: Duration = timedelta(seconds=30)
    """Write an idle worker's cost only after it was idle this long. 0s: at once. 30s spares a write per short job."""


class PreemptSettings(Section):
    """What preemption does with busy workers."""

    busy_victims: BusyVictims = BusyVictims.LAST_RESORT
    """protect: never; lastResort: only when nothing else is left (default: it never blocks an urgent pod); ignore."""


class ClaimsSettings(Section):
    """The claim API, which hands out the idle worker on the warmest node."""

    enabled: StrictBool = True
    """false: no claims for the pool. The API is only there where a claims listener is configured."""
    ttl: PositiveDuration = timedelta(seconds=60)
    """Life of a claim that asks for none. 60s: a caller that dies gives its worker back soon. At most maxTtl."""
    max_ttl: PositiveDuration = timedelta(hours=1)
    """Longest life that a caller may ask for; renewing extends it. 1h: nobody keeps a worker by mistake for a day."""
    do_not_disrupt: StrictBool = False
    """true: a claimed worker gets karpenter.sh/do-not-disrupt. Off: it also stops Karpenter from moving the node."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        refuse(self._conflicts())
        return self

    def _conflicts(self) -> Iterator[Conflict]:
        if self.ttl > self.max_ttl:
            yield Conflict(
                fields=(("ttl",), ("maxTtl",)),
                problem=f"ttl ({format_duration(self.ttl)}) must not be longer than"
                f" maxTtl ({format_duration(self.max_ttl)})",
            )


class CacheKeySettings(Section):
    """Whose cache a worker uses: within the first nodes by age, those where this key ran most come first."""

    # A pool may leave the label to poolDefaults: the merged value is checked, a schema sees the parts only.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required"))

    label: LabelKey
    """Label of the worker whose value is the key: a tenant, a data set."""
    window: Annotated[StrictInt, Field(ge=1, le=1_000)] = 5
    """How many nodes, by age, the key may reorder. 1: age only. 5: warm for the key, and new nodes still drain."""


class PoolDefaults(Section):
    """Settings of every pool that does not say otherwise."""

    idle: IdleSettings = IdleSettings()
    """How a worker is known to be idle."""
    reap: ReapSettings = ReapSettings()
    """Eviction of idle workers."""
    deletion_cost: DeletionCostSettings = DeletionCostSettings()
    """The pod-deletion-cost annotation."""
    preempt: PreemptSettings = PreemptSettings()
    """Preemption of workers."""
    claims: ClaimsSettings = ClaimsSettings()
    """The claim API."""
    cache_key: CacheKeySettings | None = None
    """null: age alone decides, because most pools have one cache for all."""
