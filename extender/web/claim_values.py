"""What is asked of claiming and what it says: values and refusals, without HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from extender.model import Pod, PodClaim, SkipReason
from extender.policy.claims import Claimant, PoolClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """A claim that is asked for. ``is_awaited`` says whether somebody still waits for the answer.

    ``cache_key`` is the one that the caller named, None also where the pool goes by age alone.
    ``repeats``: the caller says that it may have asked before, anywhere. ``wait`` is how long it waits for a worker.
    """

    claimant: Claimant
    ttl: timedelta
    settings: PoolClaims
    is_awaited: Callable[[], bool] = lambda: True
    cache_key: str | None = None
    repeats: bool = False
    wait: timedelta = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A worker with its claim. ``is_new`` is False where the claimant held it already."""

    worker: Pod
    claim: PodClaim
    ip: str | None
    is_new: bool = False


class NothingToClaim(Exception):
    """No worker of the pool can be handed out. ``counts`` says why, by reason: empty where there is no worker.

    ``refused`` are those for which the API server takes no claim.
    """

    def __init__(self, counts: Mapping[SkipReason, int], refused: int = 0) -> None:
        super().__init__("no worker can be claimed")
        self.counts = counts
        self.refused = refused


class StillChanging(Exception):
    """Workers changed under each attempt: nothing is decided, the same request again is right."""


class ClockOff(Exception):
    """The clock here is off by what the text says: when claims end is not known, so none is made or prolonged."""


class NobodyWaits(Exception):
    """The caller has hung up, so nothing was claimed for it."""


class Stopping(Exception):
    """This process ends while the caller waits: nothing was claimed."""


class NoSuchClaim(Exception):
    """The claim is not the caller's, or is no more: it expired, was released, or its pod is gone."""


class WorkerEnds(Exception):
    """The worker of the claim is being deleted."""
