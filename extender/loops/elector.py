"""Leads, or waits for its turn to lead: the loop around `policy.election`, one Lease, one elector in each process.

Owns the time-outs, the pauses, and when leadership begins and ends. Never dies of what an API server does: it contends
again for ever. Leadership is a comparison with the clock at each question, so a process that was stopped, or whose loop
was blocked, does not lead when it wakes up, whatever its timers know.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from random import Random
from typing import Never, Protocol, TypeVar

from extender.clock import Clock
from extender.kube.errors import Conflict, KubeError, Unavailable
from extender.kube.lease import StoredLease
from extender.loops.election_observer import ElectionObserver, LossReason
from extender.policy.election import (
    LeaseRecord,
    Sighting,
    next_record,
    released,
    sight,
    takeable_at_seconds,
)

T = TypeVar("T")

JITTER = 0.2
"""Share of the retry period by which a pause may be longer, so that replicas do not move in step."""


class Leases(Protocol):
    """The part of `kube.lease.LeaseStore` that an elector needs, with the same promises."""

    async def read(self) -> StoredLease | None: ...
    async def create(self, record: LeaseRecord) -> StoredLease: ...
    async def update(self, record: LeaseRecord, based_on: StoredLease) -> StoredLease: ...


@dataclass(slots=True, eq=False)
class LeaderElector:
    """Contends for one Lease. Make it inside a running loop, and keep a task in `run`.

    ``identity`` must be this process's alone, see `make_identity`. The steady time goes on while the process is
    stopped; the time of day only makes the times that people read.
    leaseDuration must be longer than renewDeadline, which the settings check.
    """

    store: Leases
    identity: str
    lease_duration: timedelta
    renew_deadline: timedelta
    retry_period: timedelta
    random: Random
    observer: ElectionObserver
    clock: Clock
    leader: str = field(default="", init=False)
    """Who holds the Lease as we last saw it, empty for nobody."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop, init=False)
    _seen: Sighting | None = field(default=None, init=False)
    _leads_until_seconds: float = field(default=-inf, init=False)
    _is_released: bool = field(default=False, init=False)
    _told_leading: bool = field(default=False, init=False)
    _end_timer: asyncio.TimerHandle | None = field(default=None, init=False)
    _told: type[KubeError] | None = field(default=None, init=False)

    @property
    def is_leader(self) -> bool:
        """True less than renewDeadline after the last successful renewal was sent. Ask again before each write."""
        return self.clock.steady().seconds < self._leads_until_seconds

    async def run(self) -> Never:
        """Contend for ever. Ends only by cancellation, which does not give the Lease back: see `release`."""
        while True:
            asked = await self._attempt()
            await asyncio.sleep(self._pause_seconds(asked))

    async def release(self) -> None:
        """Give the Lease back for others to take at once, if we hold it. Afterwards this elector never leads again.

        End the work, and cancel `run`, before. Takes at most a quarter of renewDeadline; where it fails the Lease runs
        out by itself. Raises no `KubeError`.
        """
        self._is_released = True
        self._end(LossReason.RELEASED)
        try:
            await self._bounded(self._give_back())
        except KubeError as error:
            self._tell_problem(error)

    # -- one attempt --------------------------------------------------------------------------------------------------

    async def _attempt(self) -> timedelta | None:
        """Contend once; give the pause that the server asks for, None where it does not."""
        try:
            await self._contend()
        except KubeError as error:
            self._tell_problem(error)
            return error.retry_after
        if self._told is not None:
            self._told = None
            self.observer.recovered()
        return None

    async def _contend(self) -> None:
        lease = await self._bounded(self.store.read())
        self._look_at(lease)
        if self._is_released or self.clock.steady().seconds < self._takeable_at_seconds:
            return
        record = next_record(
            None if lease is None else lease.record,
            identity=self.identity,
            lease_duration=self.lease_duration,
            now=self.clock.now(),
        )
        sent_seconds = self.clock.steady().seconds
        try:
            if lease is None:
                written = await self._bounded(self.store.create(record))
            else:
                written = await self._bounded(self.store.update(record, lease))
        except Conflict:
            return  # another was quicker, or deleted it: the next look shows
        self._lead(sent_seconds)
        self._look_at(written)

    async def _give_back(self) -> None:
        """Repeat what a last renewal of ours, still under way when `run` was cancelled, has made a Conflict of."""
        while (lease := await self.store.read()) is not None and lease.record.holder == self.identity:
            with suppress(Conflict):
                await self.store.update(released(lease.record, now=self.clock.now()), lease)
        self._look_at(lease)

    async def _bounded(self, call: Awaitable[T]) -> T:
        seconds = self.renew_deadline.total_seconds() / 4  # reading and writing may both hang, and leave one more try
        try:
            async with asyncio.timeout(seconds):
                return await call
        except TimeoutError as error:
            limit = f"{seconds:g} s"
            raise Unavailable(0, "Timeout", f"the API server gave no answer about the Lease for {limit}") from error

    def _pause_seconds(self, asked: timedelta | None) -> float:
        """A retry period and some jitter; less where the holder's term ends before, more where the server asks for it.

        What the server asks for counts up to half of renewDeadline: a leader must be able to renew.
        """
        retry = self.retry_period.total_seconds()
        pause = retry * (1 + JITTER * self.random.random())
        if asked is not None:
            return max(pause, min(asked, self.renew_deadline / 2).total_seconds())
        left = self._takeable_at_seconds - self.clock.steady().seconds
        return min(pause, max(left, retry / 10)) if left > 0 else pause

    @property
    def _takeable_at_seconds(self) -> float:
        return takeable_at_seconds(self._seen, identity=self.identity, lease_duration=self.lease_duration)

    # -- what changes -------------------------------------------------------------------------------------------------

    def _look_at(self, lease: StoredLease | None) -> None:
        self._seen = sight(self._seen, None if lease is None else lease.record, self.clock.steady().seconds)
        holder = "" if lease is None else lease.record.holder
        if holder not in ("", self.identity):
            self._end(LossReason.TAKEN)
        if holder != self.leader:
            self.leader = holder
            self.observer.leader_changed(holder)

    def _lead(self, sent_seconds: float) -> None:
        """The write that was sent at ``sent_seconds`` has succeeded."""
        self._notice_end()
        if self._is_released:
            return
        self._leads_until_seconds = sent_seconds + self.renew_deadline.total_seconds()
        if not self.is_leader:
            return  # the answer took too long
        self._set_timer()
        if not self._told_leading:
            self._told_leading = True
            self.observer.acquired()

    def _notice_end(self) -> None:
        if not self.is_leader:
            self._end(LossReason.DEADLINE)

    def _end(self, reason: LossReason) -> None:
        self._leads_until_seconds = -inf
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        if self._told_leading:
            self._told_leading = False
            self.observer.lost(reason)

    def _set_timer(self) -> None:
        """Tell of the end when it comes. The timer only tells: `is_leader` does not depend on it."""
        if self._end_timer is not None:
            self._end_timer.cancel()
        left = max(self._leads_until_seconds - self.clock.steady().seconds, 0.001)
        self._end_timer = self._loop.call_later(left, self._time_is_up)

    def _time_is_up(self) -> None:
        if self.is_leader:  # the loop's timer is a bit early, or its clock is not ours
            self._set_timer()
        else:
            self._end(LossReason.DEADLINE)

    def _tell_problem(self, error: KubeError) -> None:
        if type(error) is not self._told:
            self._told = type(error)
            self.observer.failed(error)


def make_identity(random: Random) -> str:
    """Name this process: the host's name, in a pod the pod's, and a random part: a restarted container keeps the name.

    ``random`` must not be seeded with a constant.
    """
    return f"{socket.gethostname()}_{random.getrandbits(40):010x}"
