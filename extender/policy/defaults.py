"""Defaults: each setting that a policy goes by, with its default, unit, bounds and reason, and nowhere else.

The classes are sections of the configuration file, which pydantic fills; the tables of docs/configuration.md and the
JSON Schema are made of them. What no policy reads stands in `settings.models` and `settings.pool_defaults`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar

from pydantic import StrictBool

from extender.model import ScaleIn
from extender.policy.durations import Duration, Interval, PositiveDuration
from extender.policy.value_kinds import Count, OwnerKind, Port, Query, RequestPath, ServerUrl


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapRules:
    """When idle workers are too many, and how fast they are evicted: from the newest node first."""

    enabled: StrictBool = True
    """`false`: never evict workers of the pool."""
    floor: Count = 1
    """Claimable workers to keep. `0` keeps none; `1`, so that the next caller never finds an empty pool."""
    idle_timeout: Duration = timedelta(minutes=5)
    """Evict only what has been idle for longer. `0s`: at once. `5m`: a burst that pauses finds its workers again."""
    interval: Interval = timedelta(seconds=30)
    """Time between two passes, at least `1s`. Short against `idleTimeout` is enough."""
    min_pod_age: Duration = timedelta(minutes=1)
    """Never evict a younger pod. `0s`: no limit. `1m`: a worker that has just started has not had its chance yet."""
    pending_for: Duration = timedelta(minutes=15)
    """While a worker waits for a node, evict nothing of the pool, but no longer than this for one. `0s`: no limit.
    `15m`: a node is there by then, and one worker that fits nowhere must not hold the pool for ever."""
    max_per_pass: Count = 50
    """Evictions in one pass. `0`: no limit. `50` empties large pools in minutes, and a mistake stays small."""
    max_per_node: Count = 0
    """Evictions on one node in one pass. `0`: no limit, so that a node gets empty quickly."""
    whole_node: StrictBool = False
    """`true`: evict only where the node then has nothing left but DaemonSet pods; all of the node's at once, even past
    `maxPerPass`."""
    scale_in: ScaleIn = ScaleIn.AUTO
    """`auto`: evict pods without a controlling owner and those of `evictOwners`; other owners would make a new pod, so
    only costs are written. `annotate`: never evict, costs only. `evict`: any owner but DaemonSets and static pods."""
    evict_owners: tuple[OwnerKind, ...] = ()
    """With `auto`: owners that do not make a new pod for an evicted one, as `Kind.group` (`Session.example.com`);
    without a group for core kinds. None by default, because most do."""


class DisruptionCostUse(StrEnum):
    """When `karpenter.sh/disruption-cost` is written."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCosts:
    """The prices by which ReplicaSets and Karpenter follow: annotations on workers."""

    enabled: StrictBool = True
    """Write `controller.kubernetes.io/pod-deletion-cost`. `false`: remove what was written, and write none."""
    settle: Duration = timedelta(seconds=30)
    """Write an idle worker's cost only after it was idle for this long. `0s`: at once. `30s` spares a write per short
    job."""
    disruption_cost: DisruptionCostUse = DisruptionCostUse.AUTO
    """Write `karpenter.sh/disruption-cost` too, which Karpenter from 1.15 on reads in place of the other. `auto`: where
    it is needed, which is beside Karpenter's own writer of deletion costs, and for workers of a very low priority.
    `always`, `never`: whatever Karpenter does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """The claim API, which hands out the idle worker on the warmest node."""

    enabled: StrictBool = True
    """`false`: no claims for the pool. The API is only there where a claims listener is configured."""
    ttl: PositiveDuration = timedelta(minutes=1)
    """Life of a claim that asks for none. `1m`: a caller that dies gives its worker back soon. At most `maxTtl`."""
    max_ttl: PositiveDuration = timedelta(hours=1)
    """Longest life that a caller may ask for; renewing extends it. Always a limit: `0s` is refused. `1h`: nobody keeps
    a worker by mistake for a day."""
    spare: Count = 0
    """Idle workers to have ready for the next claims, where that is more than `reap.floor`: whatever makes workers is
    told of it (`warmnode_pool_wanted_workers`). `0`: as many as the floor."""
    do_not_disrupt: StrictBool = False
    """`true`: a claimed worker gets `karpenter.sh/do-not-disrupt`. Off, because it also stops Karpenter from moving its
    node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndingRules:
    """When a node counts as ending: known to go, but not soon, so that it is used last."""

    expiry_horizon: Duration = timedelta(hours=1)
    """A node is *ending*, and used last, this long before its `expireAfter` is over, and at most 10 % of `expireAfter`.
    `0s`: never for this reason."""
    drifted: StrictBool = False
    """`true`: drifted nodes are ending too. Off, because one edit of a template drifts every node, and all new work
    would go to cold ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    """Ask each worker over HTTP: 200 with {"idleSince": time} is idle, any other answer is busy."""

    kind: ClassVar[str] = "http"

    port: Port
    """Port of the pod that answers."""
    path: RequestPath = "/idle"
    """Path of the request."""
    interval: Interval = timedelta(seconds=10)
    """Time between two questions to one pod, at least `1s`. `10s` gives three chances within the default
    `staleAfter`."""
    timeout: PositiveDuration = timedelta(seconds=2)
    """Longest wait for an answer; none in time is busy. At most the interval. `2s`: whoever needs longer is busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusSource:
    """Ask Prometheus for all workers at once: one series for each pod, its value is idle since, in epoch seconds."""

    kind: ClassVar[str] = "prometheus"

    url: ServerUrl
    """Address of the server, without user and password."""
    query: Query
    """PromQL with one series for each pod, by its labels `namespace` and `pod`; the value is idle since, in epoch
    seconds."""
    interval: Interval = timedelta(seconds=15)
    """Time between two queries, at least `1s`. `15s` is a usual scrape interval; asking more often tells nothing
    new."""
    timeout: PositiveDuration = timedelta(seconds=5)
    """Longest wait for the answer; none in time says nothing about any pod. At most the interval."""
