"""Many runs: some side by side, each in a process of its own, batch after batch.

Starting a control plane takes a whole core for some seconds, which must not fall into another run's measured time: the
runs of a batch start one after the other within the warm-up of the first, and the next batch when the last has ended.
The arms of a point are in one batch where they fit, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from scripts.tools.controlplane.processes import Process, Spawner, log_tail
from scripts.tools.experiment.loop import Stopped
from scripts.tools.experiment.matrix import Run

STOP_SECONDS = 20.0
TELL_SECONDS = 60.0
LATE_SECONDS = 120.0
"""A run that is not over so long after it should be hangs: it is ended, and has failed."""
STAGGER_SECONDS = 8.0
"""From the start of one run to that of the next in its batch."""
START_SECONDS = 30.0
"""What a control plane and its Karpenter take to be there, at most, while others start and run."""
SIDE_BY_SIDE = 15
"""Runs that two cores and 24 GiB carry without being late."""
TRIES = 3
"""A run that fails, as when one of its programs ends by itself, is repeated after all others, so often in all."""


def run_all(
    runs: Sequence[Run],
    folder: Path,
    parallel: int,
    stop: threading.Event,
    note: Callable[[str], None],
    *,
    with_recordings: bool = False,
) -> list[Run]:
    """Carry the runs out and return those that failed each time. Raises Stopped when asked to, after all have ended."""

    def carry_out(batch: Sequence[Run]) -> list[Run]:
        return _batch(batch, folder, stop, note, with_recordings=with_recordings)

    return repeated(runs, parallel, carry_out, note)


def repeated(
    runs: Sequence[Run], parallel: int, carry_out: Callable[[Sequence[Run]], list[Run]], note: Callable[[str], None]
) -> list[Run]:
    """Carry out all batches, then those runs again that failed, as often as `TRIES` says. Returns those left over.

    ``carry_out`` returns those of its runs that failed. A run that is repeated knows how often it was tried.
    """
    left = list(runs)
    for tried in range(1, TRIES + 1):
        planned = batches(left, parallel)
        failed: list[Run] = []
        for number, batch in enumerate(planned, 1):
            note(f"batch {number} of {len(planned)}: {', '.join(run.id for run in batch)}")
            failed += carry_out(batch)
        if not failed:
            return []
        what = "repeated now" if tried < TRIES else "given up until the next `run`"
        note(f"failed, {what}: {', '.join(run.id for run in failed)}")
        left = [replace(run, tries=run.tries + 1) for run in failed]
    return failed


def batches(runs: Iterable[Run], parallel: int) -> list[list[Run]]:
    """Divide the runs: the first point that is left, then each further one that fits beside it.

    A point is the runs of one workload, consolidateAfter and seed that follow each other. One with more than
    ``parallel`` runs is divided.
    """
    points = [
        list(group) for _, group in groupby(runs, key=lambda run: (run.workload, run.consolidate_after, run.seed))
    ]
    parts = [point[at : at + parallel] for point in points for at in range(0, len(point), parallel)]
    planned: list[list[Run]] = []
    while parts:
        batch: list[Run] = []
        left = []
        for part in parts:
            if len(batch) + len(part) <= parallel:
                batch += part
            else:
                left.append(part)
        planned.append(batch)
        parts = left
    return planned


def _batch(
    runs: Sequence[Run], folder: Path, stop: threading.Event, note: Callable[[str], None], *, with_recordings: bool
) -> list[Run]:
    spawner = Spawner()
    started: list[tuple[Run, Process]] = []
    try:
        for number, run in enumerate(runs):
            if number and stop.wait(STAGGER_SECONDS):
                raise Stopped
            command = [
                sys.executable,
                "-P",
                "-m",
                "scripts.tools.experiment",
                "one",
                run.id,
                "--to",
                str(folder.absolute()),
            ]
            command += ["--seconds", str(run.seconds), "--warm-up", str(run.warm_up), "--tries", str(run.tries)]
            command += ["--record"] if with_recordings else []
            log = folder / f"{run.id}.log"
            log.unlink(missing_ok=True)
            started.append((run, spawner.start(run.id, command, log=log)))
        await_ends(started, stop, note)
    except Stopped:
        for _, process in started:
            process.stop(STOP_SECONDS)
            process.log.unlink()  # it says only how far that run had come
        raise
    finally:
        for _, process in started:
            process.stop(STOP_SECONDS)
        spawner.close()
    failed = [run for run, process in started if process.exit_code != 0]
    for run, process in started:
        if process.exit_code:
            note(f"{run.id} failed with code {process.exit_code}:\n{log_tail(process.log)}")
        else:
            process.log.unlink()
    return failed


def await_ends(started: Sequence[tuple[Run, Process]], stop: threading.Event, note: Callable[[str], None]) -> None:
    """Wait until all have ended, or should have long ago. Raises Stopped when asked to end."""
    began = told = time.monotonic()
    expected = max(run.seconds for run, _ in started) + START_SECONDS
    while any(process.exit_code is None for _, process in started):
        if stop.wait(0.5):
            raise Stopped
        if (now := time.monotonic()) - told > TELL_SECONDS:
            told = now
            note(f"  {now - began:.0f} s of about {expected:.0f}")
        if now - began > expected + LATE_SECONDS:
            return
