"""Refusals: a call that is not done, with its status, a reason for programs and one line for people.

Owns what the two APIs of the claims listener have in common when they refuse: every reason, and the one guard around a
call. A refusal is raised where it is found and answered there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus
from math import ceil
from time import perf_counter

from aiohttp import web

from extender.kube.errors import Forbidden, KubeError
from extender.logs import fields
from extender.web.callers import NotAuthenticated
from extender.web.requests import CRASHED, BodyRefused, PathHandler, once_answered, problem

DEADLINE = timedelta(seconds=8)
"""Callers are told to wait for ten seconds: whatever is done is done while they wait."""
RETRY_AFTER = timedelta(seconds=1)


class Reason(StrEnum):
    """Why a call is refused: ``reason`` in the answer, and the metric's label. Each has its status, and what it means.

    A body that is not taken is a ``badRequest`` too, with a status of its own.
    """

    BAD_REQUEST = "badRequest", 400, "What was sent makes no sense, is too large or does not arrive; detail says so."
    NOT_AUTHENTICATED = (
        "notAuthenticated",
        401,
        "Nobody knows who calls: no token, an expired one, or one for somebody else.",
    )
    FORBIDDEN = "forbidden", 403, "The caller may not do this."
    NO_POD_IN_TOKEN = "noPodInToken", 403, "The token belongs to no pod."
    NOT_YOUR_POD = "notYourPod", 403, "The token is that of another pod, or of an earlier one of this name."
    NONE_IDLE = "noneIdle", 404, "No worker can be handed out; workers counts why."
    UNKNOWN_POOL = "unknownPool", 404, "There is no such pool."
    NO_CLAIM = "noClaim", 404, "There is no such claim: it expired, was released, or is another user's."
    NOT_FOUND = "notFound", 404, "There is no such pod."
    NO_WORKER = "noWorker", 404, "The pod belongs to no pool."
    TERMINATING = "terminating", 409, "The worker is being deleted: claim another one; if it is you, refuse the work."
    DRY_RUN = "dryRun", 409, "The pool is in dry-run: nothing is written, and a claim ends by itself."
    DISABLED = "disabled", 409, "The pool hands out no workers."
    NO_SOURCE = (
        "noSource",
        409,
        "The mark of a worker does not count in its pool: annotation is none of its idle.sources.",
    )
    RATE_LIMITED = "rateLimited", 429, "The user, or the pod, calls too often. Wait as long as Retry-After says."
    TOO_MANY = "tooMany", 429, "All callers together ask for too much at once. Wait as long as Retry-After says."
    CRASHED = "crashed", 500, "A bug of warmnode: its log has the traceback. Nobody knows what was done."
    NOT_SYNCED = "notSynced", 503, "Not everything is loaded yet: not done. The same again is right."
    CHANGING = "changing", 503, "Others changed it under each attempt: not done. The same again is right."
    STOPPING = "stopping", 503, "This replica ends while the call waits: not done. The same again goes to another one."
    CALLER_GONE = "callerGone", 503, "The caller hung up: not done."
    UNAVAILABLE = (
        "unavailable",
        503,
        "The API server gave no answer: nobody knows what was done. The same again is right.",
    )

    status: HTTPStatus
    meaning: str

    def __new__(cls, value: str, status: int, meaning: str) -> Reason:
        reason = str.__new__(cls, value)
        reason._value_, reason.status, reason.meaning = value, HTTPStatus(status), meaning
        return reason


WORKERS_ONLY = {Reason.NO_SOURCE, Reason.NO_POD_IN_TOKEN, Reason.NOT_YOUR_POD, Reason.NOT_FOUND, Reason.NO_WORKER}
POOLS_ONLY = {Reason.NONE_IDLE, Reason.UNKNOWN_POOL, Reason.NO_CLAIM, Reason.DISABLED, Reason.FORBIDDEN} | {
    Reason.TOO_MANY,
    Reason.NOT_SYNCED,
    Reason.STOPPING,
}
"""Reasons that the one of the two APIs has and the other has not."""


class CallRefused(Exception):
    """The call is refused. ``members`` are added to the problem; ``status`` None: that of the reason."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        status: HTTPStatus | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.status = status or reason.status
        self.headers = headers
        self.members = members or {}

    def response(self) -> web.Response:
        members = {"reason": self.reason, **self.members}
        return problem(self.status, str(self), headers=self.headers, members=members)


def guarded(
    answer: Callable[[web.BaseRequest, Mapping[str, str]], Awaitable[tuple[web.Response, str]]],
    *,
    verb: str,
    refused: Callable[[Exception], CallRefused],
    done: Callable[[str, float], None],
    log: logging.Logger,
) -> PathHandler:
    """Make a handler that answers whatever happens: ``refused`` makes a refusal of what ``answer`` raises.

    ``done`` is told of the outcome, which is the reason of a refusal, and of the seconds that it took.
    """

    def tell(outcome: str, seconds: float, place: Mapping[str, str]) -> None:
        done(outcome, seconds)
        log.debug("answered", extra=fields(verb=verb, outcome=outcome, **place))

    async def handle(request: web.BaseRequest, place: Mapping[str, str]) -> web.StreamResponse:
        started = perf_counter()
        try:
            response, outcome = await answer(request, place)
        except Exception as error:
            refusal = refused(error)
            response, outcome = refusal.response(), refusal.reason
            if outcome is Reason.UNAVAILABLE:
                log.warning("no answer for a caller", extra=fields(verb=verb, problem=str(refusal)))
            elif outcome is Reason.CRASHED:
                log.exception("a call failed", extra=fields(verb=verb))
        once_answered(tell, outcome, perf_counter() - started, place)
        return response

    return handle


def refusal_of(error: Exception, *, grant: str) -> CallRefused:
    """Say what to answer. ``grant`` names the permissions that warmnode needs, should the API server refuse it.

    What is none of the others is a bug of ours: nobody knows what was done.
    """
    match error:
        case CallRefused():
            return error
        case BodyRefused():
            return CallRefused(Reason.BAD_REQUEST, str(error), status=error.status)
        case NotAuthenticated():
            headers = {"WWW-Authenticate": error.challenge}
            return CallRefused(Reason.NOT_AUTHENTICATED, str(error), headers=headers)
        case Forbidden():
            return unavailable(f"warmnode is refused: grant it {grant} ({error})")
        case KubeError() if error.is_about_the_object:
            return unavailable(f"the API server refuses what warmnode writes ({error})")
        case KubeError():
            detail = f"the API server gave no answer, so nobody knows what was done; try again ({error})"
            return unavailable(detail, error.retry_after or RETRY_AFTER)
        case TimeoutError():
            silent = f"the API server gave no answer for {DEADLINE.total_seconds():.0f} s"
            return unavailable(f"{silent}, so nobody knows what was done; try again")
        case _:
            return CallRefused(Reason.CRASHED, CRASHED)


def bad_request(detail: str) -> CallRefused:
    """400: what was sent makes no sense."""
    return CallRefused(Reason.BAD_REQUEST, detail)


def rate_limited(who: str, per_second: int, wait: timedelta) -> CallRefused:
    """429: one caller calls too often."""
    detail = f"{who} calls more than {per_second} times a second"
    return CallRefused(Reason.RATE_LIMITED, detail, headers=retry_after(wait))


def too_many(under_way: int) -> CallRefused:
    """429: all callers together ask for more than can be done at once."""
    detail = f"{under_way} calls are under way, as many as are taken at once; try again"
    return CallRefused(Reason.TOO_MANY, detail, headers=retry_after(RETRY_AFTER))


def unavailable(detail: str, pause: timedelta = RETRY_AFTER, *, reason: Reason = Reason.UNAVAILABLE) -> CallRefused:
    """503: not done, or nobody knows; the same call again is right."""
    return CallRefused(reason, detail, headers=retry_after(pause))


def retry_after(pause: timedelta) -> dict[str, str]:
    """Give the header, in whole seconds from 1 on."""
    return {"Retry-After": str(max(1, ceil(pause.total_seconds())))}


def is_awaited(request: web.BaseRequest) -> bool:
    """True while the caller has not hung up."""
    return request.transport is not None and not request.transport.is_closing()
