"""How long a prioritize call takes: `warmnode serve` with a real API server behind it, beside a minimal Go extender.

One core for the server, the other for the client; the servers take turns in every round, so that what disturbs the
machine disturbs all of them.
"""

from __future__ import annotations

import json
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random

from scripts.tools.benchmarks import cluster, machine, programs
from scripts.tools.benchmarks.figures import ratios, rotated, shown, spread
from scripts.tools.benchmarks.report import Report, Table, Target
from scripts.tools.controlplane import ControlPlane, ControlPlaneError, Json, Options, Process
from scripts.tools.controlplane.processes import Spawner
from scripts.tools.serving import Serve, serving

Note = Callable[[str], None]


class Arm(StrEnum):
    """Who answers."""

    WARMNODE = "warmnode"
    GO = "Go, every host"
    NO_POOL = "warmnode, pod of no pool"
    NO_OP = "Go, no-op"


class View(StrEnum):
    """What is measured: the server alone, or all that kube-scheduler's extender client does for one pod."""

    WIRE = "wire"
    SCHEDULER = "scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    nodes: int
    names: tuple[int, ...]
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One that answers."""

    pid: int
    url: str


FULL = Size(nodes=5000, names=(100, 500, 1000, 5000), rounds=5, seconds=1.5)
QUICK = Size(nodes=500, names=(100, 500), rounds=1, seconds=0.5)
GOALS = {(500, View.SCHEDULER): 0.5, (500, View.WIRE): 0.6, (5000, View.SCHEDULER): 0.3, (5000, View.WIRE): 0.3}
"""p50 of warmnode over p50 of Go, at most: by names, and by what is measured."""
_BODIES = 8

Case = tuple[View, int, int]
"""(view, names, clients)."""
Measured = dict[tuple[Case, Arm], list[Json]]


def measure(size: Size, note: Note) -> Report:
    """Measure and report."""
    neighbours = machine.Neighbours()
    cores = machine.cores()
    options = Options(scheduler=False, controller_manager=False, kwok=False)
    with tempfile.TemporaryDirectory() as temporary, ControlPlane(options, note=note) as plane:
        folder = Path(temporary)
        load = programs.build("load", folder)
        note(f"creating {size.nodes} nodes")
        ages = cluster.make_nodes(plane, size.nodes)
        _write_bodies(folder, sorted(ages), size.names)
        with _servers(plane, ages, folder, cores.server) as servers:
            found: Measured = {}
            for turn in range(size.rounds):
                for view, names, clients in _cases(size):
                    for arm in rotated(list(Arm), turn):
                        flags = {
                            "url": servers[Arm(arm)].url,
                            "bodies": _folder(folder, names, worker=arm != Arm.NO_POOL),
                            "clients": clients,
                            "duration": f"{size.seconds}s",
                            "view": view,
                        }
                        pid = servers[Arm(arm)].pid
                        used = machine.usage(pid).cpu_seconds
                        result = programs.run_load(load, cores.client, flags)
                        result["cpu_ms"] = (machine.usage(pid).cpu_seconds - used) * 1000 / result["sent"]
                        found.setdefault(((view, names, clients), Arm(arm)), []).append(result)
                        note(
                            f"round {turn + 1} of {size.rounds}, {view} view, {names} names, {clients} clients, {arm}: "
                            f"p50 {result['p50_ms']:.3f} ms, {result['per_second']:.0f}/s"
                        )
        versions = {"Go": programs.go_version(), "kube-apiserver": plane.api("GET", "/version")["gitVersion"]}
    return _report(size, found, machine.conditions(neighbours=neighbours, versions=versions, rounds=size.rounds))


def _cases(size: Size) -> Iterator[Case]:
    for names in size.names:
        for clients in (1, 16):
            yield View.WIRE, names, clients
        yield View.SCHEDULER, names, 1


@contextmanager
def _servers(plane: ControlPlane, ages: dict[str, int], folder: Path, core: int) -> Iterator[dict[Arm, Server]]:
    """Run all servers on one core, having seen that they agree on the order."""
    ages_file = folder / "ages.json"
    ages_file.write_text(json.dumps(ages))
    binary = programs.build("goextender", folder)
    spawner = Spawner()
    started: list[Process] = []
    try:
        with serving(kubeconfig=plane.kubeconfig, log=folder / "serve.log") as serve:
            for file in (ages_file, None):
                log = folder / f"go-{len(started)}.log"
                started.append(
                    programs.start_extender(spawner, binary, ages=file, log=log, environment=programs.ONE_CORE)
                )
            go, no_op = started
            for pid in (serve.pid, go.pid, no_op.pid):
                machine.pin(pid, core)
            ours, its, nobody = (
                Server(pid=pid, url=f"http://127.0.0.1:{port}/prioritize")
                for pid, port in ((serve.pid, serve.webhook_port), (go.pid, go.port), (no_op.pid, no_op.port))
            )
            _check_order(serve, sorted(ages), its.url)
            yield {Arm.WARMNODE: ours, Arm.NO_POOL: ours, Arm.GO: its, Arm.NO_OP: nobody}
    finally:
        for process in started:
            process.kill()
        spawner.close()


def _check_order(serve: Serve, names: Sequence[str], go_url: str) -> None:
    """Refuse to compare servers that answer different things."""
    body = json.dumps(_arguments(names, worker=True)).encode()
    request = urllib.request.Request(go_url, body)  # noqa: S310 - our own server on loopback
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - as above
        scores = {each["Host"]: each["Score"] for each in json.load(response)}
    best = sorted((host for host, score in scores.items() if score), key=lambda host: -scores[host])
    ours = serve.preferred(names, {cluster.POOL_LABEL: "duckdb"})
    if best != ours or len(scores) != len(names):
        raise ControlPlaneError(f"the servers do not agree, so a comparison says nothing: Go {best}, warmnode {ours}")


def _arguments(names: Sequence[str], *, worker: bool) -> Json:
    return {"Pod": cluster.pod_as_sent(worker=worker), "Nodes": None, "NodeNames": list(names)}


def _folder(folder: Path, names: int, *, worker: bool) -> Path:
    return folder / f"bodies-{names}-{'worker' if worker else 'other'}"


def _write_bodies(folder: Path, nodes: Sequence[str], sizes: Sequence[int]) -> None:
    """Write requests with random candidates in random order, as the scheduler's parallel filter leaves them."""
    random = Random(2)  # noqa: S311 - the same in every run
    for names in sizes:
        for worker in (True, False):
            bodies = _folder(folder, names, worker=worker)
            bodies.mkdir()
            for number in range(_BODIES):
                body = json.dumps(_arguments(random.sample(nodes, names), worker=worker), separators=(",", ":"))
                (bodies / f"{number}.json").write_text(body)


def _report(size: Size, found: Measured, conditions: tuple[str, ...]) -> Report:
    def values(case: Case, arm: Arm, key: str) -> list[float]:
        return [float(each[key]) for each in found[(case, arm)]]

    def rows(view: View, clients: int) -> tuple[tuple[str, ...], ...]:
        lines = []
        for names in size.names:
            case = (view, names, clients)
            for arm in Arm:
                relative = ratios(values(case, arm, "p50_ms"), values(case, Arm.GO, "p50_ms"))
                cheaper = ratios(values(case, arm, "cpu_ms"), values(case, Arm.GO, "cpu_ms"))
                lines.append(
                    (
                        f"{names:,}",
                        str(arm),
                        shown(values(case, arm, "p50_ms"), 3),
                        shown(values(case, arm, "p99_ms")),
                        shown(values(case, arm, "per_second"), 0),
                        shown(values(case, arm, "cpu_ms"), 3),
                        shown(relative) if arm != Arm.GO else "1",
                        shown(cheaper) if arm != Arm.GO else "1",
                    )
                )
        return tuple(lines)

    head = ("names", "who answers", "p50 ms", "p99 ms", "requests/s", "CPU ms", "p50 / Go", "CPU / Go")
    titles = {
        (View.SCHEDULER, 1): "As kube-scheduler sees it: encode the request, call, decode the answer; one client",
        (View.WIRE, 1): "The server alone, one keep-alive client",
        (View.WIRE, 16): "The server alone, 16 keep-alive clients",
    }
    tables = tuple(
        Table(title=title, head=head, rows=rows(view, clients), labels=2) for (view, clients), title in titles.items()
    )
    targets = []
    words = {View.SCHEDULER: "as kube-scheduler sees it", View.WIRE: "the server alone"}
    for (names, view), goal in GOALS.items():
        case, what = (view, names, 1), f"p50 of `prioritize` over Go's, {names:,} names, {words[view]}"
        if (case, Arm.GO) not in found:
            targets.append(Target(what=what, wanted=f"<= {goal}", measured="", met=None))
            continue
        relative = ratios(values(case, Arm.WARMNODE, "p50_ms"), values(case, Arm.GO, "p50_ms"))
        met = spread(relative).median <= goal
        targets.append(Target(what=what, wanted=f"<= {goal}", measured=shown(relative), met=met))
    wire = {key: rounds for key, rounds in found.items() if key[0][0] == View.WIRE}
    share, ((_, names, clients), arm) = max((float(each["cpu_share"]), key) for key in wire for each in wire[key])
    note = (
        f"The load client used at most {share:.0%} of its core in the server-alone cases ({arm}, {names:,} names, "
        f"{clients} clients). Near 100 % it, not the server, would have been the limit."
    )
    raw = {f"{view}/{names}/{clients}/{arm}": rounds for ((view, names, clients), arm), rounds in found.items()}
    return Report(name="webhook", conditions=conditions, tables=tables, targets=tuple(targets), notes=(note,), raw=raw)
