"""The cost writer: what is written when, how often, and when it yields to another writer."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from extender.cluster.state import ClusterState
from extender.kube.errors import Conflict, Forbidden, KubeError, Unavailable
from extender.loops.bulk_writes import BATCH, REFUSED_PAUSE
from extender.loops.cost_contests import ASKED, Contests
from extender.loops.costs import CostWriter
from extender.model import Pod
from extender.policy.defaults import DisruptionCostUse, PoolCosts
from extender.policy.deletion_cost import REPLICA_SET, CostWrite, Price
from extender.settings import PoolSettings
from extender.telemetry import Metrics
from tests.builders import NOW, clock_of, minutes_ago, node, worker

FIELDS = {Price.DELETION: ("deletion_cost", "cost_mark"), Price.DISRUPTION: ("disruption_cost", "disruption_mark")}
OFF = PoolCosts(enabled=False, settle=timedelta(0))


class Scene:
    """Nodes of different age, and an API server that takes writes and shows them."""

    def __init__(self, *pods: Pod) -> None:
        self.now = NOW
        self.ahead = timedelta(0)
        self.may_write = True
        self.settings = PoolSettings(name="pool")
        self.writes: list[tuple[str, int | None]] = []
        self.patches: list[CostWrite] = []
        self.karpenters: set[str] = set()
        self.unreadable = False
        self.asked: list[str] = []
        self.told: list[str] = []
        self.fails: list[Exception] = []
        self.slow = False
        self.metrics = Metrics()
        self.state = ClusterState(clock=lambda: self.now)
        self.state.replace_nodes([node("a"), node("b"), node("k", node_pool="workers")])
        self.state.replace_pods(pods)
        self.state.begin()
        self.writer = CostWriter(
            state=self.state,
            write=self.write,
            contests=Contests(
                is_priced_by_karpenter=self.is_priced_by_karpenter, gave_up=self.gave_up, clock=clock_of(self.clock)
            ),
            metrics=self.metrics,
            rules=lambda pool: self.settings,
            may_write=lambda: self.may_write,
            clock=clock_of(self.clock, lambda: self.ahead),
        )
        self.metrics.show(self.writer.figures)

    def clock(self) -> datetime:
        return self.now

    async def write(self, write: CostWrite) -> Pod:
        if self.slow:
            await asyncio.sleep(0)
        if self.fails:
            raise self.fails.pop(0)
        self.patches.append(write)
        changes: dict[str, str | None] = {}
        for price, value in write.values.items():
            if price is Price.DELETION:
                self.writes.append((write.pod.name, value))
            value_field, mark_field = FIELDS[price]
            changes[value_field] = changes[mark_field] = None if value is None else str(value)
        return replace(write.pod, **changes, resource_version=f"{write.pod.resource_version}1")

    async def is_priced_by_karpenter(self, pod: Pod) -> bool:
        self.asked.append(pod.name)
        if self.unreadable:
            raise Unavailable(503, "x", "away")
        return pod.deletion_cost in self.karpenters

    async def gave_up(self, pod: Pod, why: str) -> None:
        self.told.append(pod.name)

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def counted(self, outcome: str) -> float:
        return self.sample("warmnode_deletion_cost_writes_total", pool="pool", outcome=outcome)

    async def look(self) -> list[tuple[str, int | None]]:
        """One full look, carried out: what was written in it."""
        before = len(self.writes)
        await self.writer.carry_out(await self.writer.look_at_all())
        return self.writes[before:]

    def change(self, name: str, **changes: object) -> None:
        pod = self.state.pods[worker(name).uid]
        self.state.upsert_pod(replace(pod, resource_version=f"{pod.resource_version}2", **changes))


def idle(name: str, at: str = "a") -> Pod:
    return worker(name, node=at, idle_since=minutes_ago(5))


async def test_two_writes_in_a_cycle() -> None:
    """Idle, settled, busy, idle again: one write each, and none while nothing changes."""
    scene = Scene(idle("w"))
    assert len(await scene.look()) == 1
    assert await scene.look() == []
    scene.change("w", idle_since=None)
    assert len(await scene.look()) == 1
    assert await scene.look() == []
    scene.change("w", idle_since=NOW)
    assert await scene.look() == []
    scene.now += timedelta(seconds=30)
    assert len(await scene.look()) == 1


async def test_other_nodes_cause_no_write() -> None:
    """Nodes that join and leave write nothing on the pods of other nodes."""
    scene = Scene(idle("w"))
    await scene.look()
    scene.state.upsert_node(node("c", created=minutes_ago(1)))
    scene.state.upsert_pod(worker("busy", node="c"))
    assert await scene.look() == []
    scene.state.delete_node(node("b"))
    assert await scene.look() == []


async def test_never_idle_is_never_written() -> None:
    """A pool of busy workers costs no write at all."""
    assert await Scene(worker("x"), worker("y")).look() == []


async def test_dry_run_writes_nothing() -> None:
    """Not even a removal."""
    scene = Scene(idle("w"))
    await scene.look()
    scene.settings = PoolSettings(name="pool", deletion_cost=OFF, dry_run=True)
    assert await scene.look() == []


async def test_switched_off_removes_ours_once() -> None:
    """Off leaves nothing of ours behind, and a foreign value where it is."""
    scene = Scene(idle("w"), replace(idle("theirs"), deletion_cost="7"))
    await scene.look()
    scene.settings = PoolSettings(name="pool", deletion_cost=OFF)
    assert await scene.look() == [("w", None)]
    assert await scene.look() == []
    assert scene.state.pods[worker("theirs").uid].deletion_cost == "7"


async def test_cost_of_a_pod_whose_pool_is_configured_no_more_is_removed() -> None:
    """A ReplicaSet would go by its last value. A foreign one stays where it is, and so does one on a pod that
    was no worker here: it may be one of another installation."""
    elsewhere = worker("elsewhere", pool=None, deletion_cost="-8", cost_mark="-8")
    scene = Scene(idle("ours"), idle("theirs"), elsewhere)
    assert len(await scene.look()) == 2
    scene.change("ours", pool=None)
    scene.change("theirs", pool=None, deletion_cost="7")
    scene.settings = PoolSettings(name="pool", dry_run=True)
    assert await scene.look() == []
    scene.settings = PoolSettings(name="pool")
    assert await scene.look() == [("ours", None)]
    assert await scene.look() == []


async def test_single_foreign_value_is_left_alone_and_others_are_written() -> None:
    """One pod of somebody else's is no reason to stop."""
    scene = Scene(replace(idle("theirs"), deletion_cost="7"), idle("w"))
    assert [name for name, _ in await scene.look()] == ["w"]


async def test_writer_that_overwrites_ours_makes_us_stop() -> None:
    """Three values overwritten: the pool is left alone, new idle workers included."""
    scene = Scene(*(idle(f"w{i}") for i in range(4)))
    assert len(await scene.look()) == 4
    for i in range(3):
        scene.change(f"w{i}", deletion_cost="99")
    await scene.look()
    scene.state.upsert_pod(idle("new"))
    assert await scene.look() == []


async def test_writer_that_clears_ours_makes_us_stop() -> None:
    """Values and marks removed together: written again, but not for ever."""
    scene = Scene(*(idle(f"w{i}") for i in range(2)))
    rounds = 0
    while await scene.look():
        rounds += 1
        assert rounds < 5
        for i in range(2):
            scene.change(f"w{i}", deletion_cost=None, cost_mark=None)
    assert rounds == 2


async def test_forgiven_after_a_new_configuration() -> None:
    """Who changed the configuration may have stopped the other writer."""
    scene = Scene(*(idle(f"w{i}") for i in range(3)))
    await scene.look()
    for i in range(3):
        scene.change(f"w{i}", deletion_cost=None, cost_mark=None)
    await scene.look()
    assert await scene.look() == []
    scene.writer.forgive()
    assert len(await scene.look()) == 3


async def test_conflict_is_left_to_the_watch() -> None:
    """The version that won is judged anew when it comes."""
    scene = Scene(idle("w"))
    scene.fails = [Conflict(409, "Conflict", "changed")]
    assert await scene.look() == []
    assert len(await scene.look()) == 1


async def test_failure_stops_the_round() -> None:
    """An API server in trouble gets one request, not one for each pod."""
    scene = Scene(*(idle(f"w{i}") for i in range(50)))
    scene.fails = [Unavailable(500, "InternalError", "down")] * 50
    writes = await scene.writer.look_at_all()
    assert not await scene.writer.carry_out(writes)
    assert len(scene.fails) >= 40


async def test_refusal_of_one_pod_is_no_trouble_and_waits_by_itself() -> None:
    """An admission policy forbids one write: the others are made, and that one is tried again minutes later."""
    scene = Scene(*(idle(f"w{i}") for i in range(20)))
    scene.fails = [Forbidden(403, "Forbidden", "denied by a policy"), KubeError(422, "Invalid", "denied")]
    writes = await scene.writer.look_at_all()
    assert await scene.writer.carry_out(writes)
    assert len(scene.writes) == 18
    assert scene.counted("refused") == 2
    assert await scene.look() == []
    scene.now += REFUSED_PAUSE
    assert len(await scene.look()) == 2


async def test_refusals_of_everybody_are_slowed_down() -> None:
    """A permission that is missing looks like many refusals: not one request for each worker at once."""
    scene = Scene(*(idle(f"w{i}") for i in range(200)))
    scene.fails = [Forbidden(403, "Forbidden", "no permission")] * 200
    assert not await scene.writer.carry_out(await scene.writer.look_at_all())
    assert scene.counted("refused") < 100


async def test_later_success_does_not_hide_a_failure() -> None:
    """One write fails while others are on their way and succeed: no more are begun."""
    scene = Scene(*(idle(f"w{i}") for i in range(50)))
    scene.slow = True
    scene.fails = [Unavailable(500, "InternalError", "down")]
    assert not await scene.writer.carry_out(await scene.writer.look_at_all())
    assert len(scene.writes) < 16


async def test_batch_is_bounded_and_removals_and_busy_ones_come_first() -> None:
    """What is left over is decided anew, by what changed meanwhile."""
    scene = Scene(*(idle(f"w{i}") for i in range(BATCH + 50)))
    scene.change("w0", deletion_cost="-1", cost_mark="-1", idle_since=None)
    writes = await scene.writer.look_at_all()
    assert writes[-1].pod.name == "w0"
    await scene.writer.carry_out(writes)
    assert len(scene.writes) == BATCH
    assert scene.writes[0][0] == "w0"


@pytest.mark.looptime
async def test_bug_in_a_look_is_counted_and_the_next_look_is_made() -> None:
    """It does not end the process."""
    scene = Scene(idle("w"))
    scene.fails = [RuntimeError("a bug")]
    running = asyncio.create_task(scene.writer.run())
    await asyncio.sleep(120)
    running.cancel()
    assert scene.writes != []
    assert scene.sample("warmnode_loop_crashes_total", loop="costs") == 1


async def test_lost_leadership_stops_the_round() -> None:
    """Checked before each write."""
    scene = Scene(idle("w"))
    writes = await scene.writer.look_at_all()
    scene.may_write = False
    await scene.writer.carry_out(writes)
    assert scene.writes == []


# -- beside Karpenter's own writer ------------------------------------------------------------------------------------


def of_deployment(name: str, *, cost: str | None = None, is_idle: bool = True) -> Pod:
    since = minutes_ago(5) if is_idle else None
    return worker(name, node="k", idle_since=since, owner=REPLICA_SET, deletion_cost=cost)


async def patched(scene: Scene) -> dict[str, dict[Price, int | None]]:
    """One full look, carried out: the patches in it."""
    before = len(scene.patches)
    await scene.look()
    return {write.pod.name: dict(write.values) for write in scene.patches[before:]}


async def test_one_value_of_karpenters_is_enough() -> None:
    """In a pool of one worker, and where Karpenter wrote first: the other price is written instead, for good."""
    scene = Scene(of_deployment("w", cost="-1"))
    scene.karpenters = {"-1"}
    assert await patched(scene) == {}
    found = await patched(scene)
    assert found.keys() == {"w"}
    assert found["w"].keys() == {Price.DISRUPTION}
    assert await patched(scene) == {}
    assert (scene.asked, scene.told) == (["w"], ["w"])
    assert scene.sample("warmnode_deletion_cost_contested", pool="pool") == 1


async def test_what_karpenter_does_in_one_pool_holds_in_all() -> None:
    """Ours are taken from the pods of ReplicaSets, which it clears without a trace; a bare worker keeps both."""
    bare, away = worker("bare", node="k"), idle("away")
    scene = Scene(of_deployment("theirs", cost="-1"), of_deployment("ours"), bare, away)
    assert {"ours", "away"} <= (await patched(scene)).keys()
    scene.karpenters = {"-1"}
    scene.writer.forgive()
    await patched(scene)
    found = await patched(scene)
    assert found["ours"][Price.DELETION] is None
    assert found["bare"].keys() == {Price.DISRUPTION}
    assert "away" not in found
    scene.change("ours", deletion_cost="-7")
    scene.change("theirs", deletion_cost=None)
    assert await patched(scene) == {}
    assert len(scene.told) == 1


async def test_many_values_that_karpenter_wrote_are_no_contest() -> None:
    """Karpenter overwrites all within a second: who it is comes before how many there are."""
    scene = Scene(*(of_deployment(f"w{i}") for i in range(4)))
    assert len(await patched(scene)) == 4
    scene.karpenters = {"-2"}
    for i in range(4):
        scene.change(f"w{i}", deletion_cost="-2")
    await patched(scene)
    assert {name: set(values) for name, values in (await patched(scene)).items()} == {
        f"w{i}": {Price.DISRUPTION} for i in range(4)
    }


async def test_another_writer_is_not_asked_about_for_ever() -> None:
    """A few values of a pool an hour, and none twice."""
    scene = Scene(*(of_deployment(f"w{i}", cost=str(i)) for i in range(6)))
    for _ in range(6):
        await scene.look()
    assert len(scene.asked) == len(set(scene.asked)) == ASKED
    scene.now += timedelta(hours=1, seconds=1)
    await scene.look()
    assert len(scene.asked) == ASKED + 1


async def test_who_wrote_is_asked_again_after_a_failure() -> None:
    """And nothing else waits for it."""
    scene = Scene(of_deployment("w", cost="-1"), idle("a"))
    scene.unreadable = True
    assert (await patched(scene)).keys() == {"a"}
    scene.unreadable, scene.karpenters = False, {"-1"}
    await patched(scene)
    assert "w" in await patched(scene)


async def test_pods_that_karpenter_never_prices_are_not_asked_about() -> None:
    """It prices pods of ReplicaSets on its own nodes: a value elsewhere is somebody else's."""
    theirs = replace(of_deployment("elsewhere", cost="-1"), node="a")
    scene = Scene(theirs, worker("bare", node="k", idle_since=minutes_ago(5), deletion_cost="-1"))
    await scene.look()
    assert scene.asked == []


async def test_never_idle_gets_the_price_once_where_it_is_asked_for() -> None:
    """One write at its birth, and none while nothing changes."""
    scene = Scene(worker("w", node="a"), worker("v", node="k"))
    scene.settings = PoolSettings(name="pool", deletion_cost=PoolCosts(disruption_cost=DisruptionCostUse.ALWAYS))
    assert {name: set(values) for name, values in (await patched(scene)).items()} == {
        "w": {Price.DISRUPTION},
        "v": {Price.DISRUPTION},
    }
    assert await patched(scene) == {}


async def test_writer_that_clears_the_other_price_makes_us_stop() -> None:
    """Value and mark removed together, three times: as with deletion costs."""
    scene = Scene(*(worker(f"w{i}", node="a") for i in range(3)))
    scene.settings = PoolSettings(name="pool", deletion_cost=PoolCosts(disruption_cost=DisruptionCostUse.ALWAYS))
    assert len(await patched(scene)) == 3
    for i in range(3):
        scene.change(f"w{i}", disruption_cost=None, disruption_mark=None)
    await patched(scene)
    assert await patched(scene) == {}


async def test_both_prices_go_from_a_pod_that_is_no_worker_any_more() -> None:
    """Its pool is configured no more, and nobody else would take them away. One that was never ours is let be."""
    of_another = worker("another", pool=None, disruption_cost="-5", disruption_mark="-5")
    scene = Scene(idle("w"), of_another)
    scene.settings = PoolSettings(name="pool", deletion_cost=PoolCosts(disruption_cost=DisruptionCostUse.ALWAYS))
    await scene.look()
    scene.change("w", pool=None)
    assert await patched(scene) == {"w": {Price.DELETION: None, Price.DISRUPTION: None}}
    assert await patched(scene) == {}
