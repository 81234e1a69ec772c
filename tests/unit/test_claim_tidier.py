"""What is left of a claim that ran out is removed: by anybody, once, and never from a worker that is claimed."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from extender.kube.claim_store import FoundPod
from extender.kube.errors import Conflict, Forbidden, KubeError, NotFound, Throttled, Unavailable
from extender.loops.claim_tidier import PATIENCE, ClaimTidier
from extender.model import Pod
from extender.policy.idleness import CLAIM_GRACE
from extender.telemetry import Metrics
from tests.builders import NOW, claim, clock_of, node, worker
from tests.listening import synced_state

OVER = claim(expires=NOW - CLAIM_GRACE - PATIENCE)


class Freed:
    """Frees workers, or fails."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.asked: list[tuple[str, datetime | None]] = []
        self.problem = problem

    async def free(self, pod: Pod, ended: datetime | None) -> FoundPod:
        self.asked.append((pod.name, ended))
        if self.problem is not None:
            raise self.problem
        return FoundPod(pod=replace(pod, claim=None, claim_ended=ended), ip=None)


def tidier(freed: Freed, *workers: Pod, dry_run: bool = False, metrics: Metrics | None = None) -> ClaimTidier:
    return ClaimTidier(
        state=synced_state([node()], workers),
        free=freed.free,
        metrics=metrics or Metrics(),
        may_write=lambda pool: not dry_run,
        clock=clock_of(lambda: NOW),
        jitter=lambda: 0.0,
    )


async def test_a_claim_that_ran_out_is_removed_once() -> None:
    """With the time at which it expired, from which the worker counts as idle."""
    freed = Freed()
    made = tidier(freed, worker("over", claim=OVER), worker("free"))
    assert await made.tidy_up() == 1
    assert freed.asked == [("over", OVER.expires)]
    assert await made.tidy_up() == 0


@pytest.mark.parametrize("late", [timedelta(), -timedelta(seconds=1), -timedelta(hours=1)])
async def test_a_claim_that_may_be_renewed_still_is_let_be(late: timedelta) -> None:
    """And a little longer: whoever claims the worker next removes it with the same write."""
    just = claim(expires=NOW - CLAIM_GRACE - PATIENCE + timedelta(milliseconds=1) - late)
    freed = Freed()
    await tidier(freed, worker(claim=just)).tidy_up()
    assert freed.asked == []


async def test_in_dry_run_nothing_is_written() -> None:
    freed = Freed()
    await tidier(freed, worker(claim=OVER), dry_run=True).tidy_up()
    assert freed.asked == []


@pytest.mark.parametrize("problem", [Conflict(409, "Conflict", "changed"), NotFound(404, "NotFound", "gone")])
async def test_another_replica_may_have_been_first(problem: KubeError) -> None:
    """Or another claimant: the rest is tidied all the same."""
    freed = Freed(problem)
    assert await tidier(freed, worker("a", claim=OVER), worker("b", claim=OVER)).tidy_up() == 0
    assert [name for name, _ in freed.asked] == ["a", "b"]


@pytest.mark.parametrize("problem", [Forbidden(403, "Forbidden", "a policy"), KubeError(422, "Invalid", "too much")])
async def test_a_refused_pod_holds_up_no_other(problem: KubeError) -> None:
    freed = Freed(problem)
    assert await tidier(freed, worker("a", claim=OVER), worker("b", claim=OVER)).tidy_up() == 0
    assert [name for name, _ in freed.asked] == ["a", "b"]


@pytest.mark.parametrize("pool", [None, "other"])
async def test_a_pod_that_left_its_pool_is_tidied_too(pool: str | None) -> None:
    """Relabelled, or the pool is configured no more: what came with the claim would hold the node for ever."""
    freed = Freed()
    made = tidier(freed, replace(worker("a", claim=OVER), pool=pool))
    assert await made.tidy_up() == 1
    assert await made.tidy_up() == 0


@pytest.mark.parametrize(
    "problem",
    [
        Unavailable(0, "Timeout", "away"),
        Throttled(429, "TooManyRequests", "patience"),
        Forbidden(401, "Unauthorized", "who are you"),
    ],
)
async def test_while_the_api_server_is_away_it_waits(problem: KubeError) -> None:
    freed = Freed(problem)
    await tidier(freed, worker("a", claim=OVER), worker("b", claim=OVER)).tidy_up()
    assert len(freed.asked) == 1


@pytest.mark.looptime
async def test_bug_while_tidying_is_counted_and_tidying_goes_on() -> None:
    """It does not end the process."""
    freed = Freed(RuntimeError("a bug"))
    metrics = Metrics()
    made = tidier(freed, worker("a", claim=OVER), metrics=metrics)
    running = asyncio.create_task(made.run())
    await asyncio.sleep(120)
    running.cancel()
    assert len(freed.asked) > 1
    crashes = metrics.registry.get_sample_value("warmnode_loop_crashes_total", {"loop": "claims"})
    assert crashes == len(freed.asked)
