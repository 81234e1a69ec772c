"""One clock for all loops: a time of day that jumps stops nothing and starts nothing, and is not believed while off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from operator import lt, sub
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extender.clock import Clock, Steady
from extender.loops.claim_tidier import ClaimTidier
from extender.loops.clock_skew import LOOK, tell_skew
from extender.model import Pod, SkipReason
from extender.telemetry import Metrics
from extender.web.candidates import PASSED_BY, TALLY_LASTS, Candidates
from tests.builders import NOW, claim, clock_of, minutes_ago, node, steady, worker
from tests.listening import synced_state
from tests.unit.test_claim_tidier import Freed
from tests.unit.test_costs import Scene as Costs
from tests.unit.test_costs import idle
from tests.unit.test_idle_sources import Scene as Sources
from tests.unit.test_reaper import Scene as Reaping
from tests.unit.test_reaper import arrive

HOUR = timedelta(hours=1)
JUMPS = st.sampled_from([timedelta(0), HOUR, -HOUR, timedelta(days=400), timedelta(minutes=-7), timedelta(seconds=9)])
STEPS = st.lists(st.tuples(st.integers(1, 20), JUMPS), max_size=12)
"""Seconds that pass, and how far the time of day is ahead then."""
Steps = Sequence[tuple[int, timedelta]]


def test_a_deadline_is_never_compared_with_a_time_of_day() -> None:
    """The types do not mix: what is only waited for cannot be made from a clock that jumps."""
    mixed: tuple[Any, Any] = (steady(NOW), NOW)
    for one, other in (mixed, mixed[::-1]):
        for operation in (lt, sub):
            with pytest.raises((TypeError, AttributeError)):
                operation(one, other)
    assert steady(NOW) + HOUR - steady(NOW) == HOUR
    assert steady(NOW) < steady(NOW) + timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("skew", "off"), [(None, False), (timedelta(seconds=6), False), (timedelta(seconds=6.1), True), (-HOUR, True)]
)
def test_a_clock_is_off_beyond_what_claims_allow(skew: timedelta | None, off: bool) -> None:
    """Five seconds, and the one to which the API server tells its time. Where it is not known it is taken as right."""
    assert Clock(now=lambda: NOW, steady=lambda: Steady(0), skew=lambda: skew).is_off is off


# -- idle sources -----------------------------------------------------------------------------------------------------


async def asked_in(steps: Steps, *, with_jumps: bool) -> list[int]:
    """Let a scene go through the steps; say how many questions were put until the end of each."""
    scene, counts = Sources(), []
    asking = [asyncio.create_task(scene.answers.work()) for _ in range(4)]
    scene.idle(1)
    for seconds, ahead in steps:
        scene.ahead = ahead if with_jumps else timedelta(0)
        await scene.look(seconds=seconds)
        counts.append(len(scene.asked))
    for task in asking:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return counts


@given(STEPS)
def test_workers_are_asked_at_their_interval_whatever_the_time_of_day(steps: Steps) -> None:
    """A clock that is set back by an hour must not end the questions for an hour, and none ahead puts more of them."""
    assert asyncio.run(asked_in(steps, with_jumps=True)) == asyncio.run(asked_in(steps, with_jumps=False))


# -- claims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_counts_of_a_full_pool_last_a_second_whatever_the_time_of_day(ahead: timedelta) -> None:
    """After the clock was set back a claimant is not told the counts of an hour ago."""
    state, now, off = synced_state([node()], [worker("a")]), [NOW], [timedelta(0)]
    candidates = Candidates(state, clock_of(lambda: now[0], lambda: off[0]))
    assert await candidates.tally("pool") == {SkipReason.BUSY: 1}
    state.upsert_pod(worker("b"))
    off[0] = ahead
    now[0] += TALLY_LASTS / 2
    assert await candidates.tally("pool") == {SkipReason.BUSY: 1}
    now[0] += TALLY_LASTS / 2
    assert await candidates.tally("pool") == {SkipReason.BUSY: 2}


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
async def test_a_worker_is_passed_by_for_two_minutes_whatever_the_time_of_day(ahead: timedelta) -> None:
    """A refusal of the API server is neither forgotten at once nor remembered for an hour."""
    pods = [worker("a", idle_since=minutes_ago(200)), worker("b", idle_since=minutes_ago(190))]
    now, off = [NOW], [timedelta(0)]
    candidates = Candidates(synced_state([node()], pods), clock_of(lambda: now[0], lambda: off[0]))
    candidates.pass_by(pods[0].uid)
    off[0] = ahead
    now[0] += PASSED_BY / 2
    assert await candidates.first((), "pool") == pods[1]
    now[0] += PASSED_BY / 2
    assert await candidates.first((), "pool") == pods[0]


# -- costs and brakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [HOUR * 2, -HOUR * 2])
async def test_removed_costs_are_counted_for_an_hour_whatever_the_time_of_day(ahead: timedelta) -> None:
    """Two that vanish before the clock was set and one after it are three within an hour."""
    scene = Costs(*(idle(name) for name in "abc"))
    await scene.look()
    for name in "ab":
        scene.change(name, deletion_cost=None, cost_mark=None)
    await scene.look()
    scene.ahead = ahead
    await scene.look()
    scene.ahead = timedelta(0)
    scene.change("c", deletion_cost=None, cost_mark=None)
    await scene.look()
    assert scene.sample("warmnode_deletion_cost_contested", pool="pool") == 1


@pytest.mark.parametrize("ahead", [HOUR * 2, -HOUR * 2])
async def test_a_pause_lasts_as_long_whatever_the_time_of_day(ahead: timedelta) -> None:
    """Neither ended at once nor made longer, and its workers that are gone for a moment are remembered."""
    scene = Reaping(floor=0)
    for turn in range(3):
        evicted = await scene.one_pass()
        for pod in [pod for pod in scene.state.pods.values() if pod.terminating]:
            scene.state.delete_pod(pod)
        arrive(scene, [f"again-{turn}-{number}" for number in range(len(evicted))])
        scene.now += timedelta(minutes=8)
    assert await scene.one_pass() == []
    scene.ahead = ahead
    await scene.report()
    here = list(scene.state.pods.values())
    scene.state.replace_pods([])
    await scene.reaper.pass_where_due()
    scene.ahead = timedelta(0)
    scene.state.replace_pods([replace(pod, resource_version="9") for pod in here])
    scene.now += timedelta(minutes=30)
    assert await scene.one_pass() == []
    scene.now += timedelta(minutes=8)
    assert await scene.one_pass() != []


# -- a clock that is off ----------------------------------------------------------------------------------------------


async def test_a_reaper_whose_clock_is_fast_evicts_nobody_whose_claim_runs() -> None:
    """By its clock the claim has ended long ago. It says why, and goes on when the clock is right."""
    scene = Reaping(floor=0)
    for pod in list(scene.state.pods.values()):
        scene.state.upsert_pod(replace(pod, claim=claim(expires=NOW + timedelta(minutes=10))))
    scene.ahead = 2 * HOUR
    report = await scene.report()
    assert scene.pods.asked == []
    assert set(report.skipped.values()) == {SkipReason.CLOCK_OFF}
    scene.ahead = timedelta(0)
    assert set((await scene.report()).skipped.values()) == {SkipReason.CLAIMED}


async def test_a_clock_that_jumps_during_a_pass_ends_it() -> None:
    """It is asked again right before each eviction, after the pod was read: that answer tells the server's time."""
    scene = Reaping(floor=0)

    def jump(pod: Pod) -> None:
        scene.ahead = HOUR

    scene.pods.before_answer = jump
    report = await scene.report()
    assert len(scene.pods.asked) == 1
    assert set(report.skipped.values()) == {SkipReason.CLOCK_OFF}


async def test_brakes_learn_nothing_by_a_clock_that_is_off() -> None:
    """Workers that came back for work look as if nobody had needed them for hours."""
    scene = Reaping(floor=0)
    for turn in range(4):
        scene.ahead = timedelta(0)
        evicted = await scene.one_pass()
        assert evicted != []
        for pod in [pod for pod in scene.state.pods.values() if pod.terminating]:
            scene.state.delete_pod(pod)
        arrive(scene, [f"again-{turn}-{number}" for number in range(len(evicted))])
        scene.ahead = HOUR
        await scene.one_pass()
        for pod in list(scene.state.pods.values()):  # and now they get work
            scene.state.upsert_pod(replace(pod, idle_since=scene.now + timedelta(minutes=3)))
        scene.now += timedelta(minutes=9)


async def test_costs_are_not_written_by_a_clock_that_is_off() -> None:
    """A claimed worker would look cheap to delete."""
    scene = Costs(idle("w"))
    await scene.look()
    scene.change("w", claim=claim(expires=NOW + timedelta(minutes=10)))
    assert await scene.look() != []
    scene.ahead = 2 * HOUR
    assert await scene.look() == []


@given(STEPS)
def test_marks_after_all_jumps_are_those_without_any(steps: Steps) -> None:
    """While the clock is off no mark is written or removed; then everything is as if nothing had happened."""

    async def marks(*, with_jumps: bool) -> list[tuple[str, object]]:
        scene = Sources()
        asking = [asyncio.create_task(scene.answers.work()) for _ in range(4)]
        scene.idle(1)
        for seconds, ahead in [*steps, (30, timedelta(0))]:
            scene.ahead = ahead if with_jumps else timedelta(0)
            before = len(scene.written)
            await scene.look(seconds=seconds)
            assert abs(scene.ahead) < timedelta(seconds=6) or len(scene.written) == before
        for task in asking:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        return sorted((pod.name, pod.idle_since) for pod in scene.state.pods.values())

    assert asyncio.run(marks(with_jumps=True)) == asyncio.run(marks(with_jumps=False))


async def test_no_claim_is_tidied_by_a_clock_that_is_off() -> None:
    """Its claimant would lose it in use."""
    freed, off = Freed(), [2 * HOUR]
    tidier = ClaimTidier(
        state=synced_state([node()], [worker(claim=claim(expires=NOW + timedelta(minutes=10)))]),
        free=freed.free,
        metrics=Metrics(),
        may_write=lambda pool: True,
        clock=clock_of(lambda: NOW, lambda: off[0]),
        jitter=lambda: 0.0,
    )
    assert await tidier.tidy_up() == 0
    assert freed.asked == []


@pytest.mark.looptime
async def test_a_clock_that_is_off_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line when it begins, one when it ends, and a gauge."""
    caplog.set_level(logging.INFO, "warmnode.clock")
    off, metrics = [2 * HOUR], Metrics()
    telling = asyncio.create_task(tell_skew(clock_of(lambda: NOW, lambda: off[0]), metrics))
    await asyncio.sleep(3 * LOOK.total_seconds())
    assert metrics.registry.get_sample_value("warmnode_clock_ahead_seconds") == 7200
    off[0] = timedelta(0)
    await asyncio.sleep(3 * LOOK.total_seconds())
    telling.cancel()
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("ERROR", "nothing is evicted, claimed or marked: the clock here is wrong"),
        ("INFO", "the clock here is right again"),
    ]
    assert caplog.records[0].__dict__["fields"]["clock"] == "7200 s ahead of the API server's"
