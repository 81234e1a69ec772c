"""How the experiment gives work to workers: in virtual time, without a cluster."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

import pytest

from scripts.tools.experiment.arms import ARMS, Arm
from scripts.tools.experiment.caches import COLD_SECONDS, WARM_SECONDS, NodeCaches
from scripts.tools.experiment.jobs import Jobs
from scripts.tools.experiment.loop import Loop, Stopped
from scripts.tools.experiment.record import Attempt, PodRecord
from scripts.tools.experiment.scene import Claimed
from scripts.tools.experiment.traffic import Task
from scripts.tools.experiment.workers import CLAIM_SECONDS, Replicas, Sessions
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
        self.claims: list[Claimed | None] = []
        self.released: list[str] = []
        self.keys: list[int] = []
        self.pods: list[str] = []
        self.deleted: list[str] = []
        self.idle: set[str] = set()
        self.taken: set[str] = set()
        self.sizes: list[int] = []

    def create_pod(self, name: str, model: int | None = None) -> None:
        self.pods.append(name)

    def delete_pod(self, name: str) -> None:
        self.deleted.append(name)

    def mark_idle(self, name: str) -> None:
        self.idle.add(name)

    def remove_mark(self, name: str) -> bool:
        self.idle.discard(name)
        return name not in self.taken

    def claim(self, claimant: str, model: int) -> Claimed | None:
        self.keys.append(model)
        return self.claims.pop(0) if self.claims else None

    def release(self, claim: str) -> None:
        self.released.append(claim)

    def scale(self, replicas: int) -> None:
        self.sizes.append(replicas)


def task(number: int, at: float = 0.0, seconds: float = 10.0, model: int = 0) -> Task:
    """``seconds`` is what it takes where the model is there already."""
    return Task(number=number, at=at, work=seconds - WARM_SECONDS, model=model)


class WarmCaches(NodeCaches):
    """Every node has every model."""

    def start(self, task: Task, now: float, *, node: str, pod: str) -> Attempt:
        super().start(task, now, node=node, pod=pod)
        return super().start(task, now, node=node, pod=pod)


def ready(name: str, node: str = "node") -> PodRecord:
    return PodRecord(name=name, added=0, node=node, bound=0, ready=0)


def going(name: str, node: str = "node") -> PodRecord:
    return PodRecord(name=name, added=0, node=node, bound=0, ready=0, deleting=1)


class Sketch:
    """One driver of sessions in virtual time."""

    def __init__(self, *tasks: Task, arm: str | Arm = "default") -> None:
        self.loop, self.scene = VirtualLoop(), FakeScene()
        found = ARMS[arm] if isinstance(arm, str) else arm
        self.sessions = Sessions(self.loop, self.scene, WarmCaches(1), found, tasks)

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
    assert [number for number, _ in sketch.sessions.waiting] == [2]


def test_arm_that_claims_by_key_takes_the_worker_that_it_is_given() -> None:
    """The model is the key; the claim is given back when the session has ended and its worker is marked idle."""
    sketch = Sketch(task(1), task(2), task(3, at=50, model=7), arm="keyed")
    sketch.loop.run(0.5)
    sketch.loop.run(2)
    assert sketch.scene.pods == ["worker-1", "worker-2"]
    for name in ("worker-1", "worker-2"):
        sketch.scene.claims.append(Claimed(id=f"claim-{name}", pod=name))
        sketch.heard(ready(name))
    sketch.loop.run(49)
    assert sketch.scene.released == ["claim-worker-1", "claim-worker-2"]
    assert sketch.scene.idle == {"worker-1", "worker-2"}
    sketch.scene.claims.append(Claimed(id="claim-3", pod="worker-1"))
    sketch.loop.run(51)
    assert sketch.where()[-1] == (3, "worker-1", False)
    assert sketch.scene.keys[-1] == 7
    assert sketch.scene.deleted == []


def test_session_that_is_given_nobody_asks_again_and_then_gets_a_new_worker() -> None:
    """An idle worker on a leaving node is never handed out: a second is waited, no longer."""
    sketch = Sketch(task(1), task(2, at=20), arm="keyed")
    sketch.loop.run(1)
    sketch.scene.claims.append(Claimed(id="claim-1", pod="worker-1"))
    sketch.heard(ready("worker-1"))
    sketch.loop.run(20 + CLAIM_SECONDS / 2)
    asked = len(sketch.scene.keys)
    assert (asked > 3, sketch.scene.pods) == (True, ["worker-1"])
    sketch.loop.run(21 + CLAIM_SECONDS)
    assert sketch.scene.pods == ["worker-1", "worker-2"]


def test_worker_that_is_handed_out_but_gone_is_given_back() -> None:
    """The claim would be held for minutes, by nobody."""
    sketch = Sketch(task(1), task(2, at=20), arm="keyed")
    sketch.loop.run(1)
    sketch.scene.claims.append(Claimed(id="claim-1", pod="worker-1"))
    sketch.heard(ready("worker-1"))
    sketch.loop.run(19)
    sketch.scene.claims.append(Claimed(id="claim-2", pod="nobody"))
    sketch.loop.run(20.01)
    assert sketch.scene.released == ["claim-1", "claim-2"]


def test_pool_without_warmnode_deletes_those_idle_longest_down_to_the_floor() -> None:
    """Only what is idle for long enough; with warmnode nothing is deleted by the pool."""
    for arm, expected in (("default", ["worker-1", "worker-2"]), ("keyed", [])):
        sketch = Sketch(*(task(number, seconds=number) for number in range(1, FLOOR + 3)), arm=arm)
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
    driver = Replicas(loop, scene, WarmCaches(1), [task(number, at=1) for number in range(3)])
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
    jobs = Jobs(loop, scene, WarmCaches(1), [task(1), task(2)])
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


def test_job_takes_longer_where_its_model_has_to_be_fetched() -> None:
    """The first on a node misses, the second does not, and a third elsewhere does again; what it cost is noted."""
    loop, scene = VirtualLoop(), FakeScene()
    jobs = Jobs(loop, scene, NodeCaches(2), [task(1), task(2, at=30), task(3, at=60)])
    for number, at, node in ((1, 0, "a"), (2, 30, "a"), (3, 60, "b")):
        loop.run(at)
        jobs.heard(ready(f"job-{number}-1", node))
    loop.run(100)
    assert [(each.hit, each.loading) for each in jobs.attempts] == [
        (False, COLD_SECONDS),
        (True, WARM_SECONDS),
        (False, COLD_SECONDS),
    ]
    warm = 10.0
    lasted = [round(each.ended - each.started, 6) for each in jobs.attempts if each.ended is not None]
    assert lasted == [warm + COLD_SECONDS - WARM_SECONDS, warm, warm + COLD_SECONDS - WARM_SECONDS]


def test_job_that_starts_again_is_as_much_work_as_before() -> None:
    """What it lost in a miss is not part of it."""
    loop, scene = VirtualLoop(), FakeScene()
    jobs = Jobs(loop, scene, NodeCaches(2), [task(1)])
    loop.run(0)
    jobs.heard(ready("job-1-1", "a"))
    jobs.heard(going("job-1-1", "a"))
    jobs.heard(ready("job-1-2", "a"))
    loop.run(30)
    assert [(each.hit, each.work, each.done) for each in jobs.attempts] == [
        (False, 10 - WARM_SECONDS, False),
        (True, 10 - WARM_SECONDS, True),
    ]


def test_cache_of_a_node_forgets_the_model_that_was_used_longest_ago() -> None:
    """Two models fit: after a third the first is cold again, and the second still warm."""
    caches = NodeCaches(2)
    found = [caches.start(task(1, model=model), 0, node="a", pod="p").hit for model in (1, 2, 1, 3, 1, 2)]
    assert found == [False, False, True, False, True, False]


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


class MomentLoop(VirtualLoop):
    """A loop that waits in real time, for a moment that is over before it has begun to wait."""

    def now(self) -> float:
        self.time += 1e-6
        return self.time

    def run(self, until: float) -> None:
        Loop.run(self, until)


def test_loop_that_waits_for_a_moment_is_not_kept_waiting() -> None:
    """The time is up when it is up, and not when something is heard: in a run that has gone quiet that is never."""
    over = threading.Event()

    def moments() -> None:
        for _ in range(200):
            MomentLoop().run(2.5e-6)
        over.set()

    threading.Thread(target=moments, daemon=True).start()
    deadline = time.monotonic() + 20
    while not over.is_set() and time.monotonic() < deadline:
        sum(range(100))  # so that the waiting thread is late for its turn
    assert over.is_set()
