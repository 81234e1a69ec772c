"""Who calls is what the API server says about the token, and nothing that the token says about itself."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from contextlib import nullcontext
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from extender.kube.errors import Unavailable
from extender.web.callers import (
    LOCAL,
    REMEMBERED,
    REVIEWS_AT_ONCE,
    REVIEWS_WAITING,
    Anybody,
    BoundPod,
    Caller,
    CertificateCallers,
    NotAuthenticated,
    TokenCallers,
    callers_for,
    claimed_audiences,
)
from extender.web.server import Address, ListenerProblem

LOOPBACK, EVERYWHERE = Address("127.0.0.1", 8889), Address("0.0.0.0", 8889)
NAME, UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
POD = {NAME: ["worker-1"], UID: ["u-1"], "authentication.kubernetes.io/node-name": ["node-a"]}
WORKER: dict[str, Any] = {
    "username": "system:serviceaccount:ducks:duck",
    "uid": "sa-1",
    "groups": ["system:serviceaccounts", "system:authenticated"],
    "extra": POD,
}


class Reviews:
    """Answers TokenReviews with one status. ``asked`` are the specs that came."""

    def __init__(self, **status: Any) -> None:
        self.status = status
        self.asked: list[dict[str, Any]] = []
        self.problem: Unavailable | None = None

    async def send(self, method: str, path: str, body: bytes, *, timeout: timedelta = timedelta(1)) -> bytes:  # noqa: ASYNC109
        assert (method, path) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
        self.asked.append(json.loads(body)["spec"])
        if self.problem is not None:
            raise self.problem
        return json.dumps({"kind": "TokenReview", "status": self.status}).encode()


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def jwt(audience: object) -> str:
    """A token as far as anybody can read it: nobody here looks at its signature."""
    parts = ({"alg": "RS256"}, {"aud": audience, "sub": "somebody"}, "signature")
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


async def ask(callers: TokenCallers, token: str = jwt(["warmnode"]), scheme: str = "Bearer") -> Caller:
    return await callers.identify(make_mocked_request("PUT", "/", headers={"Authorization": f"{scheme} {token}"}))


async def test_a_caller_is_who_the_review_says() -> None:
    """With everything that a SubjectAccessReview needs."""
    caller = await ask(TokenCallers(Reviews(authenticated=True, user=WORKER, audiences=["warmnode"])))
    assert caller == Caller(
        user="system:serviceaccount:ducks:duck",
        uid="sa-1",
        groups=("system:serviceaccounts", "system:authenticated"),
        extra={key: tuple(values) for key, values in POD.items()},
        pod=BoundPod(namespace="ducks", name="worker-1", uid="u-1"),
    )


@pytest.mark.parametrize("problem", [None, Unavailable(0, "Timeout", "no answer")])
async def test_a_review_that_is_over_waits_no_more(problem: Unavailable | None) -> None:
    """Else after a thousand of them, good or bad, every caller would be refused for ever."""
    reviews = Reviews(authenticated=True, user=WORKER, audiences=["warmnode"])
    callers = TokenCallers(reviews)
    reviews.problem = problem
    for number in range(REVIEWS_WAITING + 1):
        with nullcontext() if problem is None else pytest.raises(Unavailable, match="no answer"):
            await ask(callers, f"token-{number}")
    assert len(reviews.asked) == REVIEWS_WAITING + 1


async def test_the_scheme_is_read_in_any_case() -> None:
    reviews = Reviews(authenticated=True, user=WORKER, audiences=["warmnode"])
    assert (await ask(TokenCallers(reviews), scheme="bearer")).pod is not None


@pytest.mark.parametrize(
    "user",
    [
        {"username": "system:serviceaccount:ducks:duck"},
        {"username": "system:serviceaccount:ducks:duck", "extra": {**POD, UID: []}},
        {"username": "system:serviceaccount:ducks:duck", "extra": {NAME: ["worker-1"]}},
        {"username": "system:serviceaccount:ducks:duck", "extra": {UID: ["u-1"]}},
        {"username": "system:node:node-a", "extra": POD},
        {"username": "alice", "groups": None, "extra": POD},
    ],
)
async def test_only_a_service_accounts_token_is_bound_to_a_pod(user: dict[str, Any]) -> None:
    """The name of the user says in which namespace the pod is."""
    assert (await ask(TokenCallers(Reviews(authenticated=True, user=user, audiences=["warmnode"])))).pod is None


@pytest.mark.parametrize(
    ("token", "audiences"),
    [
        (jwt("warmnode"), ["warmnode"]),
        (jwt(["vault", "warmnode"]), ["warmnode"]),
        (jwt(["https://kubernetes.default.svc"]), None),
        (jwt(["vault"]), None),
        ("opaque", None),
    ],
)
async def test_a_token_is_reviewed_for_us_or_for_the_api_server_only(token: str, audiences: list[str] | None) -> None:
    """Without audiences the API server takes its own. An audience of a third party is never asked for: whoever got a
    token for that could use it here."""
    reviews = Reviews(authenticated=True, user=WORKER, audiences=["warmnode"])
    await ask(TokenCallers(reviews), token)
    assert reviews.asked == [{"token": token, **({"audiences": audiences} if audiences else {})}]


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": False, "error": "token has expired"},
        {"authenticated": True, "user": WORKER},
        {"authenticated": True, "user": WORKER, "audiences": ["vault"]},
    ],
)
async def test_a_token_that_the_review_does_not_confirm_for_us_is_invalid(status: dict[str, Any]) -> None:
    with pytest.raises(NotAuthenticated) as refused:
        await ask(TokenCallers(Reviews(**status)))
    assert refused.value.challenge == 'Bearer realm="warmnode", error="invalid_token"'


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer gr\xfc\xdfe"])
async def test_a_request_without_a_bearer_token_is_not_reviewed(header: str | None) -> None:
    reviews = Reviews(authenticated=True, user=WORKER, audiences=["warmnode"])
    headers = {} if header is None else {"Authorization": header}
    with pytest.raises(NotAuthenticated, match="projected volume") as refused:
        await TokenCallers(reviews).identify(make_mocked_request("PUT", "/", headers=headers))
    assert refused.value.challenge == 'Bearer realm="warmnode"'
    assert reviews.asked == []


@pytest.mark.parametrize("authenticated", [True, False])
async def test_an_answer_is_remembered_for_some_seconds_and_for_its_token_only(authenticated: bool) -> None:
    clock, reviews = Clock(), Reviews(authenticated=authenticated, user=WORKER, audiences=["warmnode"])
    callers = TokenCallers(reviews, timer=clock)

    async def answered(token: str) -> bool:
        try:
            return (await ask(callers, token)).authenticated
        except NotAuthenticated:
            return False

    ours, other = jwt(["warmnode"]), jwt(["warmnode", "other"])
    assert [await answered(ours), await answered(ours), await answered(other)] == [authenticated] * 3
    assert len(reviews.asked) == 2
    clock.seconds = REMEMBERED.total_seconds() + 0.1
    assert await answered(ours) is authenticated
    assert len(reviews.asked) == 3


async def test_a_review_that_failed_is_not_remembered() -> None:
    reviews = Reviews(authenticated=True, user=WORKER, audiences=["warmnode"])
    reviews.problem = Unavailable(0, "Connection", "no answer")
    callers = TokenCallers(reviews)
    with pytest.raises(Unavailable):
        await ask(callers)
    reviews.problem = None
    assert (await ask(callers)).authenticated


async def test_without_tls_only_loopback_is_let_in_and_everybody_there() -> None:
    reviews = Reviews()
    assert isinstance(callers_for(reviews, address=LOOPBACK, has_tls=True), CertificateCallers)
    assert isinstance(callers_for(reviews, address=EVERYWHERE, has_tls=True), CertificateCallers)
    open_to_all = callers_for(reviews, address=LOOPBACK, has_tls=False)
    assert isinstance(open_to_all, Anybody)
    assert await open_to_all.identify(make_mocked_request("PUT", "/")) == LOCAL
    with pytest.raises(ListenerProblem, match="--tls-cert-file"):
        callers_for(reviews, address=EVERYWHERE, has_tls=False)


@given(st.text() | st.builds(jwt, st.recursive(st.none() | st.integers() | st.text(), st.lists)))
def test_claimed_audiences_of_any_text_are_some_or_none(token: str) -> None:
    """Anybody may send anything."""
    assert all(isinstance(audience, str) for audience in claimed_audiences(token))


def mocked(certificate: dict[str, Any] | None, headers: dict[str, str] | None = None) -> Any:
    """A request over a connection whose handshake verified this certificate."""
    transport = Mock()
    transport.get_extra_info = lambda name, default=None: certificate if name == "peercert" else default
    return make_mocked_request("POST", "/", headers=headers or {}, transport=transport)


def certificate(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"subject": tuple(((key, value),) for key, value in pairs)}


async def test_a_certificate_is_a_caller_as_for_the_api_server() -> None:
    """The user is the common name, the groups are the organizations."""
    callers = CertificateCallers(TokenCallers(Reviews()))
    shown = certificate(("organizationName", "analytics"), ("organizationName", "leads"), ("commonName", "front"))
    caller = await callers.identify(mocked(shown))
    assert caller == Caller(user="front", groups=("analytics", "leads", "system:authenticated"))
    assert caller.authenticated


@pytest.mark.parametrize("shown", [None, {}, certificate(("organizationName", "x")), certificate(("commonName", ""))])
async def test_a_certificate_without_a_name_is_nobody(shown: dict[str, Any] | None) -> None:
    """Nor is no certificate; then a token is wanted."""
    with pytest.raises(NotAuthenticated):
        await CertificateCallers(TokenCallers(Reviews())).identify(mocked(shown))


async def test_a_connection_does_not_outlive_its_certificate() -> None:
    """It was verified when the connection was opened, which may be long ago."""
    until = ssl.cert_time_to_seconds("Nov  1 12:00:00 2026 GMT")
    shown = certificate(("commonName", "front")) | {"notAfter": "Nov  1 12:00:00 2026 GMT"}
    callers = CertificateCallers(TokenCallers(Reviews()), now=lambda: until)
    assert (await callers.identify(mocked(shown))).user == "front"
    callers = CertificateCallers(TokenCallers(Reviews()), now=lambda: until + 1)
    with pytest.raises(NotAuthenticated):
        await callers.identify(mocked(shown))


async def test_tokens_of_strangers_wait_in_a_line_of_limited_length() -> None:
    """A flood takes 16 connections to the API server, and beyond a thousand is told to try again."""
    going, most = 0, 0
    release = asyncio.Event()

    class Slow(Reviews):
        async def send(self, method: str, path: str, body: bytes, *, timeout: timedelta = timedelta(1)) -> bytes:  # noqa: ASYNC109
            nonlocal going, most
            going += 1
            most = max(most, going)
            await release.wait()
            going -= 1
            return await super().send(method, path, body)

    callers = TokenCallers(Slow(authenticated=True, user=WORKER, audiences=["warmnode"]))
    flood = [asyncio.ensure_future(ask(callers, jwt(["warmnode", str(n)]))) for n in range(REVIEWS_WAITING + 1)]
    for _ in range(3):
        await asyncio.sleep(0)
    refused = [each for each in flood if each.done()]
    assert len(refused) == 1
    with pytest.raises(Unavailable, match="try again"):
        await refused[0]
    release.set()
    served = await asyncio.gather(*flood[:-1])
    assert (len(served), most) == (REVIEWS_WAITING, REVIEWS_AT_ONCE)


async def test_an_answer_that_is_no_review_is_no_authentication() -> None:
    """A proxy in between may say anything with 200."""

    class Garbled(Reviews):
        async def send(self, method: str, path: str, body: bytes, *, timeout: timedelta = timedelta(1)) -> bytes:  # noqa: ASYNC109
            return b"<html>"

    with pytest.raises(Unavailable):
        await ask(TokenCallers(Garbled()))


async def test_a_token_goes_before_a_certificate() -> None:
    """It is sent on purpose; a wrong one is not overlooked."""
    callers = CertificateCallers(TokenCallers(Reviews(authenticated=True, user=WORKER, audiences=["warmnode"])))
    shown, headers = certificate(("commonName", "front")), {"Authorization": f"Bearer {jwt(['warmnode'])}"}
    assert (await callers.identify(mocked(shown, headers))).user == WORKER["username"]
    refused = CertificateCallers(TokenCallers(Reviews(authenticated=False)))
    with pytest.raises(NotAuthenticated):
        await refused.identify(mocked(shown, headers))
