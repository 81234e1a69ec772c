"""The whole configuration file as frozen values.

Owns the settings of the process and how pools inherit from ``poolDefaults``. Reads no file and knows no lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import StrictBool, model_validator

from extender.model import AgeSource
from extender.policy.defaults import EndingRules
from extender.policy.durations import PositiveDuration, format_duration
from extender.policy.pools import POOL_LABEL
from extender.policy.value_kinds import ObjectName
from extender.settings.mistakes import FieldMistake
from extender.settings.pool_defaults import PoolDefaults
from extender.settings.pool_sections import PoolSettings, SelectorSection
from extender.settings.section import NOT_EMPTY, Section

API_VERSION = "warmnode.dev/v1alpha1"
KIND = "Configuration"

# client-go tools/leaderelection: JitterFactor, and the checks of NewLeaderElector
_JITTER_FACTOR = 1.2


class LedgerSettings(Section):
    """The ConfigMap that keeps the first-seen times."""

    name: ObjectName = "warmnode-first-seen"
    """ConfigMap with the first-seen times, in the namespace of `--namespace`. One for each installation."""


class WebhookSettings(Section):
    """The schedulers that call us, and where it is told that they do."""

    schedulers: Annotated[tuple[ObjectName, ...], *NOT_EMPTY] = ("warmnode",)
    """`spec.schedulerName` of the workers that are placed with warmnode's scores: the profiles of the scheduler that
    calls. Workers of other schedulers are placed without; `warmnode doctor` counts them."""
    lease_name: ObjectName = "warmnode-webhook"
    """Lease that says when a scheduler last called, in the namespace of `--namespace`. One for each installation."""


class LeaderElectionSettings(Section):
    """The Lease by which one reaper leads. Defaults are those of Kubernetes' own controllers."""

    name: ObjectName = "warmnode-reaper"
    """Lease by which one reaper leads, in the namespace of `--namespace`. One for each installation."""
    lease_duration: PositiveDuration = timedelta(seconds=15)
    """Others take over when the leader was silent for this long. Longer than `renewDeadline`."""
    renew_deadline: PositiveDuration = timedelta(seconds=10)
    """The leader gives up when it could not renew for this long. Longer than 1.2 times `retryPeriod`."""
    retry_period: PositiveDuration = timedelta(seconds=2)
    """Time between two attempts to get or renew the Lease."""

    def _conflicts(self) -> Iterator[FieldMistake]:
        lease, renew, retry = map(format_duration, (self.lease_duration, self.renew_deadline, self.retry_period))
        if self.lease_duration <= self.renew_deadline:
            yield FieldMistake(
                fields=(("leaseDuration",), ("renewDeadline",)),
                problem=f"leaseDuration ({lease}) must be longer than renewDeadline ({renew}), or two may lead at once",
            )
        if self.renew_deadline <= _JITTER_FACTOR * self.retry_period:
            yield FieldMistake(
                fields=(("renewDeadline",), ("retryPeriod",)),
                problem=f"renewDeadline ({renew}) must be longer than 1.2 times retryPeriod ({retry}),"
                " or the leader cannot try twice",
            )


class Configuration(Section):
    """Configuration of warmnode. Durations are strings such as 90s, 5m or 1h30m."""

    api_version: Literal["warmnode.dev/v1alpha1"]
    """Version of the format."""
    kind: Literal["Configuration"]
    """Kind of the file."""
    age: AgeSource = AgeSource.FIRST_SEEN
    """A node is as old as its first Ready worker (`firstSeen`), because that is what filled its caches, or as its Node
    object (`created`), which needs no ledger."""
    ending: EndingRules = EndingRules()
    """When a node counts as ending: known to go, but not soon, so that it is used last."""
    dry_run: StrictBool = False
    """`true`: decide and report, but write nothing outside warmnode's own namespace. The shipped manifests set it."""
    decision_log: StrictBool = False
    """`true`: each decision is a line in the log too, for longer than `warmnode explain` can be told of it. JSON with
    the default `--log-format`."""
    ledger: LedgerSettings = LedgerSettings()
    """Where first-seen times are kept."""
    leader_election: LeaderElectionSettings = LeaderElectionSettings()
    """How one reaper leads."""
    webhook: WebhookSettings = WebhookSettings()
    """Which schedulers call."""
    pool_defaults: PoolDefaults = PoolDefaults()
    """Settings of every pool that does not say otherwise."""
    pools: tuple[PoolSettings, ...] | None = None
    """The pools: exactly these, and the first that matches wins. `null`: each value of the label `warmnode.dev/pool` is
    a pool. `[]`: none."""

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, raw: Any) -> Any:
        return with_inherited(raw) if isinstance(raw, dict) else raw

    @classmethod
    def default(cls) -> Configuration:
        """What is in force without a file."""
        return cls(api_version=API_VERSION, kind=KIND)

    def pool_defaults_for(self, name: str) -> PoolSettings:
        """Settings of a pool that is only known by the label on its pods. ``name`` is any label value: not checked."""
        selector = SelectorSection.model_construct(match_labels={POOL_LABEL: name})
        return PoolSettings.model_construct(
            **dict(self.pool_defaults), name=name, selector=selector, dry_run=self.dry_run
        )

    def with_dry_run(self) -> Configuration:
        """The same with dry-run on everywhere, also in pools that switch it off: what the flag --dry-run means."""
        pools = self.pools and tuple(pool.model_copy(update={"dry_run": True}) for pool in self.pools)
        return self.model_copy(update={"dry_run": True, "pools": pools})


def with_inherited(raw: dict[Any, Any]) -> dict[Any, Any]:
    """Merge each raw pool over the raw ``poolDefaults``, and give it the global ``dryRun`` where it has none.

    Whatever has the wrong shape stays as it is, for the models to refuse.
    """
    pools = raw.get("pools")
    if not isinstance(pools, list):
        return raw
    defaults = raw.get("poolDefaults")
    if not isinstance(defaults, dict):
        defaults = {}
    dry_run = raw.get("dryRun")
    merged = []
    for own in pools:
        pool = own
        if isinstance(own, dict):
            pool = _merged(defaults, own)
            if pool.get("dryRun") is None:
                pool["dryRun"] = dry_run if isinstance(dry_run, bool) else False
        merged.append(pool)
    return {**raw, "pools": merged}


def _merged(defaults: dict[Any, Any], own: dict[Any, Any]) -> dict[Any, Any]:
    """``own`` over ``defaults``: mappings key by key, everything else, lists too, as a whole."""
    merged = {**defaults, **own}
    for key in defaults.keys() & own.keys():
        if isinstance(defaults[key], dict) and isinstance(own[key], dict):
            merged[key] = _merged(defaults[key], own[key])
    return merged
