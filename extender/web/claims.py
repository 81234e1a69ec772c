"""``/v1/pools/{pool}/claims``: a caller claims the idle worker on the warmest node, keeps it, and gives it back.

Owns the protocol, and who may speak it for which pool. Keeps nothing but counts: a claim stands on the pod, so every
replica gives the same answers.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from time import perf_counter
from typing import TypeVar

import msgspec
from aiohttp import web

from extender.policy.claims import Claimant, ClaimReference, PoolClaims
from extender.policy.marks import format_idle_mark
from extender.settings.durations import format_duration, parse_duration
from extender.state import ClusterState
from extender.telemetry import Metrics, fields
from extender.web.authorization import Authorization, Verb
from extender.web.callers import Caller, Callers
from extender.web.claiming import (
    Claiming,
    Granted,
    NobodyWaits,
    NoSuchClaim,
    NothingToClaim,
    Request,
    StillChanging,
    WorkerEnds,
)
from extender.web.http import PathHandler, PathRoutes, json_response, read_body
from extender.web.limits import RateLimit
from extender.web.refusals import (
    DEADLINE,
    REFUSALS,
    Refused,
    bad_request,
    is_awaited,
    refusal_of,
    retry_after,
    unavailable,
)

log = logging.getLogger("warmnode.claims")

COLLECTION = "/v1/pools/{pool}/claims"
ITEM = "/v1/pools/{pool}/claims/{id}"
BODY_LIMIT_BYTES = 4096
LONGEST_CLAIMANT = 256
LONGEST_ID = 400
"""Two names of objects and twenty letters are shorter."""
CALLS_PER_SECOND = 100
"""Of one user. A claim is three requests to the API server, which has others to serve."""
BURST = 200

_POOL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")  # apimachinery validation: label value
_GRANT = "create tokenreviews and subjectaccessreviews; list, get and patch pods"


class Outcome(StrEnum):
    """What became of a call: the metric's label, and ``reason`` in a problem."""

    CLAIMED = "claimed"
    FOUND = "found"
    RENEWED = "renewed"
    RELEASED = "released"
    LISTED = "listed"
    NONE_IDLE = "noneIdle"
    UNKNOWN_POOL = "unknownPool"
    NO_CLAIM = "noClaim"
    TERMINATING = "terminating"
    DRY_RUN = "dryRun"
    DISABLED = "disabled"
    BAD_REQUEST = "badRequest"
    NOT_AUTHENTICATED = "notAuthenticated"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rateLimited"
    NOT_SYNCED = "notSynced"
    CHANGING = "changing"
    CALLER_GONE = "callerGone"
    UNAVAILABLE = "unavailable"


SUCCESSES = frozenset({Outcome.CLAIMED, Outcome.FOUND, Outcome.RENEWED, Outcome.RELEASED, Outcome.LISTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One call that is allowed: by whom, about which pool or claim, and whether somebody still waits for the answer."""

    caller: Caller
    pool: str
    id: str
    body: bytes
    settings: PoolClaims
    is_awaited: Callable[[], bool]


_Answer = Callable[[_Asked], Awaitable[tuple[web.Response, Outcome]]]


class ClaimsApi:
    """Answers callers. ``settings`` gives a pool's settings, None for a pool that is not there.

    ``namespace`` is warmnode's own: permissions on pools that span several namespaces are granted there.
    """

    def __init__(
        self,
        *,
        claiming: Claiming,
        state: ClusterState,
        callers: Callers,
        authorization: Authorization,
        settings: Callable[[str], PoolClaims | None],
        namespace: str,
        metrics: Metrics,
        clock: Callable[[], datetime],
        limit: RateLimit | None = None,
    ) -> None:
        self._claiming = claiming
        self._state = state
        self._callers = callers
        self._authorization = authorization
        self._settings = settings
        self._namespace = namespace
        self._clock = clock
        self._limit = limit or RateLimit(per_second=CALLS_PER_SECOND, burst=BURST)
        self._counters = {
            (verb, outcome): metrics.claim_requests.labels(verb, outcome) for verb in Verb for outcome in Outcome
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

    async def _create(self, asked: _Asked) -> tuple[web.Response, Outcome]:
        _check_enabled(asked)
        wanted = _decoded(asked.body, _CreateBody, '{"claimant": "query-42", "ttl": "60s"}')
        request = Request(
            claimant=Claimant(user=asked.caller.user, pool=asked.pool, name=_claimant(wanted.claimant)),
            ttl=_ttl(wanted.ttl, asked.settings),
            settings=asked.settings,
            is_awaited=asked.is_awaited,
        )
        try:
            granted = await self._claiming.claim(request)
        except NothingToClaim as error:
            raise self._none_idle(asked.pool, asked.settings, error) from error
        outcome = Outcome.CLAIMED if granted.is_new else Outcome.FOUND
        self._tell(outcome, granted)
        response = json_response(self._shown(granted), HTTPStatus.CREATED if granted.is_new else HTTPStatus.OK)
        response.headers["Location"] = ITEM.format(pool=asked.pool, id=granted.claim.id)
        return response, outcome

    async def _renew(self, asked: _Asked) -> tuple[web.Response, Outcome]:
        _check_enabled(asked)
        wanted = _decoded(asked.body or b"{}", _RenewBody, '{"ttl": "60s"}, or no body')
        granted = await self._claiming.renew(_reference(asked), _ttl(wanted.ttl, asked.settings))
        log.debug("renewed", extra=fields(pool=asked.pool, pod=granted.worker.name, expires=granted.claim.expires))
        return json_response(self._shown(granted)), Outcome.RENEWED

    async def _release(self, asked: _Asked) -> tuple[web.Response, Outcome]:
        if asked.settings.dry_run:
            raise _dry_run(asked.pool)
        worker = await self._claiming.release(_reference(asked))
        log.info("released", extra=fields(pool=asked.pool, namespace=worker.namespace, pod=worker.name))
        return web.Response(status=HTTPStatus.NO_CONTENT), Outcome.RELEASED

    async def _list(self, asked: _Asked) -> tuple[web.Response, Outcome]:
        held = await self._claiming.held(asked.caller.user, asked.pool, asked.settings)
        claims = [msgspec.Raw(self._shown(granted)) for granted in held]
        return json_response(msgspec.json.encode({"claims": claims})), Outcome.LISTED

    # -- before each --------------------------------------------------------------------------------------------------

    def _verb(self, verb: Verb, answer: _Answer) -> PathHandler:
        async def handle(request: web.BaseRequest, place: Mapping[str, str]) -> web.StreamResponse:
            started = perf_counter()
            response: web.Response
            try:
                body = await read_body(request, limit_bytes=BODY_LIMIT_BYTES, remedy="send a claimant and a ttl")
                async with asyncio.timeout(DEADLINE.total_seconds()):
                    response, outcome = await answer(await self._asked(verb, request, place, body))
            except (*REFUSALS, *_OWN_REFUSALS) as error:
                refused = _refusal(error)
                outcome, response = Outcome(refused.reason), refused.response()
                if outcome is Outcome.UNAVAILABLE:
                    log.warning("no answer for a caller", extra=fields(verb=verb, problem=str(refused)))
            self._counters[verb, outcome].inc()
            self._seconds[verb].observe(perf_counter() - started)
            return response

        return handle

    async def _asked(self, verb: Verb, request: web.BaseRequest, place: Mapping[str, str], body: bytes) -> _Asked:
        caller = await self._callers.identify(request)
        if caller.authenticated:
            wait = self._limit.take(caller.user)
            if wait is not None:
                raise Refused(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    Outcome.RATE_LIMITED,
                    f"{caller.user} calls more than {CALLS_PER_SECOND} times a second",
                    headers=retry_after(wait),
                )
        pool, claim_id = place["pool"], place.get("id", "")
        if not _POOL.fullmatch(pool):
            raise bad_request(f"{pool[:100]!r} is no name of a pool")
        if len(claim_id) > LONGEST_ID:
            raise bad_request("there is no claim with such a long id")
        settings = self._settings(pool)
        namespace = (settings.namespace if settings is not None else None) or self._namespace
        decision = await self._authorization.decide(caller, verb, pool=pool, namespace=namespace)
        if not decision.allowed:
            why = f": {decision.reason}" if decision.reason else ""
            raise Refused(
                HTTPStatus.FORBIDDEN,
                Outcome.FORBIDDEN,
                f"{caller.user} may not {verb} claims.warmnode.dev {pool!r} in namespace {namespace!r}{why}",
            )
        if settings is None:
            raise _unknown_pool(pool, "the configuration lists the pools, and this is none of them")
        if not self._state.synced:
            raise unavailable("nodes, pods and ledger are not loaded yet", reason=Outcome.NOT_SYNCED)
        return _Asked(
            caller=caller,
            pool=pool,
            id=claim_id,
            body=body,
            settings=settings,
            is_awaited=lambda: is_awaited(request),
        )

    # -- answers ------------------------------------------------------------------------------------------------------

    def _none_idle(self, pool: str, settings: PoolClaims, error: NothingToClaim) -> Refused:
        waiting = self._state.unscheduled(pool)
        if not error.counts and not waiting and settings.is_by_label:
            return _unknown_pool(pool, "no pod has the label warmnode.dev/pool with this value")
        counts = {"busy": 0, "claimed": 0} | {str(reason): count for reason, count in error.counts.items()}
        if waiting:
            counts["pending"] = waiting
        shown = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        return Refused(
            HTTPStatus.NOT_FOUND,
            Outcome.NONE_IDLE,
            f"no worker of pool {pool} can be handed out: {shown}",
            members={"workers": counts},
        )

    def _shown(self, granted: Granted) -> bytes:
        worker, claim = granted.worker, granted.claim
        node = self._state.nodes.get(worker.node or "")
        seen = self._state.first_seen(node) if node is not None else None
        return msgspec.json.encode(
            {
                "id": claim.id,
                "pool": claim.pool,
                "claimant": claim.claimant,
                "namespace": worker.namespace,
                "pod": worker.name,
                "uid": worker.uid,
                "ip": granted.ip,
                "node": worker.node,
                "firstSeen": None if seen is None else format_idle_mark(seen),
                "since": format_idle_mark(claim.since),
                "expires": format_idle_mark(claim.expires),
            }
        )

    def _tell(self, outcome: Outcome, granted: Granted) -> None:
        worker, claim = granted.worker, granted.claim
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


class _CreateBody(msgspec.Struct, forbid_unknown_fields=True):
    claimant: str
    ttl: str | None = None


class _RenewBody(msgspec.Struct, forbid_unknown_fields=True):
    ttl: str | None = None


_T = TypeVar("_T", bound=msgspec.Struct)


def _decoded(body: bytes, struct: type[_T], example: str) -> _T:
    try:
        return msgspec.json.decode(body, type=struct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"send {example} ({error})") from error


def _claimant(name: str) -> str:
    if not name or len(name) > LONGEST_CLAIMANT or not name.isprintable():
        raise bad_request(
            f"claimant names whoever will use the worker: 1 to {LONGEST_CLAIMANT} printable characters, the same again "
            f"when the request is repeated (got {len(name)})"
        )
    return name


def _ttl(text: str | None, settings: PoolClaims) -> timedelta:
    if text is None:
        return settings.ttl
    try:
        ttl = parse_duration(text)
    except ValueError as error:
        raise bad_request(f"ttl {error} (got {text[:40]!r})") from error
    if not timedelta() < ttl <= settings.max_ttl:
        longest = format_duration(settings.max_ttl)
        raise bad_request(f"ttl must be longer than 0s and at most {longest}, the pool's maxTtl (got {text[:40]!r})")
    return ttl


def _reference(asked: _Asked) -> ClaimReference:
    return ClaimReference(user=asked.caller.user, pool=asked.pool, id=asked.id)


def _check_enabled(asked: _Asked) -> None:
    if not asked.settings.enabled:
        detail = f"pool {asked.pool} hands out no workers: claims.enabled is false"
        raise Refused(HTTPStatus.CONFLICT, Outcome.DISABLED, detail)
    if asked.settings.dry_run:
        raise _dry_run(asked.pool)


def _dry_run(pool: str) -> Refused:
    detail = f"pool {pool} is in dry-run: nothing is written, so nothing is claimed"
    return Refused(HTTPStatus.CONFLICT, Outcome.DRY_RUN, detail)


def _unknown_pool(pool: str, why: str) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, Outcome.UNKNOWN_POOL, f"there is no pool {pool!r}: {why}")


_OWN_REFUSALS = (StillChanging, NobodyWaits, NoSuchClaim, WorkerEnds)


def _refusal(error: Exception) -> Refused:
    match error:
        case StillChanging():
            return unavailable("workers changed under each attempt; try again", reason=Outcome.CHANGING)
        case NobodyWaits():
            return unavailable("the caller has hung up; nothing was claimed", reason=Outcome.CALLER_GONE)
        case NoSuchClaim():
            detail = "you hold no such claim: it expired, was released, or is another user's"
            return Refused(HTTPStatus.NOT_FOUND, Outcome.NO_CLAIM, detail)
        case WorkerEnds():
            detail = "the worker is being deleted: claim another one"
            return Refused(HTTPStatus.CONFLICT, Outcome.TERMINATING, detail)
        case _:
            return refusal_of(error, grant=_GRANT)
