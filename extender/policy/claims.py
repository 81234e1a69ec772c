"""Claims: which worker a caller gets, whose it is then, and for how long. Owns the order and the rules of holding.

Reads no clock and writes nothing: `web.claiming` carries it out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from extender.model import CacheKeyRule, Pod, PodClaim, SkipReason
from extender.policy.defaults import ClaimRules, PoolCosts
from extender.policy.idleness import idle_since, is_claimed, reports_idle, why_not_claimable

OBJECT_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
"""What pods and namespaces can be called (apimachinery validation: DNS-1123 subdomain). Nothing else goes in a path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolClaims:
    """How one pool's workers are claimed. ``namespace`` is the pool's only one, None where it may span several.

    ``is_by_label`` is true for a pool that is there because pods have its label, and for no other reason.
    ``cache_key`` None: age alone decides, whatever key a request names. ``floor`` is the reaper's.
    """

    rules: ClaimRules
    costs: PoolCosts
    dry_run: bool
    namespace: str | None = None
    is_by_label: bool = False
    cache_key: CacheKeyRule | None = None
    floor: int = 0

    @property
    def spare(self) -> int:
        """Say how many idle workers are wanted beside those in use."""
        return max(self.floor, self.rules.spare)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """Who asks: a name that ``user`` chose, in ``pool``. The same three are the same claimant."""

    user: str
    pool: str
    name: str

    @classmethod
    def of(cls, claim: PodClaim) -> Claimant:
        """Give the claimant of a claim."""
        return cls(user=claim.user, pool=claim.pool, name=claim.claimant)

    @property
    def key(self) -> str:
        """Name the claimant in a label value: 40 hex digits of SHA-256 over the three, each with its length."""
        parts = (part.encode() for part in (self.user, self.pool, self.name))
        text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
        return hashlib.sha256(text).hexdigest()[:40]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimReference:
    """A claim as its user names it."""

    user: str
    pool: str
    id: str

    def means(self, claim: PodClaim) -> bool:
        """True where it is that claim: of the same ID, in the same pool, and of the same user."""
        return (claim.user, claim.pool, claim.id) == (self.user, self.pool, self.id)

    @property
    def place(self) -> tuple[str, str] | None:
        """Namespace and name of the pod, which the ID begins with; None where it is no ID of a claim."""
        namespace, _, rest = self.id.partition(".")
        name, _, nonce = rest.rpartition(".")
        return (namespace, name) if nonce and OBJECT_NAME.fullmatch(namespace) and OBJECT_NAME.fullmatch(name) else None


def claim_id(worker: Pod, nonce: str) -> str:
    """Name a claim by its worker, so that any replica finds it, and by something that nobody can guess."""
    return f"{worker.namespace}.{worker.name}.{nonce}"


def claimable_on(workers: Iterable[Pod], pool: str, barred: SkipReason | None, now: datetime) -> list[Pod]:
    """Put the workers of one node that can be handed out in order: 1. idle longest; 2. pod UID.

    Nodes come before: by preference, oldest first and ending ones last. ``barred`` is why the node may not be used.
    """
    if barred is not None:
        return []
    found = [each for each in workers if each.pool == pool and why_not_claimable(each, None, now) is None]
    found.sort(key=lambda worker: (idle_since(worker) or now, worker.uid))
    return found


def is_held_by(worker: Pod, claimant: Claimant, now: datetime) -> bool:
    """A claimant holds a worker when its user does, in the pool that it asked for, under the claimant's name."""
    return (
        worker.claim is not None
        and worker.claim.claimant == claimant.name
        and is_held_in(worker, claimant.user, claimant.pool, now)
    )


def is_held_in(worker: Pod, user: str, pool: str, now: datetime) -> bool:
    """A user holds a worker while: 1. the claim is theirs, for this pool; 2. it has not run out; 3. the worker is
    in the pool still; 4. it is not terminating and has not finished.
    """
    claim = worker.claim
    return (
        claim is not None
        and (claim.user, claim.pool) == (user, pool)
        and is_claimed(worker, now)
        and worker.pool == pool
        and not worker.terminating
        and not worker.finished
    )


def held_by(workers: Iterable[Pod], claimant: Claimant, now: datetime) -> list[Pod]:
    """Choose the workers that a claimant holds: 1. held longest; 2. claim ID. It should be one, or none."""
    held = [(each.claim, each) for each in workers if each.claim is not None and is_held_by(each, claimant, now)]
    return [worker for _, worker in sorted(held, key=lambda entry: (entry[0].since, entry[0].id))]


def prolonged(claim: PodClaim, ttl: timedelta, now: datetime) -> PodClaim:
    """Let a claim end ``ttl`` from now, never sooner than it would. Always another value: ``renewals`` is counted."""
    return replace(claim, expires=max(claim.expires, now + ttl), renewals=claim.renewals + 1)


def claim_end(claim: PodClaim, now: datetime) -> datetime:
    """Say when a claim that is released now has ended: now, or when it expired."""
    return min(now, claim.expires)


def use_on(workers: Iterable[Pod], now: datetime) -> Iterator[tuple[str, SkipReason]]:
    """Say of each worker of one node that is in use its pool, and why: CLAIMED, or else BUSY.

    Busy is one that is Ready and does not report idle. One that starts, ends, or was Ready on an earlier machine of its
    node's name only is not: if it were, whoever makes workers by this would make one more for each that it makes.
    """
    for worker in workers:
        if worker.pool is None or worker.terminating or worker.finished:
            continue
        if is_claimed(worker, now):
            yield worker.pool, SkipReason.CLAIMED
        elif worker.ready_since is not None and not worker.old_machine and not reports_idle(worker, now):
            yield worker.pool, SkipReason.BUSY


def reasons_on(workers: Iterable[Pod], pool: str, barred: SkipReason | None, now: datetime) -> Iterator[SkipReason]:
    """Say for each worker of one node why it cannot be handed out. Those that can be are left out."""
    for worker in workers:
        if worker.pool == pool:
            reason = why_not_claimable(worker, barred, now)
            if reason is not None:
                yield reason
