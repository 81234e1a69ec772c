"""Refusals of the two APIs: what a caller is told who is to come again."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus

import pytest

from extender.kube.errors import Forbidden, KubeError, Throttled, Unavailable
from extender.web.callers import NotAuthenticated
from extender.web.refusals import Reason, bad_request, refusal_of, retry_after
from extender.web.requests import BodyRefused


@pytest.mark.parametrize(("seconds", "told"), [(0, "1"), (0.001, "1"), (1, "1"), (1.2, "2"), (300, "300")])
def test_whoever_is_to_come_again_waits_a_second_at_least(seconds: float, told: str) -> None:
    """0 would be taken for at once, by all of them."""
    assert retry_after(timedelta(seconds=seconds)) == {"Retry-After": told}


LATER = timedelta(seconds=7)


@pytest.mark.parametrize(
    ("error", "reason", "status", "detail"),
    [
        (bad_request("no body"), Reason.BAD_REQUEST, 400, "no body"),
        (BodyRefused(HTTPStatus.REQUEST_TIMEOUT, "slow"), Reason.BAD_REQUEST, 408, "slow"),
        (NotAuthenticated("who are you"), Reason.NOT_AUTHENTICATED, 401, "who are you"),
        (Forbidden(403, "Forbidden", "no"), Reason.UNAVAILABLE, 503, "grant it patch pods"),
        (KubeError(422, "Invalid", "no"), Reason.UNAVAILABLE, 503, "the API server refuses what warmnode writes"),
        (Throttled(429, "TooManyRequests", "no", LATER), Reason.UNAVAILABLE, 503, "the API server gave no answer"),
        (Unavailable(0, "Timeout", "no"), Reason.UNAVAILABLE, 503, "nobody knows what was done"),
        (TimeoutError(), Reason.UNAVAILABLE, 503, "no answer for 8 s, so nobody knows what was done"),
        (ZeroDivisionError("an inside"), Reason.CRASHED, 500, "this is a bug of warmnode"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_failure_is_a_refusal_that_says_whose_it_is(
    error: Exception, reason: Reason, status: int, detail: str
) -> None:
    """The caller's, the installation's, the API server's, or a bug of ours, of which nothing is shown."""
    refusal = refusal_of(error, grant="patch pods")
    assert (refusal.reason, refusal.status) == (reason, status)
    assert detail in str(refusal)
    assert "an inside" not in str(refusal)
    asks_for_patience = isinstance(error, Throttled)
    assert (refusal.headers or {}).get("Retry-After") == ("7" if asks_for_patience else "1" if status == 503 else None)
