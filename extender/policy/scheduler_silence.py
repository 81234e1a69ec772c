"""Is a scheduler calling us? Owns when silence means that something is wrong.

A scheduler that does not call is the one failure that nothing else shows: pods are scheduled as without warmnode.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from extender.clock import Steady
from extender.model import Pod
from extender.policy.idleness import is_bound_to_its_node

SILENCE = timedelta(minutes=15)
"""So long without a call, while workers are placed, is no coincidence."""

EXPIRES_SOON = timedelta(days=14)
"""So long before its end a certificate should have been renewed."""


class HandshakeFailure(StrEnum):
    """Why a TLS connection to us did not come about. The values are a metric's labels, and stand in serve's Lease."""

    CERTIFICATE_REFUSED = "certificateRefused"
    NO_CLIENT_CERTIFICATE = "noClientCertificate"
    CLIENT_CERTIFICATE_REFUSED = "clientCertificateRefused"
    PLAIN_HTTP = "plainHttp"
    OTHER = "other"

    @property
    def meaning(self) -> str:
        """Say it in words, of "the caller"."""
        return _MEANINGS[self]


_MEANINGS = {
    HandshakeFailure.CERTIFICATE_REFUSED: "the caller does not accept warmnode's certificate",
    HandshakeFailure.NO_CLIENT_CERTIFICATE: "the caller shows no client certificate",
    HandshakeFailure.CLIENT_CERTIFICATE_REFUSED: "the caller's certificate is not of the client CA, or has expired",
    HandshakeFailure.PLAIN_HTTP: "the caller speaks plain HTTP",
    HandshakeFailure.OTHER: "the caller speaks no TLS that is understood",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A caller that came no further than the TLS handshake."""

    at: datetime
    failure: HandshakeFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRecord:
    """What the Lease of `warmnode serve` says.

    ``written`` is by the clock of ``holder``, ``last_call`` by that of the replica called; None: absent, or no time.
    Never called: ``last_call`` None. ``last_refusal`` is the last caller that came no further than the TLS handshake,
    by the same clock as ``last_call``. ``certificate_ends`` None: it listens without TLS, or does not say.
    """

    holder: str
    version: str
    written: datetime | None
    last_call: datetime | None
    last_refusal: Refusal | None = None
    certificate_ends: datetime | None = None


def more_telling(one: Refusal | None, other: Refusal | None) -> Refusal | None:
    """Choose between two refusals: the later one, but plain HTTP within 15 minutes of any other says less.

    A health check that speaks HTTP comes every few seconds, and must not hide the scheduler whose CA is wrong.
    """
    if one is None or other is None:
        return other if one is None else one
    earlier, later = sorted((one, other), key=lambda each: each.at)
    says_less = later.failure is HandshakeFailure.PLAIN_HTTP and earlier.failure is not HandshakeFailure.PLAIN_HTTP
    return earlier if says_less and later.at - earlier.at <= SILENCE else later


def should_have_called(worker: Pod, schedulers: frozenset[str]) -> bool:
    """A worker's scheduler should have called when it is one of ``schedulers``. DaemonSet pods have one node only."""
    return worker.scheduler in schedulers and not is_bound_to_its_node(worker)


def is_not_called(
    *,
    last_call: Steady | None,
    last_bound: Steady | None,
    watching_since: Steady,
    schedulable_nodes: int,
    now: Steady,
) -> bool:
    """Say whether a scheduler that should call does not.

    1. at least two nodes are schedulable: for one feasible node a scheduler asks nobody; 2. no replica was called for
    15 minutes, or none ever and we have watched for that long; 3. a worker was bound within them. ``last_bound`` counts
    only workers whose scheduler should have called.
    """
    if schedulable_nodes < 2 or last_bound is None:
        return False
    return now - (last_call or watching_since) >= SILENCE and now - last_bound <= SILENCE
