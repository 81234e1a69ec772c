"""How the runs of the experiment are carried out: which side by side, and what becomes of those that fail."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.controlplane.processes import Spawner
from scripts.tools.experiment.batches import LATE_SECONDS, START_SECONDS, TRIES, await_ends, repeated
from scripts.tools.experiment.matrix import Run, plan


def silent(line: str) -> None:
    """Nobody reads it."""


class Flaky:
    """Carries runs out, on paper. ``failing`` says how often an arm fails before it succeeds."""

    def __init__(self, **failing: int) -> None:
        self.failing = failing
        self.batches: list[list[Run]] = []

    def __call__(self, batch: Sequence[Run]) -> list[Run]:
        self.batches.append(list(batch))
        return [run for run in batch if run.tries <= self.failing.get(run.arm, 0)]

    def carried_out(self) -> list[tuple[str, int]]:
        return [(run.id, run.tries) for batch in self.batches for run in batch]


RUNS = list(plan(["sessions"], [10], [1]))


def test_run_that_fails_is_repeated_after_the_others() -> None:
    """It knows how often it was tried, and nothing is left over when it succeeds."""
    flaky, notes = Flaky(packing=1), list[str]()
    assert repeated(RUNS, 2, flaky, notes.append) == []
    assert flaky.carried_out() == [*((run.id, 1) for run in RUNS), ("sessions-10s-packing-1", 2)]
    assert "failed, repeated now: sessions-10s-packing-1" in notes


def test_run_that_always_fails_is_given_up_after_some_tries() -> None:
    """The others are not: it is handed back, to be told of."""
    flaky, notes = Flaky(packing=99, default=1), list[str]()
    left = repeated(RUNS, 12, flaky, notes.append)
    assert [run.id for run in left] == ["sessions-10s-packing-1"]
    assert [tries for name, tries in flaky.carried_out() if name == "sessions-10s-packing-1"] == [*range(1, TRIES + 1)]
    assert [tries for name, tries in flaky.carried_out() if name == "sessions-10s-default-1"] == [1, 2]
    assert "given up" in notes[-1]


def test_nothing_is_carried_out_where_nothing_is_missing() -> None:
    """A second `run` has nothing to do."""
    flaky = Flaky()
    assert repeated([], 4, flaky, silent) == []
    assert flaky.batches == []


def test_run_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """It should have ended two minutes ago: it is ended, and repeated like one that fails."""
    spawner = Spawner()
    hanging = spawner.start("hanging", ["/bin/sleep", "60"], log=tmp_path / "log")
    try:
        long_over = replace(RUNS[0], seconds=-START_SECONDS - LATE_SECONDS)
        await_ends([(long_over, hanging)], threading.Event(), silent)
        assert hanging.exit_code is None
    finally:
        hanging.stop()
        spawner.close()


def test_hangup_that_nohup_ignores_ends_nothing() -> None:
    """Three hours are longer than most terminals stay open; without nohup the end of one is asked to be the end."""
    say = "from scripts.tools.experiment.command import main; main(['plan', '--seed', '1', '--workload', 'sessions'])\n"
    say += "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    for at_start, ignored in (("SIG_IGN", "True"), ("SIG_DFL", "False")):
        before = f"import signal; signal.signal(signal.SIGHUP, signal.{at_start})\n"
        command = [sys.executable, "-P", "-c", before + say]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)})
        assert done.stdout.splitlines()[-1] == ignored
