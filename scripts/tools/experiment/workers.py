"""Workers that live longer than a task: the tasks wait in one line, and each goes to an idle worker.

Owns who gets which task, and the rule for workers: the idle mark is removed before work is accepted, and the work is
refused where the answer says that the pod is being deleted. Where the workers come from, and who takes them away, is in
`Sessions` (bare pods, made when none is idle) and `Replicas` (a Deployment that an autoscaler sizes).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from scripts.tools.experiment.arms import Arm, Claim
from scripts.tools.experiment.caches import NodeCaches
from scripts.tools.experiment.loop import Loop
from scripts.tools.experiment.record import Attempt, PodRecord
from scripts.tools.experiment.scene import Scene
from scripts.tools.experiment.traffic import Task
from scripts.tools.experiment.workloads import (
    FLOOR,
    IDLE_SECONDS,
    REAP_SECONDS,
    SCALE_DOWN_SECONDS,
    SCALE_SECONDS,
    SPARE,
)

CLAIM_SECONDS = 1.0
"""How long a session waits for an idle worker to be handed out before another one is made."""
ASK_AGAIN_SECONDS = 0.05


@dataclass(slots=True, kw_only=True)
class Worker:
    """A Ready worker. ``idle_since`` is None while it is busy; for one that has not worked yet it is the Ready time."""

    name: str
    node: str
    idle_since: float | None
    attempt: Attempt | None = None
    task: Task | None = None


class Workers:
    """Gives tasks to workers. `attempts` is what happened."""

    def __init__(self, loop: Loop, scene: Scene, caches: NodeCaches, claim: Claim, tasks: Iterable[Task]) -> None:
        self._loop, self._scene, self._caches, self._claim = loop, scene, caches, claim
        self._random = Random("claims")
        self._line: deque[Task] = deque()
        self._ready: dict[str, Worker] = {}
        self._known: set[str] = set()
        self.attempts: list[Attempt] = []
        self.refusals = 0
        for task in tasks:
            loop.at(task.at, lambda task=task: self._arrive(task))  # type: ignore[misc]

    @property
    def waiting(self) -> list[tuple[int, float]]:
        """Tasks that have not started, or not again: number and arrival."""
        return [(task.number, task.at) for task in self._line]

    def heard(self, pod: PodRecord) -> None:
        """Take note of a pod: a Ready one can work; one that goes away loses its task, which is first in line again."""
        if pod.deleting is not None or pod.deleted is not None:
            self._lose(pod.name)
        elif pod.ready is not None and pod.node is not None and pod.name not in self._known:
            self._known.add(pod.name)
            worker = self._ready[pod.name] = Worker(name=pod.name, node=pod.node, idle_since=self._loop.now())
            self._joined(pod.name)
            self._offer(worker)

    def _joined(self, name: str) -> None:
        """A worker became Ready."""

    def _short(self) -> None:
        """Tasks wait and no worker is idle."""

    def _offer(self, worker: Worker) -> None:
        """A worker is idle: it is marked so unless it gets what waits."""
        self._dispatch()
        self._mark(worker)

    def _arrive(self, task: Task) -> None:
        self._line.append(task)
        self._dispatch()

    def _idle(self) -> list[Worker]:
        return [worker for worker in self._ready.values() if worker.attempt is None]

    def _dispatch(self) -> None:
        while self._line:
            idle = self._idle()
            if not idle:
                self._short()
                return
            worker = self._choose(idle, self._line[0])
            if worker is None:
                return
            if self._scene.remove_mark(worker.name):
                self._start(worker, self._line.popleft())
            else:  # it was just being taken away: its end will be heard of
                self.refusals += 1
                self._lose(worker.name)

    def _choose(self, idle: list[Worker], task: Task) -> Worker | None:
        """Choose by the arm's rule; between those used last at the same time by name. None: not now."""
        if self._claim is Claim.RANDOM:
            return self._random.choice(idle)
        return max(idle, key=lambda worker: (worker.idle_since or 0.0, worker.name))

    def _start(self, worker: Worker, task: Task) -> None:
        now = self._loop.now()
        attempt = worker.attempt = self._caches.start(task, now, node=worker.node, pod=worker.name)
        worker.task, worker.idle_since = task, None
        self.attempts.append(attempt)
        self._loop.at(now + attempt.seconds, lambda: self._end(worker, attempt))

    def _end(self, worker: Worker, attempt: Attempt) -> None:
        if worker.attempt is not attempt:
            return  # it lost its worker before
        attempt.ended, attempt.done = self._loop.now(), True
        worker.attempt, worker.task, worker.idle_since = None, None, self._loop.now()
        self._offer(worker)

    def _mark(self, worker: Worker) -> None:
        if worker.attempt is None and worker.name in self._ready:
            self._scene.mark_idle(worker.name)

    def _lose(self, name: str) -> None:
        self._known.add(name)
        worker = self._ready.pop(name, None)
        if worker is None or worker.attempt is None or worker.task is None:
            return
        worker.attempt.ended = self._loop.now()
        self._line.appendleft(worker.task)
        worker.attempt = worker.task = None
        self._dispatch()


class Sessions(Workers):
    """Bare workers, made for sessions that find none idle. The pool, or `warmnode reap`, takes the idle ones away.

    In an arm that claims by key `warmnode serve` says who gets a session. It may know of an idle worker a moment later
    than we do, and never hands one out whose node is leaving: it is asked again, and after a second more are made.
    """

    def __init__(self, loop: Loop, scene: Scene, caches: NodeCaches, arm: Arm, tasks: Iterable[Task]) -> None:
        super().__init__(loop, scene, caches, arm.claim, tasks)
        self._made = 0
        self._coming: set[str] = set()
        self._claims: dict[str, str] = {}
        self._asks_again = False
        if not arm.reaper:
            loop.every(REAP_SECONDS, self._reap)

    def _choose(self, idle: list[Worker], task: Task) -> Worker | None:
        if self._claim is not Claim.BY_KEY:
            return super()._choose(idle, task)
        claim = self._scene.claim(f"session-{task.number}", task.model)
        if claim is not None:
            worker = self._ready.get(claim.pod)
            if worker is not None and worker.attempt is None:
                self._claims[worker.name] = claim.id
                return worker
            self._scene.release(claim.id)  # it went just now
        if self._loop.now() - task.at > CLAIM_SECONDS:
            self._short()
        if not self._asks_again:
            self._asks_again = True
            self._loop.at(self._loop.now() + ASK_AGAIN_SECONDS, self._ask_again)
        return None

    def _ask_again(self) -> None:
        self._asks_again = False
        self._dispatch()

    def _offer(self, worker: Worker) -> None:
        """Where workers are handed out, one without a mark is not."""
        if self._claim is not Claim.BY_KEY:
            super()._offer(worker)
            return
        self._mark(worker)
        if claim := self._claims.pop(worker.name, None):
            self._scene.release(claim)
        self._dispatch()

    def _short(self) -> None:
        while len(self._coming) < len(self._line):
            self._made += 1
            name = f"worker-{self._made}"
            self._coming.add(name)
            self._scene.create_pod(name)

    def _joined(self, name: str) -> None:
        self._coming.discard(name)

    def _lose(self, name: str) -> None:
        self._coming.discard(name)
        self._claims.pop(name, None)  # a claim goes with its pod
        super()._lose(name)

    def _reap(self) -> None:
        """What pools do by themselves: delete those idle longest, keep the floor."""
        now = self._loop.now()
        idle = sorted(self._idle(), key=lambda worker: (worker.idle_since or now, worker.name))
        for worker in idle[: max(0, len(idle) - FLOOR)]:
            if now - (worker.idle_since or now) > IDLE_SECONDS:
                del self._ready[worker.name]
                self._scene.delete_pod(worker.name)


class Replicas(Workers):
    """Replicas of a Deployment that take tasks from a queue. Nobody chooses who gets a task: an idle one takes it.

    The autoscaler wants a replica for each task that runs or waits, and some spare ones. It goes up at once, and down
    to the most that it wanted in the last while. Which replicas go is the ReplicaSet's choice.
    """

    def __init__(self, loop: Loop, scene: Scene, caches: NodeCaches, tasks: Iterable[Task]) -> None:
        super().__init__(loop, scene, caches, Claim.RANDOM, tasks)
        self._wanted: deque[tuple[float, int]] = deque()
        self._replicas = 0
        self._scale()
        loop.every(SCALE_SECONDS, self._scale)

    def _scale(self) -> None:
        now = self._loop.now()
        running = sum(worker.attempt is not None for worker in self._ready.values())
        self._wanted.append((now, running + len(self._line) + SPARE))
        while self._wanted[0][0] < now - SCALE_DOWN_SECONDS:
            self._wanted.popleft()
        replicas = max(wanted for _, wanted in self._wanted)
        if replicas != self._replicas:
            self._replicas = replicas
            self._scene.scale(replicas)
