"""One request to the API server, as a value: what is asked, and over whose connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum


class Lane(StrEnum):
    """Whose requests share connections. There are at most `CONNECTIONS` in each, so none waits for another lane's."""

    LEASE = "lease"
    FEED = "feed"
    CLAIMS = "claims"
    OTHER = "other"


CONNECTIONS = 50
"""Each that was ever needed at once stays in use in turn, and takes an eighth of a MiB. So many writes are under way at
most: 5,000 a second where each takes 10 ms, 100 where the API server needs half a second.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """One request. ``path`` is below the server's URL; ``silence_limit`` None leaves the limit to the caller.

    ``answer_limit`` is how long the answer's head may take.
    """

    method: str
    path: str
    body: bytes | None = None
    params: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    silence_limit: timedelta | None = None
    answer_limit: timedelta | None = None
    lane: Lane = Lane.OTHER

    def __str__(self) -> str:
        return f"{self.method} {self.path}"
