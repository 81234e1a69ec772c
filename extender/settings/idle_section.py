"""How a worker is known to be idle: which sources there are, and what must fit together.

Owns the part of the file below ``idle``. Asking the sources is not done here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, model_serializer, model_validator

from extender.policy.defaults import HttpProbe, PrometheusSource
from extender.policy.durations import PositiveDuration, format_duration
from extender.settings.mistakes import FieldMistake, refuse
from extender.settings.section import NOT_EMPTY, Section


class AnnotationSource(Section):
    """The mark itself, the annotation warmnode.dev/idle-since: whoever writes it decides. It has no settings."""


_Source = TypeVar("_Source", HttpProbe, PrometheusSource)


def _timeout_fits(source: _Source) -> _Source:
    if source.timeout > source.interval:
        timeout, interval = format_duration(source.timeout), format_duration(source.interval)
        problem = f"timeout ({timeout}) must not be longer than interval ({interval})"
        refuse([FieldMistake(fields=(("timeout",), ("interval",)), problem=problem)])
    return source


def _not_null(value: object) -> object:
    if value is None:
        raise ValueError("must be a mapping; write {} where there is nothing to set")
    return value


_Chosen = BeforeValidator(_not_null)


class IdleSource(Section):
    """One way to know that a worker is idle. Exactly one of the keys is set."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    annotation: Annotated[AnnotationSource | None, _Chosen] = None
    """The annotation `warmnode.dev/idle-since` on the pod. It has no settings: `{annotation: {}}`."""
    http: Annotated[Annotated[HttpProbe, AfterValidator(_timeout_fits)] | None, _Chosen] = None
    """Ask each worker: 200 with `{"idleSince": time}` is idle, anything else busy."""
    prometheus: Annotated[Annotated[PrometheusSource, AfterValidator(_timeout_fits)] | None, _Chosen] = None
    """Ask Prometheus about all workers at once."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        written = sorted(self.model_fields_set)
        if len(written) != 1:
            raise ValueError(
                f"must have exactly one of annotation, http, prometheus; it has {' and '.join(written) or 'none'}"
            )
        return self

    @model_serializer(mode="plain")
    def _without_the_others(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}

    @property
    def choice(self) -> AnnotationSource | HttpProbe | PrometheusSource:
        """The one that is set."""
        return self.http or self.prometheus or self.annotation or AnnotationSource()


class IdleSettings(Section):
    """How a worker is known to be idle. Several sources: all must say so; idle since the latest of them."""

    sources: Annotated[tuple[IdleSource, ...], *NOT_EMPTY] = (IdleSource(annotation=AnnotationSource()),)
    """How idleness is known. Several: all must say idle, and the worker is idle since the latest of them. The
    annotation alone by default: it needs no further access."""
    stale_after: PositiveDuration = timedelta(seconds=30)
    """An older answer of `http` or `prometheus` counts as busy. Longer than the interval of each source."""

    def _conflicts(self) -> Iterator[FieldMistake]:
        for position, source in enumerate(self.sources):
            choice = source.choice
            if isinstance(choice, AnnotationSource) or self.stale_after > choice.interval:
                continue
            kind = "http" if source.http else "prometheus"
            yield FieldMistake(
                fields=(("staleAfter",), ("sources", position, kind, "interval"), ("sources",)),
                problem=f"staleAfter ({format_duration(self.stale_after)}) must be longer than the interval of each"
                f" source ({format_duration(choice.interval)}), or workers turn busy between two answers",
            )
