"""How the experiment gives work to workers: in virtual time, without a cluster."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable

import pytest

from scripts.tools.experiment.arms import ARMS, Arm
from scripts.tools.experiment.jobs import Jobs
from scripts.tools.experiment.loop import Loop, Stopped
from scripts.tools.experiment.record import PodRecord
from scripts.tools.experiment.traffic import Task
from scripts.tools.experiment.workers import Replicas, Sessions
from scripts.tools.experiment.workloads import FLOOR, IDLE_SECONDS, SCALE_DOWN_SECONDS, SPARE


class VirtualLoop(Loop):
    """A loop whose time passes at once."""

    def __init__(self) -> None:
        super().__init__(0.0, threading.Event())
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def run(self, until: float) -> None:
        while self._timed and self._timed[0][0] <= until:
            self.time, _, action = heapq.heappop(self._timed)
            action()
        self.time = until


class FakeScene:
    """Pods that exist on paper. ``taken`` are going away although nobody was told yet."""

    def __init__(self) -> None:
        self.pods: list[str] = []
        self.deleted: list[str] = []
        self.idle: set[str] = set()
        self.taken: set[str] = set()
        self.sizes: list[int] = []
        self.oldest = ""

    def create_pod(self, name: str, tenant: int | None = None) -> None:
        self.pods.append(name)

    def delete_pod(self, name: str) -> None:
        self.deleted.append(name)

    def mark_idle(self, name: str) -> None:
        self.idle.add(name)

    def remove_mark(self, name: str) -> bool:
        self.idle.discard(name)
        return name not in self.taken

    def preferred(self, nodes: Iterable[str]) -> str | None:
        return self.oldest if self.oldest in nodes else None

    def scale(self, replicas: int) -> None:
        self.sizes.append(replicas)


def task(number: int, at: float = 0.0, duration: float = 10.0) -> Task:
    return Task(number=number, at=at, duration=duration, tenant=0)


def ready(name: str, node: str = "node") -> PodRecord:
    return PodRecord(name=name, added=0, node=node, bound=0, ready=0)


def going(name: str, node: str = "node") -> PodRecord:
    return PodRecord(name=name, added=0, node=node, bound=0, ready=0, deleting=1)


class Sketch:
    """One driver of sessions in virtual time."""

    def __init__(self, *tasks: Task, arm: str | Arm = "default") -> None:
        self.loop, self.scene = VirtualLoop(), FakeScene()
        found = ARMS[arm] if isinstance(arm, str) else arm
        self.sessions = Sessions(self.loop, self.scene, found, tasks, seed=1)

    def heard(self, pod: PodRecord) -> None:
        self.sessions.heard(pod)

    def where(self) -> list[tuple[int, str, bool]]:
        return [(each.task, each.pod, each.done) for each in self.sessions.attempts]


def test_session_without_an_idle_worker_makes_one_and_starts_there() -> None:
    """One worker for each session that waits, and no more while they come."""
    sketch = Sketch(task(1), task(2))
    sketch.loop.run(1)
    assert sketch.scene.pods == ["worker-1", "worker-2"]
    sketch.heard(ready("worker-2"))
    sketch.heard(ready("worker-1"))
    sketch.loop.run(20)
    assert sketch.where() == [(1, "worker-2", True), (2, "worker-1", True)]
    assert sketch.scene.idle == {"worker-1", "worker-2"}


def test_session_takes_an_idle_worker_and_its_mark_goes_first() -> None:
    """No worker is made while one is idle; a busy one has no mark."""
    sketch = Sketch(task(1), task(2, at=15))
    sketch.loop.run(1)
    sketch.heard(ready("worker-1"))
    sketch.loop.run(16)
    assert sketch.scene.pods == ["worker-1"]
    assert sketch.scene.idle == set()
    assert sketch.where() == [(1, "worker-1", True), (2, "worker-1", False)]


def test_worker_that_is_being_taken_away_refuses() -> None:
    """The answer to the removal of the mark says so: the session goes on to another worker, and is not interrupted."""
    sketch = Sketch(task(1), task(2, at=15))
    sketch.loop.run(1)
    sketch.heard(ready("worker-1"))
    sketch.loop.run(14)
    sketch.scene.taken.add("worker-1")
    sketch.loop.run(16)
    assert sketch.sessions.refusals == 1
    assert sketch.scene.pods == ["worker-1", "worker-2"]
    assert [each.task for each in sketch.sessions.attempts] == [1]


def test_session_that_loses_its_worker_is_first_in_line_again() -> None:
    """It starts from the beginning, before those that came later; what it had is one attempt that was not done."""
    sketch = Sketch(task(1), task(2, at=5))
    sketch.loop.run(1)
    sketch.heard(ready("worker-1"))
    sketch.loop.run(6)
    sketch.heard(going("worker-1"))
    sketch.heard(ready("worker-2"))
    sketch.loop.run(7)
    assert sketch.where() == [(1, "worker-1", False), (1, "worker-2", False)]
    assert sketch.sessions.attempts[0].ended == 6
    assert sketch.sessions.waiting == 1


def test_arm_with_the_claim_rule_uses_the_oldest_node() -> None:
    """warmnode is asked which node comes first; where it will not say, the worker used last is taken."""
    for oldest, expected in (("old", "worker-1"), ("", "worker-2")):
        sketch = Sketch(task(1), task(2), task(3, at=50), arm="warmnode")
        sketch.loop.run(1)
        sketch.heard(ready("worker-1", "old"))
        sketch.loop.run(2)
        sketch.heard(ready("worker-2", "new"))
        sketch.scene.oldest = oldest
        sketch.loop.run(51)
        assert sketch.where()[-1] == (3, expected, False)


def test_pool_without_warmnode_deletes_those_idle_longest_down_to_the_floor() -> None:
    """Only what is idle for long enough; with warmnode nothing is deleted by the pool."""
    for arm, expected in (("default", ["worker-1", "worker-2"]), ("warmnode", [])):
        sketch = Sketch(*(task(number, duration=number) for number in range(1, FLOOR + 3)), arm=arm)
        sketch.loop.run(0.5)
        for name in list(sketch.scene.pods):
            sketch.heard(ready(name))
        sketch.loop.run(IDLE_SECONDS)
        assert sketch.scene.deleted == []
        sketch.loop.run(3 * IDLE_SECONDS)
        assert sketch.scene.deleted == expected


def test_autoscaler_goes_up_at_once_and_down_after_a_while() -> None:
    """As many as run and wait, and the spare ones."""
    loop, scene = VirtualLoop(), FakeScene()
    driver = Replicas(loop, scene, ARMS["default"], [task(number, at=1) for number in range(3)], seed=1)
    loop.run(6)
    assert scene.sizes == [SPARE, SPARE + 3]
    for number in range(3):
        driver.heard(ready(f"replica-{number}"))
    loop.run(10 + SCALE_DOWN_SECONDS)
    assert scene.sizes == [SPARE, SPARE + 3]
    loop.run(30 + SCALE_DOWN_SECONDS)
    assert scene.sizes == [SPARE, SPARE + 3, SPARE]


def test_job_that_loses_its_pod_starts_again_in_a_new_one() -> None:
    """A job that ended by itself does not."""
    loop, scene = VirtualLoop(), FakeScene()
    jobs = Jobs(loop, scene, [task(1), task(2)])
    loop.run(1)
    jobs.heard(ready("job-1-1"))
    jobs.heard(ready("job-2-1"))
    loop.run(5)
    jobs.heard(going("job-1-1"))
    assert scene.pods == ["job-1-1", "job-2-1", "job-1-2"]
    loop.run(12)
    jobs.heard(going("job-2-1"))
    jobs.heard(ready("job-1-2"))
    loop.run(30)
    assert [(each.pod, each.done) for each in jobs.attempts] == [
        ("job-1-1", False),
        ("job-2-1", True),
        ("job-1-2", True),
    ]
    assert scene.deleted == ["job-2-1", "job-1-2"]


@pytest.mark.parametrize("wake", [lambda loop, stop: stop.set(), lambda loop, stop: loop.hear(stop.set)])
def test_loop_ends_when_it_is_asked_to(wake: Callable[[Loop, threading.Event], None]) -> None:
    """A run that is stopped is no run: it says so, and does not wait for its end."""
    stop = threading.Event()
    loop = Loop(time.monotonic(), stop)
    wake(loop, stop)
    with pytest.raises(Stopped):
        loop.run(60)


def test_loop_does_things_in_the_order_of_their_times() -> None:
    """Whatever the order in which they were asked for; what is repeated goes on."""
    loop, done = VirtualLoop(), list[str]()
    loop.at(3, lambda: done.append("three"))
    loop.every(2, lambda: done.append("every two"))
    loop.at(1, lambda: done.append("one"))
    loop.run(4.5)
    assert done == ["one", "every two", "three", "every two"]
