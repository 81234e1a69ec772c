"""Claiming: hands out workers, so that no two callers get the same and a claimant that asks again gets its own again.

Owns who is asked when, and in which order workers are tried. Knows no HTTP. Replicas share nothing but the pods: a
claim is one patch that names the version of the pod on which it was decided.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from cachetools import TTLCache
from msgspec.structs import replace

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.kube.claim_store import FoundPod
from extender.kube.errors import Conflict, Forbidden, KubeError, NotFound
from extender.logs import fields
from extender.model import Pod, PodClaim
from extender.policy.claims import Claimant, PoolClaims, claim_id
from extender.policy.deletion_cost import NO_CHANGE, Prices, claim_stances, cost_write
from extender.policy.idleness import asks_not_to_be_disturbed
from extender.web.candidates import Candidates
from extender.web.claim_values import ClaimRequest, ClockOff, Granted, NobodyWaits, NothingToClaim, StillChanging
from extender.web.held_claims import ATTEMPTS, HeldClaims, granted
from extender.web.waiting_claims import Lines

log = logging.getLogger("warmnode.claims")

REFUSALS_IN_ONE_CALL = 5
"""Workers that the API server may refuse in one call before it is given up: the next call goes on with others."""
PAUSES = (0.05, 0.1, 0.2, 0.4)
"""Seconds to wait while a claimant holds two workers. A request gives one back within some hundredths; one whose
replica was killed never does, and then the claim that is not renewed expires."""
SEEN = timedelta(minutes=1)
"""For so long after a call of a claimant the next asks the API server: what became of the first may not be known."""
MOST_SEEN = 32_768
"""Whoever is forgotten is asked about less: as many as an API server takes writes of in a minute."""


class Claiming:
    """Hands out workers. ``nonce`` makes the part of a claim's ID that nobody can guess. ``replica`` is this
    one's name, any. ``knows_now`` is False while the state is known to be behind: then the API server is asked before
    each claim.
    """

    def __init__(
        self,
        *,
        state: ClusterState,
        held: HeldClaims,
        clock: Clock,
        nonce: Callable[[], str],
        replica: str = "",
        knows_now: Callable[[], bool] = lambda: True,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._state = state
        self._held = held
        self._clock = clock
        self._nonce = nonce
        self._knows_now = knows_now
        self._sleep = sleep
        self._asking: dict[Claimant, asyncio.Event] = {}
        self._seen: TTLCache[Claimant, None] = TTLCache(
            maxsize=MOST_SEEN, ttl=SEEN.total_seconds(), timer=lambda: clock.steady().seconds
        )
        self._candidates = Candidates(state, clock, replica)
        self.lines = Lines()

    async def call_waiting(self) -> None:
        """Call those who wait when a worker is idle. Ends only by cancellation."""
        await self.lines.call_for_ever(self._state, self._candidates)

    async def claim(self, request: ClaimRequest) -> Granted:
        """Give the claimant the worker that it holds, or else the first that can be handed out.

        1. Look for what the claimant holds: a repeated request gets that, prolonged. 2. Else put the claim on the first
        worker by node preference (up to a node by cache key), idle longest, UID. 3. Look again: where a concurrent
        request of the same claimant was first, give this worker back, and go on with 1.

        Both looks go by what is known here. They ask the API server where the caller says that it repeats a request,
        where the claimant called here within the last minute, and while the state is behind; the second also where the
        caller has hung up. Calls of one claimant to one process come one after the other.

        An answer that is not new is always prolonged before it is given, and whoever gives a worker back does so on the
        version that it wrote: so nothing is given back that somebody was told of.

        Raises:
            NothingToClaim, StillChanging, ClockOff, NobodyWaits, Stopping: nothing was claimed.
            KubeError: nobody knows; if something was claimed, the same request again finds it.
        """
        async with self._alone(request.claimant) as was_seen:
            pauses = iter(PAUSES)
            ask = request.repeats or was_seen or not self._knows_now()
            while True:
                held = await self._held.of(request.claimant, request.settings, ask=ask)
                if len(held) > 1 and (pause := next(pauses, None)) is not None:
                    await self._sleep(pause)  # a concurrent request is about to give one of them back: which, it knows
                elif held:
                    found = await self._held.prolong(held[0], request.claimant, request.ttl)
                    if found is not None:
                        return found
                else:
                    taken = await self._take_in_turn(request)
                    if await self._may_be_told(taken.pod, request, ask=ask or not request.is_awaited()):
                        self._count_key(taken.pod, request)
                        return granted(taken, is_new=True)
                ask = True

    # -- a claim ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _alone(self, claimant: Claimant) -> AsyncIterator[bool]:
        """Let no other call of the claimant in meanwhile. Gives whether there was one within the last minute: one that
        may have written something, so callers who come again because nothing is idle are not counted.
        """
        while (other := self._asking.get(claimant)) is not None:
            await other.wait()
        done = self._asking[claimant] = asyncio.Event()
        was_seen = claimant in self._seen
        self._seen[claimant] = None
        try:
            yield was_seen
        except NothingToClaim:
            if not was_seen:
                self._seen.pop(claimant, None)
            raise
        finally:
            del self._asking[claimant]
            done.set()

    async def _may_be_told(self, taken: Pod, request: ClaimRequest, *, ask: bool) -> bool:
        """True where the claim stays; False where it was given back, for another call's of the claimant was first."""
        is_first = await self._held.is_first(taken, request.claimant, request.settings, ask=ask)
        return is_first or not await self._held.give_back(taken)

    async def _take_in_turn(self, request: ClaimRequest) -> FoundPod:
        """Claim the first worker that can be, or wait until it is this caller's turn. Who does not wait comes after
        those who do.
        """
        pool = request.claimant.pool
        if not self.lines.has(pool):
            try:
                return await self._take(request)
            except NothingToClaim:
                if not request.wait:
                    raise
        elif not request.wait:
            raise await self._nothing(pool, [])
        ends = asyncio.get_running_loop().time() + request.wait.total_seconds()
        with self.lines.place(pool, request.is_awaited) as place:
            while True:
                try:
                    async with asyncio.timeout_at(ends):
                        await self.lines.called(place)
                except TimeoutError:
                    raise await self._nothing(pool, []) from None
                try:
                    return await self._take(request)
                except NothingToClaim:
                    continue  # another was faster: the place is kept

    async def _take(self, request: ClaimRequest) -> FoundPod:
        """Claim the first worker that can be. One that another request of this process is at is not waited for, unless
        there is no other. One that the API server refuses, by a policy or for what is on it, stops nobody."""
        pool, tried = request.claimant.pool, set[str]()
        refusals: list[KubeError] = []
        unsettled = False
        while worker := await self._candidates.first(tried, pool, request.cache_key, request.settings.cache_key):
            if isinstance(worker, asyncio.Event):
                await worker.wait()
                continue
            if not request.is_awaited():
                raise NobodyWaits
            tried.add(worker.uid)
            try:
                taken = await self._take_one(worker, request)
            except StillChanging:
                unsettled = True
            except KubeError as error:
                if not error.is_about_the_object:
                    raise
                refusals.append(error)
                log.warning("a worker is passed by", extra=fields(pool=pool, pod=worker.name, problem=str(error)))
                is_new = self._candidates.pass_by(worker.uid)
                if not is_new or len(refusals) == REFUSALS_IN_ONE_CALL:
                    raise await self._nothing(pool, refusals) from error
            else:
                if taken is not None:
                    return taken
        if unsettled:
            raise StillChanging
        raise await self._nothing(pool, refusals)

    async def _nothing(self, pool: str, refusals: list[KubeError]) -> NothingToClaim | ClockOff | KubeError:
        """Say why none is had: counts, or a refusal, as there may be more workers or a permission may be missing. With
        a clock that is off nobody can say: idle workers may look busy, or claimed.
        """
        is_given_up = len(refusals) == REFUSALS_IN_ONE_CALL
        if refusals and (is_given_up or all(isinstance(each, Forbidden) for each in refusals)):
            return refusals[-1]
        tally = await self._candidates.tally(pool)
        if self._clock.is_off:
            return ClockOff(self._clock.told_off)
        return NothingToClaim(tally, self._candidates.passed_by(pool))

    def _count_key(self, worker: Pod, request: ClaimRequest) -> None:
        """A worker that is handed out for a key counts for it on its node, as one that is placed does."""
        if request.cache_key is not None and worker.node is not None and worker.node in self._state.nodes:
            self._state.keys.history.record(worker.node, request.cache_key, self._clock.now())

    async def _take_one(self, worker: Pod, request: ClaimRequest) -> FoundPod | None:
        """Put the claim on one worker; None where it cannot be handed out any more. Raises `StillChanging`."""
        with self._candidates.at(worker.uid) as begun:
            known = worker
            for _ in range(ATTEMPTS):
                claim = self._new_claim(known, request)
                cost = self._busy_cost(known, claim, request.settings)
                try:
                    taken = await self._held.hold(known, claim, cost=cost)
                except NotFound:
                    return None
                except Conflict:
                    self._held.lost_race()
                else:
                    self._candidates.was_won()
                    return taken
                found = await self._held.read(worker)
                if found is None or found.uid != worker.uid:
                    return None
                self._candidates.was_lost(begun, known, found)
                if not self._candidates.can_be_had(found, worker.pool or ""):
                    return None
                known = found
        raise StillChanging

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

    def _busy_cost(self, worker: Pod, claim: PodClaim, settings: PoolClaims) -> Prices:
        """Say which prices go with the claim, those of ours that stand there: as the cost writer would."""
        write = cost_write(
            replace(worker, claim=claim),
            self._state.order.get(worker.node or ""),
            claim_stances(settings.costs),
            settle=settings.costs.settle,
            now=claim.since,
        )
        return NO_CHANGE if write is None else write.values
