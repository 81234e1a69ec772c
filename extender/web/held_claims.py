"""Claims that are there: whose they are, and how they are prolonged, given back and released, one write each.

What is held is known from the state: the watch, and what this process wrote itself. The API server is read where a
write shows that the state is behind, or where the caller of a method wants more. Knows no HTTP, and hands nothing out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.kube.claim_store import FoundPod
from extender.kube.errors import Conflict, Gone, NotFound
from extender.model import Pod, PodClaim
from extender.policy.claims import (
    Claimant,
    ClaimReference,
    PoolClaims,
    claim_end,
    held_by,
    is_held_by,
    is_held_in,
    prolonged,
)
from extender.policy.deletion_cost import NO_CHANGE, Prices
from extender.policy.idleness import is_claimed
from extender.web.claim_values import ClockOff, Granted, NoSuchClaim, StillChanging, WorkerEnds

ATTEMPTS = 5
"""Versions of one pod that are tried before the next one is: status updates come seldom, and never five in a row. What
is known here may be behind, and is not counted."""


class Claims(Protocol):
    """The part of `kube.claims.ClaimStore` that claiming needs."""

    async def find(self, key: str | None, namespace: str | None) -> list[FoundPod]: ...
    async def as_of(self, pod: Pod, version: str) -> FoundPod | None: ...
    async def read(self, namespace: str, name: str) -> FoundPod | None: ...
    async def hold(self, pod: Pod, claim: PodClaim, key: str, *, cost: Prices = NO_CHANGE) -> FoundPod: ...
    async def free(self, pod: Pod, ended: datetime | None) -> FoundPod: ...


class HeldClaims:
    """Finds and changes claims. ``lost_race`` is told of each write that came too late."""

    def __init__(
        self, *, state: ClusterState, claims: Claims, clock: Clock, lost_race: Callable[[], None] = lambda: None
    ) -> None:
        self._state = state
        self._claims = claims
        self._clock = clock
        self.lost_race = lost_race

    async def of(self, claimant: Claimant, settings: PoolClaims, *, ask: bool) -> list[Pod]:
        """Give the workers that a claimant holds, longest first: as the API server has it, or without ``ask`` as known.

        Raises `KubeError`.
        """
        if not ask:
            return held_by(self._state.where.claimed_by(claimant).values(), claimant, self._clock.now())
        found = await self._claims.find(claimant.key, settings.namespace)
        return held_by((each.pod for each in found), claimant, self._clock.now())

    async def by_user(self, user: str, pool: str, settings: PoolClaims) -> list[Granted]:
        """List what a user holds in a pool, by claim ID. Raises `KubeError`."""
        now = self._clock.now()
        found = await self._claims.find(None, settings.namespace)
        held = [granted(each) for each in found if is_held_in(each.pod, user, pool, now)]
        return sorted(held, key=lambda each: each.claim.id)

    async def renew(self, reference: ClaimReference, ttl: timedelta) -> Granted:
        """Let a claim last ``ttl`` from now, at least.

        Raises:
            NoSuchClaim, WorkerEnds, StillChanging, ClockOff, KubeError
        """
        known = self._known(reference)
        for _ in range(ATTEMPTS + 1):
            worker, claim = known or await self._read(reference)
            known = None
            if worker.terminating:
                raise WorkerEnds
            try:
                return granted(await self.hold(worker, prolonged(claim, ttl, self._clock.now())))
            except Conflict:
                self.lost_race()
            except NotFound as error:
                raise NoSuchClaim from error
        raise StillChanging

    async def release(self, reference: ClaimReference) -> Pod:
        """End a claim and give the worker as it is then. Raises as `renew`, but a worker that ends can be released, and
        the clock may be off: then the claim counts as in force, and as having ended when it would have.
        """
        known = self._known(reference)
        for _ in range(ATTEMPTS + 1):
            worker, claim = known or await self._read(reference)
            known = None
            try:
                ended = claim.expires if self._clock.is_off else claim_end(claim, self._clock.now())
                return await self._free(worker, ended)
            except Conflict:
                self.lost_race()
            except NotFound as error:
                raise NoSuchClaim from error
        raise StillChanging

    async def prolong(self, held: Pod, claimant: Claimant, ttl: timedelta) -> Granted | None:
        """Prolong what the claimant holds; None: it holds it no more. Raises StillChanging, ClockOff, KubeError."""
        worker: Pod | None = held
        for _ in range(ATTEMPTS + 1):
            now = self._clock.now()
            if worker is None or worker.claim is None or not is_held_by(worker, claimant, now):
                return None
            try:
                return granted(await self.hold(worker, prolonged(worker.claim, ttl, now)))
            except (Conflict, NotFound):
                self.lost_race()
                worker = await self.read(held)
        raise StillChanging

    async def is_first(self, taken: Pod, claimant: Claimant, settings: PoolClaims, *, ask: bool) -> bool:
        """True unless a concurrent request of this claimant had put its claim on another worker before.

        Which of two was first nobody can say by clocks, so the other pod is read as it was at our own write. Without
        ``ask`` only those count that are known by now. With a clock that is off it is not known which of them run.
        """
        for other in await self.of(claimant, settings, ask=ask):
            if other.uid == taken.uid:
                continue
            try:
                earlier = await self._claims.as_of(other, taken.resource_version)
            except Gone:
                return False  # too long ago to be read; the other request did not find ours, and keeps its own
            if earlier is not None and is_held_by(earlier.pod, claimant, self._clock.now()):
                return False
        return not self._clock.is_off

    async def give_back(self, taken: Pod) -> bool:
        """Remove a claim that nobody was told of; False where somebody was, who asked again meanwhile."""
        worker: Pod | None = taken
        for _ in range(ATTEMPTS):
            if worker is None or worker.claim is None or worker.claim.id != claim_on(taken).id:
                return True
            if worker.claim != taken.claim:
                return False
            try:
                await self._free(worker, None)
            except (Conflict, NotFound):
                worker = await self.read(taken)
            else:
                return True
        raise StillChanging

    async def hold(self, worker: Pod, claim: PodClaim, *, cost: Prices = NO_CHANGE) -> FoundPod:
        """Put a claim on exactly this version of a worker. Raises as `ClaimStore.hold`, and `ClockOff`: the clock may
        have jumped since the call came.
        """
        if self._clock.is_off:
            raise ClockOff(self._clock.told_off)
        held = await self._claims.hold(worker, claim, Claimant.of(claim).key, cost=cost)
        self._state.take_written(worker, held.pod)
        return held

    async def read(self, worker: Pod) -> Pod | None:
        """Read the pod of this name as it is now, None where there is none. Raises `KubeError`."""
        found = await self._claims.read(worker.namespace, worker.name)
        return found.pod if found is not None else None

    async def _free(self, worker: Pod, ended: datetime | None) -> Pod:
        freed = await self._claims.free(worker, ended)
        self._state.take_written(worker, freed.pod)
        return freed.pod

    def _known(self, reference: ClaimReference) -> tuple[Pod, PodClaim] | None:
        """Find the claim that is meant in the state; None where that does not show it in force."""
        for worker in self._state.where.claimed_as(reference.id).values():
            if self._is_meant(worker, reference):
                return worker, claim_on(worker)
        return None

    async def _read(self, reference: ClaimReference) -> tuple[Pod, PodClaim]:
        found = await self._claims.read(*reference.place) if reference.place is not None else None
        if found is None or not self._is_meant(found.pod, reference):
            raise NoSuchClaim
        return found.pod, claim_on(found.pod)

    def _is_meant(self, worker: Pod, reference: ClaimReference) -> bool:
        if worker.claim is None or not reference.means(worker.claim):
            return False
        return self._clock.is_off or is_claimed(worker, self._clock.now())


def claim_on(worker: Pod) -> PodClaim:
    """Give the claim of a pod that was read or written as a claimed one."""
    assert worker.claim is not None  # noqa: S101
    return worker.claim


def granted(found: FoundPod, *, is_new: bool = False) -> Granted:
    """Say what a claimant has now."""
    return Granted(worker=found.pod, claim=claim_on(found.pod), ip=found.ip, is_new=is_new)
