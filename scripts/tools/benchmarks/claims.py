"""How long a claim takes, and how many there are in a second: `warmnode serve` before a real API server.

The clients claim and release in turn, with a new name for each claim. Beside it stand patches of pods that as many
clients send to the API server themselves: a claim and its release are one write of that size each.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import quantiles

from extender.kube.annotate import STRATEGIC_PATCH
from scripts.tools.benchmarks import cluster, machine
from scripts.tools.benchmarks.asking import Caller
from scripts.tools.benchmarks.claim_waits import Waits, WaitSize, measure_waits
from scripts.tools.benchmarks.claims_report import Crowd, Size, Step, report
from scripts.tools.benchmarks.cluster import NAMESPACE
from scripts.tools.benchmarks.report import Report
from scripts.tools.controlplane import ControlPlane, Json, Options, wait_for
from scripts.tools.controlplane.client import MERGE_PATCH
from scripts.tools.serving import Serve, serving

Note = Callable[[str], None]
POOL = "duckdb"
_CLAIMS = f"/v1/pools/{POOL}/claims"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_SYNC_SECONDS = 60.0
_COLDEST = cluster.pod_name(0)
"""No claim gets as far as this one: pods that are patched are changed under a claim's hand."""


FULL = Size(
    nodes=500,
    workers=2000,
    rounds=5,
    calls=200,
    seconds=4.0,
    waits=WaitSize(clients=1000, workers=100),
    crowds=((1, 1), (1, 8), (1, 32), (3, 1), (3, 8), (3, 32)),
)
QUICK = Size(
    nodes=20,
    workers=100,
    rounds=1,
    calls=20,
    seconds=1.0,
    waits=WaitSize(clients=50, workers=10),
    crowds=((1, 1), (1, 8), (3, 8)),
)


def measure(size: Size, note: Note) -> Report:
    """Measure and report."""
    neighbours = machine.Neighbours()
    options = Options(scheduler=False, controller_manager=False, kwok=False)
    with tempfile.TemporaryDirectory() as temporary, ControlPlane(options, note=note) as plane:
        note(f"creating {size.nodes} nodes and {size.workers} idle workers")
        ages = cluster.make_nodes(plane, size.nodes)
        nodes = sorted(ages, key=lambda name: ages[name], reverse=True)  # the youngest first: what is patched is there
        cluster.each(lambda number: _create_worker(plane, number, nodes[number % len(nodes)]), range(size.workers))
        steps: dict[Step, list[float]] = {}
        crowds: dict[tuple[int, int], list[Crowd]] = {}
        waits: list[Waits] = []
        names = (f"query-{number}" for number in count())
        with _replicas(plane, Path(temporary), max(replicas for replicas, _ in size.crowds), size.workers) as running:
            for turn in range(size.rounds):
                for step, milliseconds in asyncio.run(_steps(plane, running[0], size.calls, names)).items():
                    steps.setdefault(step, []).append(_median(milliseconds))
                for replicas, clients in size.crowds:
                    found = asyncio.run(_crowd(plane, running[:replicas], clients, size.seconds, names))
                    crowds.setdefault((replicas, clients), []).append(found)
                    note(
                        f"round {turn + 1} of {size.rounds}, {replicas} replicas, {clients} clients: "
                        f"{found.per_second:.0f} claims/s, p50 {found.p50:.1f} ms, {found.patches:.0f} patches/s"
                    )
                waits.append(measure_waits(plane, running[0][1], size.waits, nodes, turn))
                note(f"round {turn + 1} of {size.rounds}, clients that wait: {waits[-1].longest:.0f} ms at most")
        versions = {"kube-apiserver": plane.api("GET", "/version")["gitVersion"]}
    return report(
        size, steps, crowds, waits, machine.conditions(neighbours=neighbours, versions=versions, rounds=size.rounds)
    )


def _create_worker(plane: ControlPlane, number: int, node: str) -> None:
    pod = cluster.running_pod(number, node)
    annotations = {**pod["metadata"].get("annotations", {}), "warmnode.dev/idle-since": "2026-01-01T00:00:00Z"}
    cluster.create_running(plane, {**pod, "metadata": {**pod["metadata"], "annotations": annotations}})


@contextmanager
def _replicas(plane: ControlPlane, folder: Path, number: int, workers: int) -> Iterator[list[tuple[Serve, int]]]:
    """Run replicas that know all workers, each with the port of its claims listener."""
    with ExitStack() as stack:
        running = []
        for each in range(number):
            log = folder / f"serve-{each}.log"
            listen = ("--claims-listen", "127.0.0.1:0")
            serve = stack.enter_context(serving(kubeconfig=plane.kubeconfig, log=log, arguments=listen))
            (line,) = (line for line in serve.lines("listening") if line["listener"] == "claims")
            wait_for(
                lambda serve=serve: serve.metric("warmnode_workers", pool=POOL) == workers,  # type: ignore[misc]
                _SYNC_SECONDS,
                "all workers to be known",
            )
            running.append((serve, int(line["address"].rpartition(":")[2])))
        yield running


def _patch(pod: str, name: str | None) -> tuple[str, Json]:
    """Give a write like that of a claim, with a name, or of a release."""
    text = None if name is None else f"{name}, and as much text as a claim has. ".ljust(250, "-")
    return f"{_PODS}/{pod}", {"metadata": {"annotations": {"benchmark": text}, "labels": {"benchmark": name}}}


async def _steps(
    plane: ControlPlane, replica: tuple[Serve, int], calls: int, names: Iterator[str]
) -> dict[Step, list[float]]:
    """Time each sort of call, one after the other, in milliseconds."""
    found: dict[Step, list[float]] = {step: [] for step in Step}
    direct, ours = await Caller.at_api_server(plane), await Caller.connect(replica[1])

    async def timed(step: Step, call: Awaitable[bytes]) -> bytes:
        started = time.perf_counter()
        answer = await call
        found[step].append((time.perf_counter() - started) * 1000)
        return answer

    for _ in range(calls):
        asked = {"claimant": next(names)}
        claim = json.loads(await timed(Step.CLAIM, ours.must(201, "POST", _CLAIMS, asked)))
        await timed(Step.AGAIN, ours.must(200, "POST", _CLAIMS, asked))
        path = f"{_CLAIMS}/{claim['id']}"
        await timed(Step.RENEW, ours.must(200, "PUT", path))
        await timed(Step.RELEASE, ours.must(204, "DELETE", path))
        for step, kind in ((Step.PATCH, MERGE_PATCH), (Step.STRATEGIC, STRATEGIC_PATCH)):
            await timed(step, direct.must(200, "PATCH", *_patch(_COLDEST, f"{step.name}-{asked['claimant']}"), kind))
        await timed(Step.NOTHING, ours.must(404, "POST", "/v1/pools/none/claims", asked))
    direct.close()
    ours.close()
    return found


async def _crowd(
    plane: ControlPlane, replicas: Sequence[tuple[Serve, int]], clients: int, seconds: float, names: Iterator[str]
) -> Crowd:
    """Let clients patch, and then claim and release, as fast as they can."""
    patching = [await Caller.at_api_server(plane) for _ in range(clients)]
    claiming = [await Caller.connect(replicas[number % len(replicas)][1]) for number in range(clients)]
    latencies: list[float] = []

    async def patch(number: int) -> None:
        for name in (next(names), None):
            await patching[number].must(200, "PATCH", *_patch(cluster.pod_name(number), name), MERGE_PATCH)

    async def claim(number: int) -> None:
        started = time.perf_counter()
        answer = await claiming[number].must(201, "POST", _CLAIMS, {"claimant": next(names)})
        latencies.append((time.perf_counter() - started) * 1000)
        await claiming[number].must(204, "DELETE", f"{_CLAIMS}/{json.loads(answer)['id']}")

    patches = await _per_second(patch, clients, seconds) * 2
    lost = sum(serve.metric("warmnode_claim_lost_races_total") for serve, _ in replicas)
    used = sum(machine.usage(serve.pid).cpu_seconds for serve, _ in replicas)
    per_second = await _per_second(claim, clients, seconds)
    for caller in (*patching, *claiming):
        caller.close()
    cuts = quantiles(latencies, n=100)
    return Crowd(
        per_second=per_second,
        patches=patches,
        p50=cuts[49],
        p99=cuts[98],
        lost_races=(sum(serve.metric("warmnode_claim_lost_races_total") for serve, _ in replicas) - lost)
        / len(latencies),
        cpu_ms=(sum(machine.usage(serve.pid).cpu_seconds for serve, _ in replicas) - used) * 1000 / len(latencies),
    )


async def _per_second(work: Callable[[int], Awaitable[None]], clients: int, seconds: float) -> float:
    """Let each client do its work again and again, and say how often it was done in a second by all of them."""
    started = time.perf_counter()

    async def go_on(number: int) -> int:
        done = 0
        while time.perf_counter() - started < seconds:
            await work(number)
            done += 1
        return done

    done = sum(await asyncio.gather(*(go_on(number) for number in range(clients))))
    return done / (time.perf_counter() - started)


def _median(values: Sequence[float]) -> float:
    return quantiles(values, n=2)[0]
