"""What may be set for every pool: the part of the file below ``poolDefaults``.

Owns which sections there are. Sections that a policy goes by stand in `policy.defaults`, such as `reap` with its floor.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict

from extender.model import BusyVictims, PlacementMode
from extender.policy.defaults import ClaimRules, PoolCosts, ReapRules
from extender.policy.durations import format_duration
from extender.policy.value_kinds import LabelKey, Share, Window
from extender.settings.idle_section import IdleSettings
from extender.settings.mistakes import FieldMistake, Inconsistent
from extender.settings.section import Section


class PreemptSettings(Section):
    """What preemption does with busy workers."""

    busy_victims: BusyVictims = BusyVictims.LAST_RESORT
    """Busy workers as victims: `protect`: never; `lastResort`: only when nothing else is left, so that an urgent pod is
    never blocked; `ignore`: as if they were idle."""


def _ttl_fits(claims: ClaimRules) -> ClaimRules:
    if claims.ttl > claims.max_ttl:
        ttl, longest = format_duration(claims.ttl), format_duration(claims.max_ttl)
        problem = f"ttl ({ttl}) must not be longer than maxTtl ({longest})"
        raise Inconsistent([FieldMistake(fields=(("ttl",), ("maxTtl",)), problem=problem)])
    return claims


class CacheKeySettings(Section):
    """Whose cache a worker uses: of the oldest nodes with room, those where this key ran most come first."""

    # A pool may leave the label to poolDefaults: the merged value is checked, a schema sees the parts only.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required"))

    label: LabelKey
    """Label of the worker whose value is the key: a tenant, a data set. Required, here or in `poolDefaults`."""
    window: Window = "auto"
    """Which nodes the key may reorder. `auto`: the working set, the oldest nodes that have room for this worker and the
    slack. A number: so many of the oldest that fit, whatever the pool needs; `1`: age only."""
    slack: Share = 0.1
    """For how many workers more the working set has free room: a share of those of the pool, and of twenty. `0` is age
    only, more is warmer and costs nodes; `0.1` is warm at about the cost of age. Without effect where `window` is a
    number."""


class PoolDefaults(Section):
    """Settings of every pool that does not say otherwise."""

    idle: IdleSettings = IdleSettings()
    """How a worker is known to be idle."""
    reap: ReapRules = ReapRules()
    """Eviction of idle workers."""
    deletion_cost: PoolCosts = PoolCosts()
    """The pod-deletion-cost annotation."""
    preempt: PreemptSettings = PreemptSettings()
    """Preemption of workers."""
    claims: Annotated[ClaimRules, AfterValidator(_ttl_fits)] = ClaimRules()
    """The claim API."""
    placement: PlacementMode = PlacementMode.ACTIVE
    """`shadow`: schedulers that ask about these workers, or want to preempt them, are answered as for pods of no pool.
    What would have been answered is remembered, compared with where the workers go, and counted."""
    cache_key: CacheKeySettings | None = None
    """Whose cache a worker uses. `null`: age alone decides, because most pools have one cache for all."""
