"""What cache keys cost `warmnode serve`: 20 keys on each of 5,000 nodes, beside the same cluster without them.

The pods are the same in both; only the configuration differs. A request is by key, or by age alone: without the label.
`warmnode serve` has one core, the API server (the fake one, see `fake_cluster`) and the load client the other. What an
answer costs without HTTP, and where a worker is placed before each, is measured in a process: `key_answers`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import product
from pathlib import Path
from random import Random

from scripts.tools.benchmarks import cluster, machine, programs
from scripts.tools.benchmarks.figures import ratios, rotated, shown, spread
from scripts.tools.benchmarks.key_answers import AnswerTimes, measure_answers
from scripts.tools.benchmarks.memory import fake_cluster, send_events
from scripts.tools.benchmarks.report import Report, Table, Target
from scripts.tools.controlplane import wait_for
from scripts.tools.serving import Serve

Note = Callable[[str], None]
CONFIGURATION = """\
apiVersion: warmnode.dev/v1alpha1
kind: Configuration
poolDefaults:
  cacheKey: {label: tenant}
"""
BY_AGE, BY_KEY = KINDS = "by age", "by key"
_BODIES = 8
_TENANTS = 1000
_CATCH_UP_SECONDS = 60.0


class Arm(StrEnum):
    """What is configured."""

    WITHOUT = "without keys"
    WITH = "with keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. ``rate`` is in events a second."""

    nodes: int
    pods: int
    names: tuple[int, ...]
    rate: int
    seconds: float
    rounds: int


FULL = Size(nodes=5000, pods=100_000, names=(500, 5000), rate=2000, seconds=10.0, rounds=3)
QUICK = Size(nodes=200, pods=4000, names=(100,), rate=500, seconds=2.0, rounds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """One start of `warmnode serve`. Sizes in MiB, CPU in per cent of a core, milliseconds by names and kind."""

    remembered: float
    after_sync: float
    peak: float
    events_cpu: float
    p50: dict[tuple[int, str], float]
    p99: dict[tuple[int, str], float]


def measure(size: Size, note: Note) -> Report:
    """Measure and report."""
    neighbours = machine.Neighbours()
    cores = machine.cores()
    found: dict[Arm, list[Costs]] = {arm: [] for arm in Arm}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        load = programs.build("load", folder)
        _write_bodies(folder, size)
        (folder / "config.yaml").write_text(CONFIGURATION)
        note(f"filling the fake API server with {size.pods:,} pods")
        with fake_cluster(
            nodes=size.nodes, pods=size.pods, tenants=_TENANTS, kubeconfig=folder / "kubeconfig", core=cores.client
        ) as (server, _):
            for turn in range(size.rounds):
                for arm in rotated(list(Arm), turn):
                    costs = _one(Arm(arm), size, folder, server, cores, load)
                    found[Arm(arm)].append(costs)
                    p50 = ", ".join(f"{names:,} names {kind} {ms:.3f} ms" for (names, kind), ms in costs.p50.items())
                    note(f"round {turn + 1} of {size.rounds}, {arm}: {costs.after_sync:.0f} MiB, p50 of {p50}")
    note("answering in one process")
    answers = measure_answers(size.nodes, size.names, size.rounds)
    conditions = machine.conditions(neighbours=neighbours, versions={"Go": programs.go_version()}, rounds=size.rounds)
    return _report(size, found, answers, conditions)


def _write_bodies(folder: Path, size: Size) -> None:
    random = Random(1)  # noqa: S311 - the same in every run
    nodes = [cluster.node_name(number) for number in range(size.nodes)]
    feasible = {names: random.sample(nodes, names) for names in size.names}
    for names, kind in product(size.names, KINDS):
        bodies = folder / f"bodies-{names}-{kind}"
        bodies.mkdir()
        for number in range(_BODIES):
            pod = cluster.pod_as_sent()
            if kind == BY_KEY:
                pod["metadata"]["labels"][cluster.TENANT_LABEL] = f"tenant-{random.randrange(_TENANTS)}"
            arguments = {"Pod": pod, "Nodes": None, "NodeNames": feasible[names]}
            (bodies / f"{number}.json").write_text(json.dumps(arguments, separators=(",", ":")))


def _one(arm: Arm, size: Size, folder: Path, server: subprocess.Popen[str], cores: machine.Cores, load: Path) -> Costs:
    arguments = ["--config", str(folder / "config.yaml")] if arm is Arm.WITH else []
    serve = Serve(kubeconfig=folder / "kubeconfig", log=folder / "serve.log", arguments=arguments)
    try:
        with machine.pinned(cores.server):
            serve.start()
        synced = machine.usage(serve.pid)
        p50, p99 = {}, {}
        for names, kind in product(size.names, KINDS):
            flags = {
                "url": f"http://127.0.0.1:{serve.webhook_port}/prioritize",
                "bodies": folder / f"bodies-{names}-{kind}",
                "clients": 1,
                "duration": "2s",
                "view": "wire",
            }
            result = programs.run_load(load, cores.client, flags)
            p50[names, kind], p99[names, kind] = result["p50_ms"], result["p99_ms"]
        before, taken = machine.usage(serve.pid), _taken(serve)
        sent = send_events(server, size.rate, size.seconds)
        wait_for(lambda: _taken(serve) - taken >= sent, _CATCH_UP_SECONDS, f"{sent} events to be taken")
        after = machine.usage(serve.pid)
        return Costs(
            remembered=serve.metric("warmnode_cache_keys"),
            after_sync=synced.resident_mib,
            peak=after.peak_mib,
            events_cpu=100 * (after.cpu_seconds - before.cpu_seconds) / size.seconds,
            p50=p50,
            p99=p99,
        )
    finally:
        serve.close()


def _taken(serve: Serve) -> float:
    return serve.metric("warmnode_watch_events_total", collection="pods")


def _report(
    size: Size, found: dict[Arm, list[Costs]], answers: Sequence[AnswerTimes], conditions: tuple[str, ...]
) -> Report:
    def values(arm: Arm, of: Callable[[Costs], float]) -> list[float]:
        return [of(costs) for costs in found[arm]]

    lines: list[tuple[str, Callable[[Costs], float], int]] = [
        ("keys remembered", lambda costs: costs.remembered, 0),
        ("resident after the first sync, MiB", lambda costs: costs.after_sync, 0),
        ("peak, MiB", lambda costs: costs.peak, 0),
        (f"CPU with {size.rate:,} events/s, % of a core", lambda costs: costs.events_cpu, 1),
    ]
    for asked in product(size.names, KINDS):
        words = f"of prioritize {asked[1]}, {asked[0]:,} names, ms"
        lines.append((f"p50 {words}", lambda costs, asked=asked: costs.p50[asked], 3))  # type: ignore[misc]
        lines.append((f"p99 {words}", lambda costs, asked=asked: costs.p99[asked], 2))  # type: ignore[misc]
    rows = []
    for words, of, digits in lines:
        without, with_keys = values(Arm.WITHOUT, of), values(Arm.WITH, of)
        relative = shown(ratios(with_keys, without)) if all(without) else ""
        rows.append((words, shown(without, digits), shown(with_keys, digits), relative))
    title = f"{size.nodes:,} nodes with {size.pods // size.nodes} keys each, {size.pods:,} pods of {_TENANTS:,} tenants"
    head = ("what", Arm.WITHOUT.value, Arm.WITH.value, "with / without")
    peak = values(Arm.WITH, lambda costs: costs.peak)
    target = Target(
        what="resident memory with cache keys, at its peak",
        wanted="<= 150 MiB",
        measured=f"{shown(peak, 0)} MiB",
        met=spread(peak).median <= 150,
    )
    most = max(size.names)
    slower = [costs.p50[most, BY_KEY] / costs.p50[most, BY_AGE] for costs in found[Arm.WITH]]
    by_key = Target(
        what=f"p50 of prioritize by key over one by age, {most:,} names",
        wanted="<= 1.1",
        measured=shown(slower),
        met=spread(slower).median <= 1.1,
    )
    raw = {
        **{
            str(arm): [{**asdict(each), "p50": _by_words(each.p50), "p99": _by_words(each.p99)} for each in costs]
            for arm, costs in found.items()
        },
        "answers": [asdict(each) for each in answers],
    }
    note = (
        "Each worker has a key, and the request's key ran on about 100 of the nodes, at different times; it chooses in "
        "the working set. Requests of one size have the same feasible nodes. CPU "
        "times are the best of many calls in one process, without HTTP: all that they read is in the processor's cache "
        "then, which between two requests over HTTP it is not."
    )
    return Report(
        name="keys",
        conditions=conditions,
        tables=(Table(title=title, head=head, rows=tuple(rows)), _answers(answers)),
        targets=(target, by_key),
        notes=(note,),
        raw=raw,
    )


def _answers(answers: Sequence[AnswerTimes]) -> Table:
    """Show what an answer takes in the process."""
    rows = []
    for names, before in dict.fromkeys((each.names, each.before) for each in answers):
        own = [each for each in answers if (each.names, each.before) == (names, before)]
        by_age, by_key = [each.by_age for each in own], [each.by_key for each in own]
        words = f"{names:,} names" + (f", {before}" if before else "")
        rows.append((words, shown(by_age, 0), shown(by_key, 0), shown(ratios(by_key, by_age))))
    head = ("CPU time of an answer, microseconds", BY_AGE, BY_KEY, f"{BY_KEY} / {BY_AGE}")
    return Table(title="The same in one process", head=head, rows=tuple(rows))


def _by_words(times: Mapping[tuple[int, str], float]) -> dict[str, float]:
    return {f"{names} names {kind}": ms for (names, kind), ms in times.items()}
