"""``PUT`` and ``DELETE /v1/pods/{namespace}/{name}/idle``: a worker says that it is idle, or that it is not.

Owns the protocol and who may speak it for which pod. Keeps nothing: each answer comes from the API server, so every
replica gives the same one. Fails to the safe side: a mark that may not be there is no mark, and only 200 means done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec
from aiohttp import web

from extender.clock import Clock
from extender.kube.errors import Conflict, NotFound
from extender.kube.mark_store import MarkStore
from extender.model import Pod
from extender.policy.claims import OBJECT_NAME
from extender.policy.idleness import FUTURE_TOLERANCE, is_valid_mark
from extender.policy.marks import format_idle_mark, parse_idle_mark
from extender.telemetry import Metrics
from extender.web.api_bodies import IdleRequestBody, WorkerBody
from extender.web.callers import Caller, Callers
from extender.web.limits import RateLimit
from extender.web.refusals import (
    DEADLINE,
    POOLS_ONLY,
    CallRefused,
    Reason,
    bad_request,
    guarded,
    is_awaited,
    rate_limited,
    refusal_of,
    unavailable,
)
from extender.web.requests import PathHandler, PathRoutes, json_response, read_body

log = logging.getLogger("warmnode.idle")

PATH = "/v1/pods/{namespace}/{name}/idle"
BODY_LIMIT_BYTES = 1024
ATTEMPTS = 5
"""Versions of the pod that are tried. Status updates come seldom, and never five in the time of one request."""

CALLS_PER_SECOND = 20
"""Of one pod, or one user where the token is of no pod. A worker says no more than idle and busy for each job."""
BURST = 40


class IdleOutcome(StrEnum):
    """What became of a call that was not refused: the metric's label."""

    MARKED = "marked"
    KEPT = "kept"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One call: for which pod, by whom, and whether somebody still waits for the answer."""

    namespace: str
    name: str
    caller: Caller
    body: bytes
    is_awaited: Callable[[], bool]


@dataclass(slots=True, kw_only=True, eq=False)
class IdleApi:
    """Answers workers.

    ``is_dry_run`` is asked with a pool's name, and ``takes_marks`` too: whether ``annotation`` is one of its sources.
    """

    marks: MarkStore
    callers: Callers
    is_dry_run: Callable[[str], bool]
    takes_marks: Callable[[str], bool]
    metrics: Metrics
    clock: Clock
    limit: RateLimit = field(default_factory=lambda: RateLimit(per_second=CALLS_PER_SECOND, burst=BURST))

    def routes(self) -> PathRoutes:
        return {("PUT", PATH): self._verb("put", self._put), ("DELETE", PATH): self._verb("delete", self._delete)}

    async def _put(self, asked: _Asked) -> tuple[Pod, IdleOutcome]:
        """Mark the pod idle. Without a time in the body a mark that is there stays, and else it is now."""
        if self.clock.is_off:
            raise unavailable(f"the clock here is {self.clock.told_off}, so since when the pod is idle is not known")
        now = self.clock.now()
        wanted = _idle_since(asked.body, now)
        for _ in range(ATTEMPTS):
            pod, pool = await self._worker(asked)
            if self.is_dry_run(pool):
                detail = f"pool {pool} is in dry-run: nothing is written and nothing is evicted"
                raise CallRefused(Reason.DRY_RUN, detail)
            if not self.takes_marks(pool):
                detail = f"the mark of a worker does not count in pool {pool}: add annotation to its idle.sources"
                raise CallRefused(Reason.NO_SOURCE, f"{detail}, or mark nothing")
            mark = wanted or (pod.own_mark if is_valid_mark(pod.own_mark, now) else None) or now
            if pod.own_mark is not None and format_idle_mark(pod.own_mark) == format_idle_mark(mark):
                return pod, IdleOutcome.KEPT
            if not asked.is_awaited():
                # Who has hung up may be at work already, after a DELETE that another replica answered.
                raise CallRefused(
                    Reason.CALLER_GONE,
                    "the caller has hung up; nothing is written",
                )
            try:
                return await self.marks.write(pod, mark), IdleOutcome.MARKED
            except Conflict:
                continue  # mostly a status update of the kubelet
        raise _changing(pod)

    async def _delete(self, asked: _Asked) -> tuple[Pod, IdleOutcome]:
        """Remove the mark, and refuse if the pod is terminating: then the worker must not accept work."""
        for _ in range(ATTEMPTS):
            pod, pool = await self._worker(asked)
            if pod.own_mark is None and pod.source_mark is None and self.is_dry_run(pool):
                break  # nothing to remove, and nothing to write for it: in dry-run nobody marks it meanwhile
            try:
                pod = await self.marks.remove(pod)
                break
            except Conflict:
                continue
        else:
            raise _changing(pod)
        if pod.terminating:
            raise CallRefused(
                Reason.TERMINATING,
                "the pod is being deleted: refuse the work and end; its idle mark is removed",
                members=msgspec.to_builtins(_shown(pod)),
            )
        return pod, IdleOutcome.REMOVED

    async def _worker(self, asked: _Asked) -> tuple[Pod, str]:
        """Read the pod, which the caller may speak for, and its pool. Raises `CallRefused` and `KubeError`."""
        caller, bound = asked.caller, asked.caller.pod
        if caller.authenticated:
            if bound is None:
                raise CallRefused(
                    Reason.NO_POD_IN_TOKEN,
                    f"the token of {caller.user} belongs to no pod: use the one of a projected volume "
                    "(serviceAccountToken, audience warmnode) in the worker's own pod",
                )
            if (bound.namespace, bound.name) != (asked.namespace, asked.name):
                raise _not_your_pod(f"the token is that of pod {bound.namespace}/{bound.name}")
        pod = await self.marks.read(asked.namespace, asked.name)
        if caller.authenticated and (bound is None or bound.uid != pod.uid):
            raise _not_your_pod("the token is that of an earlier pod of this name")
        if pod.pool is None:
            raise CallRefused(
                Reason.NO_WORKER,
                f"pod {asked.namespace}/{asked.name} belongs to no pool: label it warmnode.dev/pool, or add it to a "
                "selector of the configuration",
            )
        return pod, pod.pool

    def _verb(self, verb: str, answer: Callable[[_Asked], Awaitable[tuple[Pod, IdleOutcome]]]) -> PathHandler:
        outcomes = (*IdleOutcome, *(set(Reason) - POOLS_ONLY))
        counters = {outcome: self.metrics.idle_requests.labels(verb, outcome) for outcome in outcomes}

        async def answered(request: web.BaseRequest, place: Mapping[str, str]) -> tuple[web.Response, str]:
            body = await read_body(request, limit_bytes=BODY_LIMIT_BYTES, remedy="send a time, or no body")
            async with asyncio.timeout(DEADLINE.total_seconds()):
                pod, outcome = await answer(await self._asked(request, place, body))
            return json_response(_shown(pod)), outcome

        def done(outcome: str, seconds: float) -> None:
            counters[outcome].inc()

        return guarded(answered, verb=verb, refused=_refusal, done=done, log=log)

    async def _asked(self, request: web.BaseRequest, place: Mapping[str, str], body: bytes) -> _Asked:
        caller = await self.callers.identify(request)
        if caller.authenticated:
            wait = self.limit.take(caller.user if caller.pod is None else caller.pod.uid)
            if wait is not None:
                who = caller.user if caller.pod is None else f"pod {caller.pod.namespace}/{caller.pod.name}"
                raise rate_limited(who, CALLS_PER_SECOND, wait)
        for name in place.values():
            if not OBJECT_NAME.fullmatch(name):
                raise bad_request(f"{name[:100]!r} is no name of a namespace or a pod")
        return _Asked(
            namespace=place["namespace"],
            name=place["name"],
            caller=caller,
            body=body,
            is_awaited=lambda: is_awaited(request),
        )


def _idle_since(body: bytes, now: datetime) -> datetime | None:
    """Read the time in the body, None where there is none. Raises `CallRefused`."""
    if not body.strip():
        return None
    try:
        text = msgspec.json.decode(body, type=IdleRequestBody).idle_since
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f'send no body, or {{"idleSince": "{format_idle_mark(now)}"}} ({error})') from error
    if text is msgspec.UNSET:
        return None
    time = parse_idle_mark(text)
    if time is None:
        raise bad_request(f"idleSince must be an RFC 3339 time with its zone, like {format_idle_mark(now)}")
    if time > now + FUTURE_TOLERANCE:
        raise bad_request(
            f"idleSince is more than {FUTURE_TOLERANCE.total_seconds():.0f} s ahead of {format_idle_mark(now)}; send "
            "no body, or set the node's clock"
        )
    return time


def _shown(pod: Pod) -> WorkerBody:
    return WorkerBody(
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        resource_version=pod.resource_version,
        idle_since=None if pod.own_mark is None else format_idle_mark(pod.own_mark),
        terminating=pod.terminating,
    )


def _not_your_pod(detail: str) -> CallRefused:
    return CallRefused(Reason.NOT_YOUR_POD, f"{detail}; a worker speaks for itself and for no other pod")


def _changing(pod: Pod) -> CallRefused:
    detail = f"pod {pod.namespace}/{pod.name} changed under each of {ATTEMPTS} attempts; try again"
    return unavailable(detail, reason=Reason.CHANGING)


def _refusal(error: Exception) -> CallRefused:
    if isinstance(error, NotFound):
        return CallRefused(Reason.NOT_FOUND, "there is no such pod")
    return refusal_of(error, grant="create tokenreviews, get and patch pods")
