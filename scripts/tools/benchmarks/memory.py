"""What a large cluster costs `warmnode serve`: resident memory, the first sync, and CPU to follow the changes.

`warmnode serve` has one core, the API server (the fake one, see `fake_cluster`) the other.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

from scripts.tools.benchmarks import machine
from scripts.tools.benchmarks.figures import shown, spread
from scripts.tools.benchmarks.report import Report, Table, Target
from scripts.tools.controlplane import ControlPlaneError, Json, wait_for
from scripts.tools.serving import Serve

Note = Callable[[str], None]
PAGE = 500
IDLE_SECONDS = 5.0
CATCH_UP_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. ``rate`` is in events a second."""

    nodes: int
    pods: int
    rate: int
    seconds: float
    rounds: int


FULL = Size(nodes=5000, pods=100_000, rate=2000, seconds=20.0, rounds=3)
QUICK = Size(nodes=200, pods=5000, rate=500, seconds=3.0, rounds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One start of `warmnode serve`. Sizes in MiB, times in seconds, CPU in per cent of a core."""

    empty_list: float
    """The same pages fetched and thrown away: what of the list is the server's."""
    first_sync: float
    """From "started" to "synced" in its log."""
    ready: float
    """From the start of the process to /readyz."""
    ready_cpu: float
    """CPU seconds until then: less at the mercy of what else runs."""
    after_sync: float
    peak: float
    after_events: float
    idle_cpu: float
    events_cpu: float
    behind: float
    """After the last event was sent, until all were taken."""


FIGURES = {
    "after_sync": ("resident after the first sync, MiB", 0),
    "after_events": ("resident after the events, MiB", 0),
    "peak": ("peak, MiB", 0),
    "first_sync": ("list and first sync, s", 2),
    "empty_list": ("the same list without decoding it, s", 2),
    "ready": ("process start to ready, s", 2),
    "ready_cpu": ("of it CPU, s", 2),
    "idle_cpu": ("CPU with no events, % of a core", 1),
    "events_cpu": ("CPU with the events, % of a core", 1),
    "behind": ("behind after the last event, s", 2),
}


def measure(size: Size, note: Note) -> Report:
    """Measure and report."""
    neighbours = machine.Neighbours()
    cores = machine.cores()
    found: list[Footprint] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        note(f"filling the fake API server with {size.pods:,} pods")
        with fake_cluster(nodes=size.nodes, pods=size.pods, kubeconfig=folder / "kubeconfig", core=cores.client) as (
            server,
            described,
        ):
            for turn in range(size.rounds):
                found.append(_one(size, folder, server, described["url"], cores))
                note(
                    f"round {turn + 1} of {size.rounds}: {found[-1].after_sync:.0f} MiB, "
                    f"synced in {found[-1].first_sync:.1f} s, {found[-1].events_cpu:.0f} % of a core"
                )
    conditions = machine.conditions(neighbours=neighbours, versions={}, rounds=size.rounds)
    return _report(size, found, described["pod_bytes"], conditions)


@contextmanager
def fake_cluster(
    *, nodes: int, pods: int, kubeconfig: Path, core: int, tenants: int = 0
) -> Iterator[tuple[subprocess.Popen[str], Json]]:
    """Run the fake API server on one core: its process, and what it says of itself."""
    command = [sys.executable, "-P", "-m", "scripts.tools.benchmarks.fake_cluster"]
    command += [f"--nodes={nodes}", f"--pods={pods}", f"--tenants={tenants}", f"--kubeconfig={kubeconfig}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        machine.pin(process.pid, core)
        yield process, _answer(process)
    finally:
        process.kill()
        process.wait()


def _answer(process: subprocess.Popen[str]) -> Json:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ControlPlaneError("the fake API server ended: see above")
    answer: Json = json.loads(line)
    return answer


def _one(size: Size, folder: Path, server: subprocess.Popen[str], url: str, cores: machine.Cores) -> Footprint:
    empty_list = _empty_list(url)
    log = folder / "serve.log"
    log.unlink(missing_ok=True)
    serve = Serve(kubeconfig=folder / "kubeconfig", log=log)
    try:
        began = time.monotonic()
        with machine.pinned(cores.server):
            serve.start()
        ready = time.monotonic() - began
        synced = machine.usage(serve.pid)
        time.sleep(IDLE_SECONDS)
        before, taken = machine.usage(serve.pid), _taken(serve)
        sent = send_events(server, size.rate, size.seconds)
        ended = time.monotonic()
        wait_for(lambda: _taken(serve) - taken >= sent, CATCH_UP_SECONDS, f"{sent} events to be taken")
        behind = time.monotonic() - ended
        after = machine.usage(serve.pid)
        started_at, synced_at = (
            datetime.fromisoformat(serve.lines(message)[0]["time"]) for message in ("started", "synced")
        )
        return Footprint(
            empty_list=empty_list,
            first_sync=(synced_at - started_at).total_seconds(),
            ready=ready,
            ready_cpu=synced.cpu_seconds,
            after_sync=synced.resident_mib,
            peak=after.peak_mib,
            after_events=after.resident_mib,
            idle_cpu=100 * (before.cpu_seconds - synced.cpu_seconds) / IDLE_SECONDS,
            events_cpu=100 * (after.cpu_seconds - before.cpu_seconds) / (size.seconds + behind),
            behind=behind,
        )
    finally:
        serve.close()


def send_events(server: subprocess.Popen[str], rate: int, seconds: float) -> int:
    """Make the fake API server send changes of pods: how many. Raises ControlPlaneError where it was too slow."""
    assert server.stdin is not None
    server.stdin.write(json.dumps({"rate": rate, "seconds": seconds}) + "\n")
    server.stdin.flush()
    sent = int(_answer(server)["sent"])
    if sent < 0.98 * rate * seconds:
        raise ControlPlaneError(f"the fake API server managed {sent / seconds:.0f} events/s: not measured")
    return sent


def _taken(serve: Serve) -> float:
    return serve.metric("warmnode_watch_events_total", collection="pods")


def _empty_list(url: str) -> float:
    """Fetch every page of pods and throw it away; return the seconds."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    began = time.monotonic()
    path = f"/api/v1/pods?limit={PAGE}"
    following: str | None = path
    try:
        while following is not None:
            connection.request("GET", following)
            head = connection.getresponse().read()[:1000]
            token = re.search(rb'"continue":"([^"]+)"', head)
            following = f"{path}&continue={quote(token[1].decode())}" if token else None
    finally:
        connection.close()
    return time.monotonic() - began


def _report(size: Size, found: list[Footprint], pod_bytes: int, conditions: tuple[str, ...]) -> Report:
    def values(figure: str) -> list[float]:
        return [float(asdict(each)[figure]) for each in found]

    rows = tuple((words, shown(values(figure), digits)) for figure, (words, digits) in FIGURES.items())
    title = f"{size.nodes:,} nodes, {size.pods:,} pods of {pod_bytes / 1000:.1f} KB, {size.rate:,} events/s"
    table = Table(title=title, head=("what", "measured"), rows=rows)
    goals = (("peak", "resident memory, at its peak", "MiB", 150), ("first_sync", "list and first sync", "s", 10))
    targets = [
        Target(
            what=words,
            wanted=f"<= {goal} {unit}",
            measured=f"{shown(values(figure), FIGURES[figure][1])} {unit}",
            met=spread(values(figure)).median <= goal,
        )
        for figure, words, unit, goal in (*goals, ("events_cpu", "CPU to follow the events", "% of a core", 15))
    ]
    note = (
        "The API server is the fake of the tests, in a process of its own on the other core: a real one with as many "
        "pods takes longer to fill than all the rest. It sends the same bytes."
    )
    raw = {"rounds": [asdict(each) for each in found]}
    return Report(name="memory", conditions=conditions, tables=(table,), targets=tuple(targets), notes=(note,), raw=raw)
