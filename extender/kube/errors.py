"""What the API server's refusals mean, and the one place where an answer becomes an error.

Owns the error classes of everything that talks to the API server. Knows HTTP and the Status object, and no transport.
404 and 409 are outcomes for most callers: they are classes of their own so that `except NotFound` says what is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import msgspec

from extender.logs import one_line

LONGEST_WISH = timedelta(minutes=5)
"""Of a Retry-After, whatever it says."""


class ConfigurationProblem(Exception):
    """The API server cannot be addressed with the configuration at hand. The text is one line and names the remedy."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


class KubeError(Exception):
    """The API server refused, or gave no usable answer.

    ``status`` is the HTTP status, 0 where no answer came. ``reason`` is the Status object's reason (``Conflict``,
    ``Expired``, ...) or a word of ours for failures without one. ``retry_after`` is what the server asked for.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(one_line(message))
        self.status = status
        self.reason = one_line(reason, 60)
        self.message = one_line(message)
        self.retry_after = retry_after

    @property
    def is_about_the_object(self) -> bool:
        """True where this object is refused for good, by a policy or for what is in it: others may fare better.

        A lack of our own permissions looks the same, and then all of them are refused.
        """
        return type(self) in (KubeError, Forbidden) and 400 <= self.status < 500 and self.status != 401

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.reason})" if self.status else f"{self.message} ({self.reason})"


class NotFound(KubeError):
    """404: the object, or its whole kind, does not exist."""


class Conflict(KubeError):
    """It exists already, or a precondition (uid, resourceVersion) does not hold. Read again and decide again.

    ``status`` is 409, or 422 for a patch that names the uid of an older object of the same name.
    """


class Gone(KubeError):
    """410 or reason Expired: the resourceVersion or continue token is too old. List again."""


class Forbidden(KubeError):
    """401 or 403: the API server does not know us, or does not allow it. ``status`` tells which."""


class Blocked(KubeError):
    """429 because a PodDisruptionBudget forbids the eviction. There is no Retry-After with it."""


class Throttled(KubeError):
    """429 for any other reason: the API server asks for patience, see ``retry_after``."""


class Unavailable(KubeError):
    """No usable answer: a connection error, a time-out, 5xx, an unreadable body. What was asked may have been done."""


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""
    field: str = ""


class _Details(msgspec.Struct, rename="camel"):
    causes: list[_Cause] | None = None
    retry_after_seconds: int = 0


class _Status(msgspec.Struct):
    """meta/v1 Status. In other kinds ``status`` is an object and does not decode as one of these."""

    kind: str
    status: str
    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


_STATUS = msgspec.json.Decoder(_Status)
_CLASSES: dict[int, type[KubeError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    410: Gone,
    429: Throttled,
}


def failure(status: int, body: bytes | msgspec.Raw, headers: Mapping[str, str]) -> KubeError | None:
    """The error that an answer stands for, None for a success.

    A Status object with status "Failure" counts whatever the HTTP status says: an eviction may answer 2xx with one, and
    the ERROR event of a watch carries one in a stream that was opened with 200.
    """
    answer = _failure_status(body)
    if answer is None:
        if 200 <= status < 300:
            return None
        text = one_line(bytes(body)[:2000].decode(errors="replace"), 200)
        return _class(status, None)(status, "NoStatus", text or "empty answer", _retry_after(headers, None))
    code = answer.code or (status if status >= 300 else 500)
    message = answer.message or answer.reason or "failure without a message"
    causes = (answer.details.causes if answer.details else None) or []
    details = "; ".join(cause.message for cause in causes if cause.reason == "DisruptionBudget" and cause.message)
    if details:
        message = f"{message} ({details})"  # the only place that names the budget
    return _class(code, answer)(code, answer.reason or "Unknown", message, _retry_after(headers, answer.details))


def _failure_status(body: bytes | msgspec.Raw) -> _Status | None:
    raw = bytes(body)
    if b'"Failure"' not in raw:  # the cheap look first: lists are megabytes, Status objects are small
        return None
    try:
        answer = _STATUS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return answer if answer.kind == "Status" and answer.status == "Failure" else None


def _class(code: int, answer: _Status | None) -> type[KubeError]:
    if answer is not None:
        if answer.reason in ("Expired", "Gone"):
            return Gone
        causes = (answer.details.causes if answer.details else None) or []
        if code == 429 and any(cause.reason == "DisruptionBudget" for cause in causes):
            return Blocked
        if code == 422 and any(cause.field == "metadata.uid" for cause in causes):
            return Conflict  # a foreign uid in a patch is no precondition to the API server, but an immutable field
    if code >= 500 or code < 400:  # a redirect is no answer of an API server
        return Unavailable
    return _CLASSES.get(code, KubeError)


def _retry_after(headers: Mapping[str, str], details: _Details | None) -> timedelta | None:
    """The header in whole seconds (the API server sends no dates), else the Status detail of the same meaning.

    Five minutes at most: whatever stands before an API server may ask for a day, and nobody would reap for so long.
    """
    text = headers.get("Retry-After", "")
    seconds = (int(text) if len(text) < 10 else 10**9) if text.isascii() and text.isdigit() else 0
    if seconds == 0 and details is not None:
        seconds = details.retry_after_seconds
    return min(timedelta(seconds=min(seconds, 10**9)), LONGEST_WISH) if seconds > 0 else None
