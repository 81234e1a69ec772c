"""What the numbers were measured on, and who gets which core. Reads /proc: Linux only."""

from __future__ import annotations

import os
import platform
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from scripts.tools.controlplane import ControlPlaneError

QUIET_LOAD = 0.7
"""Load average of the last minute above which the machine is at work with something else."""
QUIET_CORES = 0.15
"""What other work may take of a core during a run: more of it moves the times, though hardly the ratios."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Two cores: one for the server that is measured, one for whoever asks it."""

    server: int
    client: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process has used so far and holds now."""

    cpu_seconds: float
    resident_mib: float
    peak_mib: float


def cores() -> Cores:
    """Choose two cores of this machine. Raises ControlPlaneError where there is one only, or no Linux."""
    if not hasattr(os, "sched_getaffinity"):
        raise ControlPlaneError("the benchmarks pin processes to cores and read /proc: run them on Linux")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise ControlPlaneError("the benchmarks need two cores, one for the server and one for its client")
    return Cores(server=allowed[0], client=allowed[1])


def pin(pid: int, core: int) -> None:
    """Keep a process, with all the threads it has now and will start, on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Start processes on one core: they inherit it, and keep it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def usage(pid: int) -> Usage:
    """Read what a process uses."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident, peak = (int(re.findall(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)[0]) for key in ("VmRSS", "VmHWM"))
    # After the name, which may hold spaces: field 3 of proc(5) is the first, so 14 and 15 (utime, stime) are 11 and 12.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"), resident_mib=resident / 1024, peak_mib=peak / 1024)


class Neighbours:
    """What everything else on this machine took, from the making of this object on: the benchmark's own is left out.

    Ask when all that the benchmark started has ended: only then is it known what that took.
    """

    def __init__(self) -> None:
        self._start = (time.monotonic(), *self._seconds())

    def cores(self) -> float:
        """Return how many cores it kept busy on average, time that a hypervisor gave to others included."""
        began, busy, own = self._start
        now_busy, now_own = self._seconds()
        return max(0.0, now_busy - busy - (now_own - own)) / (time.monotonic() - began)

    @staticmethod
    def _seconds() -> tuple[float, float]:
        """Return the busy seconds of the machine, and of this process with all its ended children."""
        # proc(5): user nice system idle iowait irq softirq steal
        ticks = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return busy, sum(each.ru_utime + each.ru_stime for each in usages)


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def conditions(*, neighbours: Neighbours, versions: dict[str, str], rounds: int) -> tuple[str, ...]:
    """Describe machine, versions and date in three lines."""
    models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    total = int(re.findall(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)[0])
    named = {"Python": platform.python_version(), "aiohttp": version("aiohttp"), "msgspec": version("msgspec")}
    others = neighbours.cores()
    busy = "" if others < QUIET_CORES else ", **not quiet: trust the ratios only**"
    machine = f"{models[0] if models else platform.machine()}, {total / 2**20:.0f} GiB"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {rounds} {'round' if rounds == 1 else 'rounds'}: median (lowest-highest)",
        f"{len(os.sched_getaffinity(0))} cores of {machine}, Linux {platform.release().split('-')[0]}; "
        f"other work took {others:.2f} of a core meanwhile{busy}",
        ", ".join(f"{name} {number}" for name, number in (named | versions).items()),
    )
