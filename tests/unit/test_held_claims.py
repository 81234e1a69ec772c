"""Claims on workers that change, or go, while one is at them: how often it is tried, and what is said then."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from extender.cluster.state import ClusterState
from extender.kube.claim_store import FoundPod
from extender.kube.errors import Conflict, NotFound
from extender.model import Pod, PodClaim
from extender.policy.claims import Claimant, ClaimReference, PoolClaims
from extender.policy.defaults import ClaimRules, PoolCosts
from extender.policy.deletion_cost import NO_CHANGE, Prices
from extender.web.claim_values import ClaimRequest, ClockOff, NoSuchClaim, NothingToClaim, StillChanging
from extender.web.claiming import Claiming
from extender.web.held_claims import ATTEMPTS, HeldClaims
from extender.web.waiting_claims import Lines
from tests.builders import NOW, claim, clock_of, minutes_ago, node, worker
from tests.listening import synced_state

CLAIM = claim(id="default.w.abc")
HELD = replace(worker("w", node="n", idle_since=minutes_ago(9)), claim=CLAIM, resource_version="1")
MINE = ClaimReference(user=CLAIM.user, pool=CLAIM.pool, id=CLAIM.id)
CLAIMANT = Claimant.of(CLAIM)
TTL = timedelta(minutes=1)
SETTINGS = PoolClaims(rules=ClaimRules(), costs=PoolCosts(), dry_run=False, is_by_label=True)
CONFLICT, GONE = Conflict(409, "Conflict", "it changed"), NotFound(404, "NotFound", "it is gone")


class Store:
    """Writes end as ``outcomes`` say, in turn, the last one for ever; None: well. A pod is read as ``there``."""

    def __init__(self, *outcomes: Exception | None, there: Pod | None = HELD) -> None:
        self._outcomes = list(outcomes)
        self.there = there
        self.writes = 0
        self.asked_for: list[tuple[str | None, str | None]] = []
        self.when_asked: Callable[[], None] = lambda: None

    async def find(self, key: str | None, namespace: str | None) -> list[FoundPod]:
        self.asked_for.append((key, namespace))
        self.when_asked()
        return []

    async def as_of(self, pod: Pod, version: str) -> FoundPod | None:
        return None

    async def read(self, namespace: str, name: str) -> FoundPod | None:
        return None if self.there is None else FoundPod(pod=self.there, ip=None)

    async def hold(self, pod: Pod, claim: PodClaim, key: str, *, cost: Prices = NO_CHANGE) -> FoundPod:
        return self._write(replace(pod, claim=claim))

    async def free(self, pod: Pod, ended: datetime | None) -> FoundPod:
        return self._write(replace(pod, claim=None, claim_ended=ended))

    def _write(self, written: Pod) -> FoundPod:
        self.writes += 1
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if outcome is not None:
            raise outcome
        return FoundPod(pod=replace(written, resource_version="2"), ip=None)


def state_of(*pods: Pod) -> ClusterState:
    return synced_state([node("n")], pods)


def held(store: Store, lost: list[None] | None = None) -> HeldClaims:
    count = [] if lost is None else lost
    return HeldClaims(
        state=state_of(HELD), claims=store, clock=clock_of(lambda: NOW), lost_race=lambda: count.append(None)
    )


def held_by_a_clock_that_is_off(store: Store, ahead: timedelta) -> HeldClaims:
    clock = dataclasses.replace(clock_of(lambda: NOW + ahead), skew=lambda: -ahead)
    return HeldClaims(state=state_of(HELD), claims=store, clock=clock)


CHANGES: dict[str, Callable[[HeldClaims], Awaitable[object]]] = {
    "renew": lambda claims: claims.renew(MINE, TTL),
    "release": lambda claims: claims.release(MINE),
    "prolong": lambda claims: claims.prolong(HELD, CLAIMANT, TTL),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_a_claim_on_a_worker_that_changes_all_the_time_is_given_up_for_now(what: str) -> None:
    """One try on what is known, which may be behind, and five on what was read. Each is a race that was lost."""
    store, lost = Store(CONFLICT), list[None]()
    with pytest.raises(StillChanging):
        await CHANGES[what](held(store, lost))
    assert store.writes == len(lost) == ATTEMPTS + 1


@pytest.mark.parametrize(("what", "hours"), [("renew", 2), ("renew", -2), ("prolong", -2)])
async def test_with_a_clock_that_has_jumped_since_the_call_came_nothing_is_written(what: str, hours: int) -> None:
    """It would end at another time than the claimant is told."""
    store = Store(None)
    with pytest.raises(ClockOff, match="7200 s"):
        await CHANGES[what](held_by_a_clock_that_is_off(store, timedelta(hours=hours)))
    assert store.writes == 0


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_claim_is_released_whatever_the_clock_says(hours: int) -> None:
    """It counts as in force, and as having ended when it would have: no worker looks idle for too long."""
    freed = await held_by_a_clock_that_is_off(Store(None), timedelta(hours=hours)).release(MINE)
    assert (freed.claim, freed.claim_ended) == (None, CLAIM.expires)


async def test_with_a_clock_that_jumps_no_claim_counts_as_the_first() -> None:
    """Those of a concurrent request may look as if they had ended, also where it jumps while they are asked for."""
    store, ahead = Store(None), timedelta()
    clock = dataclasses.replace(clock_of(lambda: NOW + ahead), skew=lambda: -ahead)
    claims = HeldClaims(state=state_of(HELD), claims=store, clock=clock)
    assert await claims.is_first(HELD, CLAIMANT, SETTINGS, ask=True)

    def jump() -> None:
        nonlocal ahead
        ahead = timedelta(hours=2)

    store.when_asked = jump
    assert not await claims.is_first(HELD, CLAIMANT, SETTINGS, ask=True)


@pytest.mark.parametrize("what", ["renew", "release"])
async def test_a_claim_goes_with_its_worker(what: str) -> None:
    """Also where the worker was known a moment before."""
    with pytest.raises(NoSuchClaim):
        await CHANGES[what](held(Store(GONE)))


async def test_the_api_server_is_asked_for_what_is_wanted_and_no_more() -> None:
    """In the pool's namespace: of a claimant what has its label, of a user what has any."""
    store, settings = Store(None), dataclasses.replace(SETTINGS, namespace="analytics")
    assert await held(store).of(CLAIMANT, settings, ask=True) == []
    assert await held(store).by_user(CLAIM.user, CLAIM.pool, settings) == []
    assert store.asked_for == [(CLAIMANT.key, "analytics"), (None, "analytics")]


async def test_what_is_held_no_more_is_not_prolonged() -> None:
    """The worker went between the look and the write."""
    store = Store(GONE, there=None)
    assert await held(store).prolong(HELD, CLAIMANT, TTL) is None


@pytest.mark.parametrize(
    ("there", "is_done", "why"),
    [
        (None, True, "it went, and its claim with it"),
        (replace(HELD, claim=None), True, "somebody freed it"),
        (replace(HELD, claim=replace(CLAIM, id="default.w.other")), True, "another one holds it"),
        (replace(HELD, claim=replace(CLAIM, renewals=1)), False, "its claimant asked again, and was told of it"),
    ],
)
async def test_what_nobody_was_told_of_is_given_back_as_it_is_found(there: Pod | None, is_done: bool, why: str) -> None:
    """After a write that failed the worker is read, and nothing is taken from whoever has it now."""
    store = Store(CONFLICT, there=there)
    assert await held(store).give_back(HELD) is is_done, why
    assert store.writes == 1


async def test_a_worker_that_cannot_be_given_back_is_left_to_run_out() -> None:
    store = Store(CONFLICT)
    with pytest.raises(StillChanging):
        await held(store).give_back(HELD)
    assert store.writes == ATTEMPTS


# -- handing out ------------------------------------------------------------------------------------------------------


def idle(name: str) -> Pod:
    return worker(name, uid=name, node="n", idle_since=minutes_ago(9))


def claiming(state: ClusterState, store: Store) -> Claiming:
    clock = clock_of(lambda: NOW)
    return Claiming(
        state=state, held=HeldClaims(state=state, claims=store, clock=clock), clock=clock, nonce=lambda: "abc"
    )


def request(*, wait: timedelta = timedelta()) -> ClaimRequest:
    return ClaimRequest(claimant=CLAIMANT, ttl=TTL, settings=SETTINGS, wait=wait)


@pytest.mark.parametrize("there", [None, replace(idle("a"), uid="another one of that name")])
async def test_a_worker_that_went_between_the_look_and_the_write_is_passed_over(there: Pod | None) -> None:
    """A Conflict, and then there is none, or another one: the next is handed out."""
    found = await claiming(state_of(idle("a"), idle("b")), Store(CONFLICT, None, there=there)).claim(request())
    assert (found.worker.name, found.is_new) == ("b", True)


@pytest.mark.looptime
async def test_who_was_called_too_late_keeps_its_place() -> None:
    """Another request was faster: it waits on, first in line."""
    state = state_of()
    desk = claiming(state, Store(None))
    waiting = asyncio.create_task(desk.claim(request(wait=TTL)))
    await asyncio.sleep(1)
    desk.lines.call("pool", 1)
    await asyncio.sleep(1)
    assert not waiting.done()
    state.upsert_pod(idle("a"))
    desk.lines.call("pool", 1)
    assert (await waiting).worker.name == "a"


@pytest.mark.looptime
async def test_waiting_in_vain_ends_with_what_there_is() -> None:
    with pytest.raises(NothingToClaim):
        await claiming(state_of(), Store(None)).claim(request(wait=TTL))


def test_one_call_is_for_one_who_waits() -> None:
    """Who was called and still tries is not called again in place of the next."""
    lines = Lines()
    with lines.place("pool", lambda: True) as first, lines.place("pool", lambda: True) as second:
        called: list[Iterable[bool]] = []
        for _ in range(3):
            lines.call("pool", 1)
            called.append((first.is_called, second.is_called))
    assert called == [(True, False), (True, True), (True, True)]
