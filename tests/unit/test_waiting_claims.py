"""Many callers that wait for workers: who gets which, and when. The loop's time is virtual."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from itertools import count

import pytest
from msgspec.structs import replace

from extender.cluster.state import ClusterState
from extender.kube.claim_store import FoundPod
from extender.model import Pod, PodClaim
from extender.policy.claims import Claimant, PoolClaims
from extender.policy.defaults import ClaimRules, PoolCosts
from extender.policy.deletion_cost import NO_CHANGE, Prices
from extender.web.claim_values import ClaimRequest, Stopping
from extender.web.claiming import Claiming
from extender.web.held_claims import HeldClaims
from tests.builders import NOW, clock_of, minutes_ago, node, worker
from tests.listening import synced_state

CALLERS, WORKERS, APART = 1000, 100, 0.1
SETTINGS = PoolClaims(rules=ClaimRules(), costs=PoolCosts(), dry_run=False)


class Pods:
    """An API server that takes every claim, after the time that a write takes."""

    async def hold(self, pod: Pod, claim: PodClaim, key: str, *, cost: Prices = NO_CHANGE) -> FoundPod:
        await asyncio.sleep(0.01)
        return FoundPod(pod=replace(pod, claim=claim, resource_version=f"{pod.resource_version}."), ip=None)

    async def free(self, pod: Pod, ended: datetime | None) -> FoundPod:
        raise NotImplementedError

    async def find(self, key: str | None, namespace: str | None) -> list[FoundPod]:
        raise NotImplementedError

    async def as_of(self, pod: Pod, version: str) -> FoundPod | None:
        raise NotImplementedError

    async def read(self, namespace: str, name: str) -> FoundPod | None:
        raise NotImplementedError


def claiming_in(state: ClusterState) -> Claiming:
    clock, numbers = clock_of(lambda: NOW), count()
    held = HeldClaims(state=state, claims=Pods(), clock=clock)
    return Claiming(state=state, held=held, clock=clock, nonce=lambda: str(next(numbers)))


@pytest.mark.looptime
async def test_of_a_thousand_that_wait_each_is_served_in_its_turn_a_tenth_of_a_second_after_a_worker_is_idle() -> None:
    """Nobody is passed over and no worker lies idle; those for whom there is none are sent home, and leave nothing."""
    busy = [worker(f"w{number:02}", node="node-a") for number in range(WORKERS)]
    state, loop = synced_state([node("node-a")], busy), asyncio.get_running_loop()
    claiming, served = claiming_in(state), list[tuple[str, float]]()

    async def wait(name: str) -> None:
        claimant = Claimant(user="u", pool="pool", name=name)
        request = ClaimRequest(
            claimant=claimant, ttl=timedelta(minutes=1), settings=SETTINGS, wait=timedelta(minutes=1)
        )
        granted = await claiming.claim(request)
        served.append((granted.claim.claimant, loop.time()))

    names = [f"{number:03}" for number in range(CALLERS)]
    calling = asyncio.create_task(claiming.call_waiting())
    callers = [asyncio.create_task(wait(name)) for name in names]
    await asyncio.sleep(1)
    assert claiming.lines.waiting("pool") == CALLERS
    idle: list[float] = []
    for each in busy:
        state.upsert_pod(replace(each, idle_since=minutes_ago(9)))
        idle.append(loop.time())
        await asyncio.sleep(APART)
    assert [name for name, _ in served] == names[:WORKERS]
    assert max(at - since for (_, at), since in zip(served, idle, strict=True)) <= APART
    claiming.lines.close()
    ends = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(end) for end in ends[WORKERS:]] == [Stopping] * (CALLERS - WORKERS)
    assert claiming.lines.pools() == []
    calling.cancel()
