"""``/v1/pools/{pool}/claims``: a caller claims the idle worker on the warmest node, keeps it, and gives it back.

Owns the protocol, and who may speak it for which pool. Keeps nothing but counts: a claim stands on the pod, so every
replica gives the same answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter

from aiohttp import web

from extender.clock import Clock
from extender.cluster.history import DecisionHistory
from extender.cluster.state import ClusterState
from extender.policy.affinity import Affinity
from extender.policy.claims import Claimant, ClaimReference, PoolClaims
from extender.policy.decisions import ClaimDecision
from extender.policy.marks import format_idle_mark
from extender.telemetry import Metrics, fields
from extender.web.authorization import Authorization, Verb
from extender.web.bodies import LABEL_VALUE, ClaimBody, ClaimListBody
from extender.web.callers import Caller, Callers
from extender.web.claim_wire import (
    CLAIM_REFUSALS,
    ClaimOutcome,
    check_enabled,
    claim_body,
    claim_refusal,
    decode_claim,
    decode_renewal,
    dry_run,
    none_idle,
    unknown_pool,
)
from extender.web.claiming import Claiming
from extender.web.grants import ClaimRequest, Granted, NothingToClaim
from extender.web.held_claims import HeldClaims
from extender.web.limits import RateLimit
from extender.web.refusals import (
    DEADLINE,
    CallRefused,
    bad_request,
    crashed,
    is_awaited,
    rate_limited,
    too_many,
    unavailable,
)
from extender.web.requests import PathHandler, PathRoutes, json_response, read_body

log = logging.getLogger("warmnode.claims")

COLLECTION = "/v1/pools/{pool}/claims"
ITEM = "/v1/pools/{pool}/claims/{id}"
IDEMPOTENCY_KEY = "Idempotency-Key"
"""Whatever it says: who sends it says that the call may come twice."""
BODY_LIMIT_BYTES = 4096
LONGEST_ID = 400
"""Two names of objects and twenty letters are shorter."""
CALLS_PER_SECOND = 100
"""Of one user. Each is a write to the API server, which has others to serve."""
BURST = 200
CALLS_AT_ONCE = 500
"""Of all users together, and above the burst of one: others would wait for the API server longer than callers do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One call that is allowed: by whom, about which pool or claim, whether somebody still waits for the answer, and
    whether a header says that the call may have been made before."""

    caller: Caller
    pool: str
    id: str
    body: bytes
    settings: PoolClaims
    is_awaited: Callable[[], bool]
    repeats: bool


_Answer = Callable[[_Asked], Awaitable[tuple[web.Response, ClaimOutcome]]]


class ClaimsApi:
    """Answers callers. ``settings`` gives a pool's settings, None for a pool that is not there. A claim in such a pool,
    from before it was taken out of the configuration, can be released still: ``unlisted`` gives what goes for that.

    ``namespace`` is warmnode's own: permissions on pools that span several namespaces are granted there.
    """

    def __init__(
        self,
        *,
        claiming: Claiming,
        held: HeldClaims,
        state: ClusterState,
        callers: Callers,
        authorization: Authorization,
        settings: Callable[[str], PoolClaims | None],
        unlisted: Callable[[str], PoolClaims],
        namespace: str,
        metrics: Metrics,
        history: DecisionHistory,
        clock: Clock,
        limit: RateLimit | None = None,
        at_once: int = CALLS_AT_ONCE,
    ) -> None:
        self._claiming = claiming
        self._held = held
        self._state = state
        self._callers = callers
        self._authorization = authorization
        self._settings = settings
        self._unlisted = unlisted
        self._namespace = namespace
        self._history = history
        self._clock = clock
        self._limit = limit or RateLimit(per_second=CALLS_PER_SECOND, burst=BURST)
        self._at_once = at_once
        self._under_way = 0
        self._counters = {
            (verb, outcome): metrics.claim_requests.labels(verb, outcome) for verb in Verb for outcome in ClaimOutcome
        }
        self._seconds = {verb: metrics.claim_seconds.labels(verb) for verb in Verb}

    def routes(self) -> PathRoutes:
        """Give the templates for `web.http.route`."""
        return {
            ("POST", COLLECTION): self._verb(Verb.CREATE, self._create),
            ("GET", COLLECTION): self._verb(Verb.LIST, self._list),
            ("PUT", ITEM): self._verb(Verb.UPDATE, self._renew),
            ("DELETE", ITEM): self._verb(Verb.DELETE, self._release),
        }

    # -- the four requests --------------------------------------------------------------------------------------------

    async def _create(self, asked: _Asked) -> tuple[web.Response, ClaimOutcome]:
        check_enabled(asked.pool, asked.settings)
        wanted = decode_claim(asked.body, asked.settings)
        request = ClaimRequest(
            claimant=Claimant(user=asked.caller.user, pool=asked.pool, name=wanted.claimant),
            ttl=wanted.ttl,
            settings=asked.settings,
            is_awaited=asked.is_awaited,
            affinity=self._affinity(wanted.cache_key, asked.settings),
            repeats=asked.repeats or wanted.retry,
        )
        try:
            granted = await self._claiming.claim(request)
        except NothingToClaim as error:
            waiting = len(self._state.where.waiting(asked.pool))
            raise none_idle(asked.pool, asked.settings, error, waiting) from error
        outcome = ClaimOutcome.CLAIMED if granted.is_new else ClaimOutcome.FOUND
        self._tell(outcome, granted)
        response = json_response(self._shown(granted), HTTPStatus.CREATED if granted.is_new else HTTPStatus.OK)
        response.headers["Location"] = ITEM.format(pool=asked.pool, id=granted.claim.id)
        return response, outcome

    def _affinity(self, key: str | None, settings: PoolClaims) -> Affinity | None:
        """Say how the caller's cache key orders nodes, None where it named none, or the pool goes by age alone."""
        if key is None or settings.cache_key is None:
            return None
        return Affinity(key=key, window=settings.cache_key.window, history=self._state.keys)

    async def _renew(self, asked: _Asked) -> tuple[web.Response, ClaimOutcome]:
        check_enabled(asked.pool, asked.settings)
        ttl = decode_renewal(asked.body, asked.settings)
        granted = await self._held.renew(_reference(asked), ttl)
        log.debug("renewed", extra=fields(pool=asked.pool, pod=granted.worker.name, expires=granted.claim.expires))
        return json_response(self._shown(granted)), ClaimOutcome.RENEWED

    async def _release(self, asked: _Asked) -> tuple[web.Response, ClaimOutcome]:
        if asked.settings.dry_run:
            raise dry_run(asked.pool)
        worker = await self._held.release(_reference(asked))
        log.info("released", extra=fields(pool=asked.pool, namespace=worker.namespace, pod=worker.name))
        return web.Response(status=HTTPStatus.NO_CONTENT), ClaimOutcome.RELEASED

    async def _list(self, asked: _Asked) -> tuple[web.Response, ClaimOutcome]:
        held = await self._held.by_user(asked.caller.user, asked.pool, asked.settings)
        return json_response(ClaimListBody([self._shown(granted) for granted in held])), ClaimOutcome.LISTED

    # -- before each --------------------------------------------------------------------------------------------------

    def _verb(self, verb: Verb, answer: _Answer) -> PathHandler:
        async def handle(request: web.BaseRequest, place: Mapping[str, str]) -> web.StreamResponse:
            started = perf_counter()
            response: web.Response
            try:
                body = await read_body(request, limit_bytes=BODY_LIMIT_BYTES, remedy="send a claimant and a ttl")
                async with asyncio.timeout(DEADLINE.total_seconds()):
                    caller = await self._identified(request)
                    with self._one_of_those_at_once():
                        response, outcome = await answer(await self._asked(verb, caller, request, place, body))
            except CLAIM_REFUSALS as error:
                refused = claim_refusal(error)
                outcome, response = ClaimOutcome(refused.reason), refused.response()
                if outcome is ClaimOutcome.UNAVAILABLE:
                    log.warning("no answer for a caller", extra=fields(verb=verb, problem=str(refused)))
            except Exception:
                outcome, response = ClaimOutcome.CRASHED, crashed().response()
                log.exception("a call failed", extra=fields(verb=verb))
            self._counters[verb, outcome].inc()
            self._seconds[verb].observe(perf_counter() - started)
            return response

        return handle

    async def _identified(self, request: web.BaseRequest) -> Caller:
        caller = await self._callers.identify(request)
        if caller.authenticated:
            wait = self._limit.take(caller.user)
            if wait is not None:
                raise rate_limited(caller.user, CALLS_PER_SECOND, wait)
        return caller

    @contextmanager
    def _one_of_those_at_once(self) -> Iterator[None]:
        """Count a call while it is under way. Whoever is not known is not counted, and so keeps nobody out."""
        if self._under_way >= self._at_once:
            raise too_many(self._under_way)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _asked(
        self, verb: Verb, caller: Caller, request: web.BaseRequest, place: Mapping[str, str], body: bytes
    ) -> _Asked:
        pool, claim_id = place["pool"], place.get("id", "")
        if not LABEL_VALUE.fullmatch(pool):
            raise bad_request(f"{pool[:100]!r} is no name of a pool")
        if len(claim_id) > LONGEST_ID:
            raise bad_request("there is no claim with such a long id")
        settings = self._settings(pool)
        namespace = (settings.namespace if settings is not None else None) or self._namespace
        decision = await self._authorization.decide(caller, verb, pool=pool, namespace=namespace)
        if not decision.allowed:
            why = f": {decision.reason}" if decision.reason else ""
            raise CallRefused(
                HTTPStatus.FORBIDDEN,
                ClaimOutcome.FORBIDDEN,
                f"{caller.user} may not {verb} claims.warmnode.dev {pool!r} in namespace {namespace!r}{why}",
            )
        if settings is None:
            if verb is not Verb.DELETE:
                raise unknown_pool(pool, "the configuration lists the pools, and this is none of them")
            settings = self._unlisted(pool)
        if not self._state.synced:
            raise unavailable("nodes, pods and ledger are not loaded yet", reason=ClaimOutcome.NOT_SYNCED)
        if verb in (Verb.CREATE, Verb.UPDATE) and self._clock.is_off:
            raise unavailable(f"the clock here is {self._clock.told_off}, so when claims end is not known")
        return _Asked(
            caller=caller,
            pool=pool,
            id=claim_id,
            body=body,
            settings=settings,
            is_awaited=lambda: is_awaited(request),
            repeats=IDEMPOTENCY_KEY in request.headers,
        )

    # -- answers ------------------------------------------------------------------------------------------------------

    def _shown(self, granted: Granted) -> ClaimBody:
        node = self._state.nodes.get(granted.worker.node or "")
        return claim_body(granted, self._state.first_seen(node) if node is not None else None)

    def _tell(self, outcome: ClaimOutcome, granted: Granted) -> None:
        worker, claim = granted.worker, granted.claim
        if granted.is_new:
            self._history.add(
                ClaimDecision(
                    at=self._history.now(),
                    namespace=worker.namespace,
                    pod=worker.name,
                    uid=worker.uid,
                    pool=claim.pool,
                    node=worker.node,
                    user=claim.user,
                    claimant=claim.claimant,
                    expires=claim.expires,
                )
            )
        log.info(
            str(outcome),
            extra=fields(
                pool=claim.pool,
                namespace=worker.namespace,
                pod=worker.name,
                node=worker.node,
                user=claim.user,
                claimant=claim.claimant,
                expires=format_idle_mark(claim.expires),
            ),
        )


def _reference(asked: _Asked) -> ClaimReference:
    return ClaimReference(user=asked.caller.user, pool=asked.pool, id=asked.id)
