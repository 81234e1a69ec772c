"""Claiming: hands out workers, so that no two callers get the same and a claimant that asks again gets its own again.

Owns the order of reads and writes that this takes. Knows no HTTP. Replicas share nothing but the pods: a claim is one
patch that names the version of the pod on which it was decided.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Protocol

from msgspec.structs import replace

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.kube.claim_store import FoundPod
from extender.kube.errors import Conflict, Forbidden, Gone, KubeError, NotFound
from extender.model import Pod, PodClaim
from extender.policy.claims import (
    Claimant,
    ClaimReference,
    PoolClaims,
    claim_end,
    claim_id,
    held_by,
    is_held_by,
    is_held_in,
    prolonged,
)
from extender.policy.deletion_cost import cost_write
from extender.policy.idleness import asks_not_to_be_disturbed, is_claimed
from extender.telemetry import fields
from extender.web.candidates import Candidates
from extender.web.grants import (
    ClaimRequest,
    Granted,
    NobodyWaits,
    NoSuchClaim,
    NothingToClaim,
    StillChanging,
    WorkerEnds,
)

log = logging.getLogger("warmnode.claims")

ATTEMPTS = 5
"""Versions of one pod that are tried before the next one is: status updates come seldom, and never five in a row."""
REFUSALS_IN_ONE_CALL = 5
"""Workers that the API server may refuse in one call before it is given up: the next call goes on with others."""
PAUSES = (0.05, 0.1, 0.2, 0.4)
"""Seconds to wait while a claimant holds two workers. A request gives one back within some hundredths; one whose
replica was killed never does, and then the claim that is not renewed expires."""


class Claims(Protocol):
    """The part of `kube.claims.ClaimStore` that claiming needs."""

    async def find(self, key: str | None, namespace: str | None) -> list[FoundPod]: ...
    async def as_of(self, pod: Pod, version: str) -> FoundPod | None: ...
    async def read(self, namespace: str, name: str) -> FoundPod | None: ...
    async def hold(self, pod: Pod, claim: PodClaim, key: str, *, cost: int | None = None) -> FoundPod: ...
    async def free(self, pod: Pod, ended: datetime | None) -> FoundPod: ...


class Claiming:
    """Claims, renews and releases. ``nonce`` makes the part of a claim's ID that nobody can guess."""

    def __init__(
        self,
        *,
        state: ClusterState,
        claims: Claims,
        clock: Clock,
        nonce: Callable[[], str],
        lost_race: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._state = state
        self._claims = claims
        self._clock = clock
        self._nonce = nonce
        self._lost_race = lost_race
        self._sleep = sleep
        self._in_hand: dict[str, asyncio.Event] = {}
        self._candidates = Candidates(state, clock)

    async def claim(self, request: ClaimRequest) -> Granted:
        """Give the claimant the worker that it holds, or else the first that can be handed out.

        1. Look, at the API server, for what the claimant holds: a repeated request gets that, prolonged. 2. Else put
        the claim on the first worker by node preference (in the window by cache key), idle longest, UID. 3. Look again:
        where a concurrent request of the same claimant was first, give this worker back, and go on with 1.

        An answer that is not new is always prolonged before it is given, and whoever gives a worker back does so on the
        version that it wrote: so nothing is given back that somebody was told of.

        Raises:
            NothingToClaim, StillChanging, NobodyWaits: nothing was claimed.
            KubeError: nobody knows; if something was claimed, the same request again finds it.
        """
        pauses = iter(PAUSES)
        while True:
            held = await self._held(request)
            if len(held) > 1 and (pause := next(pauses, None)) is not None:
                await self._sleep(pause)  # a concurrent request is about to give one of them back: which, it knows
                continue
            if held:
                granted = await self._prolong(held[0], request.claimant, request.ttl)
                if granted is not None:
                    return granted
                continue
            taken = await self._take(request)
            if await self._is_first(taken, request) or not await self._give_back(taken):
                self._count_key(taken.pod, request)
                return _granted(taken, is_new=True)

    async def renew(self, reference: ClaimReference, ttl: timedelta) -> Granted:
        """Let a claim last ``ttl`` from now, at least.

        Raises:
            NoSuchClaim, WorkerEnds, StillChanging, KubeError
        """
        for _ in range(ATTEMPTS):
            found, claim = await self._meant(reference)
            if found.pod.terminating:
                raise WorkerEnds
            claimant = Claimant(user=claim.user, pool=claim.pool, name=claim.claimant)
            try:
                return _granted(await self._hold(found.pod, prolonged(claim, ttl, self._clock.now()), claimant))
            except Conflict:
                self._lost_race()
            except NotFound as error:
                raise NoSuchClaim from error
        raise StillChanging

    async def release(self, reference: ClaimReference) -> Pod:
        """End a claim and give the worker as it is then. Raises as `renew`, but a worker that ends can be released."""
        for _ in range(ATTEMPTS):
            found, claim = await self._meant(reference)
            try:
                freed = await self._claims.free(found.pod, claim_end(claim, self._clock.now()))
            except Conflict:
                self._lost_race()
            except NotFound as error:
                raise NoSuchClaim from error
            else:
                self._take_note(found.pod, freed.pod)
                return freed.pod
        raise StillChanging

    async def held(self, user: str, pool: str, settings: PoolClaims) -> list[Granted]:
        """List what a user holds in a pool, by claim ID. Raises `KubeError`."""
        now = self._clock.now()
        found = await self._claims.find(None, settings.namespace)
        held = [_granted(each) for each in found if is_held_in(each.pod, user, pool, now)]
        return sorted(held, key=lambda granted: granted.claim.id)

    # -- a claim ------------------------------------------------------------------------------------------------------

    async def _held(self, request: ClaimRequest) -> list[FoundPod]:
        found = {each.pod.uid: each for each in await self._find(request)}
        held = held_by((each.pod for each in found.values()), request.claimant, self._clock.now())
        return [found[worker.uid] for worker in held]

    async def _find(self, request: ClaimRequest) -> list[FoundPod]:
        return await self._claims.find(request.claimant.key, request.settings.namespace)

    async def _prolong(self, held: FoundPod, claimant: Claimant, ttl: timedelta) -> Granted | None:
        """Prolong what the claimant holds; None where it holds it no more."""
        found: FoundPod | None = held
        for _ in range(ATTEMPTS):
            now = self._clock.now()
            if found is None or found.pod.claim is None or not is_held_by(found.pod, claimant, now):
                return None
            try:
                return _granted(await self._hold(found.pod, prolonged(found.pod.claim, ttl, now), claimant))
            except (Conflict, NotFound):
                self._lost_race()
                found = await self._claims.read(held.pod.namespace, held.pod.name)
        raise StillChanging

    async def _take(self, request: ClaimRequest) -> FoundPod:
        """Claim the first worker that can be. One that another request of this process is at is not waited for, unless
        there is no other. One that the API server refuses, by a policy or for what is on it, stops nobody."""
        pool, lost = request.claimant.pool, set[str]()
        refusals: list[KubeError] = []
        unsettled = False
        while True:
            others: list[asyncio.Event] = []
            async for worker in self._candidates.in_order(pool, request.affinity):
                if worker.uid in lost:
                    continue
                if worker.uid in self._in_hand:
                    others.append(self._in_hand[worker.uid])
                    continue
                if not request.is_awaited():
                    raise NobodyWaits
                lost.add(worker.uid)
                try:
                    taken = await self._take_one(worker, request)
                except StillChanging:
                    unsettled = True
                    continue
                except KubeError as error:
                    if not error.is_about_the_object:
                        raise
                    refusals.append(error)
                    log.warning("a worker is passed by", extra=fields(pool=pool, pod=worker.name, problem=str(error)))
                    is_new = self._candidates.pass_by(worker.uid)
                    if not is_new or len(refusals) == REFUSALS_IN_ONE_CALL:
                        raise await self._nothing(pool, refusals) from error
                    continue
                if taken is not None:
                    return taken
            if not others:
                break
            await others[0].wait()
        if unsettled:
            raise StillChanging
        raise await self._nothing(pool, refusals)

    async def _nothing(self, pool: str, refusals: list[KubeError]) -> NothingToClaim | KubeError:
        """Say why none is had: counts, or a refusal, as there may be more workers or a permission may be missing."""
        is_given_up = len(refusals) == REFUSALS_IN_ONE_CALL
        if refusals and (is_given_up or all(isinstance(each, Forbidden) for each in refusals)):
            return refusals[-1]
        return NothingToClaim(await self._candidates.tally(pool), self._candidates.passed_by(pool))

    def _count_key(self, worker: Pod, request: ClaimRequest) -> None:
        """A worker that is handed out for a key counts for it on its node, as one that is placed does."""
        if request.affinity is not None and worker.node is not None and worker.node in self._state.nodes:
            self._state.keys.record(worker.node, request.affinity.key, self._clock.now())

    async def _take_one(self, worker: Pod, request: ClaimRequest) -> FoundPod | None:
        """Put the claim on one worker; None where it cannot be handed out any more. Raises `StillChanging`."""
        with self._at(worker.uid):
            known = worker
            for _ in range(ATTEMPTS):
                claim = self._new_claim(known, request)
                cost = self._busy_cost(known, claim, request.settings)
                try:
                    return await self._hold(known, claim, request.claimant, cost=cost)
                except NotFound:
                    return None
                except Conflict:
                    self._lost_race()
                found = await self._claims.read(worker.namespace, worker.name)
                if (
                    found is None
                    or found.pod.uid != worker.uid
                    or not self._candidates.can_be_had(found.pod, worker.pool or "")
                ):
                    return None
                known = found.pod
        raise StillChanging

    @contextmanager
    def _at(self, uid: str) -> Iterator[None]:
        """Tell other requests of this process that one is at this worker already."""
        done = self._in_hand[uid] = asyncio.Event()
        try:
            yield
        finally:
            del self._in_hand[uid]
            done.set()

    def _new_claim(self, worker: Pod, request: ClaimRequest) -> PodClaim:
        now = self._clock.now()
        is_theirs = asks_not_to_be_disturbed(worker, now)
        return PodClaim(
            id=claim_id(worker, self._nonce()),
            pool=request.claimant.pool,
            user=request.claimant.user,
            claimant=request.claimant.name,
            since=now,
            expires=now + request.ttl,
            protects=request.settings.rules.do_not_disrupt and not is_theirs,
        )

    async def _is_first(self, taken: FoundPod, request: ClaimRequest) -> bool:
        """True unless a concurrent request of this claimant had put its claim on another worker before.

        Which of two was first nobody can say by clocks, so the other pod is read as it was at our own write.
        """
        now = self._clock.now()
        for other in await self._find(request):
            if other.pod.uid == taken.pod.uid or not is_held_by(other.pod, request.claimant, now):
                continue
            try:
                earlier = await self._claims.as_of(other.pod, taken.pod.resource_version)
            except Gone:
                return False  # too long ago to be read; the other request did not find ours, and keeps its own
            if earlier is not None and is_held_by(earlier.pod, request.claimant, now):
                return False
        return True

    async def _give_back(self, taken: FoundPod) -> bool:
        """Remove a claim that nobody was told of; False where somebody was, who asked again meanwhile."""
        found: FoundPod | None = taken
        for _ in range(ATTEMPTS):
            if found is None or found.pod.claim is None or found.pod.claim.id != _claim(taken).id:
                return True
            if found.pod.claim != taken.pod.claim:
                return False
            try:
                freed = await self._claims.free(found.pod, None)
            except (Conflict, NotFound):
                found = await self._claims.read(taken.pod.namespace, taken.pod.name)
            else:
                self._take_note(found.pod, freed.pod)
                return True
        raise StillChanging

    # -- what they share ----------------------------------------------------------------------------------------------

    async def _meant(self, reference: ClaimReference) -> tuple[FoundPod, PodClaim]:
        found = await self._claims.read(*reference.place) if reference.place is not None else None
        claim = found.pod.claim if found is not None else None
        if found is None or claim is None or not reference.means(claim) or not is_claimed(found.pod, self._clock.now()):
            raise NoSuchClaim
        return found, claim

    async def _hold(self, pod: Pod, claim: PodClaim, claimant: Claimant, *, cost: int | None = None) -> FoundPod:
        held = await self._claims.hold(pod, claim, claimant.key, cost=cost)
        self._take_note(pod, held.pod)
        return held

    def _take_note(self, before: Pod, after: Pod) -> None:
        """Let the state know what we wrote, unless a watch has told it more already."""
        known = self._state.pods.get(before.uid)
        if known is not None and known.resource_version == before.resource_version:
            self._state.upsert_pod(after)

    def _busy_cost(self, worker: Pod, claim: PodClaim, settings: PoolClaims) -> int | None:
        """Say which deletion cost goes with the claim, None where it stays as it is: as the cost writer would."""
        write = cost_write(
            replace(worker, claim=claim),
            self._state.order.get(worker.node or ""),
            enabled=settings.costs.enabled,
            settle=settings.costs.settle,
            now=claim.since,
        )
        return None if write is None else write.value


def _claim(found: FoundPod) -> PodClaim:
    """Give the claim of a pod that was read or written as a claimed one."""
    assert found.pod.claim is not None  # noqa: S101
    return found.pod.claim


def _granted(found: FoundPod, *, is_new: bool = False) -> Granted:
    return Granted(worker=found.pod, claim=_claim(found), ip=found.ip, is_new=is_new)
