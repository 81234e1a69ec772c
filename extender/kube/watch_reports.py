"""What a reflector tells the outside: the protocol, and the values in it.

Owns the vocabulary of reports. Telemetry implements the protocol elsewhere; nothing here writes a log or a metric.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from extender.kube.errors import KubeError


class RelistReason(StrEnum):
    """Why a collection was listed again."""

    REQUESTED = "requested"
    EXPIRED = "expired"
    UNDECODABLE = "undecodable"
    BARREN = "barren"
    REAPPEARED = "reappeared"


class UndecodableObject(Exception):
    """One object that does not fit its struct, or that was refused when it was reduced to a value.

    ``key`` is its namespace/name, ``uid`` its UID; both are empty where not even its metadata can be read.
    """

    def __init__(self, key: str, uid: str, cause: Exception) -> None:
        super().__init__(f"{key or 'object without a name'}: {cause}")
        self.key = key
        self.uid = uid


class WatchObserver(Protocol):
    """Is told what a reflector sees; ``name`` is the reflector's. Called on the loop, so it must not block.

    ``listed``: a complete list of so many objects took so long. ``relisted``: it was not the first. ``watch_failed``: a
    list or a watch failed and will be retried; a missing collection is told once, not at each retry. ``undecodable``:
    an object was skipped, told once for each, until it changes to something that can be read. ``event``: an added,
    modified or deleted object came.
    """

    def listed(self, name: str, count: int, seconds: float) -> None: ...
    def relisted(self, name: str, reason: RelistReason) -> None: ...
    def watch_failed(self, name: str, error: KubeError) -> None: ...
    def undecodable(self, name: str, error: UndecodableObject) -> None: ...
    def event(self, name: str) -> None: ...


class NullObserver:
    """Listens and says nothing."""

    def listed(self, name: str, count: int, seconds: float) -> None: ...
    def relisted(self, name: str, reason: RelistReason) -> None: ...
    def watch_failed(self, name: str, error: KubeError) -> None: ...
    def undecodable(self, name: str, error: UndecodableObject) -> None: ...
    def event(self, name: str) -> None: ...
