"""Kinds of values that a knob can have: counts, names and addresses as Kubernetes and HTTP allow them.

Owns what may be written for one. Each check says what would be right; the JSON Schema gets the same rule. Durations
have their own module.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainValidator, StrictInt, StrictStr, WithJsonSchema

# apimachinery pkg/util/validation: IsDNS1123Label, IsDNS1123Subdomain, IsQualifiedName, IsValidLabelValue
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_SUBDOMAIN = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
_NAME_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_OWNER = rf"[A-Z][A-Za-z0-9]*(\.{_DNS_SUBDOMAIN})?"

Count: TypeAlias = Annotated[StrictInt, Field(ge=0, le=1_000_000)]
Port: TypeAlias = Annotated[StrictInt, Field(ge=1, le=65_535)]


def _window(value: object) -> object:
    if value != "auto" and (type(value) is not int or not 1 <= value <= 1_000):
        raise ValueError("must be auto, or a whole number from 1 to 1000")
    return value


def _share(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError("must be a number from 0 to 1")
    return float(value)


_WINDOW_SCHEMA = {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 1_000}]}
Window: TypeAlias = Annotated[Literal["auto"] | int, PlainValidator(_window), WithJsonSchema(_WINDOW_SCHEMA)]

_SHARE_SCHEMA = {"type": "number", "minimum": 0, "maximum": 1}
Share: TypeAlias = Annotated[float, PlainValidator(_share), WithJsonSchema(_SHARE_SCHEMA)]

NEVER_EVICTED_OWNERS = frozenset({"DaemonSet.apps", "Node"})
"""Controllers that put the pod back on the same node: evicting for them frees nothing."""


def _text(pattern: str, longest: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^({pattern})$", "maxLength": longest})


def _matching(pattern: str, longest: int, rule: str, *, shown: str | None = None) -> tuple[Any, ...]:
    """Make the check of a text and its schema, which has the pattern ``shown`` where that differs."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if len(value) > longest or not compiled.fullmatch(value):
            raise ValueError(rule)
        return value

    return AfterValidator(check), _text(shown or pattern, longest)


def _evictable_owner(value: str) -> str:
    if value in NEVER_EVICTED_OWNERS:
        raise ValueError("pods of this owner come back on the same node, so they are never evicted; remove it")
    return value


def _worker_namespace(value: str) -> str:
    if value == "kube-system":
        raise ValueError("pods in kube-system keep the cluster alive and are never evicted; move the workers elsewhere")
    return value


def _request_path(value: str) -> str:
    if not re.fullmatch(r"/[!-~]{0,1023}", value):
        raise ValueError('must be a path that starts with "/", without spaces, such as "/idle"')
    return value


def _server_url(value: str) -> str:
    if "@" in value:
        raise ValueError("must not hold a user or a password: this file is readable by many; leave them out")
    rule = 'must be the address of a server, such as "http://prometheus.monitoring:9090"'
    try:
        parts = urlsplit(value)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(rule) from None
    if not value.startswith(("http://", "https://")) or not parts.hostname or not has_port:
        raise ValueError(rule)
    if not re.fullmatch(r"[!-~]{1,1024}", value) or "?" in value or "#" in value:
        raise ValueError(f"{rule}, without spaces, ? and #")
    return value


def _query(value: str) -> str:
    if not value.strip() or len(value) > 10_000:
        raise ValueError("must be a PromQL query that gives one series for each pod, at most 10,000 characters")
    return value


_LABEL_RULE = "must be lower case letters, digits and -, with a letter or digit at both ends, at most 63 characters"

DnsLabel: TypeAlias = Annotated[StrictStr, *_matching(_DNS_LABEL, 63, _LABEL_RULE)]

WorkerNamespace: TypeAlias = Annotated[DnsLabel, AfterValidator(_worker_namespace)]

ObjectName: TypeAlias = Annotated[
    StrictStr,
    *_matching(_DNS_SUBDOMAIN, 253, "must be a name such as my-name: lower case letters, digits, - and ."),
]

LabelKey: TypeAlias = Annotated[
    StrictStr,
    *_matching(
        rf"((?=[^/]{{1,253}}/){_DNS_SUBDOMAIN}/)?{_NAME_PART}",
        317,
        'must be a label key such as "app" or "example.com/app"',
        shown=rf"({_DNS_SUBDOMAIN}/)?{_NAME_PART}",
    ),
]

LabelValue: TypeAlias = Annotated[
    StrictStr,
    *_matching(
        rf"({_NAME_PART})?", 63, "must be a label value: letters, digits, -, _ and ., at most 63 characters, or empty"
    ),
]

OwnerKind: TypeAlias = Annotated[
    StrictStr,
    *_matching(_OWNER, 317, 'must be Kind.group as in an ownerReference, such as "ReplicaSet.apps" or "Job.batch"'),
    AfterValidator(_evictable_owner),
]

RequestPath: TypeAlias = Annotated[StrictStr, AfterValidator(_request_path), _text("/[!-~]*", 1024)]

ServerUrl: TypeAlias = Annotated[StrictStr, AfterValidator(_server_url), _text(r"https?://[^\s@?#]+", 1024)]

Query: TypeAlias = Annotated[StrictStr, AfterValidator(_query), _text(r"[\s\S]*\S[\s\S]*", 10_000)]
