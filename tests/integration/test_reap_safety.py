"""No work is lost: not to races with workers, not to a second reaper, not to an API server in trouble."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from extender.cluster.feed import ClusterFeed
from extender.cluster.state import ClusterState
from extender.kube.api_client import KubeClient
from extender.kube.eviction import EvictionOutcome, Evictor
from extender.kube.watch_reports import NullObserver
from extender.loops.evictions import Hands
from extender.loops.pass_report import PassReport
from extender.loops.reaper import Reaper
from extender.model import AgeSource, Membership, Pod, SkipReason
from extender.policy.defaults import ReapRules
from extender.settings import PoolSettings
from extender.telemetry import Metrics
from scripts.tools.controlplane import ApiError, ControlPlane, Options, wait_for
from scripts.tools.controlplane.client import Api
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.proxy import Proxy, Seen
from scripts.tools.serving import Serve
from tests.builders import by_label, clock_of
from tests.integration.ground import POOL, POOL_LABEL, SECONDS, Ground
from tests.integration.reapers import IDLE, LONG_AGO, Reapers, reaping, wait_evicted

pytestmark = pytest.mark.controlplane

ROUNDS = int(os.environ.get("WARMNODE_SAFETY_ROUNDS", "2000"))
"""Work accepted in the test of random interleavings, by all workers together."""
WORKER_PROCESSES = 3
THREADS_EACH = 3


@pytest.fixture(scope="module")
def plane(require_binaries: RequireBinaries) -> Iterator[ControlPlane]:
    """A control plane of our own, whose API server can be stopped without others' harm."""
    options = Options(scheduler=False, controller_manager=False)
    require_binaries(options.binaries())
    with ControlPlane(options) as running:
        yield running


@pytest.fixture
def own(plane: ControlPlane, tmp_path: Path) -> Iterator[Reapers]:
    """Workers and reapers on that control plane, in a namespace of the test's own."""
    namespace = plane.create_namespace()
    ground = Ground(plane, namespace, 0, tmp_path)
    try:
        with reaping(ground, tmp_path) as made:
            yield made
    finally:
        ground.close()


# -- a worker that gets work at the last moment ---------------------------------------------------------------------


def test_worker_that_turns_busy_between_decision_and_eviction_stays(own: Reapers, tmp_path: Path) -> None:
    """The eviction names the version that was judged: 409, read again, and what is busy now is not evicted."""
    own.some_workers(2)
    with Proxy(own.control_plane) as proxy:

        def accept_work(seen: Seen) -> None:
            if seen.is_eviction() and "/w1/" in seen.path:
                own.mark_busy("w1")

        proxy.hook = accept_work
        reaper = own.start(kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig"))
        own.wait_names({"w1"})
        own.wait_passes(reaper)
        assert own.names() == {"w1"}
        wait_evicted(reaper, "w0")
        (asked,) = [seen for seen in proxy.evictions() if "/w1/" in seen.path]
        assert asked.json["deleteOptions"]["preconditions"].keys() == {"uid", "resourceVersion"}
        # once the watch has shown it, a busy worker is nothing that a pass skips
        wait_for(lambda: own.skipped(reaper, "busy") == 0, SECONDS, "w1 to be known as busy")
        reaper.stop()


def test_worker_whose_status_changes_before_its_eviction_is_evicted(own: Reapers, tmp_path: Path) -> None:
    """A 409 that a status update has caused is no reason to wait: read again, still idle, evicted in the same pass."""
    names = own.some_workers(3)
    with Proxy(own.control_plane) as proxy:

        def change_status(seen: Seen) -> None:
            if seen.is_eviction() and [each.path for each in proxy.evictions()].count(seen.path) == 1:
                own.control_plane.api(
                    "PATCH", seen.path.replace("/eviction", "/status"), {"status": {"message": "changed"}}
                )

        proxy.hook = change_status
        no_costs = {"deletionCost": {"enabled": False}}  # writing them changes pods too
        reaper = own.start(kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig"), pool=no_costs)
        own.wait_names(set())
        wait_evicted(reaper, *reversed(names))
        own.ground.wait(lambda: reaper.lines("pass"), "the pass to end")
        assert [line["planned"] for line in reaper.lines("pass")] == [3]
        statuses = [status for seen, status in proxy.answered if seen.is_eviction()]
        assert statuses == [409, 201] * 3
        reaper.stop()


def test_another_pod_of_the_same_name_is_not_evicted(own: Reapers, tmp_path: Path) -> None:
    """The eviction names the pod's UID: whoever has its name by then is somebody else."""
    own.some_workers(1)
    with Proxy(own.control_plane) as proxy:

        def replace(seen: Seen) -> None:
            if seen.is_eviction() and own.ground.pod("w0")["metadata"]["annotations"]:
                node = own.ground.pod("w0")["spec"]["nodeName"]
                own.ground.delete_pod("w0")
                own.ground.create_pod("w0", node=node)

        proxy.hook = replace
        reaper = own.start(kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig"))
        own.ground.wait(lambda: proxy.evictions(), "an eviction")
        own.wait_passes(reaper)
        wait_evicted(reaper)
        assert own.names() == {"w0"}
        reaper.stop()


# -- random interleavings -------------------------------------------------------------------------------------------


def follow_the_protocol(
    kubeconfig: str, namespace: str, node: str, folder: str, number: int, enough: Any, accepted: Any
) -> None:
    """One process of workers, each in a thread: idle, busy, restart; every accepted and finished work is a line.

    A worker is a bare pod. Once it is gone the next one begins under a new name.
    """
    api = Api.from_kubeconfig(Path(kubeconfig))
    threads = [
        threading.Thread(
            target=_work, args=(api, namespace, node, Path(folder), f"p{number}t{thread}", enough, accepted)
        )
        for thread in range(THREADS_EACH)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    api.close()


def _work(api: Api, namespace: str, node: str, folder: Path, prefix: str, enough: Any, accepted: Any) -> None:
    chance = random.Random(f"{prefix} {time.time_ns()}")  # noqa: S311 - chance, no secret
    with (folder / f"{prefix}.log").open("a", buffering=1) as record:

        def accept(name: str) -> None:
            record.write(f"accepted {name}\n")
            with accepted.get_lock():
                accepted.value += 1

        for life in itertools.count():
            if enough.is_set():
                return
            _live(api, namespace, node, f"{prefix}-{life}", chance, accept, record.write, enough.wait)


def _live(
    api: Api,
    namespace: str,
    node: str,
    name: str,
    chance: random.Random,
    accept: Callable[[str], None],
    write: Callable[[str], object],
    pause: Callable[[float], bool],
) -> None:
    """One pod's life. ``accepted NAME`` is written before work begins, ``finished NAME`` after it.

    ``pause`` passes seconds; true ends it all.
    """
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {POOL_LABEL: POOL}, "annotations": {}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30, "containers": [{"name": "c", "image": "none"}]},
    }
    made = api.create(pod)
    uid, path = made["metadata"]["uid"], f"/api/v1/namespaces/{namespace}/pods/{name}"
    while not pause(0):
        idle = {"metadata": {"uid": uid, "annotations": {IDLE: LONG_AGO}}}
        busy = {"metadata": {"uid": uid, "annotations": {IDLE: None}}}
        try:
            asked = time.monotonic()
            api.request("PATCH", path, idle)
            took = time.monotonic() - asked
            pause(took * chance.uniform(0, chance.choice((0.5, 8))))  # until there is work; a reaper is as slow as we
            if chance.random() < 0.1:
                continue  # it was restarted, forgot all, and says idle again
            answer = api.request("PATCH", path, busy)
        except ApiError as error:
            if error.status in (404, 409, 422):
                return  # it is gone: whoever comes next has another name
            raise
        if "deletionTimestamp" in answer["metadata"]:
            return  # it refuses the work
        accept(name)
        for _ in range(chance.randrange(3)):  # it works: a few milliseconds
            now = api.get_or_none(path)
            if now is None or now["metadata"]["uid"] != uid or "deletionTimestamp" in now["metadata"]:
                write(f"lost {name}\n")
                return
        write(f"finished {name}\n")


class InProcess:
    """The reaper with a real client and real watches, without its ticks: passes are up to the caller."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        def classify(where: str, labels: Mapping[str, str]) -> Membership | None:
            return by_label(where, labels) if where == namespace else None

        self.changed = asyncio.Event()
        """Set whenever a worker changed."""
        self.state = ClusterState(clock=_now, age=AgeSource.CREATED)
        self.feed = ClusterFeed(
            client,
            self.state,
            classify=classify,
            ledger=None,
            observer=NullObserver(),
            changed=lambda pod: self.changed.set(),
        )
        self._evictor = Evictor(client, classify)
        self._metrics = Metrics()

    async def one_pass(self) -> PassReport:
        """A pass of a reaper that has just started: it remembers nothing that would make it pause the pool."""
        zero = timedelta(0)
        reap = ReapRules(idle_timeout=zero, min_pod_age=zero, floor=0, max_per_pass=0, interval=timedelta(seconds=1))
        settings = PoolSettings(name="pool", reap=reap)
        reaper = Reaper(
            state=self.state,
            hands=Hands(pods=self._evictor, announcer=Silent(), metrics=self._metrics, may_evict=self.feed.is_fresh),
            clock=clock_of(_now),
            rules=lambda pool: settings,
        )
        return (await reaper.one_pass(POOL))[POOL]


class Silent:
    """Tells nobody."""

    async def evicted(self, pod: Pod, why: str) -> None: ...
    async def paused(self, pool: str, pod: Pod, why: str) -> None: ...


@asynccontextmanager
async def reaper_in_process(plane: ControlPlane, namespace: str) -> AsyncIterator[InProcess]:
    client = await KubeClient.connect(kubeconfig=str(plane.kubeconfig), user_agent="warmnode/test")
    made = InProcess(client, namespace)
    tasks = [asyncio.create_task(reflector.run()) for reflector in made.feed.reflectors]
    try:
        await made.feed.begin()
        await caught_up(made.feed)
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()


async def caught_up(feed: ClusterFeed) -> None:
    """Wait until its watches have been open for long enough to be relied on."""
    async with asyncio.timeout(SECONDS):
        while True:
            if feed.is_fresh():
                return
            await asyncio.sleep(0.05)


def _now() -> datetime:
    return datetime.now(UTC)


async def test_accepted_work_is_never_lost(own: Reapers, tmp_path: Path) -> None:
    """Thousands of random interleavings of idle, busy, restart and reap: no pod with unfinished work is evicted.

    The oracle is what the workers wrote down themselves: work accepted after an acknowledged busy, and finished.
    """
    plane, namespace = own.control_plane, own.ground.namespace
    (node,) = own.ground.nodes(1, cpu="100", wait=False)
    context = multiprocessing.get_context("spawn")
    enough, accepted = context.Event(), context.Value("i", 0)
    folder = tmp_path / "records"
    folder.mkdir()
    given = (str(plane.kubeconfig), namespace, node, str(folder))
    workers = [
        context.Process(target=follow_the_protocol, args=(*given, number, enough, accepted))
        for number in range(WORKER_PROCESSES)
    ]
    outcomes: Counter[str] = Counter()
    async with reaper_in_process(plane, namespace) as reaper:
        for each in workers:
            each.start()
        try:
            async with asyncio.timeout(60 + ROUNDS / 10):
                while accepted.value < ROUNDS or outcomes[EvictionOutcome.EVICTED] < ROUNDS / 100:
                    await reaper.changed.wait()
                    reaper.changed.clear()
                    report = await reaper.one_pass()
                    outcomes.update(report.outcomes.values())
                    outcomes["turnedBusy"] += sum(
                        report.skipped.get(victim.uid) is SkipReason.BUSY for victim in report.judged.victims
                    )
        finally:
            enough.set()
            for each in workers:
                await asyncio.to_thread(each.join, 30)
    assert [each.exitcode for each in workers] == [0] * WORKER_PROCESSES
    assert [line for line in _lines(folder) if line.startswith("lost")] == []
    # it shows something only where the two met: workers were evicted, and others got work at the last moment. A quiet
    # machine does the work in seconds, so it goes on until enough of them were
    assert outcomes[EvictionOutcome.EVICTED] >= ROUNDS / 100, outcomes
    assert outcomes["turnedBusy"] + outcomes[EvictionOutcome.CHANGED] >= ROUNDS / 100, outcomes


def _lines(folder: Path) -> list[str]:
    return [line for file in folder.iterdir() for line in file.read_text().splitlines()]


async def test_pods_that_change_all_the_time_are_evicted_all_the_same(own: Reapers) -> None:
    """A status change of every pod each second: every reapable worker is gone within three passes."""
    names = own.some_workers(6)
    ended = threading.Event()

    def change() -> None:
        count = 0
        while not ended.wait(1 / len(names)):
            name = names[count % len(names)]
            count += 1
            status = {"status": {"message": f"change {count}"}}
            path = f"/api/v1/namespaces/{own.ground.namespace}/pods/{name}/status"
            try:
                own.control_plane.api("PATCH", path, status)
            except ApiError as error:
                if error.status != 404:
                    raise

    changing = threading.Thread(target=change)
    changing.start()
    try:
        async with reaper_in_process(own.control_plane, own.ground.namespace) as reaper:
            for _ in range(3):
                await reaper.one_pass()
        assert own.names() == set()
    finally:
        ended.set()
        changing.join()


# -- two reapers ----------------------------------------------------------------------------------------------------


def leader_of(some: list[Serve]) -> Serve:
    """Wait until exactly one of them leads, and give it."""

    def one() -> Serve | None:
        leading = [each for each in some if each.metric("warmnode_leader") == 1]
        return leading[0] if len(leading) == 1 else None

    return wait_for(one, SECONDS, lambda: f"one leader: {[each.text()[-1000:] for each in some]}")


def test_reapers_take_over_from_one_that_was_killed(own: Reapers) -> None:
    """One of two leads and evicts; after SIGKILL the other does."""
    names = own.some_workers(3)
    own.mark_busy(*names)
    own.configure()
    some = [own.make().start() for _ in range(2)]
    leader = leader_of(some)
    (other,) = [each for each in some if each is not leader]
    own.mark_idle("w2", since=LONG_AGO)
    own.wait_names({"w0", "w1"})
    wait_evicted(leader, "w2")
    wait_evicted(other)
    leader.kill()
    own.mark_idle("w0", "w1", since=LONG_AGO)
    own.wait_names(set())
    wait_evicted(leader, "w2")
    wait_evicted(other, "w1", "w0")


def test_leader_that_was_stopped_evicts_nothing_when_it_wakes_up(own: Reapers) -> None:
    """SIGSTOP of the leader, another leads, SIGCONT: the first notices and evicts nothing from then on."""
    names = own.some_workers(4)
    own.mark_busy(*names)
    own.configure()
    some = [own.make().start() for _ in range(2)]
    leader = leader_of(some)
    (other,) = [each for each in some if each is not leader]
    leader.signal(signal.SIGSTOP)
    own.ground.wait(lambda: other.metric("warmnode_leader") == 1, lambda: other.text()[-2000:])
    own.mark_idle("w2", "w3", since=LONG_AGO)
    own.wait_names({"w0", "w1"})
    leader.signal(signal.SIGCONT)
    own.mark_idle("w0", "w1", since=LONG_AGO)
    own.wait_names(set())
    assert leader_of(some) is other
    wait_evicted(leader)
    wait_evicted(other, "w3", "w2", "w1", "w0")


def test_leader_that_was_stopped_writes_nothing_when_it_wakes_up(own: Reapers) -> None:
    """Deletion costs and ledger stay as the new leader has written them, whatever the old one had in mind."""
    names = own.some_workers(3)
    own.mark_busy(*names)
    own.configure(enabled=False)
    some = [own.make().start() for _ in range(2)]
    leader = leader_of(some)
    (other,) = [each for each in some if each is not leader]
    own.mark_idle("w0")
    own.ground.wait(lambda: own.costs()["w0"] is not None, lambda: f"{own.costs()}")
    own.mark_idle("w1")  # its cost is due in a second
    leader.signal(signal.SIGSTOP)
    own.ground.wait(lambda: other.metric("warmnode_leader") == 1, lambda: other.text()[-2000:])
    own.mark_busy("w0")
    own.ground.wait(lambda: int(own.costs()["w0"] or 0) > 0 and own.costs()["w1"] is not None, lambda: f"{own.costs()}")
    (joined,) = own.ground.nodes(1, wait=False)
    own.run_workers({"w3": joined}, busy=["w3"])
    ledger = own.ground.wait_for_ledger(lambda found: own.ground.uid(joined) in found)
    versions = {name: pod["metadata"]["resourceVersion"] for name, pod in own.ground.pods().items()}

    leader.signal(signal.SIGCONT)
    own.ground.wait(lambda: leader.lines("not leading any more"), lambda: leader.text()[-2000:])
    own.wait_passes(other, 6)  # a look at all costs comes every five seconds
    assert {name: pod["metadata"]["resourceVersion"] for name, pod in own.ground.pods().items()} == versions
    assert own.ground.ledger() == ledger
    writes = "warmnode_deletion_cost_writes_total"
    assert leader.metric(writes, pool=POOL, outcome="written") == 1
    assert leader.metric(writes, pool=POOL, outcome="conflict") == 0
    assert leader_of(some) is other


def test_leader_cut_off_from_the_api_server_is_replaced(own: Reapers, tmp_path: Path) -> None:
    """The leader's network is cut: it stops to lead, the other leads and reaps, and one leads after the cut too."""
    names = own.some_workers(2)
    own.mark_busy(*names)
    own.configure()
    with Proxy(own.control_plane) as proxy:
        cut_off = own.make(kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig")).start()
        own.ground.wait(lambda: cut_off.metric("warmnode_leader") == 1, lambda: cut_off.text()[-2000:])
        other = own.make().start()
        proxy.cut()
        own.ground.wait(lambda: other.metric("warmnode_leader") == 1, lambda: other.text()[-2000:])
        assert cut_off.metric("warmnode_leader") == 0
        own.mark_idle("w1", since=LONG_AGO)
        own.wait_names({"w0"})
        proxy.mend()
        own.mark_idle("w0", since=LONG_AGO)
        own.wait_names(set())
        assert leader_of([cut_off, other]) is other
        wait_evicted(cut_off)
        wait_evicted(other, "w1", "w0")
        cut_off.stop()
