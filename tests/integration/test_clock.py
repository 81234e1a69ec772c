"""Clocks that are wrong, shifted in the process of a real reaper, against a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from extender.kube.claim_store import format_claim
from extender.kube.objects import CLAIM
from scripts.tools.shifted import SetClock
from tests.builders import claim
from tests.integration.ground import Ground
from tests.integration.reapers import Reapers, evicted, reaping

pytestmark = pytest.mark.controlplane

TWO_HOURS = 7200
HELD_FOR = timedelta(minutes=10)


@pytest.fixture
def reapers(ground: Ground, tmp_path: Path) -> Iterator[Reapers]:
    with reaping(ground, tmp_path) as made:
        yield made


def hold(reapers: Reapers, name: str) -> None:
    """Claim a worker for ten more minutes."""
    now = datetime.now(UTC)
    reapers.annotate(name, {CLAIM: format_claim(claim(since=now, expires=now + HELD_FOR))})


@pytest.mark.parametrize("seconds", [TWO_HOURS, -TWO_HOURS])
def test_a_reaper_whose_clock_is_off_evicts_and_writes_nothing(
    ground: Ground, reapers: Reapers, tmp_path: Path, seconds: int
) -> None:
    """Two hours fast, a claim for ten more minutes looks long over. It says so, and goes on when the clock is right."""
    reapers.some_workers(3)
    hold(reapers, "w1")
    clock = SetClock(tmp_path / "ahead")
    clock.ahead(seconds)
    reapers.configure()
    reaper = reapers.make(environment=clock.environment, module="scripts.tools.shifted").start(wait_ready=False)
    reapers.wait_passes(reaper, 3)
    word = "ahead of" if seconds > 0 else "behind"
    assert any(f"s {word} the API server's; nothing is reaped" in reason for reason in reaper.readiness()["reasons"])
    assert abs(reaper.metric("warmnode_clock_ahead_seconds") - seconds) < 2
    told = "nothing is evicted, claimed or marked: the clock here is wrong"
    ground.wait(lambda: len(reaper.lines(told)) == 1, "one line in the log")
    assert reapers.names() == {"w0", "w1", "w2"}
    assert set(reapers.costs().values()) == {None}
    clock.ahead(0)
    reapers.wait_names({"w1"})
    ground.wait(reaper.is_ready, "ready")
    ground.wait(lambda: len(reaper.lines("the clock here is right again")) == 1, "a line in the log")


def test_a_clock_that_jumps_while_the_reaper_runs_evicts_nobody(
    ground: Ground, reapers: Reapers, tmp_path: Path
) -> None:
    """What it does not know yet of the jump it would do at once: the worker was idle for a moment, or is claimed."""
    reapers.some_workers(3)
    for name in ("w0", "w1"):
        hold(reapers, name)
    clock = SetClock(tmp_path / "ahead")
    reapers.configure()
    reaper = reapers.make(environment=clock.environment, module="scripts.tools.shifted").start()
    reapers.wait_names({"w0", "w1"})
    clock.ahead(TWO_HOURS)
    reapers.wait_passes(reaper, 3)
    assert reapers.names() == {"w0", "w1"}
    assert reapers.skipped(reaper, "clockOff") == 2
    clock.ahead(0)
    reapers.wait_passes(reaper, 3)
    assert reapers.skipped(reaper, "claimed") == 2
    assert evicted(reaper) == ["w2"]
