"""``/v1/pools/{pool}/claims``: a caller claims the idle worker on the warmest node, keeps it, and gives it back.

Owns the protocol, and who may speak it for which pool. Keeps nothing but counts: a claim stands on the pod, so every
replica gives the same answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from aiohttp import web

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.policy.claims import PoolClaims
from extender.telemetry import Metrics
from extender.web.api_bodies import LABEL_VALUE
from extender.web.authorization import Authorization, Verb
from extender.web.callers import Caller, Callers
from extender.web.claim_answers import Answer, ClaimAnswers, ClaimCall
from extender.web.claim_values import ClockOff
from extender.web.claim_wire import ClaimOutcome, claim_refusal, decode_wait, unknown_pool
from extender.web.limits import RateLimit
from extender.web.refusals import (
    DEADLINE,
    WORKERS_ONLY,
    CallRefused,
    Reason,
    bad_request,
    guarded,
    is_awaited,
    rate_limited,
    too_many,
    unavailable,
)
from extender.web.requests import PathHandler, PathRoutes, read_body

log = logging.getLogger("warmnode.claims")

COLLECTION = "/v1/pools/{pool}/claims"
ITEM = "/v1/pools/{pool}/claims/{id}"
WANTED = "/v1/pools/{pool}/wanted"
IDEMPOTENCY_KEY = "Idempotency-Key"
"""Whatever it says: who sends it says that the call may come twice."""
BODY_LIMIT_BYTES = 4096
LONGEST_ID = 400
"""Two names of objects and twenty letters are shorter."""
CALLS_PER_SECOND = 100
"""Of one user. Each is a write to the API server, which has others to serve."""
BURST = 200
WAITING_AT_ONCE = 2000
"""Of all users together: each is a connection and some ten kilobytes."""
CALLS_AT_ONCE = 500
"""Of all users together, and above the burst of one: others would wait for the API server longer than callers do."""


@dataclass(slots=True, kw_only=True, eq=False)
class ClaimsApi:
    """Answers callers. ``settings`` gives a pool's settings, None for a pool that is not there. A claim in such a pool,
    from before it was taken out of the configuration, can be released still: ``unlisted`` gives what goes for that.

    ``namespace`` is warmnode's own: permissions on pools that span several namespaces are granted there.
    """

    answers: ClaimAnswers
    state: ClusterState
    callers: Callers
    authorization: Authorization
    settings: Callable[[str], PoolClaims | None]
    unlisted: Callable[[], PoolClaims]
    namespace: str
    metrics: Metrics
    clock: Clock
    limit: RateLimit = field(default_factory=lambda: RateLimit(per_second=CALLS_PER_SECOND, burst=BURST))
    at_once: int = CALLS_AT_ONCE
    _under_way: Counter[bool] = field(default_factory=Counter, init=False)

    def routes(self) -> PathRoutes:
        return {
            ("POST", COLLECTION): self._verb(Verb.CREATE, self.answers.create),
            ("GET", COLLECTION): self._verb(Verb.LIST, self.answers.list_held),
            ("GET", WANTED): self._verb(Verb.LIST, self.answers.wanted),
            ("PUT", ITEM): self._verb(Verb.UPDATE, self.answers.renew),
            ("DELETE", ITEM): self._verb(Verb.DELETE, self.answers.release),
        }

    # -- before each --------------------------------------------------------------------------------------------------

    def _verb(self, verb: Verb, answer: Answer) -> PathHandler:
        outcomes = (*ClaimOutcome, *(set(Reason) - WORKERS_ONLY))
        counters = {outcome: self.metrics.claim_requests.labels(verb, outcome) for outcome in outcomes}
        timed = self.metrics.claim_seconds.labels(verb)

        async def answered(request: web.BaseRequest, place: Mapping[str, str]) -> tuple[web.Response, str]:
            body = await read_body(request, limit_bytes=BODY_LIMIT_BYTES, remedy="send a claimant and a ttl")
            wait = decode_wait(request.query.get("wait"))
            async with asyncio.timeout((DEADLINE + wait).total_seconds()):
                caller = await self._identified(request)
                with self._one_of_those_at_once(waits=bool(wait)):
                    return await answer(await self._allowed(verb, caller, request, place, body, wait))

        def done(outcome: str, seconds: float) -> None:
            counters[outcome].inc()
            timed.observe(seconds)

        return guarded(answered, verb=verb, refused=claim_refusal, done=done, log=log)

    async def _identified(self, request: web.BaseRequest) -> Caller:
        caller = await self.callers.identify(request)
        self._count(caller, 1)
        return caller

    def _count(self, caller: Caller, calls: int) -> None:
        if caller.authenticated:
            wait = self.limit.take(caller.user, calls)
            if wait is not None:
                raise rate_limited(caller.user, CALLS_PER_SECOND, wait)

    @contextmanager
    def _one_of_those_at_once(self, *, waits: bool) -> Iterator[None]:
        """Count a call while it is under way, and those that wait apart: they keep nobody out who does not. Nor does
        whoever is not known, who is not counted.
        """
        if self._under_way[waits] >= (WAITING_AT_ONCE if waits else self.at_once):
            raise too_many(self._under_way[waits])
        self._under_way[waits] += 1
        try:
            yield
        finally:
            self._under_way[waits] -= 1

    async def _allowed(
        self,
        verb: Verb,
        caller: Caller,
        request: web.BaseRequest,
        place: Mapping[str, str],
        body: bytes,
        wait: timedelta,
    ) -> ClaimCall:
        pool, claim_id = place["pool"], place.get("id", "")
        if not LABEL_VALUE.fullmatch(pool):
            raise bad_request(f"{pool[:100]!r} is no name of a pool")
        if len(claim_id) > LONGEST_ID:
            raise bad_request("there is no claim with such a long id")
        settings = self.settings(pool)
        namespace = (settings.namespace if settings is not None else None) or self.namespace
        decision = await self.authorization.decide(caller, verb, pool=pool, namespace=namespace)
        if not decision.allowed:
            why = f": {decision.reason}" if decision.reason else ""
            raise CallRefused(
                Reason.FORBIDDEN,
                f"{caller.user} may not {verb} claims.warmnode.dev {pool!r} in namespace {namespace!r}{why}",
            )
        if settings is None:
            if verb is not Verb.DELETE:
                raise unknown_pool(pool, "the configuration lists the pools, and this is none of them")
            settings = self.unlisted()
        if not self.state.synced:
            raise unavailable("nodes, pods and ledger are not loaded yet", reason=Reason.NOT_SYNCED)
        if verb in (Verb.CREATE, Verb.UPDATE) and self.clock.is_off:
            raise ClockOff(self.clock.told_off)
        return ClaimCall(
            caller=caller,
            path=request.path,
            pool=pool,
            id=claim_id,
            body=body,
            settings=settings,
            wait=wait,
            is_awaited=lambda: is_awaited(request),
            repeats=IDEMPOTENCY_KEY in request.headers,
            count_more=lambda calls: self._count(caller, calls),
        )
