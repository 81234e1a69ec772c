"""The reaper's pass: what is asked again before each eviction, and what every outcome leads to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.kube.errors import Forbidden, Gone, KubeError, Unavailable
from extender.kube.eviction import EvictionOutcome, EvictionResult, FreshPod, result_of
from extender.loops.evictions import Hands
from extender.loops.pass_report import PassReport
from extender.loops.reaper import Reaper
from extender.model import FOREVER, DisruptionBudget, Pod, PodBudget, Selector, SkipReason
from extender.policy.brakes import BrakeRecord
from extender.policy.defaults import ReapRules
from extender.settings import PoolSettings
from extender.telemetry import Metrics
from tests.builders import (
    NOW,
    clock_of,
    daemon,
    ledger,
    minutes_ago,
    node,
    node_claim,
    node_pool,
    pod_budget,
    steady,
    worker,
)

BLOCKED = EvictionResult(outcome=EvictionOutcome.BLOCKED, budget="guard")


class PodsOfTheServer:
    """Stands in for the API server: the pods as it has them, and what it answers to evictions."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self.evicted: list[str] = []
        self.asked: list[str] = []
        self.newer: dict[str, Pod | None] = {}
        self.answers: list[EvictionResult] = []
        self.labels: dict[str, dict[str, str]] = {}
        self.before_answer: Callable[[Pod], None] = lambda pod: None
        self.unreadable = False

    async def read(self, pod: Pod) -> FreshPod | None:
        if self.unreadable:
            raise Unavailable(0, "Timeout", "no answer")
        found = self.newer.get(pod.uid, self.state.pods.get(pod.uid))
        return None if found is None else FreshPod(pod=found, labels=self.labels.get(pod.name, {}))

    async def evict(self, pod: Pod) -> EvictionResult:
        self.asked.append(pod.name)
        self.before_answer(pod)
        result = self.answers.pop(0) if self.answers else EvictionResult(outcome=EvictionOutcome.EVICTED)
        if result.outcome is EvictionOutcome.EVICTED:
            self.evicted.append(pod.name)
        return result

    async def budget_selector(self, namespace: str, name: str) -> Selector | None:
        return Selector(match_labels=(("guarded", "yes"),))


class Told:
    """Keeps what was announced."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def evicted(self, pod: Pod, why: str) -> None:
        self.events.append(f"evicted {pod.name}")

    async def paused(self, pool: str, pod: Pod, why: str) -> None:
        self.events.append(f"paused {pool}")


def pool(*, dry_run: bool = False, **reap: Any) -> PoolSettings:
    return PoolSettings(name="pool", reap=ReapRules(**reap), dry_run=dry_run)


class Scene:
    """A cluster of three nodes, old, mid and new, with one idle worker each; everything can be turned."""

    def __init__(self, *extra: Pod, floor: int = 1, dry_run: bool = False) -> None:
        self.now = NOW
        self.ahead = timedelta(0)
        self.leader = True
        self.fresh = True
        self.state = ClusterState(clock=lambda: self.now + self.ahead)
        self.state.replace_nodes([node("old"), node("mid"), node("new")])
        ready = {"old": 59, "mid": 30, "new": 20}
        workers = [
            worker(f"w-{name}", node=name, ready_since=minutes_ago(at), idle_since=minutes_ago(10))
            for name, at in ready.items()
        ]
        self.state.replace_pods([*workers, *extra])
        self.state.take_ledger(ledger({}))
        self.state.begin()
        self.pods = PodsOfTheServer(self.state)
        self.told = Told()
        self.reaping = pool(dry_run=dry_run, floor=floor)
        self.metrics = Metrics()
        self.reaper = Reaper(
            state=self.state,
            hands=Hands(
                pods=self.pods,
                announcer=self.told,
                metrics=self.metrics,
                may_evict=lambda: self.leader and self.fresh,
            ),
            clock=clock_of(self.clock, lambda: self.ahead),
            rules=lambda pool: self.reaping,
            pod_budgets=self.pod_budgets,
        )
        self.metrics.show(self.reaper.figures)
        self.budgets: list[PodBudget] | KubeError = []
        self.budget_looks = 0

    async def pod_budgets(self) -> list[PodBudget]:
        self.budget_looks += 1
        if isinstance(self.budgets, KubeError):
            raise self.budgets
        return self.budgets

    def clock(self) -> datetime:
        return self.now

    async def report(self) -> PassReport:
        """Run a pass, and give what it leaves behind."""
        return (await self.reaper.one_pass("pool"))["pool"]

    async def one_pass(self) -> list[str]:
        """Run a pass; the names of the workers that were evicted in it."""
        before = len(self.pods.evicted)
        await self.report()
        return self.pods.evicted[before:]


async def test_pass_evicts_newest_first_down_to_the_floor() -> None:
    """Two of three go, the newest first, each with an Event; the floor stays on the oldest node."""
    scene = Scene()
    order = sorted(scene.state.order, key=scene.state.order.__getitem__, reverse=True)
    evicted = await scene.one_pass()
    assert evicted == [f"w-{name}" for name in order[:2]]
    assert scene.told.events == [f"evicted {name}" for name in evicted]
    assert await scene.one_pass() == []


async def test_dry_run_evicts_nothing_and_plans_the_same() -> None:
    """Dry-run shows exactly what the real run would do."""
    dry, real = Scene(dry_run=True), Scene()
    planned = (await dry.report()).judged
    assert planned == replace((await real.report()).judged, dry_run=True)
    assert dry.pods.asked == []
    assert [victim.name for victim in planned.victims] == real.pods.evicted


async def test_conflict_is_read_again_and_decided_again() -> None:
    """409: the pod is read and judged anew; idle still, it is tried again with the new version."""
    scene = Scene(floor=2)
    scene.pods.answers = [EvictionResult(outcome=EvictionOutcome.CHANGED)]
    assert len(await scene.one_pass()) == 1
    assert len(scene.pods.asked) == 2


async def test_worker_that_became_busy_meanwhile_is_not_evicted() -> None:
    """Busy between the plan and the eviction: what the API server has decides."""
    scene = Scene(floor=0)
    for pod in list(scene.state.pods.values()):
        scene.pods.newer[pod.uid] = structs.replace(pod, idle_since=None)
    report = await scene.report()
    assert scene.pods.asked == []
    assert set(report.skipped.values()) == {SkipReason.BUSY}


async def test_worker_that_became_busy_after_a_conflict_is_not_evicted() -> None:
    """The decision after a 409 is made on what was read after it."""
    scene = Scene(floor=2)
    scene.pods.answers = [EvictionResult(outcome=EvictionOutcome.CHANGED)]

    def turn_busy(pod: Pod) -> None:
        scene.pods.newer[pod.uid] = structs.replace(pod, idle_since=None)

    scene.pods.before_answer = turn_busy
    assert await scene.one_pass() == []
    assert len(scene.pods.asked) == 1


async def test_three_tries_at_most() -> None:
    """A pod that changes all the time is left for the next pass."""
    scene = Scene(floor=2)
    scene.pods.answers = [EvictionResult(outcome=EvictionOutcome.CHANGED)] * 9
    report = await scene.report()
    assert len(scene.pods.asked) == 3
    assert list(report.outcomes.values()) == [EvictionOutcome.CHANGED]


async def test_pod_that_left_the_pool_is_not_evicted() -> None:
    """Its labels changed: it is no worker any more."""
    scene = Scene(floor=0)
    for pod in list(scene.state.pods.values()):
        scene.pods.newer[pod.uid] = structs.replace(pod, pool=None)
    assert await scene.one_pass() == []


async def test_gone_is_an_outcome() -> None:
    """Somebody else deleted it."""
    scene = Scene(floor=2)
    scene.pods.newer = dict.fromkeys(scene.state.pods)
    report = await scene.report()
    assert list(report.outcomes.values()) == [EvictionOutcome.GONE]


async def test_blocked_budget_is_left_alone_and_others_go_on() -> None:
    """429 of a PDB: the pods that it covers wait, the others go."""
    scene = Scene(floor=0)
    first, *others = sorted(scene.state.pods.values(), key=lambda pod: scene.state.order[pod.node or ""], reverse=True)
    scene.pods.labels = {first.name: {"guarded": "yes"}, others[0].name: {"guarded": "yes"}}
    scene.pods.answers = [BLOCKED]
    report = await scene.report()
    assert scene.pods.asked == [first.name, others[1].name]
    assert report.outcomes[first.uid] is EvictionOutcome.BLOCKED
    assert report.skipped[others[0].uid] is SkipReason.BUDGET_BLOCKED
    assert await scene.one_pass() == []
    scene.now += timedelta(seconds=10)
    assert await scene.one_pass() == [first.name, others[0].name]


async def test_blocked_again_backs_off_longer() -> None:
    """10 s, then 20 s, for the same budget."""
    scene = Scene(floor=2)
    scene.pods.answers = [BLOCKED, BLOCKED]
    scene.pods.labels = {pod.name: {"guarded": "yes"} for pod in scene.state.pods.values()}
    await scene.one_pass()
    scene.now += timedelta(seconds=10)
    await scene.one_pass()
    scene.now += timedelta(seconds=19)
    assert await scene.one_pass() == []
    scene.now += timedelta(seconds=1)
    assert len(await scene.one_pass()) == 1


async def test_several_budgets_on_one_pod_are_reported_as_such() -> None:
    """The API server refuses such a pod for ever; the others go on."""
    scene = Scene(floor=0)
    scene.pods.answers = [EvictionResult(outcome=EvictionOutcome.SEVERAL_BUDGETS)]
    report = await scene.report()
    assert EvictionOutcome.SEVERAL_BUDGETS in report.outcomes.values()
    assert len(scene.pods.evicted) == 2


async def test_throttling_stops_the_pass_for_as_long_as_it_asks() -> None:
    """Another 429 is the API server asking for patience: Retry-After is honoured."""
    scene = Scene(floor=0)
    scene.pods.answers = [EvictionResult(outcome=EvictionOutcome.THROTTLED, retry_after=timedelta(seconds=7))]
    await scene.one_pass()
    assert len(scene.pods.asked) == 1
    scene.now += timedelta(seconds=6)
    assert await scene.one_pass() == []
    scene.now += timedelta(seconds=1)
    assert len(await scene.one_pass()) == 3


async def test_failures_end_the_pass() -> None:
    """An API server in trouble is not asked again and again."""
    scene = Scene(*(worker(f"x{i}", node="new", idle_since=minutes_ago(9)) for i in range(5)), floor=0)
    scene.pods.answers = [EvictionResult(outcome=EvictionOutcome.FAILED)] * 9
    report = await scene.report()
    assert len(scene.pods.asked) == 3
    assert list(report.skipped.values()).count(SkipReason.BACKING_OFF) == 5


async def test_unreadable_pod_is_a_failure_not_an_eviction() -> None:
    """Without a fresh look nothing is evicted."""
    scene = Scene(floor=0)
    scene.pods.unreadable = True
    await scene.one_pass()
    assert scene.pods.asked == []


@pytest.mark.parametrize("lost", ["leader", "fresh"])
async def test_leadership_and_freshness_are_asked_before_each(lost: str) -> None:
    """Lost after the first eviction: there is no second one."""
    scene = Scene(floor=0)
    scene.pods.before_answer = lambda pod: setattr(scene, lost, False)
    assert len(await scene.one_pass()) == 1


@pytest.mark.parametrize("how", ["dry-run", "switched off", "higher floor"])
async def test_settings_are_asked_for_before_each(how: str) -> None:
    """Dry-run is the brake: a pass that goes on must not outlive the moment at which it was pulled."""
    scene = Scene(floor=0)
    braked = {
        "dry-run": scene.reaping.model_copy(update={"dry_run": True}),
        "switched off": pool(floor=0, enabled=False),
        "higher floor": pool(floor=2),
    }[how]
    scene.pods.before_answer = lambda pod: setattr(scene, "reaping", braked)
    assert len(await scene.one_pass()) == 1


async def test_dry_run_that_comes_while_a_worker_is_read_spares_it() -> None:
    """Between the last look and the request nothing is awaited."""
    scene = Scene(floor=0)
    read = scene.pods.read

    async def read_slowly(pod: Pod) -> FreshPod | None:
        scene.reaping = scene.reaping.model_copy(update={"dry_run": True})
        return await read(pod)

    scene.pods.read = read_slowly  # type: ignore[method-assign]
    assert await scene.one_pass() == []


async def test_worker_that_finished_meanwhile_is_left_to_whoever_looks_at_its_end() -> None:
    """An eviction would delete it, with its exit code and its log."""
    scene = Scene(floor=0)
    for pod in list(scene.state.pods.values()):
        scene.pods.newer[pod.uid] = structs.replace(pod, finished=True)
    report = await scene.report()
    assert scene.pods.asked == []
    assert set(report.skipped.values()) == {SkipReason.TERMINATING}


async def test_clock_that_is_set_back_does_not_stop_passes() -> None:
    """The next pass is waited for by a time that never jumps."""
    scene, at = Scene(floor=2), [NOW]
    reaper = Reaper(
        state=scene.state,
        hands=Hands(pods=scene.pods, announcer=scene.told, metrics=Metrics(), may_evict=lambda: True),
        clock=Clock(now=scene.clock, steady=lambda: steady(at[0])),
        rules=lambda pool: scene.reaping,
    )
    scene.pods.answers = [EvictionResult(outcome=EvictionOutcome.THROTTLED)]
    await reaper.pass_where_due()
    assert len(scene.pods.asked) == 1
    scene.now -= timedelta(minutes=4)  # all are idle still
    at[0] += timedelta(seconds=31)
    await reaper.pass_where_due()
    assert len(scene.pods.evicted) == 1


async def test_lead_that_is_lost_while_a_worker_is_read_spares_it() -> None:
    scene = Scene(floor=0)
    read = scene.pods.read

    async def read_slowly(pod: Pod) -> FreshPod | None:
        scene.leader = False
        return await read(pod)

    scene.pods.read = read_slowly  # type: ignore[method-assign]
    report = await scene.report()
    assert scene.pods.asked == []
    assert set(report.skipped.values()) == {SkipReason.BACKING_OFF}


async def test_worker_that_somebody_deleted_meanwhile_is_not_asked_for() -> None:
    """The watch says so before its turn comes."""
    scene = Scene(floor=0)

    def delete_the_others(asked: Pod) -> None:
        for pod in list(scene.state.pods.values()):
            if pod.uid != asked.uid:
                scene.state.delete_pod(pod)

    scene.pods.before_answer = delete_the_others
    report = await scene.report()
    assert len(scene.pods.asked) == 1
    assert list(report.skipped.values()) == [SkipReason.TERMINATING] * 2


async def test_worker_that_waits_for_a_node_stops_the_pass() -> None:
    """A pending worker may need the room, before the pass and during it."""
    waiting = worker("pending", node=None, ready_since=None, created=minutes_ago(14))
    assert await Scene(waiting, floor=0).one_pass() == []
    scene = Scene(floor=0)
    scene.pods.before_answer = lambda pod: scene.state.upsert_pod(waiting)
    assert len(await scene.one_pass()) == 1


async def test_worker_that_waits_for_longer_than_pending_for_is_counted_and_stops_nothing() -> None:
    """It fits nowhere; the pool goes on, and the gauge says so. With 0 it holds the pool up for as long as it waits."""
    never = worker("never", node=None, ready_since=None, created=minutes_ago(15.1))
    scene = Scene(never, floor=0)
    assert len(await scene.one_pass()) == 3
    assert scene.metrics.registry.get_sample_value("warmnode_reap_unplaced_workers", {"pool": "pool"}) == 1
    scene = Scene(never, floor=0)
    scene.reaping = pool(pending_for=timedelta(0))
    assert await scene.one_pass() == []
    assert scene.metrics.registry.get_sample_value("warmnode_reap_unplaced_workers", {"pool": "pool"}) == 0


async def test_floor_is_checked_again_on_the_live_state() -> None:
    """Workers that turn busy meanwhile leave fewer to spare."""
    scene = Scene(floor=1)

    def others_turn_busy(pod: Pod) -> None:
        for other in list(scene.state.pods.values()):
            if other.uid != pod.uid:
                scene.state.upsert_pod(structs.replace(other, idle_since=None))

    scene.pods.before_answer = others_turn_busy
    assert len(await scene.one_pass()) == 1


async def test_evicted_pod_counts_as_going_before_the_watch_says_so() -> None:
    """Own evictions are overlaid: a second pass does not take more than the floor allows."""
    scene = Scene(floor=2)
    assert len(await scene.one_pass()) == 1
    assert await scene.one_pass() == []


def arrive(scene: Scene, names: Sequence[str]) -> None:
    for name in names:
        created = scene.now + timedelta(seconds=1)
        scene.state.upsert_pod(worker(name, node="new", created=created, ready_since=created, idle_since=created))


async def test_workers_that_come_back_again_and_again_pause_the_pool() -> None:
    """Evicted, recreated on the new node, evicted, recreated: then the pool pauses, with one Event."""
    scene = Scene(floor=0)
    for turn in range(3):
        evicted = await scene.one_pass()
        assert evicted != []
        for pod in [pod for pod in scene.state.pods.values() if pod.terminating]:
            scene.state.delete_pod(pod)
        arrive(scene, [f"again-{turn}-{number}" for number in range(len(evicted))])
        scene.now += timedelta(minutes=8)
    assert await scene.one_pass() == []
    assert await scene.one_pass() == []
    assert scene.told.events[-1] == "paused pool"
    assert scene.metrics.registry.get_sample_value("warmnode_reap_paused", {"pool": "pool"}) == 1
    scene.ahead = timedelta(hours=-1)
    assert await scene.one_pass() == []
    scene.ahead = timedelta(0)
    assert await scene.one_pass() == []
    assert scene.told.events.count("paused pool") == 1
    scene.now += timedelta(hours=1)
    assert await scene.one_pass() != []


async def test_what_the_brakes_remember_can_be_read() -> None:
    """For the Lease: how many were evicted, and none of a pool that lost nobody."""
    scene = Scene(floor=1)
    assert scene.reaper.brakes == {}
    await scene.one_pass()
    assert scene.reaper.brakes == {"pool": BrakeRecord(evicted=2, since=NOW)}


async def test_blocked_workers_do_not_starve_the_others() -> None:
    """``maxPerPass`` counts who can go: a budget over the newest workers does not fill every pass with them."""
    scene = Scene(floor=0)
    scene.reaping = pool(floor=0, max_per_pass=1)
    first, *_ = sorted(scene.state.pods.values(), key=lambda pod: scene.state.order[pod.node or ""], reverse=True)
    scene.pods.labels = {first.name: {"guarded": "yes"}}
    scene.pods.answers = [BLOCKED]
    assert await scene.one_pass() == []
    assert len(await scene.one_pass()) == 1
    assert len(await scene.one_pass()) == 1


async def test_workers_whose_eviction_is_refused_do_not_starve_the_others() -> None:
    """A webhook that forbids the three newest: they are asked again 10 s later, then 20 s, and the others go."""
    scene = Scene(*(worker(f"x{i}", node="new", idle_since=minutes_ago(9)) for i in range(3)), floor=0)
    scene.reaping = pool(floor=0, max_per_pass=4)
    no = [EvictionResult(outcome=outcome) for outcome in (EvictionOutcome.FORBIDDEN, EvictionOutcome.REFUSED)]
    scene.pods.answers = [no[0], no[1], no[0], no[1]]
    assert await scene.one_pass() == []
    refused = list(scene.pods.asked)
    report = await scene.report()
    assert len(scene.pods.evicted) == 2
    assert list(report.skipped.values()).count(SkipReason.BACKING_OFF) == 4
    scene.pods.answers = [no[0]] * 4
    scene.now += timedelta(seconds=10)
    assert await scene.one_pass() == []
    assert sorted(scene.pods.asked[-4:]) == sorted(refused)
    scene.now += timedelta(seconds=19)
    assert await scene.one_pass() == []
    scene.now += timedelta(seconds=1)
    assert len(await scene.one_pass()) == 4


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Forbidden(403, "Forbidden", "admission webhook denied the request"), EvictionOutcome.FORBIDDEN),
        (KubeError(422, "Invalid", "admission webhook denied the request"), EvictionOutcome.REFUSED),
        (Forbidden(401, "Unauthorized", "Unauthorized"), EvictionOutcome.FAILED),
        (Unavailable(0, "Timeout", "no answer"), EvictionOutcome.FAILED),
        (Gone(410, "Expired", "too old"), EvictionOutcome.FAILED),
    ],
)
def test_refusal_of_one_pod_is_told_from_an_api_server_in_trouble(error: KubeError, outcome: EvictionOutcome) -> None:
    assert result_of(error).outcome is outcome


async def test_pool_that_is_empty_for_a_moment_keeps_its_brake() -> None:
    """With floor 0 its workers come back some seconds later: what was learned of it stays as long as a pause."""
    scene = Scene(floor=0)
    for turn in range(3):
        scene.now += timedelta(minutes=8)
        await scene.reaper.pass_where_due()
        gone = [pod for pod in scene.state.pods.values() if pod.terminating]
        assert gone != []
        for pod in gone:
            scene.state.delete_pod(pod)
        scene.now += timedelta(seconds=5)
        await scene.reaper.pass_where_due()
        arrive(scene, [f"again-{turn}-{number}" for number in range(len(gone))])
    scene.now += timedelta(minutes=8)
    asked = len(scene.pods.asked)
    await scene.reaper.pass_where_due()
    assert len(scene.pods.asked) == asked
    assert scene.told.events[-1] == "paused pool"
    scene.state.replace_pods([])
    scene.now += timedelta(hours=1)
    await scene.reaper.pass_where_due()
    assert scene.reaper.remembered == set()


async def test_pool_that_went_is_shown_no_more() -> None:
    """Paused, and then its last worker is deleted: an alert on the gauge ends with the pool."""
    scene = Scene(floor=3)
    await scene.reaper.pass_where_due()
    assert {each.labels[0] for each in scene.reaper.figures() if each.metric.labels[0] == "pool"} == {"pool"}
    scene.state.replace_pods([])
    await scene.reaper.pass_where_due()
    assert scene.metrics.registry.get_sample_value("warmnode_reap_paused", {"pool": "pool"}) is None
    assert not [each for each in scene.reaper.figures() if each.metric.labels[0] == "pool"]


async def test_bug_in_one_pool_does_not_stop_the_others() -> None:
    """Pools are judged together; each is carried out for itself, and the bug is counted."""
    scene = Scene(worker("a", pool="another", node="new", idle_since=minutes_ago(9)), floor=0)
    read = scene.pods.read

    async def fail(pod: Pod) -> FreshPod | None:
        if pod.pool == "another":
            raise ValueError("a bug")
        return await read(pod)

    scene.pods.read = fail  # type: ignore[method-assign]
    await scene.reaper.pass_where_due()
    assert len(scene.pods.evicted) == 3
    assert scene.metrics.registry.get_sample_value("warmnode_reap_passes_total", {"outcome": "crashed"}) == 1


# -- Karpenter --------------------------------------------------------------------------------------------------------


async def test_budget_of_the_node_pool_is_kept_over_passes() -> None:
    """One node at a time: the next is emptied when the first is gone, the newest first."""
    scene = Scene(floor=0)
    members = {
        name: structs.replace(node(name), node_pool="workers", initialized=True) for name in ("old", "mid", "new")
    }
    for member in members.values():
        scene.state.upsert_node(member)
    scene.state.objects.put_node_pool(node_pool(budgets=(DisruptionBudget(nodes="1", reasons=frozenset({"Empty"})),)))
    assert await scene.one_pass() == ["w-new"]
    assert await scene.one_pass() == []
    scene.state.delete_pod(worker("w-new"))
    assert await scene.one_pass() == []
    scene.state.delete_node(members["new"])
    assert await scene.one_pass() == ["w-mid"]


async def test_budget_that_shrinks_during_a_pass_is_kept() -> None:
    """Asked again before each eviction: a node became NotReady after the first one."""
    scene = Scene(floor=0)
    members = {
        name: structs.replace(node(name), node_pool="workers", initialized=True) for name in ("old", "mid", "new")
    }
    for member in members.values():
        scene.state.upsert_node(member)
    scene.state.objects.put_node_pool(node_pool(budgets=(DisruptionBudget(nodes="2"),)))
    scene.pods.before_answer = lambda pod: scene.state.upsert_node(structs.replace(members["old"], ready=False))
    assert await scene.one_pass() == ["w-new"]
    report = await scene.report()
    assert report.skipped["uid-of-w-mid"] is SkipReason.EMPTY_BUDGET


async def test_node_that_asks_to_stay_during_a_pass_is_left_alone() -> None:
    scene = Scene(floor=0)
    for name in ("old", "mid", "new"):
        scene.state.upsert_node(structs.replace(node(name), node_pool="workers", initialized=True))
    scene.state.objects.put_node_pool(node_pool(budgets=()))
    kept = structs.replace(node("mid"), node_pool="workers", initialized=True, do_not_disrupt=True)
    scene.pods.before_answer = lambda pod: scene.state.upsert_node(kept)
    assert await scene.one_pass() == ["w-new", "w-old"]


# -- nodes that Karpenter would not take ------------------------------------------------------------------------------


def managed(scene: Scene, *names: str) -> None:
    """Make these nodes Karpenter's, Consolidatable for an hour; one more of them, ``empty``, has no worker."""
    for name in ("old", "mid", "new", *names):
        claim = node_claim(f"claim-{name}", quiet_since=minutes_ago(60), consolidatable_since=minutes_ago(60))
        scene.state.upsert_node_claim(claim)
        scene.state.upsert_node(node(name, node_pool="workers", initialized=True, node_claim=claim.uid))
    scene.state.objects.put_node_pool(node_pool(budgets=(DisruptionBudget(nodes="1"),)))


async def test_budgets_over_other_pods_are_read_before_a_pass() -> None:
    """A closed one over a DaemonSet's pod keeps the node, and its worker stays; once for all pools that are due."""
    scene = Scene(daemon("d", node="new"), floor=0)
    managed(scene)
    scene.budgets = [pod_budget()]
    report = await scene.report()
    assert report.skipped["uid-of-w-new"] is SkipReason.OTHER_POD_BUDGET
    assert scene.pods.evicted == ["w-mid"]
    await scene.one_pass()
    assert scene.budget_looks == 1
    scene.now += timedelta(seconds=1)
    await scene.one_pass()
    assert scene.budget_looks == 2


async def test_budgets_are_not_read_without_karpenter() -> None:
    scene = Scene()
    scene.budgets = Unavailable(0, "Timeout", "no answer")
    assert len(await scene.one_pass()) == 2
    assert scene.budget_looks == 0


async def test_nothing_is_evicted_while_budgets_cannot_be_read() -> None:
    """An API server in trouble: nobody knows which nodes would go. It is asked again at the next pass."""
    scene = Scene(floor=0)
    managed(scene)
    scene.budgets = Unavailable(0, "Timeout", "no answer")
    report = await scene.report()
    assert report.skipped["uid-of-w-new"] is SkipReason.BACKING_OFF
    assert scene.pods.asked == []
    scene.budgets = []
    assert await scene.one_pass() == ["w-new"]


async def test_without_permission_to_read_budgets_there_are_none() -> None:
    """As before it was asked for: an installation with older permissions goes on."""
    scene = Scene(daemon("d", node="new"), floor=0)
    managed(scene)
    scene.budgets = Forbidden(403, "Forbidden", "no")
    assert await scene.one_pass() == ["w-new"]


async def test_empty_node_that_nobody_takes_does_not_stop_the_pool() -> None:
    """It is told as stuck, by what is known of why, and uses no budget."""
    scene = Scene(floor=0)
    managed(scene, "empty")
    assert await scene.one_pass() == ["w-new"]
    stuck = {"unknown": 1.0, "otherPodDoNotDisrupt": 0.0}
    assert {reason: stuck_nodes(scene, reason) for reason in stuck} == stuck
    scene.state.upsert_pod(structs.replace(daemon(node="empty"), do_not_disrupt_until=FOREVER))
    await scene.one_pass()
    assert {reason: stuck_nodes(scene, reason) for reason in stuck} == {"unknown": 0.0, "otherPodDoNotDisrupt": 1.0}


def stuck_nodes(scene: Scene, reason: str) -> float | None:
    return scene.metrics.registry.get_sample_value("warmnode_stuck_nodes", {"reason": reason})


async def test_when_a_node_fell_empty_is_not_taken_from_a_clock_that_is_off() -> None:
    """One that is slow would make it stuck at once, and another node would be emptied too."""
    scene = Scene(floor=3)
    managed(scene)
    assert await scene.one_pass() == []
    scene.state.delete_pod(worker("w-new", node="new"))
    scene.reaping = pool(floor=0)
    scene.ahead = timedelta(hours=-2)
    await scene.one_pass()
    scene.ahead = timedelta()
    assert await scene.one_pass() == []
    scene.now += timedelta(minutes=2)
    assert await scene.one_pass() == ["w-mid"]


async def test_when_a_node_fell_empty_is_not_taken_from_a_clock_that_jumps_in_the_pass() -> None:
    """The worker goes, and the clock is set back, while the eviction is answered."""
    scene = Scene(floor=0)
    managed(scene)

    def go(pod: Pod) -> None:
        scene.state.delete_pod(pod)
        scene.ahead = timedelta(hours=-2)

    scene.pods.before_answer = go
    assert await scene.one_pass() == ["w-new"]
    scene.ahead = timedelta()
    assert await scene.one_pass() == []


async def test_node_that_this_process_emptied_uses_the_budget_although_karpenter_has_not_noted_it() -> None:
    """The NodeClaim says Consolidatable for an hour; the worker went a moment ago. After two minutes it is stuck."""
    scene = Scene(floor=0)
    managed(scene)
    assert await scene.one_pass() == ["w-new"]
    scene.state.delete_pod(worker("w-new", node="new"))
    scene.now += timedelta(seconds=90)
    assert await scene.one_pass() == []
    scene.now += timedelta(seconds=30)
    assert await scene.one_pass() == ["w-mid"]
