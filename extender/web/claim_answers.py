"""What a call of the claim API does, once it is known who calls and that they may: from a body to an answer.

Owns the requests on claims, one method each. Who may call, how often, and what a refusal looks like is decided before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus

from aiohttp import web

from extender.cluster.history import DecisionHistory
from extender.cluster.state import ClusterState
from extender.logs import fields
from extender.model import Pod
from extender.policy.claims import Claimant, ClaimReference, PoolClaims
from extender.policy.decisions import ClaimDecision
from extender.policy.marks import format_idle_mark
from extender.web.api_bodies import ClaimBody, ClaimListBody
from extender.web.callers import Caller
from extender.web.claim_values import ClaimRequest, Granted, NothingToClaim
from extender.web.claim_wire import (
    ClaimOutcome,
    check_enabled,
    claim_body,
    decode_claim,
    decode_renewal,
    dry_run,
    none_idle,
)
from extender.web.claiming import Claiming
from extender.web.held_claims import HeldClaims
from extender.web.requests import json_response, once_answered
from extender.web.wanted_workers import WantedWorkers

log = logging.getLogger("warmnode.claims")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCall:
    """One call that is allowed: by whom, about which pool or claim, and how long it may wait for a worker.

    ``is_awaited`` says whether somebody still waits for the answer, ``repeats`` whether the call may have been made
    before. ``count_more`` counts further calls against the caller's rate, and raises where it is used up.
    """

    caller: Caller
    path: str
    pool: str
    id: str
    body: bytes
    settings: PoolClaims
    wait: timedelta
    is_awaited: Callable[[], bool]
    repeats: bool
    count_more: Callable[[int], None]


Answer = Callable[[ClaimCall], Awaitable[tuple[web.Response, ClaimOutcome]]]


class ClaimAnswers:
    """Answers calls that are allowed."""

    def __init__(
        self,
        *,
        claiming: Claiming,
        held: HeldClaims,
        wanted: WantedWorkers,
        state: ClusterState,
        history: DecisionHistory,
    ) -> None:
        self._claiming = claiming
        self._wanted = wanted
        self._held = held
        self._state = state
        self._history = history

    async def create(self, call: ClaimCall) -> tuple[web.Response, ClaimOutcome]:
        """Claim one worker, or several, each with a claim of its own."""
        check_enabled(call.pool, call.settings)
        asked, ttl = decode_claim(call.body, call.settings)
        request = ClaimRequest(
            claimant=Claimant(user=call.caller.user, pool=call.pool, name=asked.claimant),
            ttl=ttl,
            settings=call.settings,
            is_awaited=call.is_awaited,
            cache_key=asked.cache_key if call.settings.cache_key is not None else None,
            repeats=call.repeats or asked.retry,
            wait=call.wait,
        )
        try:
            if asked.count is None:
                granted = [await self._claiming.claim(request)]
            else:
                call.count_more(asked.count - 1)
                granted = await self._claim_several(request, asked.count, asked.at_least or asked.count)
        except NothingToClaim as error:
            waiting = len(self._state.where.waiting(call.pool))
            raise none_idle(call.pool, call.settings, error, waiting) from error
        is_new = any(each.is_new for each in granted)
        for each in granted:
            once_answered(self._tell, each)
        shown = [self._shown(each) for each in granted]
        status = HTTPStatus.CREATED if is_new else HTTPStatus.OK
        response = json_response(shown[0] if asked.count is None else ClaimListBody(shown), status)
        response.headers["Location"] = call.path if asked.count else f"{call.path}/{granted[0].claim.id}"
        return response, ClaimOutcome.CLAIMED if is_new else ClaimOutcome.FOUND

    async def _claim_several(self, request: ClaimRequest, count: int, at_least: int) -> list[Granted]:
        """Claim at once for ``NAME/1``, ``NAME/2`` and so on: asked again, each of them gets the same worker again.

        Where there are fewer than ``at_least``, those that are new are given back, and the first refusal is raised.
        """
        names = [replace(request.claimant, name=f"{request.claimant.name}/{number}") for number in range(1, count + 1)]
        claims = (self._claiming.claim(replace(request, claimant=name)) for name in names)
        answers = await asyncio.gather(*claims, return_exceptions=True)
        granted = [each for each in answers if isinstance(each, Granted)]
        refusals = [each for each in answers if isinstance(each, BaseException)]
        if len(granted) >= at_least:
            return granted
        await asyncio.gather(*(self._held.give_back(each.worker) for each in granted if each.is_new))
        raise next((each for each in refusals if not isinstance(each, NothingToClaim)), refusals[0])

    async def renew(self, call: ClaimCall) -> tuple[web.Response, ClaimOutcome]:
        """Let a claim last longer."""
        check_enabled(call.pool, call.settings)
        ttl = decode_renewal(call.body, call.settings)
        granted = await self._held.renew(_reference(call), ttl)
        log.debug("renewed", extra=fields(pool=call.pool, pod=granted.worker.name, expires=granted.claim.expires))
        return json_response(self._shown(granted)), ClaimOutcome.RENEWED

    async def release(self, call: ClaimCall) -> tuple[web.Response, ClaimOutcome]:
        """End a claim."""
        if call.settings.dry_run:
            raise dry_run(call.pool)
        worker = await self._held.release(_reference(call))
        once_answered(_tell_released, call.pool, worker)
        return web.Response(status=HTTPStatus.NO_CONTENT), ClaimOutcome.RELEASED

    async def list_held(self, call: ClaimCall) -> tuple[web.Response, ClaimOutcome]:
        """List what the user holds in the pool."""
        held = await self._held.by_user(call.caller.user, call.pool, call.settings)
        return json_response(ClaimListBody([self._shown(granted) for granted in held])), ClaimOutcome.LISTED

    async def wanted(self, call: ClaimCall) -> tuple[web.Response, ClaimOutcome]:
        """Say how many workers the pool should have."""
        return json_response(await self._wanted.of(call.pool, call.settings)), ClaimOutcome.LISTED

    def _shown(self, granted: Granted) -> ClaimBody:
        node = self._state.nodes.get(granted.worker.node or "")
        return claim_body(granted, self._state.ages.first_seen(node) if node is not None else None)

    def _tell(self, granted: Granted) -> None:
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
            str(ClaimOutcome.CLAIMED if granted.is_new else ClaimOutcome.FOUND),
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


def _tell_released(pool: str, worker: Pod) -> None:
    log.info("released", extra=fields(pool=pool, namespace=worker.namespace, pod=worker.name))


def _reference(call: ClaimCall) -> ClaimReference:
    return ClaimReference(user=call.caller.user, pool=call.pool, id=call.id)
