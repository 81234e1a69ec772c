"""Who calls: the bearer token of a request, reviewed by the API server, or the client's certificate.

Owns authentication on the claims listener. What a caller may do is decided where it is asked for. Tokens are never
kept and never logged: what is remembered for some seconds is remembered under a hash of the token.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import msgspec
from aiohttp import web
from cachetools import TTLCache

from extender.kube.codec import decode_answer
from extender.kube.errors import Unavailable
from extender.web.server import Address, ListenerProblem

AUDIENCE = "warmnode"
REMEMBERED = timedelta(seconds=10)
"""As long as the API server itself remembers the answers of a token webhook."""
REMEMBERED_CALLERS = 16_384
REVIEW_TIMEOUT = timedelta(seconds=5)
REVIEWS_AT_ONCE = 16
REVIEWS_WAITING = 1_000
"""Anybody can send tokens: what they cost must leave the connections to the API server to the watches."""

_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_SERVICE_ACCOUNT = "system:serviceaccount:"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPod:
    """The pod that a token was issued for. Such a token ends with the pod."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, with everything that a SubjectAccessReview asks for. ``pod`` is None for a token of no pod.

    ``authenticated`` False: the listener asks nobody who they are, because only this machine reaches it.
    """

    user: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pod: BoundPod | None = None
    authenticated: bool = True


LOCAL = Caller(user="local", authenticated=False)


class NotAuthenticated(Exception):
    """Nobody knows who calls. The message is one line with the remedy; ``challenge`` is for WWW-Authenticate."""

    def __init__(self, detail: str, *, error: str = "") -> None:
        super().__init__(detail)
        self.challenge = 'Bearer realm="warmnode"' + (f', error="{error}"' if error else "")


class Callers(Protocol):
    """Says who calls. Raises `NotAuthenticated`, or `KubeError` where nobody can tell now."""

    async def identify(self, request: web.BaseRequest) -> Caller: ...


class Sender(Protocol):
    """The part of `KubeClient` that a review needs."""

    async def send(self, method: str, path: str, body: bytes, *, timeout: timedelta = ...) -> bytes:  # noqa: ASYNC109
        ...


class Anybody:
    """Lets everybody in: for a listener that only this machine reaches."""

    async def identify(self, request: web.BaseRequest) -> Caller:
        return LOCAL


class TokenCallers:
    """Has bearer tokens reviewed by the API server, and remembers both answers for some seconds.

    A token is for us when its audience is ``warmnode``, or the API server's own. It is never reviewed with an audience
    that only the token itself names: whoever a token was sent to for another service could then use it here.
    """

    def __init__(self, client: Sender, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._turns = asyncio.Semaphore(REVIEWS_AT_ONCE)
        self._waiting = 0
        self._known: TTLCache[bytes, Caller | None] = TTLCache(
            maxsize=REMEMBERED_CALLERS, ttl=REMEMBERED.total_seconds(), timer=timer
        )

    async def identify(self, request: web.BaseRequest) -> Caller:
        """Say whose token the request carries. Raises `NotAuthenticated`, or `KubeError` where there is no review."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or not token.isascii():
            raise NotAuthenticated(
                'send "Authorization: Bearer TOKEN" with the token of a projected volume, audience warmnode'
            )
        key = hashlib.sha256(token.encode()).digest()
        caller = self._known.get(key, LOCAL)
        if caller is LOCAL:  # never a token's: not remembered
            caller = self._known[key] = await self._review_in_turn(token)
        if caller is None:
            raise NotAuthenticated(
                f"the token is expired, of a pod that is gone, or of an audience other than {AUDIENCE!r}; read the "
                "token's file again for each request",
                error="invalid_token",
            )
        return caller

    async def _review_in_turn(self, token: str) -> Caller | None:
        if self._waiting >= REVIEWS_WAITING:
            raise Unavailable(0, "Busy", f"{self._waiting} tokens wait for their review; try again")
        self._waiting += 1
        try:
            async with self._turns:
                return await self._review(token)
        finally:
            self._waiting -= 1

    async def _review(self, token: str) -> Caller | None:
        # Without audiences the API server takes its own, whatever they are called.
        audiences = (AUDIENCE,) if AUDIENCE in claimed_audiences(token) else ()
        review = _Review(spec=_ReviewSpec(token=token, audiences=audiences))
        answer = await self._client.send("POST", _REVIEWS, msgspec.json.encode(review), timeout=REVIEW_TIMEOUT)
        status = decode_answer(answer, _ANSWER, "no TokenReview").status
        # authentication/v1 TokenReviewSpec.audiences: a server that does not say for whom the token is has not looked.
        if not status.authenticated or (audiences and AUDIENCE not in status.audiences):
            return None
        return _caller(status.user)


class CertificateCallers:
    """Goes by the client's certificate, which the handshake has verified, where the request carries no token.

    As for the API server: the user is the common name, the groups are the organizations. A token goes first, because
    it is sent on purpose, and it may belong to a pod.
    """

    def __init__(self, tokens: Callers, *, now: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._now = now

    async def identify(self, request: web.BaseRequest) -> Caller:
        """Say whose certificate, or token, came. Raises as `TokenCallers.identify`."""
        if "Authorization" not in request.headers:
            certificate = request.get_extra_info("peercert")
            caller = certificate_caller(certificate)
            if caller is not None and not _has_expired(certificate, self._now()):
                return caller
        return await self._tokens.identify(request)


def certificate_caller(certificate: Mapping[str, object] | None) -> Caller | None:
    """Read a verified certificate as `ssl.SSLSocket.getpeercert` gives it; None without one, or a name in it."""
    subject = (certificate or {}).get("subject")
    if not isinstance(subject, tuple):
        return None
    pairs = [pair for part in subject for pair in part]
    # as x509.CommonNameUserConversion of the API server: Go takes the last common name
    names = [value for key, value in pairs if key == "commonName" and value]
    if not names:
        return None
    groups = tuple(value for key, value in pairs if key == "organizationName")
    return Caller(user=names[-1], groups=(*groups, "system:authenticated"))


def _has_expired(certificate: Mapping[str, object], now: float) -> bool:
    """A connection may outlive the certificate that it was opened with."""
    until = certificate.get("notAfter")
    return isinstance(until, str) and ssl.cert_time_to_seconds(until) < now


def callers_for(client: Sender, *, address: Address, has_tls: bool) -> Callers:
    """Choose how callers are known: without TLS there is no authentication, and so no listening beyond this machine.

    Raises:
        ListenerProblem: others reach the address, and there is no TLS.
    """
    if has_tls:
        return CertificateCallers(TokenCallers(client))
    if address.is_loopback:
        return Anybody()
    raise ListenerProblem(
        f"--claims-listen {address} can be reached from other machines: give --tls-cert-file and "
        "--tls-private-key-file, or listen on 127.0.0.1"
    )


def claimed_audiences(token: str) -> tuple[str, ...]:
    """Read the audiences that a JWT claims, none where it is no JWT. Nothing is verified: good for a question only."""
    parts = token.split(".")
    if len(parts) != 3:
        return ()
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claimed = msgspec.json.decode(payload, type=_Claims).aud
    except (ValueError, msgspec.DecodeError, RecursionError):
        return ()
    return (claimed,) if isinstance(claimed, str) else claimed


def _caller(user: _User) -> Caller:
    extra = {key: tuple(values) for key, values in (user.extra or {}).items()}
    return Caller(
        user=user.username, uid=user.uid, groups=tuple(user.groups or ()), extra=extra, pod=_pod(user.username, extra)
    )


def _pod(user: str, extra: Mapping[str, tuple[str, ...]]) -> BoundPod | None:
    namespace, _, _ = user.removeprefix(_SERVICE_ACCOUNT).partition(":")
    name, uid = extra.get(_POD_NAME, ()), extra.get(_POD_UID, ())
    if not user.startswith(_SERVICE_ACCOUNT) or len(name) != 1 or len(uid) != 1:
        return None
    return BoundPod(namespace=namespace, name=name[0], uid=uid[0])


class _Claims(msgspec.Struct):
    aud: str | tuple[str, ...] = ()


class _ReviewSpec(msgspec.Struct, omit_defaults=True):
    token: str
    audiences: tuple[str, ...] = ()


class _Review(msgspec.Struct, rename="camel"):
    spec: _ReviewSpec
    api_version: str = "authentication.k8s.io/v1"
    kind: str = "TokenReview"


class _User(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _ReviewStatus(msgspec.Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)
    audiences: tuple[str, ...] = ()


class _Answer(msgspec.Struct):
    status: _ReviewStatus


_ANSWER = msgspec.json.Decoder(_Answer)
