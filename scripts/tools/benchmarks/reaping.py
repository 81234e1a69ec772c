"""What a pass of the reaper costs in a large cluster, and for how long it keeps a scheduler's call waiting.

The reaper of `warmnode reap` over a state of workers, without a network: evictions are granted at once by a stand-in.
Everything runs on one core.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from extender.cluster.state import ClusterState
from extender.kube.eviction import EvictionOutcome, EvictionResult, FreshPod
from extender.loops.evictions import Hands
from extender.loops.reaper import Reaper
from extender.model import AgeSource, Pod, Selector
from extender.policy.defaults import ReapRules
from extender.settings import PoolSettings
from extender.telemetry import Metrics
from scripts.tools.benchmarks import machine
from scripts.tools.benchmarks.figures import ratios, shown, spread
from scripts.tools.benchmarks.report import Report, Table, Target
from tests.builders import clock_of, node, worker

Note = Callable[[str], None]
POOL = "pool"
EVICTIONS = 50
FLOOR = 100
_STRIDE = 7919  # a prime: idle workers are spread over all nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    nodes: int
    workers: int
    passes: int
    rounds: int


FULL = Size(nodes=5000, workers=100_000, passes=3, rounds=5)
QUICK = Size(nodes=500, workers=10_000, passes=1, rounds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a pass finds. ``idle`` in per cent of the workers."""

    words: str
    idle: int
    floor: int = FLOOR


SCENES = (
    Scene(words="no worker is idle", idle=0),
    Scene(words="10 % are idle, 50 are evicted", idle=10),
    Scene(words="all are idle, 50 are evicted", idle=100),
    Scene(words="all are idle, the floor keeps them", idle=100, floor=1_000_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The mean of a round's passes, in milliseconds of CPU. ``longest``: without letting others run, of all passes."""

    look: float
    """A bare loop over all workers that reads two fields of each: what no pass can do without."""
    whole: float
    longest: float


def measure(size: Size, note: Note) -> Report:
    """Measure and report."""
    neighbours = machine.Neighbours()
    found: dict[Scene, list[Cost]] = {scene: [] for scene in SCENES}
    with machine.pinned(machine.cores().server):
        for turn in range(size.rounds):
            for scene in SCENES:
                found[scene].append(asyncio.run(_one(size, scene)))
            said = ", ".join(f"{costs[-1].whole:.0f} ms" for costs in found.values())
            note(f"round {turn + 1} of {size.rounds}: {said}")
    return _report(size, found, machine.conditions(neighbours=neighbours, versions={}, rounds=size.rounds))


async def _one(size: Size, scene: Scene) -> Cost:
    gc.collect()
    gc.freeze()  # as `warmnode` does when it starts
    state = _state(size, scene.idle)
    settings = PoolSettings(name="pool", reap=ReapRules(floor=scene.floor, max_per_pass=EVICTIONS))
    reaper = Reaper(
        state=state,
        hands=Hands(pods=_Granting(state), announcer=_Silent(), metrics=Metrics(), may_evict=lambda: True),
        clock=clock_of(_now),
        rules=lambda pool: settings,
    )
    await reaper.one_pass(POOL)
    look, whole, turns = 0.0, 0.0, _Turns()
    for _ in range(size.passes):
        began = time.thread_time()
        _look(state)
        look += time.thread_time() - began
        async with turns:
            began = time.thread_time()
            await reaper.one_pass(POOL)
            whole += time.thread_time() - began
    gc.unfreeze()
    return Cost(look=1000 * look / size.passes, whole=1000 * whole / size.passes, longest=1000 * turns.longest)


class _Turns:
    """Somebody else on the loop, who wants a turn all the time: the longest wait for one, in seconds of CPU."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._take())
        await asyncio.sleep(0)

    async def __aexit__(self, *exception: object) -> None:
        assert self._task is not None
        self._task.cancel()

    async def _take(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest, last = max(self.longest, now - last), now


class _Granting:
    """The API server's part: every pod is as the state has it, every eviction is granted."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state

    async def read(self, pod: Pod) -> FreshPod | None:
        await asyncio.sleep(0)
        return FreshPod(pod=self._state.pods[pod.uid], labels={})

    async def evict(self, pod: Pod) -> EvictionResult:
        await asyncio.sleep(0)
        return EvictionResult(outcome=EvictionOutcome.EVICTED)

    async def budget_selector(self, namespace: str, name: str) -> Selector | None:
        return None


class _Silent:
    async def evicted(self, pod: Pod, why: str) -> None: ...
    async def paused(self, pool: str, pod: Pod, why: str) -> None: ...


def _state(size: Size, idle: int) -> ClusterState:
    now = _now()
    state = ClusterState(clock=_now, age=AgeSource.CREATED)
    names = [f"node-{number}" for number in range(size.nodes)]
    state.replace_nodes(node(name, created=now - timedelta(minutes=10 * number)) for number, name in enumerate(names))
    state.replace_pods(
        worker(
            f"worker-{number}",
            pool=POOL,
            node=names[number % size.nodes],
            created=now - timedelta(hours=5),
            ready_since=now - timedelta(hours=4),
            idle_since=now - timedelta(minutes=10) if number * _STRIDE % 100 < idle else None,
        )
        for number in range(size.workers)
    )
    state.begin()
    return state


def _look(state: ClusterState) -> int:
    return sum(
        worker.pool == POOL and worker.idle_since is not None
        for name in state.nodes
        for worker in state.where.workers_on(name).values()
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _report(size: Size, found: dict[Scene, list[Cost]], conditions: tuple[str, ...]) -> Report:
    rows = []
    for scene, costs in found.items():
        whole, look = [each.whole for each in costs], [each.look for each in costs]
        longest = [each.longest for each in costs]
        rows.append((scene.words, shown(whole, 0), shown(ratios(whole, look), 1), shown(longest, 1)))
    table = Table(
        title=f"One pass over {size.workers:,} workers on {size.nodes:,} nodes",
        head=("what it finds", "CPU ms", "CPU / bare look", "longest slice ms"),
        rows=tuple(rows),
    )
    slowest = [max(costs[turn].longest for costs in found.values()) for turn in range(size.rounds)]
    targets = (
        *(
            Target(
                what=f"CPU of a pass: {scene.words}",
                wanted="<= 100 ms",
                measured=f"{shown([each.whole for each in costs], 0)} ms",
                met=spread([each.whole for each in costs]).median <= 100,
            )
            for scene, costs in found.items()
        ),
        Target(
            what="longest time without letting others run, in any pass of a round",
            wanted="<= 10 ms",
            measured=f"{shown(slowest, 1)} ms",
            met=spread(slowest).median <= 10,
        ),
    )
    note = (
        "A bare look is a loop over all workers that reads two fields of each. Times are of the CPU; evictions are "
        "granted by a stand-in at once, so the work of the API client is not in them."
    )
    raw = {scene.words: [asdict(each) for each in costs] for scene, costs in found.items()}
    return Report(name="reap", conditions=conditions, tables=(table,), targets=targets, notes=(note,), raw=raw)
