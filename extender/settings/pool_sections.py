"""A pool: which pods are its workers, and what differs from ``poolDefaults``.

Owns the part of the file below ``pools``. Merging a pool over the defaults is done in `models`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StrictBool, ValidationInfo, WithJsonSchema, field_validator
from pydantic.config import JsonDict

from extender import model
from extender.model import CacheKeyRule, Operator, Pool
from extender.policy.pools import POOL_LABEL
from extender.policy.value_kinds import DnsLabel, LabelKey, LabelValue, WorkerNamespace
from extender.settings.mistakes import FieldMistake, Inconsistent
from extender.settings.pool_defaults import CacheKeySettings, PoolDefaults
from extender.settings.section import NOT_EMPTY, Section

_VALUES_RULE: JsonDict = {
    "if": {"properties": {"operator": {"enum": ["In", "NotIn"]}}},
    "then": {"required": ["values"], "properties": {"values": {"minItems": 1}}},
    "else": {"properties": {"values": {"maxItems": 0}}},
}


class MatchExpression(Section):
    """One term of a label selector."""

    model_config = ConfigDict(json_schema_extra=_VALUES_RULE)

    key: LabelKey
    """Label key."""
    operator: Operator
    """`In`, `NotIn`, `Exists` or `DoesNotExist`. `NotIn` also matches pods without the label."""
    values: tuple[LabelValue, ...] = ()
    """Label values: at least one with `In` and `NotIn`, none with the others."""

    def _conflicts(self) -> Iterator[FieldMistake]:
        wants_values = self.operator in ("In", "NotIn")
        if wants_values and not self.values:
            yield FieldMistake(
                fields=(("values",),), problem=f"must have at least one value with operator {self.operator}"
            )
        if not wants_values and self.values:
            yield FieldMistake(fields=(("values",),), problem=f"must be left out with operator {self.operator}")


class SelectorSection(Section):
    """Pods that have all the labels and match all the expressions."""

    match_labels: Annotated[
        dict[LabelKey, LabelValue], Field(default_factory=dict, json_schema_extra={"additionalProperties": False})
    ]
    """Labels, each with its value."""
    match_expressions: tuple[MatchExpression, ...] = ()
    """Further terms, as in Kubernetes."""


def _labelled(validated: dict[str, Any]) -> SelectorSection:
    return SelectorSection(match_labels={POOL_LABEL: validated["name"]})


class PoolSettings(PoolDefaults):
    """A pool: which pods are its workers, and what differs from poolDefaults. The first pool that matches wins."""

    name: DnsLabel
    """Name of the pool in metrics, claims and commands: lower case letters, digits and `-`. Each name once."""
    namespaces: Annotated[tuple[WorkerNamespace, ...], *NOT_EMPTY] | None = None
    """Namespaces of the workers. `null`: all. `kube-system` is refused."""
    selector: SelectorSection = Field(default_factory=_labelled)
    """Which pods are workers. Left out: those whose label `warmnode.dev/pool` is the pool's name. `{}`: all pods of
    `namespaces`, which are required then."""
    dry_run: Annotated[StrictBool, WithJsonSchema({"type": ["boolean", "null"]})] = False
    """`true`: nothing is written to workers of this pool. `false`: no dry-run here, but the flag `--dry-run` wins.
    `null`: as the global `dryRun`."""

    @field_validator("selector", mode="after")
    @classmethod
    def _selects_less_than_everything(cls, selector: SelectorSection, info: ValidationInfo) -> SelectorSection:
        """Checked with the field, not with the whole pool, so that other mistakes do not hide this one."""
        if not selector.match_labels and not selector.match_expressions and info.data.get("namespaces", ()) is None:
            problem = "would make every pod of the cluster a worker; name a label, or namespaces"
            raise Inconsistent([FieldMistake(fields=((),), problem=problem)])
        return selector


def to_model_pool(settings: PoolSettings) -> Pool:
    """The part of a pool that placement goes by: whose workers, how busy victims are treated, its cache key."""
    return Pool(
        name=settings.name,
        namespaces=frozenset(settings.namespaces or ()),
        selector=model.Selector(
            match_labels=tuple(sorted(settings.selector.match_labels.items())),
            match_expressions=tuple(
                model.Expression(key=term.key, operator=term.operator, values=frozenset(term.values))
                for term in settings.selector.match_expressions
            ),
        ),
        busy_victims=settings.preempt.busy_victims,
        cache_key=to_cache_key_rule(settings.cache_key),
        placement=settings.placement,
    )


def to_cache_key_rule(settings: CacheKeySettings | None) -> CacheKeyRule | None:
    """The rule that policies know. A window of one node is no rule: nothing needs to be counted for it."""
    if settings is None or settings.window == 1:
        return None
    window = settings.window if isinstance(settings.window, int) else None
    return CacheKeyRule(label=settings.label, window=window, slack=settings.slack)
