"""A client of warmnode's claim API, for programs that hand work to workers. Needs nothing but Python itself.

    client = Client("https://warmnode.warmnode.svc:8889", token_file="/var/run/secrets/warmnode/token")
    with client.hold("ducks", claimant="query-42") as claim:
        run_query_on(claim.ip)

A claimant is whoever will use the worker: a query, a session. The same claimant gets the same worker again, so calls
that got no answer are repeated, and this client does so, and says so: a claim that is not said to be repeated may give
a second worker, where another replica of warmnode has not heard of the first.
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

__all__ = ["Claim", "ClaimLost", "Client", "NothingIdle", "Refused", "Unreachable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A worker that is yours until ``expires``. Times are aware; ``first_seen`` is of its node, None: unknown.

    ``left`` is what was left of it when warmnode answered, by the clock of the one that answered: a clock here that is
    wrong changes nothing. (Date says whole seconds, so it may be a second less.) None: the answer had no Date.
    """

    id: str
    pool: str
    claimant: str
    namespace: str
    pod: str
    uid: str
    ip: str | None
    node: str | None
    first_seen: datetime | None
    since: datetime
    expires: datetime
    left: timedelta | None = field(default=None, compare=False)


class Refused(Exception):
    """Warmnode said no. ``reason`` is one word for programs, such as ``forbidden``; the text is for people.

    ``retry_after`` is how long to wait before the next call, in seconds, 0 where nothing was said. ``problem`` is the
    whole answer.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float = 0.0) -> None:
        self.status = status
        self.reason = str(problem.get("reason", ""))
        self.detail = str(problem.get("detail", ""))
        self.retry_after = retry_after
        self.problem = problem
        super().__init__(f"{self.detail} ({status} {self.reason})")


class NothingIdle(Refused):
    """No worker can be handed out now."""

    @property
    def workers(self) -> Mapping[str, int]:
        """Why, by reason: ``{"busy": 12, "claimed": 3}``."""
        counts: dict[str, int] = self.problem.get("workers", {})
        return counts


class ClaimLost(Refused):
    """The claim is over: it expired, was released, or its worker is being deleted. Claim again."""


class Unreachable(Exception):
    """No usable answer within the time allowed. Whether something was claimed nobody knows; claiming again finds it."""


@dataclass(slots=True)
class Client:
    """Talks to one address, with a connection for each call; any number of threads may use it.

    ``token_file`` is read for each call, because the kubelet replaces it. ``ca_file`` is whom to trust, None: whom the
    system does. ``cert_file`` and ``key_file`` are for those who are known by a certificate. ``timeout`` is of one
    attempt, in seconds; warmnode gives up after 8 s. ``patience`` is how long a call is repeated while warmnode or the
    API server is away or asks for patience, in seconds.
    """

    url: str
    token_file: str | Path | None = None
    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None
    timeout: float = 10.0
    patience: float = 30.0
    _context: ssl.SSLContext | None = field(default=None, init=False, repr=False)
    _unanswered: set[tuple[str, str]] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"url must begin with http:// or https:// (got {self.url!r})")
        if self.url.startswith("https:"):
            self._context = ssl.create_default_context(cafile=self.ca_file and str(self.ca_file))
            if self.cert_file is not None:
                self._context.load_cert_chain(self.cert_file, self.key_file)

    def claim(
        self,
        pool: str,
        claimant: str,
        *,
        ttl: str | None = None,
        cache_key: str | None = None,
        retry: bool = False,
        wait: int = 0,
    ) -> Claim:
        """Get the idle worker on the warmest node, or the one that ``claimant`` holds already.

        ``wait`` is for how many seconds the call waits where no worker is idle, 60 at most: first come, first served.

        ``retry`` says that this claimant may have asked before, as in an earlier run of the program. Where that was
        through this client, and got no answer, it is said by itself.

        ``ttl`` is a duration such as ``"60s"``; None takes the pool's. ``cache_key`` says whose cache is used, such as
        a tenant's: in a pool that has cache keys a node that knows it is preferred among the oldest.

        Raises:
            NothingIdle: no worker can be handed out.
            Refused, Unreachable
        """
        optional = {"ttl": ttl, "cacheKey": cache_key}
        return _claim(*self._ask(pool, claimant, optional, retry=retry, wait=wait))

    def claim_several(
        self,
        pool: str,
        claimant: str,
        count: int,
        *,
        at_least: int | None = None,
        ttl: str | None = None,
        cache_key: str | None = None,
        retry: bool = False,
        wait: int = 0,
    ) -> list[Claim]:
        """Get ``count`` workers at once, each with a claim of its own: for ``claimant/1``, ``claimant/2`` and so on.

        ``at_least`` is how many are enough, None: all. With fewer none is claimed, and that is `NothingIdle`. The same
        call again gets the same workers, and those that were missing. All else is as of `claim`.
        """
        optional = {"ttl": ttl, "cacheKey": cache_key, "count": count, "atLeast": at_least}
        tree, at = self._ask(pool, claimant, optional, retry=retry, wait=wait)
        return [_claim(each, at) for each in tree["claims"]]

    def _ask(
        self, pool: str, claimant: str, optional: Mapping[str, str | int | None], *, retry: bool, wait: int
    ) -> _Answer:
        """Ask for a claim, or several, and remember of whom no answer came."""
        body = {"claimant": claimant} | {name: value for name, value in optional.items() if value is not None}
        asked = (pool, claimant)
        repeats = retry or asked in self._unanswered
        self._unanswered.add(asked)
        try:
            path = _path(pool) + (f"?wait={wait}s" if wait else "")
            answer = self._call("POST", path, body, repeats=repeats, wait=wait)
        except Refused as error:
            if error.status not in _TRY_AGAIN:
                self._unanswered.discard(asked)
            raise
        self._unanswered.discard(asked)
        return answer

    def renew(self, claim: Claim, *, ttl: str | None = None) -> Claim:
        """Keep the worker for ``ttl`` from now, at least. Raises `ClaimLost`, `Refused`, `Unreachable`."""
        return _claim(*self._call("PUT", _path(claim.pool, claim.id), _lasting(ttl)))

    def release(self, claim: Claim) -> None:
        """Give the worker back. A claim that is over already is released. Raises `Refused`, `Unreachable`."""
        try:
            self._call("DELETE", _path(claim.pool, claim.id))
        except ClaimLost:
            return

    def claims(self, pool: str) -> list[Claim]:
        """List what this user holds in the pool. Raises `Refused`, `Unreachable`."""
        tree, at = self._call("GET", _path(pool))
        return [_claim(each, at) for each in tree["claims"]]

    @contextmanager
    def hold(
        self,
        pool: str,
        claimant: str,
        *,
        ttl: str | None = None,
        cache_key: str | None = None,
        retry: bool = False,
        wait: int = 0,
    ) -> Iterator[Claim]:
        """Claim a worker for the length of a ``with`` block, renew the claim meanwhile, and release it.

        Raises as `claim`. A claim that is lost on the way is not told of: the worker refuses the work, or drains.
        """
        claim = self.claim(pool, claimant, ttl=ttl, cache_key=cache_key, retry=retry, wait=wait)
        done = threading.Event()
        renewing = threading.Thread(target=self._keep, args=(claim, ttl, done), name=f"renew {claim.id}", daemon=True)
        renewing.start()
        try:
            yield claim
        finally:
            done.set()
            renewing.join()
            self.release(claim)

    def _keep(self, claim: Claim, ttl: str | None, done: threading.Event) -> None:
        """Renew when a third of what is left has passed, until told to end or the claim is lost.

        A renewal that fails is tried again when a third of the rest has passed, a thirtieth of the whole at least.
        """
        whole = _seconds_left(claim)
        ends, wanted = time.monotonic() + whole, 0.0
        while not done.wait(max((ends - time.monotonic()) / 3, whole / 30, wanted)):
            try:
                renewed = _claim(*self._attempt("PUT", _path(claim.pool, claim.id), _lasting(ttl)))
            except ClaimLost:
                return
            except Refused as error:
                wanted = error.retry_after
            except (Unreachable, OSError, http.client.HTTPException):
                wanted = 0.0
            else:
                whole = _seconds_left(renewed)
                ends, wanted = time.monotonic() + whole, 0.0

    def _call(
        self, method: str, path: str, body: _Body | None = None, *, repeats: bool = False, wait: int = 0
    ) -> _Answer:
        """Call, and call again while that may help, and say so then: every call of the API may be repeated."""
        deadline = time.monotonic() + self.patience
        pause = 0.1
        while True:
            problem: Exception
            try:
                return self._attempt(method, path, body, repeats=repeats, wait=wait)
            except Refused as error:
                if error.status not in _TRY_AGAIN:
                    raise
                problem, wanted = error, error.retry_after
            except ssl.SSLCertVerificationError as error:
                raise Unreachable(f"{self.url}: {error}") from error
            except (OSError, http.client.HTTPException) as error:
                problem, wanted = error, 0.0
            repeats = True
            pause = min(pause * 2, 2.0)
            rest = max(wanted, pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that many do not come at once
            if time.monotonic() + rest >= deadline:
                if isinstance(problem, Refused):
                    raise problem
                raise Unreachable(f"{method} {self.url}{path}: {problem}") from problem
            time.sleep(rest)

    def _attempt(self, method: str, path: str, body: _Body | None, *, repeats: bool = False, wait: int = 0) -> _Answer:
        """Call once. Gives the answer, and when it was given. Raises `Refused`, OSError, HTTPException."""
        headers = {"Accept": "application/json"} | ({"Idempotency-Key": "repeated"} if repeats else {})
        if self.token_file is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        content = None if body is None else json.dumps(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        place = urlsplit(self.url)
        connection: http.client.HTTPConnection
        if self._context is not None:
            connection = http.client.HTTPSConnection(place.netloc, timeout=self.timeout + wait, context=self._context)
        else:
            connection = http.client.HTTPConnection(place.netloc, timeout=self.timeout + wait)
        try:
            connection.request(method, place.path.rstrip("/") + path, content, headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        at = _date(response.headers.get("Date", ""))
        if response.status == 204:
            return {}, at
        tree = _decoded(answer)
        if response.status in (200, 201):
            return tree, at
        pause = response.headers.get("Retry-After", "")
        kind = _KINDS.get(str(tree.get("reason")), Refused)
        raise kind(response.status, tree, float(pause) if pause.isdigit() else 0.0)

    def _token(self) -> str:
        try:
            return Path(self.token_file or "").read_text().strip()
        except OSError as error:
            raise Unreachable(f"the token cannot be read: {error}") from error


_Answer = tuple[dict[str, Any], datetime | None]
_Body = Mapping[str, str | int]

_TRY_AGAIN = (429, 503)
_KINDS: Mapping[str, type[Refused]] = {"noneIdle": NothingIdle, "noClaim": ClaimLost, "terminating": ClaimLost}


def _decoded(answer: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(answer)
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        said = " ".join(answer[:100].decode(errors="replace").split())
        raise http.client.HTTPException(f"this is no answer of warmnode: {said}")
    return tree


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None


def _lasting(ttl: str | None) -> dict[str, str]:
    return {} if ttl is None else {"ttl": ttl}


def _seconds_left(claim: Claim) -> float:
    left = (claim.left if claim.left is not None else claim.expires - datetime.now(UTC)).total_seconds()
    return max(left, 0.1)


def _path(pool: str, claim: str | None = None) -> str:
    path = f"/v1/pools/{quote(pool, safe='')}/claims"
    return path if claim is None else f"{path}/{quote(claim, safe='')}"


def _claim(tree: Mapping[str, Any], at: datetime | None) -> Claim:
    """Read a claim out of an answer of the time ``at``; keys that a newer warmnode adds are left out."""
    expires = datetime.fromisoformat(tree["expires"])
    return Claim(
        id=tree["id"],
        pool=tree["pool"],
        claimant=tree["claimant"],
        namespace=tree["namespace"],
        pod=tree["pod"],
        uid=tree["uid"],
        ip=tree["ip"],
        node=tree["node"],
        first_seen=None if tree["firstSeen"] is None else datetime.fromisoformat(tree["firstSeen"]),
        since=datetime.fromisoformat(tree["since"]),
        expires=expires,
        left=None if at is None else _left(expires - at),
    )


def _left(left: timedelta) -> timedelta:
    """Take off the second that may have passed since the Date, but never the most of it."""
    return max(left - timedelta(seconds=1), left / 10)
