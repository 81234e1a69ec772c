"""What an elector tells the outside: the protocol, and the log and the metrics that listen.

Owns the vocabulary of reports. Decides nothing.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Protocol

from extender.kube.errors import KubeError
from extender.logs import fields
from extender.telemetry import Metrics

log = logging.getLogger("warmnode.election")


class LossReason(StrEnum):
    """Why leadership ended."""

    DEADLINE = "deadline"
    """It was not renewed in time."""
    TAKEN = "taken"
    """The Lease names another holder."""
    RELEASED = "released"
    """It was given back."""


class ElectionObserver(Protocol):
    """Is told of changes, once each and never at each try. Called on the loop, so it must not block.

    ``leader_changed``: the Lease names another holder than before, empty for nobody. ``failed``: the Lease cannot be
    read or written, for another sort of reason than told before; it is tried again. ``recovered``: it can again.
    """

    def acquired(self) -> None: ...
    def lost(self, reason: LossReason) -> None: ...
    def leader_changed(self, identity: str) -> None: ...
    def failed(self, error: KubeError) -> None: ...
    def recovered(self) -> None: ...


class ElectionTelemetry:
    """Tells the metrics and the log what the elector sees: an `ElectionObserver`."""

    def __init__(self, metrics: Metrics, *, identity: str) -> None:
        self._metrics = metrics
        self._identity = identity
        metrics.leader.set(0)

    def acquired(self) -> None:
        self._metrics.leader.set(1)
        self._metrics.leader_changes.labels("acquired").inc()
        log.info("leading", extra=fields(identity=self._identity))

    def lost(self, reason: LossReason) -> None:
        self._metrics.leader.set(0)
        self._metrics.leader_changes.labels("lost").inc()
        level = logging.INFO if reason is LossReason.RELEASED else logging.WARNING
        log.log(level, "not leading any more", extra=fields(identity=self._identity, reason=reason))

    def leader_changed(self, identity: str) -> None:
        log.info("leader", extra=fields(leader=identity or "nobody"))

    def failed(self, error: KubeError) -> None:
        log.warning("the Lease cannot be read or written; trying again", extra=fields(problem=str(error)))

    def recovered(self) -> None:
        log.info("the Lease can be read and written again")
