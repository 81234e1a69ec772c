"""What goes over the wire of the claim API: bodies to values, values to bodies, and every refusal.

Owns the words. Decides nothing but whether a request makes sense.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

import msgspec

from extender.policy.claims import PoolClaims
from extender.policy.durations import format_duration, parse_duration
from extender.policy.marks import format_idle_mark
from extender.web.api_bodies import CLAIMANT, LABEL_VALUE, ClaimBody, ClaimRequestBody, RenewRequestBody
from extender.web.claim_values import (
    ClockOff,
    Granted,
    NobodyWaits,
    NoSuchClaim,
    NothingToClaim,
    StillChanging,
    Stopping,
    WorkerEnds,
)
from extender.web.refusals import CallRefused, Reason, bad_request, refusal_of, unavailable

_GRANT = "create tokenreviews and subjectaccessreviews; list, get and patch pods"


LONGEST_WAIT = timedelta(minutes=1)
"""For which one call waits: proxies and load balancers cut longer ones."""


class ClaimOutcome(StrEnum):
    """What became of a call that was not refused: the metric's label."""

    CLAIMED = "claimed"
    FOUND = "found"
    RENEWED = "renewed"
    RELEASED = "released"
    LISTED = "listed"


_T = TypeVar("_T", bound=msgspec.Struct)


def _decoded(body: bytes, struct: type[_T], example: str) -> _T:
    try:
        return msgspec.json.decode(body, type=struct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"send {example} ({error})") from error


def decode_claim(body: bytes, settings: PoolClaims) -> tuple[ClaimRequestBody, timedelta]:
    """Read what a claim is asked with, and how long it is to last. Raises `CallRefused`."""
    asked = _decoded(body, ClaimRequestBody, '{"claimant": "query-42", "ttl": "60s"}')
    if not CLAIMANT.fullmatch(asked.claimant):
        raise bad_request("claimant names whoever will use the worker: printable characters, so that logs can show it")
    if asked.cache_key is not None and not LABEL_VALUE.fullmatch(asked.cache_key):
        raise bad_request("cacheKey is a value of the workers' label: 1 to 63 letters, digits, '-', '_' or '.'")
    at_least, count = asked.at_least, asked.count
    if at_least is not None and (count is None or at_least > count):
        raise bad_request(f"atLeast says how many of count are enough, so at most that (got {at_least} of {count})")
    return asked, _ttl(asked.ttl, settings)


def decode_wait(text: str | None) -> timedelta:
    """Read for how long a call is to wait for a worker; None: not at all. Raises `CallRefused`."""
    if text is None:
        return timedelta()
    try:
        wait = parse_duration(text)
    except ValueError as error:
        raise bad_request(f"wait {error} (got {text[:40]!r})") from error
    if wait > LONGEST_WAIT:
        raise bad_request(f"wait must be at most {format_duration(LONGEST_WAIT)}: ask again then (got {text[:40]!r})")
    return wait


def decode_renewal(body: bytes, settings: PoolClaims) -> timedelta:
    """Read how long a claim is to last on. No body: as long as a new one. Raises `CallRefused`."""
    return _ttl(_decoded(body or b"{}", RenewRequestBody, '{"ttl": "60s"}, or no body').ttl, settings)


def _ttl(text: str | None, settings: PoolClaims) -> timedelta:
    if text is None:
        return settings.rules.ttl
    try:
        ttl = parse_duration(text)
    except ValueError as error:
        raise bad_request(f"ttl {error} (got {text[:40]!r})") from error
    if not timedelta() < ttl <= settings.rules.max_ttl:
        longest = format_duration(settings.rules.max_ttl)
        raise bad_request(f"ttl must be longer than 0s and at most {longest}, the pool's maxTtl (got {text[:40]!r})")
    return ttl


def claim_body(granted: Granted, first_seen: datetime | None) -> ClaimBody:
    """Say what is held. ``first_seen`` is of its node, None: not known."""
    worker, claim = granted.worker, granted.claim
    return ClaimBody(
        id=claim.id,
        pool=claim.pool,
        claimant=claim.claimant,
        namespace=worker.namespace,
        pod=worker.name,
        uid=worker.uid,
        ip=granted.ip,
        node=worker.node,
        first_seen=None if first_seen is None else format_idle_mark(first_seen),
        since=format_idle_mark(claim.since),
        expires=format_idle_mark(claim.expires),
    )


def check_enabled(pool: str, settings: PoolClaims) -> None:
    """Raise `CallRefused` for a pool that hands out nothing."""
    if not settings.rules.enabled:
        detail = f"pool {pool} hands out no workers: claims.enabled is false"
        raise CallRefused(Reason.DISABLED, detail)
    if settings.dry_run:
        raise dry_run(pool)


def dry_run(pool: str) -> CallRefused:
    """409: nothing is written."""
    detail = f"pool {pool} is in dry-run: nothing is written, so nothing is claimed"
    return CallRefused(Reason.DRY_RUN, detail)


def none_idle(pool: str, settings: PoolClaims, nothing: NothingToClaim, waiting: int) -> CallRefused:
    """404: nothing can be handed out, and why; or, for a pool that is only a label, nothing has it. ``waiting`` workers
    have no node yet.
    """
    counts, others = nothing.counts, {"pending": waiting, "refused": nothing.refused}
    if not counts and not any(others.values()) and settings.is_by_label:
        return unknown_pool(pool, "no pod has the label warmnode.dev/pool with this value")
    members = {"busy": 0, "claimed": 0} | {str(reason): number for reason, number in counts.items()}
    members |= {reason: number for reason, number in others.items() if number}
    shown = ", ".join(f"{number} {reason}" for reason, number in members.items())
    detail = f"no worker of pool {pool} can be handed out: {shown}"
    return CallRefused(Reason.NONE_IDLE, detail, members={"workers": members})


def unknown_pool(pool: str, why: str) -> CallRefused:
    """404: there is no such pool."""
    return CallRefused(Reason.UNKNOWN_POOL, f"there is no pool {pool!r}: {why}")


def claim_refusal(error: Exception) -> CallRefused:
    """Say what to answer to whoever asked."""
    match error:
        case StillChanging():
            return unavailable("workers changed under each attempt; try again", reason=Reason.CHANGING)
        case ClockOff():
            return unavailable(f"the clock here is {error}, so when claims end is not known")
        case NobodyWaits():
            return unavailable("the caller has hung up; nothing was claimed", reason=Reason.CALLER_GONE)
        case Stopping():
            detail = "this replica ends, and nothing was claimed: the same request again goes to another one"
            return unavailable(detail, reason=Reason.STOPPING)
        case NoSuchClaim():
            detail = "you hold no such claim: it expired, was released, or is another user's"
            return CallRefused(Reason.NO_CLAIM, detail)
        case WorkerEnds():
            detail = "the worker is being deleted: claim another one"
            return CallRefused(Reason.TERMINATING, detail)
        case _:
            return refusal_of(error, grant=_GRANT)
