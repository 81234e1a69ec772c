"""Tells whether a scheduler calls: a Lease for everybody who asks, a metric for alerts.

All replicas share one Lease, written at most once a minute whatever their number. A standby scheduler's replica is
never called, so silence is judged by what the Lease says of all of them. Nothing here can hurt an answer: what cannot
be written is a metric and one line in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from extender.clock import Clock, Moment, Steady
from extender.kube.errors import Conflict, Forbidden, KubeError
from extender.kube.webhook_lease import WebhookLease, webhook_record_from
from extender.logs import fields
from extender.model import Pod
from extender.policy.scheduler_silence import (
    SILENCE,
    HandshakeFailure,
    Refusal,
    WebhookRecord,
    is_not_called,
    more_telling,
    should_have_called,
)
from extender.telemetry import Metrics

log = logging.getLogger("warmnode.calls")

LOOK = timedelta(seconds=15)
WRITE_INTERVAL = timedelta(minutes=1)
CLOCK_TOLERANCE = timedelta(seconds=30)


@dataclass(slots=True, eq=False)
class CallWatch:
    """Counts on `called` at each call, `refused` at each failed handshake and `bound` at each worker; `run` keeps the
    Lease and the metric.

    ``schedulable_nodes`` counts nodes that a worker could be scored on; ``schedulers`` names those that should call.
    """

    lease: WebhookLease
    identity: str
    version: str
    metrics: Metrics
    schedulers: Callable[[], frozenset[str]]
    schedulable_nodes: Callable[[], int]
    clock: Clock
    certificate_ends: Callable[[], datetime | None] = lambda: None
    _began: Steady = field(init=False)
    _last_call: datetime | None = field(default=None, init=False)
    _last_call_anywhere: datetime | None = field(default=None, init=False)
    _told_of: datetime | None = field(default=None, init=False)
    _called: Steady | None = field(default=None, init=False)
    _last_refusal: Refusal | None = field(default=None, init=False)
    _last_bound: Steady | None = field(default=None, init=False)
    _wake: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _told: str | None = field(default=None, init=False)
    _is_silent: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._began = self.clock.steady()
        self.metrics.webhook_last_call.set_function(lambda: self._last_call.timestamp() if self._last_call else 0.0)

    def called(self) -> None:
        """Take note of a call. The first one after a silence is written down at once."""
        before, now = self._called, self.clock.steady()
        self._called, self._last_call = now, self.clock.now()
        if before is None or now - before > SILENCE:
            self._wake.set()

    def refused(self, failure: HandshakeFailure) -> None:
        """Take note of a caller that came no further than the TLS handshake. The first one is written down at once."""
        if failure is HandshakeFailure.OTHER:
            return  # anybody's noise: the metric has it
        known, refusal = self._last_refusal, Refusal(self.clock.now(), failure)
        self._last_refusal = more_telling(known, refusal)
        if known is None or refusal.at - known.at > SILENCE:
            self._wake.set()

    def bound(self, worker: Pod) -> None:
        if should_have_called(worker, self.schedulers()):
            self._last_bound = self.clock.steady()

    async def run(self) -> None:
        """Look every 15 s, for ever. Ends only by cancellation."""
        while True:
            try:
                await self.look()
            except Exception:  # nobody needs this to serve
                self.metrics.webhook_lease_writes.labels("failed").inc()
                log.exception("the record of calls failed")
            try:
                async with asyncio.timeout(LOOK.total_seconds()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def look(self) -> None:
        """Read what all replicas know, write what they do not, and judge."""
        problem = await self._share()
        if problem is not None and problem != self._told:
            log.warning("the Lease with the last call is not kept; doctor cannot see it", extra=fields(problem=problem))
        self._told = problem
        silent = is_not_called(
            last_call=self._called,
            last_bound=self._last_bound,
            watching_since=self._began,
            schedulable_nodes=self.schedulable_nodes(),
            now=self.clock.steady(),
        )
        self.metrics.webhook_not_called.set(silent)
        if silent and not self._is_silent:
            log.error(
                "workers are placed and no scheduler calls: compare its configuration with warmnode doctor",
                extra=fields(
                    last_call=self._last_call_anywhere or self._last_call, schedulers=sorted(self.schedulers())
                ),
            )
        self._is_silent = silent

    async def _share(self) -> str | None:
        """Read and write the Lease; None where it is as it should be, else what stands in the way.

        Times to come were written by a clock that is wrong, and count as none: they would hide any silence for so long.
        With a clock that is off here the times in the Lease mean nothing, and none is written.
        """
        try:
            stored = await self.lease.read()
            if self.clock.is_off:
                return f"the clock here is {self.clock.told_off}"
            now = self.clock.moment()
            limit = now.now + CLOCK_TOLERANCE
            self._last_call_anywhere = _latest(limit, self._last_call_anywhere, self._last_call)
            if self._last_refusal is not None and self._last_refusal.at > limit:
                self._last_refusal = None
            known = None if stored is None else webhook_record_from(stored)
            if known is not None:
                self._last_call_anywhere = _latest(limit, self._last_call_anywhere, known.last_call)
                self._hear_of(known.last_call, now)
                if known.last_refusal is not None and known.last_refusal.at <= limit:
                    self._last_refusal = more_telling(self._last_refusal, known.last_refusal)
            if self._is_due(known):
                record = WebhookRecord(
                    holder=self.identity,
                    version=self.version,
                    written=self.clock.now(),
                    last_call=self._last_call_anywhere,
                    last_refusal=self._last_refusal,
                    certificate_ends=self.certificate_ends(),
                )
                await self.lease.write(record, stored)
                self.metrics.webhook_lease_writes.labels("written").inc()
        except Conflict:  # another replica wrote: that is as good
            self.metrics.webhook_lease_writes.labels("conflict").inc()
        except KubeError as error:
            outcome = "forbidden" if isinstance(error, Forbidden) else "failed"
            self.metrics.webhook_lease_writes.labels(outcome).inc()
            return str(error)
        return None

    def _hear_of(self, call: datetime | None, now: Moment) -> None:
        """Take note of a call that the Lease tells of, once: how long ago it was is counted from then on."""
        if call is None or call == self._told_of or call > now.now + CLOCK_TOLERANCE:
            return
        self._told_of = call
        at = now.steady + min(call - now.now, timedelta(0))
        self._called = at if self._called is None else max(self._called, at)

    def _is_due(self, known: WebhookRecord | None) -> bool:
        """Say whether to write: there is none, none for a minute, or it lacks a call or the first refusal for long."""
        if known is None or known.written is None or abs(self.clock.now() - known.written) >= WRITE_INTERVAL:
            return True
        if self._is_news(known.last_call):
            return True
        theirs, ours = known.last_refusal, self._last_refusal
        return ours is not None and (theirs is None or ours.at - theirs.at > SILENCE)

    def _is_news(self, stored: datetime | None) -> bool:
        """Say whether our last call is a minute later than the one that is stored, or was not stored for a minute.

        A replica that is never called may always be the first to write, and does not know of it.
        """
        ours, now = self._last_call, self.clock.now()
        if ours is None or ours > now or (stored is not None and ours <= stored):
            return False
        return stored is None or max(ours - stored, now - ours) >= WRITE_INTERVAL


def _latest(limit: datetime, *times: datetime | None) -> datetime | None:
    """Find the latest time that is not after ``limit``, None where there is none."""
    return max((time for time in times if time is not None and time <= limit), default=None)
