"""Bodies on the claims listener: what is sent and what is answered, as structs. The OpenAPI document is made of them.

Owns the names of fields, their bounds, and what the document says of them.
"""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from extender.policy.durations import UNITS

LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
"""A value of a label: validation in apimachinery."""
CLAIMANT = re.compile(
    "[^\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\ufeff\ufff9-\ufffb]+"
)
"""What a log or a terminal shows as it is: no control character, no end of a line, nothing that turns the direction of
writing or shows nothing. A list: what Python calls printable is another set in each version, and no other language's.
"""

_Duration = Annotated[
    str,
    Meta(
        min_length=1,
        extra_json_schema={"pattern": f"^{UNITS}$"},
        examples=["60s", "5m", "1h30m", "250ms"],
    ),
]
_Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, examples=["2026-11-01T12:00:00.000Z"])]
_Life = Annotated[
    _Duration | None, Meta(description="Life of the claim from now on, at most the pool's maxTtl. Default: its ttl.")
]


class ClaimRequestBody(Struct, rename="camel", forbid_unknown_fields=True):
    """Who asks for a worker."""

    claimant: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=256,
            extra_json_schema={"pattern": f"^{CLAIMANT.pattern}$"},
            description="Names whoever will use the worker: the same again when the request is repeated. Printable.",
        ),
    ]
    ttl: _Life = None
    cache_key: Annotated[
        str | None,
        Meta(
            extra_json_schema={"pattern": f"^{LABEL_VALUE.pattern}$"},
            description="Whose cache is used: among the oldest nodes with an idle worker the one that knows it comes "
            "first. Without effect in a pool without cacheKey.",
        ),
    ] = None
    retry: Annotated[
        bool,
        Meta(
            description="The claimant may have asked before, anywhere: it gets what it got then. As the header "
            "Idempotency-Key."
        ),
    ] = False
    count: Annotated[
        Annotated[int, Meta(ge=1, le=100)] | None,
        Meta(
            description="So many workers at once, each with a claim of its own: for claimant/1, claimant/2 and so on. "
            "The answer is then a list. Default: one, answered as one."
        ),
    ] = None
    at_least: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="How many of count are enough; with fewer none is claimed. Default: all of them."),
    ] = None


class RenewRequestBody(Struct, rename="camel", forbid_unknown_fields=True):
    """For how long. No body is the same as an empty one."""

    ttl: _Life = None


class ClaimBody(Struct, rename="camel", kw_only=True):
    """A worker and the claim on it."""

    id: Annotated[str, Meta(description="Of the claim: to renew and to release it.")]
    pool: str
    claimant: str
    namespace: str
    pod: Annotated[str, Meta(description="Name of the worker.")]
    uid: Annotated[str, Meta(description="UID of the worker: names come again.")]
    ip: Annotated[str | None, Meta(description="Of the worker.")]
    node: str | None
    first_seen: Annotated[_Time | None, Meta(description="When a worker was first Ready on the node.")]
    since: Annotated[_Time, Meta(description="When it was claimed.")]
    expires: Annotated[_Time, Meta(description="When the claim ends by itself, by the clock of the replica.")]


class ClaimListBody(Struct):
    """What the user holds in the pool."""

    claims: list[ClaimBody]


class WantedBody(Struct):
    """How many workers a pool should have: ``wanted`` is the sum of the others."""

    pool: str
    wanted: int
    busy: Annotated[int, Meta(description="Ready, and not idle.")]
    claimed: int
    waiting: Annotated[int, Meta(description="Calls that wait for a worker at the replica that answers.")]
    spare: Annotated[int, Meta(description="Idle ones to have ready: claims.spare, or reap.floor where that is more.")]


class IdleRequestBody(Struct, rename="camel", forbid_unknown_fields=True):
    """Since when. No body is the same as an empty one."""

    idle_since: Annotated[_Time, Meta(description="At most 30 s in the future. Default: now.")] | UnsetType = UNSET


class WorkerBody(Struct, rename="camel", kw_only=True):
    """A worker's mark, as it is now."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    idle_since: _Time | None
    terminating: Annotated[bool, Meta(description="The pod is being deleted.")]


class ProblemBody(Struct):
    """RFC 9457: ``detail`` is for people, ``reason`` for programs. With ``terminating`` it tells of the worker, too."""

    type: str
    title: str
    status: int
    detail: str
    reason: str
    workers: (
        Annotated[
            dict[str, int],
            Meta(description="With noneIdle: why not, counted by reason. busy and claimed are always there."),
        ]
        | UnsetType
    ) = UNSET
