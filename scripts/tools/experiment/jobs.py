"""Short jobs: each task is a bare pod of its own, which is deleted when its time is over. How
long that is is known when it starts: by then its node has the model, or has to fetch it.

A job whose pod goes away under it starts again from the beginning, in a new pod.
"""

from __future__ import annotations

from collections.abc import Iterable

from scripts.tools.experiment.caches import NodeCaches
from scripts.tools.experiment.loop import Loop
from scripts.tools.experiment.record import Attempt, PodRecord
from scripts.tools.experiment.scene import Scene
from scripts.tools.experiment.traffic import Task


class Jobs:
    """Drives one run of jobs. `attempts` is what happened."""

    def __init__(self, loop: Loop, scene: Scene, caches: NodeCaches, tasks: Iterable[Task]) -> None:
        self._loop, self._scene, self._caches = loop, scene, caches
        self._waiting: dict[str, Task] = {}
        self._running: dict[str, tuple[Task, Attempt]] = {}
        self._tries: dict[int, int] = {}
        self.attempts: list[Attempt] = []
        self.refusals = 0
        for task in tasks:
            loop.at(task.at, lambda task=task: self._create(task))  # type: ignore[misc]

    @property
    def waiting(self) -> list[tuple[int, float]]:
        """Tasks that have not started, or not again: number and arrival."""
        return [(task.number, task.at) for task in self._waiting.values()]

    def heard(self, pod: PodRecord) -> None:
        """Take note of a pod: it starts its task when it is Ready, and loses it when it goes away."""
        task = self._waiting.get(pod.name)
        running = self._running.get(pod.name)
        if task is not None and pod.deleting is None and pod.deleted is None:
            if pod.ready is not None and pod.node is not None:
                self._start(pod, self._waiting.pop(pod.name))
        elif task is not None:
            self._create(self._waiting.pop(pod.name))
        elif running is not None and (pod.deleting is not None or pod.deleted is not None):
            del self._running[pod.name]
            task, attempt = running
            attempt.ended = self._loop.now()
            self._create(task)

    def _create(self, task: Task) -> None:
        tries = self._tries[task.number] = self._tries.get(task.number, 0) + 1
        name = f"job-{task.number}-{tries}"
        self._waiting[name] = task
        self._scene.create_pod(name, task.model)

    def _start(self, pod: PodRecord, task: Task) -> None:
        now = self._loop.now()
        attempt = self._caches.start(task, now, node=str(pod.node), pod=pod.name)
        self.attempts.append(attempt)
        self._running[pod.name] = task, attempt
        self._loop.at(now + attempt.seconds, lambda: self._end(pod.name))

    def _end(self, name: str) -> None:
        _, attempt = self._running.pop(name, (None, None))
        if attempt is not None:
            attempt.ended, attempt.done = self._loop.now(), True
            self._scene.delete_pod(name)
