"""Workers that follow docs/workers.md, claimants that follow docs/claims.md, and whoever makes workers.

Owns who does what when, and what claimants were told. One asyncio loop runs all of it; what the pods are like it hears
from a watch. How many the Deployment has is `autoscaler`'s to say.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.experiment.traffic import Task
from scripts.tools.soak.asking import Asking
from scripts.tools.soak.facts import Record, Told
from scripts.tools.soak.invariants import PLAIN_SCHEDULER, WORKERS_SCHEDULER
from scripts.tools.soak.observer import POOL, POOL_LABEL
from scripts.tools.soak.stage import plain_pod, worker_pod
from scripts.tools.soak.timing import Timing

GIVE_UP_SECONDS = 30.0
PLAIN, PLAIN_SECONDS = "plain-", 2.5
TTL_SECONDS = 15
FOREIGN_EACH = 10
TENANTS = 8
LATE_SECONDS = 20.0
REMARK_SECONDS, REMARK_AT_ONCE = 1.0, 6
"""Workers that got no answer ask again, and not all at once."""
MOST_COMING = 16
"""Workers that are made at the same time, for work that finds none idle."""


@dataclass(slots=True)
class Worker:
    """One worker's own view of itself. ``is_marked`` None: nobody knows. ``lock``: it says one thing at a time.

    ``sure_at``: by then a removal that got no answer is done, or never will be: the mark is said once more.
    """

    name: str
    uid: str
    pool: str
    is_marked: bool | None = False
    is_busy: bool = False
    is_going: bool = False
    sure_at: float | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Crew:
    """Use it as an asynchronous context manager. ``most`` is how many workers it makes at most, at a time."""

    def __init__(self, asking: Asking, record: Record, timing: Timing, *, seed: int, most: int) -> None:
        self._asking, self._record, self._timing = asking, record, timing
        self._random = Random(f"{seed} crew")
        self._most = most
        self._numbers = itertools.count(1)
        self.workers: dict[str, Worker] = {}
        self._coming: set[str] = set()
        self._plain: set[str] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._holds: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.working = True
        self._has_begun = False

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in list(self._jobs):
            each.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    # What it is told

    def heard(self, kind: str, item: Json) -> None:
        """Take an event of a pod. In the loop."""
        name, uid = item["metadata"]["name"], item["metadata"]["uid"]
        if name.startswith(PLAIN):
            if kind != "DELETED" and item["spec"].get("nodeName") and name in self._plain:
                self._plain.discard(name)
                self._spawn(self._remove_plain(name))
            return
        if kind == "DELETED" or "deletionTimestamp" in item["metadata"]:
            if (gone := self.workers.pop(uid, None)) is not None:
                gone.is_going = True
            self._coming.discard(name)
            return
        if is_ready(item) and uid not in self.workers:
            self._coming.discard(name)
            worker = self.workers[uid] = Worker(name, uid, item["metadata"]["labels"][POOL_LABEL])
            self._spawn(self._be_idle(worker))

    def keep_only(self, uids: set[str]) -> None:
        """Know which pods there are, after a watch was interrupted. In the loop."""
        for uid in self.workers.keys() - uids:
            self.workers.pop(uid).is_going = True

    @property
    def busy(self) -> int:
        """Workers at work."""
        return sum(each.is_busy for each in self.workers.values())

    # What goes on

    async def begin(self, count: int) -> None:
        """Create so many workers."""
        for _ in range(count):
            await self._create_worker()
        self._has_begun = True

    async def work(self, tasks: Iterable[Task], pool: str = POOL) -> None:
        """Have the tasks done by workers of a pool as they arrive. Nobody claims a worker of the Deployment."""
        for task in tasks:
            await self._timing.until(task.at)
            if not self.working:
                return
            claims = pool == POOL and self._random.random() < 0.5
            self._spawn(self._claimed(task) if claims else self._handed(task, pool))

    async def compare(self) -> None:
        """Create a pod for each scheduler, again and again. They are deleted once bound. Ends by cancellation."""
        for number in itertools.count():
            for scheduler in (PLAIN_SCHEDULER, WORKERS_SCHEDULER):
                name = f"{PLAIN}{number}-{scheduler}"
                self._plain.add(name)
                if await self._asking.server("POST", self._asking.places.pods, plain_pod(name, scheduler)) is None:
                    self._plain.discard(name)
            await asyncio.sleep(PLAIN_SECONDS)

    async def remark(self) -> None:
        """Have workers that are not sure of their mark say it again. Ends by cancellation."""
        while True:
            await asyncio.sleep(REMARK_SECONDS)
            for worker in self.workers.values():
                if worker.sure_at is not None and self._timing.now() >= worker.sure_at and not worker.is_busy:
                    worker.is_marked, worker.sure_at = None, None
            unsure = [
                each
                for each in self.workers.values()
                if each.is_marked is not True and not each.is_busy and not each.lock.locked()
            ]
            for worker in unsure[:REMARK_AT_ONCE]:
                self._spawn(self._be_idle(worker))

    # Work

    async def _handed(self, task: Task, pool: str) -> None:
        """Have a job done by an idle worker, chosen by somebody who does not claim."""
        deadline = self._timing.now() + GIVE_UP_SECONDS
        while self._timing.now() < deadline and self.working:
            idle = [
                each
                for each in self.workers.values()
                if each.pool == pool and each.is_marked and not each.is_busy and not each.is_going
            ]
            if not idle and pool == POOL:
                await self._create_worker(task.model % TENANTS)
            elif idle and await self._try_work(self._random.choice(idle), task):
                return
            await asyncio.sleep(0.5)
        self.counts["jobsGivenUp"] += 1

    async def _claimed(self, task: Task) -> None:
        """Have a job done by a worker that is claimed for it."""
        deadline = self._timing.now() + GIVE_UP_SECONDS
        tries = 0
        while self._timing.now() < deadline and self.working:
            tries += 1
            claimant = f"job-{task.number}-{tries}"
            claim = await self._claim(claimant, task.model % TENANTS, deadline)
            if claim is None:
                continue
            worker = self.workers.get(claim["uid"])
            done = worker is not None and await self._hold(claim, worker, task)
            if worker is None:
                await self._give_back(claim, self._timing.now())
            if done:
                return
        self.counts["jobsGivenUp"] += 1

    async def _hold(self, claim: Json, worker: Worker, task: Task) -> bool:
        renewing = asyncio.create_task(self._renew(claim, max(task.work - TTL_SECONDS / 2, 0.0)))
        try:
            return await self._try_work(worker, task)
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            await self._give_back(claim, self._timing.now())

    async def _try_work(self, worker: Worker, task: Task) -> bool:
        """Remove the mark, and work if the answer is good: whether it did. It is idle again afterwards."""
        if worker.is_busy or worker.is_going or worker.lock.locked():
            return False
        async with worker.lock:
            worker.is_marked = None
            status, _ = await self._asking.replica("DELETE", self._asking.places.mark_of(worker.name))
            if status != 200:
                self.counts[f"refused{status}"] += 1
                worker.sure_at = self._timing.now() + LATE_SECONDS
                return False
            worker.is_marked = False
            worker.is_busy = True
        self.counts["jobs"] += 1
        try:
            await asyncio.sleep(task.work)
        finally:
            worker.is_busy = False
        await self._be_idle(worker)
        return True

    async def _be_idle(self, worker: Worker) -> None:
        async with worker.lock:
            if worker.is_busy or worker.is_going or worker.is_marked:
                return
            worker.is_marked = None
            status, _ = await self._asking.replica("PUT", self._asking.places.mark_of(worker.name))
            self.counts[f"marked{status}"] += 1
            if status == 200:
                worker.is_marked = True

    # Claims

    async def _claim(self, claimant: str, tenant: int, deadline: float) -> Json | None:
        body = {"claimant": claimant, "ttl": f"{TTL_SECONDS}s", "cacheKey": f"tenant-{tenant}"}
        is_again = False
        while self._timing.now() < deadline:
            status, answer = await self._asking.replica("POST", f"/v1/pools/{POOL}/claims", {**body, "retry": is_again})
            self.counts[f"claimed{status}"] += 1
            if status in (200, 201) and answer is not None:
                answer["told"] = self._timing.now()
                answer["ends"] = self._timing.of(datetime.fromisoformat(answer["expires"]))
                self._holds[claimant] = answer["id"]
                return answer
            if status == 404:
                await self._create_worker(tenant)
            is_again = is_again or status != 404
            await asyncio.sleep((0.3 if status == 404 else 1.0) * (1 + self._random.random()))
        return None

    async def _renew(self, claim: Json, until: float) -> None:
        for _ in range(int(until // (TTL_SECONDS / 3)) + 1):
            await asyncio.sleep(TTL_SECONDS / 3)
            status, answer = await self._asking.replica("PUT", f"/v1/pools/{POOL}/claims/{claim['id']}", {})
            self.counts[f"renewed{status}"] += 1
            if status == 200 and answer is not None:
                claim["ends"] = max(claim["ends"], self._timing.of(datetime.fromisoformat(answer["expires"])))

    async def _give_back(self, claim: Json, at: float) -> None:
        """Release a claim; whatever comes of it, the worker is not used under it after ``at``."""
        told = Told(
            at=claim["told"],
            until=min(at, claim["ends"]),
            claimant=claim["claimant"],
            pod=claim["pod"],
            uid=claim["uid"],
        )
        self._record.add(told)
        self._holds.pop(claim["claimant"], None)
        for _ in range(3):
            status, _ = await self._asking.replica("DELETE", f"/v1/pools/{POOL}/claims/{claim['id']}")
            self.counts[f"released{status}"] += 1
            if status in (204, 404):
                return
            await asyncio.sleep(1)

    # Pods

    async def _create_worker(self, tenant: int | None = None) -> None:
        own = sum(each.pool == POOL for each in self.workers.values())
        if own + len(self._coming) >= self._most or (self._has_begun and len(self._coming) >= MOST_COMING):
            return
        number = next(self._numbers)
        name = f"worker-{number:06}"
        self._coming.add(name)
        tenant = self._random.randrange(TENANTS) if tenant is None else tenant
        pod = worker_pod(name, tenant, is_foreign=number % FOREIGN_EACH == 0)
        if await self._asking.server("POST", self._asking.places.pods, pod) is None:
            self._coming.discard(name)
        else:
            self.counts["workers"] += 1

    async def _remove_plain(self, name: str) -> None:
        await self._asking.server("DELETE", f"{self._asking.places.pods}/{name}?gracePeriodSeconds=0", None)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._jobs.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.counts["crewErrors"] += 1
            print(f"crew: {task.exception()!r}")
