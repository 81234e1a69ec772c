"""How busy the machine is while a run goes on: read from /proc every few seconds. Linux only."""

from __future__ import annotations

import os
from pathlib import Path

SAMPLE_SECONDS = 5.0


class Machine:
    """Samples of the whole machine, whoever uses it."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float, float, float]] = []
        self._before = (0.0, *_busy_and_all(), _stalled())

    def sample(self, now: float) -> None:
        """Note what happened since the last sample: (time, busy share of all cores, load, share of time stalled)."""
        then, busy, total, stalled = self._before
        self._before = (now, *_busy_and_all(), _stalled())
        share = (self._before[1] - busy) / max(1e-9, self._before[2] - total)
        waited = (self._before[3] - stalled) / max(1e-9, now - then)
        self.samples.append((now, share, os.getloadavg()[0], waited))


def _busy_and_all() -> tuple[float, float]:
    """Return the ticks of all cores that were used, and all ticks, what a hypervisor gave to others included."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return float(sum(ticks) - ticks[3] - ticks[4]), float(sum(ticks))


def _stalled() -> float:
    """Return the seconds in which some process waited for a core; 0 where the kernel does not say (no PSI)."""
    file = Path("/proc/pressure/cpu")
    if not file.exists():
        return 0.0
    return int(file.read_text().split("total=")[1].split()[0]) / 1e6
