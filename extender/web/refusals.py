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

REASONS: Mapping[str, tuple[tuple[int, ...], str]] = {
    "badRequest": ((400, 408, 413, 415), "What was sent makes no sense, is too large or late; detail says so."),
    "notAuthenticated": ((401,), "Nobody knows who calls: no token, an expired one, or one for somebody else."),
    "forbidden": ((403,), "The caller may not do this."),
    "noPodInToken": ((403,), "The token belongs to no pod."),
    "notYourPod": ((403,), "The token is that of another pod, or of an earlier one of this name."),
    "noneIdle": ((404,), "No worker can be handed out; workers counts why."),
    "unknownPool": ((404,), "There is no such pool."),
    "noClaim": ((404,), "There is no such claim: it expired, was released, or is another user's."),
    "notFound": ((404,), "There is no such pod."),
    "noWorker": ((404,), "The pod belongs to no pool."),
    "terminating": ((409,), "The worker is being deleted: claim another one; if it is you, refuse the work."),
    "dryRun": ((409,), "The pool is in dry-run: nothing is written, and a claim ends by itself."),
    "disabled": ((409,), "The pool hands out no workers."),
    "noSource": ((409,), "The mark of a worker does not count in its pool: annotation is none of its idle.sources."),
    "rateLimited": ((429,), "The user, or the pod, calls too often. Wait as long as Retry-After says."),
    "tooMany": ((429,), "All callers together ask for too much at once. Wait as long as Retry-After says."),
    "crashed": ((500,), "A bug of warmnode: its log has the traceback. Nobody knows what was done."),
    "notSynced": ((503,), "Not everything is loaded yet: not done. The same again is right."),
    "changing": ((503,), "Others changed it under each attempt: not done. The same again is right."),
    "callerGone": ((503,), "The caller hung up: not done."),
    "unavailable": ((503,), "Not done, or nobody knows: detail says why. The same again is right."),
}
"""Every reason of a refusal: the statuses that it comes with, the first one unless another is named, and its words."""


class CallRefused(Exception):
    """The call is refused. ``reason`` is the metric's label too; ``members`` are added to the problem."""

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        status: HTTPStatus | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status or HTTPStatus(REASONS[reason][0][0])
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
            return CallRefused("badRequest", str(error), status=error.status)
        case NotAuthenticated():
            headers = {"WWW-Authenticate": error.challenge}
            return CallRefused("notAuthenticated", str(error), headers=headers)
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
    return CallRefused("badRequest", detail)


def rate_limited(who: str, per_second: int, wait: timedelta) -> CallRefused:
    """429: one caller calls too often."""
    detail = f"{who} calls more than {per_second} times a second"
    return CallRefused("rateLimited", detail, headers=retry_after(wait))


def too_many(under_way: int) -> CallRefused:
    """429: all callers together ask for more than can be done at once."""
    detail = f"{under_way} calls are under way, as many as are taken at once; try again"
    return CallRefused("tooMany", detail, headers=retry_after(RETRY_AFTER))


def unavailable(detail: str, pause: timedelta = RETRY_AFTER, *, reason: str = "unavailable") -> CallRefused:
    """503: not done, or nobody knows; the same call again is right."""
    return CallRefused(reason, detail, headers=retry_after(pause))


def crashed() -> CallRefused:
    """500: a bug of ours. Nobody knows what was done."""
    return CallRefused("crashed", CRASHED)


def retry_after(pause: timedelta) -> dict[str, str]:
    """Give the header, in whole seconds from 1 on."""
    return {"Retry-After": str(max(1, ceil(pause.total_seconds())))}


def is_awaited(request: web.BaseRequest) -> bool:
    """True while the caller has not hung up."""
    return request.transport is not None and not request.transport.is_closing()
