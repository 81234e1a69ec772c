"""One Lease in memory, for electors: what an API server does with it, and what can go wrong on the way.

Owns no JSON: `LeaseStore` and these pass the same tests/contract/test_lease_contract.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import msgspec

from extender.kube.errors import Conflict, KubeError
from extender.kube.lease import StoredLease
from extender.policy.election import LeaseRecord


class Op(StrEnum):
    """The requests."""

    READ = "read"
    CREATE = "create"
    UPDATE = "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """What happens to one request. ``refusal``: it is not done; ``lost``: it is done, and the answer does not come.

    It is done ``before`` seconds after it was sent, also where the caller has given up by then, and the answer is there
    ``after`` seconds later.
    """

    before: float = 0.0
    after: float = 0.0
    refusal: KubeError | None = None
    lost: KubeError | None = None


CALM = Disturbance()
Script: TypeAlias = Callable[[Op], Disturbance]


class FakeLease:
    """The Lease itself. Whoever holds this is the API server, or an administrator with kubectl."""

    def __init__(self) -> None:
        self.stored: StoredLease | None = None
        self.writes: list[LeaseRecord] = []
        self._version = 0

    @property
    def record(self) -> LeaseRecord:
        """What it says. There must be one."""
        assert self.stored is not None
        return self.stored.record

    def write(self, record: LeaseRecord) -> StoredLease:
        """Write it, whatever it was before."""
        self._version += 1
        self.writes.append(record)
        self.stored = StoredLease(record=record, metadata=msgspec.Raw(b"%d" % self._version))
        return self.stored

    def touch(self) -> None:
        """Change its metadata only."""
        self.write(self.record)

    def delete(self) -> None:
        """Remove it."""
        self.stored = None


class FakeLeaseStore:
    """One process's way to the Lease. ``script`` is asked at each request what happens to it."""

    def __init__(self, lease: FakeLease, script: Script = lambda op: CALM) -> None:
        self.script = script
        self.requests: list[tuple[float, Op]] = []
        """What was sent, at the loop's time."""
        self.under_way: set[asyncio.Task[StoredLease | None]] = set()
        self._lease = lease

    async def read(self) -> StoredLease | None:
        return await self._send(Op.READ, lambda: self._lease.stored)

    async def create(self, record: LeaseRecord) -> StoredLease:
        def apply() -> StoredLease:
            if self._lease.stored is not None:
                raise Conflict(409, "AlreadyExists", "the Lease exists")
            return self._lease.write(record)

        return _given(await self._send(Op.CREATE, apply))

    async def update(self, record: LeaseRecord, based_on: StoredLease) -> StoredLease:
        def apply() -> StoredLease:
            if self._lease.stored is None or self._lease.stored.metadata != based_on.metadata:
                raise Conflict(409, "Conflict", "the Lease was changed")
            return self._lease.write(record)

        return _given(await self._send(Op.UPDATE, apply))

    async def _send(self, op: Op, apply: Callable[[], StoredLease | None]) -> StoredLease | None:
        self.requests.append((asyncio.get_running_loop().time(), op))
        task = asyncio.create_task(_serve(self.script(op), apply))
        self.under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[StoredLease | None]) -> None:
        self.under_way.discard(task)
        if not task.cancelled():
            task.exception()  # where the caller has given up, nobody else looks at it


async def _serve(disturbance: Disturbance, apply: Callable[[], StoredLease | None]) -> StoredLease | None:
    await asyncio.sleep(disturbance.before)
    if disturbance.refusal is not None:
        raise disturbance.refusal
    answer = apply()
    await asyncio.sleep(disturbance.after)
    if disturbance.lost is not None:
        raise disturbance.lost
    return answer


def _given(lease: StoredLease | None) -> StoredLease:
    assert lease is not None
    return lease
