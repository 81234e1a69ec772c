"""Refusals: a call that is not done, with its status, a reason for programs and one line for people.

Owns what the two APIs of the claims listener have in common when they refuse. A refusal is raised where it is found and
answered in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from math import ceil

from aiohttp import web

from extender.kube.errors import Forbidden, KubeError
from extender.web.callers import NotAuthenticated
from extender.web.requests import CRASHED, BodyRefused, problem

DEADLINE = timedelta(seconds=8)
"""Callers are told to wait for ten seconds: whatever is done is done while they wait."""
RETRY_AFTER = timedelta(seconds=1)


class CallRefused(Exception):
    """The call is refused. ``reason`` is the metric's label too; ``members`` are added to the problem."""

    def __init__(
        self,
        status: HTTPStatus,
        reason: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = str(reason)
        self.headers = headers
        self.members = members or {}

    def response(self) -> web.Response:
        """Make the answer."""
        members = {"reason": self.reason, **self.members}
        return problem(self.status, str(self), headers=self.headers, members=members)


REFUSALS = (CallRefused, BodyRefused, NotAuthenticated, KubeError, TimeoutError)
"""What `refusal_of` takes: everything that may happen to a call that is not our mistake."""


def refusal_of(error: Exception, *, grant: str) -> CallRefused:
    """Say what to answer. ``grant`` names the permissions that warmnode needs, should the API server refuse it."""
    match error:
        case CallRefused():
            return error
        case BodyRefused():
            return CallRefused(error.status, "badRequest", str(error))
        case NotAuthenticated():
            headers = {"WWW-Authenticate": error.challenge}
            return CallRefused(HTTPStatus.UNAUTHORIZED, "notAuthenticated", str(error), headers=headers)
        case Forbidden():
            return unavailable(f"warmnode is refused: grant it {grant} ({error})")
        case KubeError() if error.is_about_the_object:
            return unavailable(f"the API server refuses what warmnode writes ({error})")
        case KubeError():
            detail = f"the API server gave no answer, so nobody knows what was done; try again ({error})"
            return unavailable(detail, error.retry_after or RETRY_AFTER)
        case _:
            silent = f"the API server gave no answer for {DEADLINE.total_seconds():.0f} s"
            return unavailable(f"{silent}, so nobody knows what was done; try again")


def bad_request(detail: str) -> CallRefused:
    """400: what was sent makes no sense."""
    return CallRefused(HTTPStatus.BAD_REQUEST, "badRequest", detail)


def rate_limited(who: str, per_second: int, wait: timedelta) -> CallRefused:
    """429: one caller calls too often."""
    detail = f"{who} calls more than {per_second} times a second"
    return CallRefused(HTTPStatus.TOO_MANY_REQUESTS, "rateLimited", detail, headers=retry_after(wait))


def too_many(under_way: int) -> CallRefused:
    """429: all callers together ask for more than can be done at once."""
    detail = f"{under_way} calls are under way, as many as are taken at once; try again"
    return CallRefused(HTTPStatus.TOO_MANY_REQUESTS, "tooMany", detail, headers=retry_after(RETRY_AFTER))


def unavailable(detail: str, pause: timedelta = RETRY_AFTER, *, reason: str = "unavailable") -> CallRefused:
    """503: not done, or nobody knows; the same call again is right."""
    return CallRefused(HTTPStatus.SERVICE_UNAVAILABLE, reason, detail, headers=retry_after(pause))


def crashed() -> CallRefused:
    """500: a bug of ours. Nobody knows what was done."""
    return CallRefused(HTTPStatus.INTERNAL_SERVER_ERROR, "crashed", CRASHED)


def retry_after(pause: timedelta) -> dict[str, str]:
    """Give the header, in whole seconds from 1 on."""
    return {"Retry-After": str(max(1, ceil(pause.total_seconds())))}


def is_awaited(request: web.BaseRequest) -> bool:
    """True while the caller has not hung up."""
    return request.transport is not None and not request.transport.is_closing()
