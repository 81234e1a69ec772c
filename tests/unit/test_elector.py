"""The elector: one leads, whatever the API server, the network and the process's own clock do. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extender.clock import Clock, Steady
from extender.kube.errors import Conflict, Forbidden, KubeError, NotFound, Throttled, Unavailable
from extender.loops.election_observer import LossReason
from extender.loops.elector import JITTER, LeaderElector, make_identity
from extender.policy.election import LeaseRecord
from tests.fakes.leases import CALM, Disturbance, FakeLease, FakeLeaseStore, Op, Script

LEASE, DEADLINE, RETRY = timedelta(seconds=15), timedelta(seconds=10), timedelta(seconds=2)
CALL = 2.5
"""Seconds that one request may take."""
LONGEST_PAUSE = 2 * (1 + JITTER)
TAKEOVER = 15 + 2 * 2 + 3 * CALL
"""Seconds after a holder's death in which another leads: the last renewal is seen, it runs out, two requests."""
DOWN = Disturbance(refusal=Unavailable(0, "Connection", "refused"))
HANGING = Disturbance(before=36_000)


class Told:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.problems: list[KubeError] = []
        self.on_acquired: Callable[[], None] = lambda: None
        self.leading = asyncio.Event()
        self.ended = asyncio.Event()

    def acquired(self) -> None:
        self.all.append("acquired")
        self.leading.set()
        self.ended.clear()
        self.on_acquired()

    def lost(self, reason: LossReason) -> None:
        self.all.append(f"lost: {reason}")
        self.leading.clear()
        self.ended.set()

    def leader_changed(self, identity: str) -> None:
        self.all.append(f"leader: {identity or 'nobody'}")

    def failed(self, error: KubeError) -> None:
        self.all.append("failed")
        self.problems.append(error)

    def recovered(self) -> None:
        self.all.append("recovered")


class Contender:
    """An elector with its way to the Lease, its clock and its task. ``clock_ahead`` may be moved by the test."""

    def __init__(self, name: str, lease: FakeLease, *, script: Script = lambda op: CALM, rate: float = 1.0) -> None:
        loop = asyncio.get_running_loop()
        self.clock_ahead = 0.0
        self.store = FakeLeaseStore(lease, script)
        self.told = Told()
        self.elector = LeaderElector(
            self.store,
            identity=name,
            lease_duration=LEASE,
            renew_deadline=DEADLINE,
            retry_period=RETRY,
            random=Random(name),  # noqa: S311
            observer=self.told,
            clock=Clock(
                now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=loop.time()),
                steady=lambda: Steady(loop.time() * rate + self.clock_ahead),
            ),
        )
        self.task: asyncio.Task[None] | None = None

    def leads(self) -> bool:
        """A method, so that mypy does not take the first answer for ever."""
        return self.elector.is_leader

    def does(self, disturbance: Disturbance) -> None:
        """From now on this happens to each request."""
        self.store.script = lambda op: disturbance

    def start(self) -> None:
        self.task = asyncio.create_task(self.elector.run())

    async def die(self) -> None:
        """End without a word, as by SIGKILL."""
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task
            self.task = None


@asynccontextmanager
async def running(*contenders: Contender) -> AsyncIterator[None]:
    for each in contenders:
        each.start()
    try:
        yield
    finally:
        for each in contenders:
            await each.die()


@pytest.fixture
def lease() -> FakeLease:
    return FakeLease()


pytestmark = pytest.mark.looptime(noop_cycles=1)


# --- getting it, keeping it, passing it on ------------------------------------------------------------------------


async def test_first_one_leads_at_once(lease: FakeLease) -> None:
    one = Contender("one", lease)
    assert not one.leads()
    async with running(one):
        await one.told.leading.wait()
        assert asyncio.get_running_loop().time() < 0.001
        assert one.leads()
        assert one.elector.leader == "one"
        assert one.told.all == ["acquired", "leader: one"]
    assert (lease.record.holder, lease.record.duration, lease.record.transitions) == ("one", LEASE, 0)
    assert lease.record.acquired == lease.record.renewed


async def test_leader_renews_for_ever(lease: FakeLease) -> None:
    """An hour later it leads without a break; acquireTime is the first one, renewTime a recent one."""
    one, two = Contender("one", lease), Contender("two", lease)
    async with running(one, two):
        await asyncio.sleep(0.1)
        assert one.leads()
        acquired = lease.record.acquired
        await asyncio.sleep(3600)
        assert (one.leads(), two.leads()) == (True, False)
    assert one.told.all == ["acquired", "leader: one"]
    assert two.told.all == ["leader: one"]
    assert two.elector.leader == "one"
    assert lease.record.acquired == acquired
    assert lease.record.renewed is not None
    assert acquired is not None
    assert lease.record.renewed - acquired >= timedelta(seconds=3600 - LONGEST_PAUSE)
    assert lease.record.transitions == 0


async def test_another_takes_over_from_the_dead(lease: FakeLease) -> None:
    """Not before the lease has run out, and soon after; it counts as a transition."""
    one, two = Contender("one", lease), Contender("two", lease)
    async with running(one, two):
        await one.told.leading.wait()
        await asyncio.sleep(60)
        await one.die()
        died = asyncio.get_running_loop().time()
        await two.told.leading.wait()
        assert LEASE.total_seconds() - 2 * LONGEST_PAUSE <= asyncio.get_running_loop().time() - died <= TAKEOVER
        assert not one.leads()
    assert (lease.record.holder, lease.record.transitions) == ("two", 1)


async def test_term_counts_from_when_the_answer_had_come(lease: FakeLease) -> None:
    """Not from when it was asked for: that may be before the holder wrote it. It is taken as soon as it is over."""
    lease.write(LeaseRecord(holder="dead", duration=LEASE))
    slow = iter((Disturbance(after=2),))
    one = Contender("one", lease, script=lambda op: next(slow, CALM))
    async with running(one):
        await one.told.leading.wait()
        assert 2 + 15 <= asyncio.get_running_loop().time() <= 2 + 15 + 0.3


async def test_released_lease_is_taken_at_the_next_look(lease: FakeLease) -> None:
    one, two = Contender("one", lease), Contender("two", lease)
    async with running(one, two):
        await one.told.leading.wait()
        await asyncio.sleep(60)
        await one.die()
        await one.elector.release()
        assert not one.leads()
        assert (lease.record.holder, lease.record.duration) == ("", timedelta(seconds=1))
        began = asyncio.get_running_loop().time()
        await two.told.leading.wait()
        assert asyncio.get_running_loop().time() - began <= LONGEST_PAUSE
    assert one.told.all == ["acquired", "leader: one", "lost: released", "leader: nobody"]
    assert lease.record.transitions == 1


async def test_release_leaves_the_lease_of_another_alone(lease: FakeLease) -> None:
    one, two = Contender("one", lease), Contender("two", lease)
    async with running(one, two):
        await one.told.leading.wait()
        await asyncio.sleep(5)
        await two.die()
        before = lease.record
        await two.elector.release()
        assert lease.record == before
        assert one.leads()
    await Contender("three", FakeLease()).elector.release()  # there is no Lease at all


@pytest.mark.parametrize("disturbance", [DOWN, HANGING])
async def test_release_is_bounded_and_raises_nothing(lease: FakeLease, disturbance: Disturbance) -> None:
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()
        await one.die()
        one.does(disturbance)
        began = asyncio.get_running_loop().time()
        await one.elector.release()
        assert not one.leads()
        assert asyncio.get_running_loop().time() - began <= CALL + 0.001


@pytest.mark.parametrize("under_way", [False, True])
async def test_released_elector_never_leads_again(lease: FakeLease, under_way: bool) -> None:
    """Also where its loop was left running, in the middle of a renewal even."""
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()
        one.store.script = lambda op: Disturbance(after=1) if op is Op.UPDATE else CALM
        while under_way and not one.store.under_way:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        await one.elector.release()
        for _ in range(60):
            await asyncio.sleep(1)
            assert not one.leads()
        assert lease.record.holder == ""


@pytest.mark.parametrize("delay", [Disturbance(before=1), Disturbance(after=1)])
async def test_release_wins_against_a_renewal_under_way(lease: FakeLease, delay: Disturbance) -> None:
    """The process was told to stop while a renewal was under way: nobody holds the Lease in the end."""
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()
        one.store.script = lambda op: delay if op is Op.UPDATE else CALM
        while not one.store.under_way:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        await one.die()
        await one.elector.release()
        await asyncio.sleep(10)
        assert lease.record.holder == ""


# --- losing it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disturbance", [DOWN, HANGING])
async def test_leadership_ends_when_it_cannot_be_renewed(lease: FakeLease, disturbance: Disturbance) -> None:
    """Exactly renewDeadline after the last successful renewal was sent, told once, and won back when that is over."""
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()
        await asyncio.sleep(20)
        one.does(disturbance)
        sent = max(at for at, op in one.store.requests if op is Op.UPDATE)
        ends = sent + DEADLINE.total_seconds()
        await asyncio.sleep(ends - 0.001 - asyncio.get_running_loop().time())
        assert one.leads()
        await asyncio.sleep(0.002)
        assert not one.leads()
        await asyncio.sleep(600)
        assert one.told.all == ["acquired", "leader: one", "failed", "lost: deadline"]
        one.does(CALM)
        await asyncio.sleep(CALL + LONGEST_PAUSE)
        assert one.leads()
        assert one.told.all[4:] == ["acquired", "recovered"]


async def test_deadline_counts_from_before_the_renewal_was_sent(lease: FakeLease) -> None:
    """A slow answer does not prolong it."""
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()
        one.does(Disturbance(before=0.5, after=1.5))
        await asyncio.sleep(20)
        one.does(DOWN)
        await one.told.ended.wait()
        sent = [at for at, op in one.store.requests if op is Op.UPDATE]
        ended = asyncio.get_running_loop().time()
        assert ended == pytest.approx(sent[-1] + 10, abs=0.01)


async def test_process_that_was_stopped_does_not_lead_when_it_wakes(lease: FakeLease) -> None:
    """The clock decides, not a timer: nothing ran between the jump and the question."""
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()
        one.clock_ahead += DEADLINE.total_seconds()
        assert not one.leads()


async def test_write_that_was_answered_too_late_does_not_lead(lease: FakeLease) -> None:
    """A process that was stopped between sending and reading the answer holds the Lease, and waits for the next one."""
    one = Contender("one", lease, script=lambda op: Disturbance(after=1))
    async with running(one):
        await asyncio.sleep(1.5)
        one.clock_ahead += 60
        await asyncio.sleep(0.6)
        assert lease.record.holder == "one"
        assert not one.leads()
        await one.told.leading.wait()
    assert "lost: deadline" not in one.told.all


async def test_the_end_is_told_though_leadership_is_won_back(lease: FakeLease) -> None:
    """Who was told that this process leads is told that it did not for a while."""
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()
        await asyncio.sleep(1)
        one.clock_ahead += 60
        await asyncio.sleep(LONGEST_PAUSE)
        assert one.leads()
    assert one.told.all == ["acquired", "leader: one", "lost: deadline", "acquired"]


async def test_leader_steps_down_when_another_is_named(lease: FakeLease) -> None:
    """By other hands, as no elector would: at the next look, and it waits for its turn."""
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()
        lease.write(replace(lease.record, holder="by hand"))
        await one.told.ended.wait()
        assert asyncio.get_running_loop().time() <= LONGEST_PAUSE
        assert one.told.all == ["acquired", "leader: one", "lost: taken", "leader: by hand"]
        await one.told.leading.wait()
        assert asyncio.get_running_loop().time() <= TAKEOVER
    assert lease.record.transitions == 1


# --- a Lease that others have changed -----------------------------------------------------------------------------


async def test_deleted_lease_is_made_again_by_its_holder(lease: FakeLease) -> None:
    """Leadership goes on, and nobody else takes the chance."""
    one, two = Contender("one", lease), Contender("two", lease)
    async with running(one, two):
        await one.told.leading.wait()
        await asyncio.sleep(10)
        for _ in range(50):
            lease.delete()
            await asyncio.sleep(7.3)
            assert not two.leads()
        await asyncio.sleep(LONGEST_PAUSE)
        assert one.leads()
    assert one.told.all.count("acquired") == 1
    assert lease.record.holder == "one"


async def test_deleted_lease_of_a_dead_holder_is_taken_when_its_term_is_over(lease: FakeLease) -> None:
    one, two = Contender("one", lease), Contender("two", lease)
    async with running(one, two):
        await one.told.leading.wait()
        await asyncio.sleep(10)
        await one.die()
        died = asyncio.get_running_loop().time()
        lease.delete()
        await two.told.leading.wait()
        assert 10 <= asyncio.get_running_loop().time() - died <= TAKEOVER


@pytest.mark.parametrize(
    "record",
    [
        LeaseRecord(),
        LeaseRecord(holder="gone", duration=None, transitions=2**31 - 1),
        LeaseRecord(holder="gone", renewed=datetime(9999, 12, 31, tzinfo=UTC), acquired=datetime(1, 1, 1, tzinfo=UTC)),
        LeaseRecord(holder="one", renewed=datetime(9999, 12, 31, tzinfo=UTC), acquired=datetime(1, 1, 1, tzinfo=UTC)),
        LeaseRecord(holder="gone", duration=timedelta(days=10_000)),
    ],
)
async def test_nonsense_ends_no_election(lease: FakeLease, record: LeaseRecord) -> None:
    """Whatever a Lease was edited to, somebody leads in the end; a promised term counts up to ten times ours."""
    lease.write(record)
    one = Contender("one", lease)
    async with running(one), asyncio.timeout(10 * 15 + TAKEOVER):
        await one.told.leading.wait()
    assert lease.record.holder == "one"


async def test_edited_labels_are_no_renewal(lease: FakeLease) -> None:
    """Somebody who touches the Lease all the time does not keep a dead holder's term alive."""
    lease.write(LeaseRecord(holder="dead", duration=LEASE))
    one = Contender("one", lease)

    async def touch() -> None:
        while True:
            await asyncio.sleep(1)
            lease.touch()

    touching = asyncio.create_task(touch())
    async with running(one), asyncio.timeout(TAKEOVER):
        await one.told.leading.wait()
    touching.cancel()


# --- what the API server answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        Forbidden(403, "Forbidden", "may not"),
        Forbidden(401, "Unauthorized", "who are you"),
        Unavailable(500, "InternalError", "etcd"),
        Unavailable(0, "Timeout", "silent"),
        Throttled(429, "TooManyRequests", "patience", timedelta(seconds=1)),
        KubeError(422, "Invalid", "no"),
        NotFound(404, "NotFound", "no such namespace"),
    ],
)
@pytest.mark.parametrize("op", [Op.READ, Op.CREATE])
async def test_problem_is_told_once_and_survived(lease: FakeLease, error: KubeError, op: Op) -> None:
    one = Contender("one", lease)
    one.store.script = lambda each: Disturbance(refusal=error) if each is op else CALM
    async with running(one):
        await asyncio.sleep(600)
        assert one.told.problems == [error]
        assert len(one.store.requests) > 200
        one.does(CALM)
        await asyncio.sleep(LONGEST_PAUSE)
        assert one.leads()
        assert one.told.all.count("recovered") == 1


async def test_another_sort_of_problem_is_told(lease: FakeLease) -> None:
    one = Contender("one", lease)
    one.does(DOWN)
    async with running(one):
        await asyncio.sleep(60)
        one.does(Disturbance(refusal=Forbidden(403, "Forbidden", "may not")))
        await asyncio.sleep(60)
    assert [type(each) for each in one.told.problems] == [Unavailable, Forbidden]


async def test_lost_race_is_no_problem(lease: FakeLease) -> None:
    """Ten start at once: one leads, and nobody is told of a failure."""
    many = [Contender(f"c{number}", lease, script=lambda op: Disturbance(before=0.1)) for number in range(10)]
    async with running(*many):
        await asyncio.sleep(60)
        assert sum(each.leads() for each in many) == 1
    assert len(lease.writes) > 20
    assert not any("failed" in each.told.all for each in many)


async def test_lease_that_vanishes_before_the_write_is_no_problem(lease: FakeLease) -> None:
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()

        def vanish(op: Op) -> Disturbance:
            if op is Op.UPDATE:
                lease.delete()
            return CALM

        one.store.script = vanish
        await asyncio.sleep(5)
        assert one.leads()
    assert "failed" not in one.told.all


async def test_write_whose_answer_was_lost_is_found_at_the_next_look(lease: FakeLease) -> None:
    """It may have been done: then the record names us, and the next renewal leads."""
    one = Contender("one", lease)
    one.store.script = lambda op: Disturbance(lost=Unavailable(0, "Connection", "reset")) if op is Op.CREATE else CALM
    async with running(one):
        await asyncio.sleep(0.1)
        assert lease.record.holder == "one"
        assert not one.leads()
        await asyncio.sleep(LONGEST_PAUSE)
        assert one.leads()
    assert lease.record.transitions == 0


async def test_pause_that_the_server_asks_for_is_kept(lease: FakeLease) -> None:
    one = Contender("one", lease)
    one.does(Disturbance(refusal=Throttled(429, "TooManyRequests", "patience", timedelta(seconds=4))))
    async with running(one):
        await asyncio.sleep(60)
    assert {round(later - at, 3) for (at, _), (later, _) in pairwise(one.store.requests)} == {4.0}


async def test_pause_that_the_server_asks_for_does_not_cost_leadership(lease: FakeLease) -> None:
    """It counts up to half of renewDeadline."""
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()
        one.does(Disturbance(refusal=Throttled(429, "TooManyRequests", "patience", timedelta(hours=1))))
        await asyncio.sleep(LONGEST_PAUSE)
        one.does(CALM)
        await asyncio.sleep(60)
        assert one.leads()
    assert one.told.all == ["acquired", "leader: one", "failed", "recovered"]


async def test_pauses_differ(lease: FakeLease) -> None:
    """Replicas do not move in step, and never wait longer than a retry period and its jitter."""
    one = Contender("one", lease)
    async with running(one):
        await asyncio.sleep(120)
    at = [at for at, op in one.store.requests if op is Op.READ]
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert RETRY.total_seconds() <= min(pauses) < max(pauses) <= LONGEST_PAUSE + 0.001
    assert len({round(pause, 3) for pause in pauses}) > len(pauses) / 2


async def test_hanging_server_leaves_time_for_another_try(lease: FakeLease) -> None:
    """One request without an answer costs no leadership."""
    one = Contender("one", lease)
    async with running(one):
        await one.told.leading.wait()
        for op in (Op.READ, Op.UPDATE):
            hung = iter((HANGING,))
            one.store.script = lambda each, op=op, hung=hung: next(hung, CALM) if each is op else CALM  # type: ignore[misc]
            await asyncio.sleep(30)
            assert one.leads()
    assert one.told.all == ["acquired", "leader: one", *["failed", "recovered"] * 2]


async def test_cancellation_ends_the_loop(lease: FakeLease) -> None:
    """Also in the middle of a request."""
    for disturbance in (CALM, HANGING):
        one = Contender("one", lease)
        one.does(disturbance)
        task = asyncio.create_task(one.elector.run())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_identity_is_of_this_process_alone() -> None:
    """A restarted container has the host name of the one before, and is not the one before."""
    first, second = (make_identity(Random(seed)) for seed in (1, 2))  # noqa: S311
    assert first != second
    assert first.rpartition("_")[0] == second.rpartition("_")[0] != ""


# --- all of it at once --------------------------------------------------------------------------------------------


class World:
    """A few replicas of the reaper over one Lease, with everything going wrong that can go wrong on the way.

    True time is the loop's. Each contender has a clock of its own; their rates differ less than
    leaseDuration / renewDeadline, which is what the rules allow.
    """

    def __init__(self, seed: int, rates: list[float], badness: float) -> None:
        self.random = Random(seed)  # noqa: S311
        self.lease = FakeLease()
        self.rates = rates
        self.badness = badness
        self.numbers = iter(range(10**6))
        self.everybody: list[Contender] = []
        self.alive: list[Contender] = []

    def add(self, rate: float) -> Contender:
        made = Contender(f"c{next(self.numbers)}", self.lease, script=self.disturb, rate=rate)
        made.clock_ahead = self.random.uniform(0, 1e6)
        made.told.on_acquired = self.check
        self.everybody.append(made)
        self.alive.append(made)
        made.start()
        return made

    def disturb(self, op: Op) -> Disturbance:
        chance = self.random.random()
        delay = self.random.choice((0.01, 0.1, 1.0, 3.0, 20.0)) * self.random.random()
        if chance > self.badness:
            return Disturbance(before=0.01 * self.random.random(), after=0.01 * self.random.random())
        error = self.random.choice(
            (
                Unavailable(0, "Connection", "reset"),
                Throttled(429, "TooManyRequests", "patience", timedelta(seconds=1)),
                Conflict(409, "Conflict", "for no reason"),
            )
        )
        return self.random.choice(
            (
                Disturbance(before=delay),
                Disturbance(after=delay),
                Disturbance(before=delay, after=delay),
                Disturbance(before=delay, refusal=error),
                Disturbance(before=delay, lost=error),
            )
        )

    def check(self) -> None:
        leaders = [each.elector.identity for each in self.everybody if each.leads()]
        assert len(leaders) <= 1, leaders

    async def trouble(self, seconds: float) -> None:
        """Replicas die or are stopped in order, and others come."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        for rate in self.rates:
            self.add(rate)
        while loop.time() < ends:
            await asyncio.sleep(self.random.uniform(0.05, 1.5))
            self.check()
            if self.random.random() < 0.05:
                victim = self.random.choice(self.alive)
                self.alive.remove(victim)
                await victim.die()
                if self.random.random() < 0.5:
                    await victim.elector.release()
                self.add(self.random.choice(self.rates))

    async def calm_down(self) -> None:
        """Nothing goes wrong any more, and what was under way has arrived."""
        self.badness = 0.0
        for each in self.everybody:
            while each.store.under_way and each not in self.alive:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(1)
        await asyncio.sleep(60)

    async def end(self) -> None:
        for each in self.alive:
            await each.die()
            self.check()
        for each in self.everybody:
            for task in list(each.store.under_way):
                task.cancel()


def in_virtual_time(play: Coroutine[None, None, None]) -> None:
    """Run it on a loop of its own, whose time passes when there is nothing to do."""
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(noop_cycles=1)) as runner:
        runner.run(play)


@given(
    seed=st.integers(0, 2**32),
    rates=st.lists(st.floats(1.0, 1.49), min_size=2, max_size=3),
    badness=st.floats(0.0, 0.9),
)
@settings(max_examples=30, deadline=None)
def test_never_two_lead(seed: int, rates: list[float], badness: float) -> None:
    """At no moment of true time do two electors say that they lead, those that died included."""

    async def play() -> None:
        world = World(seed, rates, badness)
        await world.trouble(200)
        await world.end()

    in_virtual_time(play())


@given(seed=st.integers(0, 2**32), replicas=st.integers(2, 3), badness=st.floats(0.0, 0.9))
@settings(max_examples=15, deadline=None)
def test_somebody_leads_soon_after_the_leader_died(seed: int, replicas: int, badness: float) -> None:
    """Whatever happened before: within leaseDuration, two retry periods and the requests' time-outs."""

    async def play() -> None:
        world = World(seed, [1.0] * replicas, badness)
        await world.trouble(60)
        await world.calm_down()
        (leader,) = (each for each in world.alive if each.leads())
        await leader.die()
        world.alive.remove(leader)
        await asyncio.sleep(TAKEOVER)
        assert any(each.leads() for each in world.alive)
        await world.end()

    in_virtual_time(play())
