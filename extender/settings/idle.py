"""How a worker is known to be idle: the sources and their settings, with units, defaults and reasons.

Owns the part of the file below ``idle``. Asking the sources is not done here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, model_serializer, model_validator

from extender.policy.durations import Interval, PositiveDuration, format_duration
from extender.policy.knobs import Port, Query, RequestPath, ServerUrl
from extender.settings.mistakes import Conflict, refuse
from extender.settings.section import NOT_EMPTY, Section


class AnnotationSource(Section):
    """The mark itself, the annotation warmnode.dev/idle-since: whoever writes it decides. It has no settings."""


class HttpSource(Section):
    """Ask each worker over HTTP: 200 with {"idleSince": time} is idle, any other answer is busy."""

    port: Port
    """Port of the pod that answers."""
    path: RequestPath = "/idle"
    """Path of the request."""
    interval: Interval = timedelta(seconds=10)
    """Time between two questions to one pod, at least `1s`. `10s` gives three chances within the default
    `staleAfter`."""
    timeout: PositiveDuration = timedelta(seconds=2)
    """Longest wait for an answer; none in time is busy. At most the interval. `2s`: whoever needs longer is busy."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        refuse(_timeout_conflicts(self))
        return self


class PrometheusSource(Section):
    """Ask Prometheus for all workers at once: one series for each pod, its value is idle since, in epoch seconds."""

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

    @model_validator(mode="after")
    def _fits(self) -> Self:
        refuse(_timeout_conflicts(self))
        return self


def _timeout_conflicts(source: HttpSource | PrometheusSource) -> Iterator[Conflict]:
    if source.timeout > source.interval:
        yield Conflict(
            fields=(("timeout",), ("interval",)),
            problem=f"timeout ({format_duration(source.timeout)}) must not be longer than"
            f" interval ({format_duration(source.interval)})",
        )


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
    http: Annotated[HttpSource | None, _Chosen] = None
    """Ask each worker: 200 with `{"idleSince": time}` is idle, anything else busy."""
    prometheus: Annotated[PrometheusSource | None, _Chosen] = None
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
    def choice(self) -> AnnotationSource | HttpSource | PrometheusSource:
        """The one that is set."""
        return self.http or self.prometheus or self.annotation or AnnotationSource()


class IdleSettings(Section):
    """How a worker is known to be idle. Several sources: all must say so; idle since the latest of them."""

    sources: Annotated[tuple[IdleSource, ...], *NOT_EMPTY] = (IdleSource(annotation=AnnotationSource()),)
    """How idleness is known. Several: all must say idle, and the worker is idle since the latest of them. The
    annotation alone by default: it needs no further access."""
    stale_after: PositiveDuration = timedelta(seconds=30)
    """An older answer of `http` or `prometheus` counts as busy. Longer than the interval of each source."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        refuse(self._conflicts())
        return self

    def _conflicts(self) -> Iterator[Conflict]:
        for position, source in enumerate(self.sources):
            choice = source.choice
            if isinstance(choice, AnnotationSource) or self.stale_after > choice.interval:
                continue
            kind = "http" if source.http else "prometheus"
            yield Conflict(
                fields=(("staleAfter",), ("sources", position, kind, "interval"), ("sources",)),
                problem=f"staleAfter ({format_duration(self.stale_after)}) must be longer than the interval of each"
                f" source ({format_duration(choice.interval)}), or workers turn busy between two answers",
            )
