"""How long a claim takes, and how many there are in a second: `warmnode serve` before a real API server.

The clients claim and release in turn, each with a name of its own. Beside it stands one patch of a pod sent to the API
server by the same client: the least that a claim could cost.
"""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path
from statistics import quantiles

from scripts.tools.benchmarks import cluster, machine
from scripts.tools.benchmarks.cluster import NAMESPACE
from scripts.tools.benchmarks.figures import ratios, shown
from scripts.tools.benchmarks.report import Report, Table
from scripts.tools.controlplane import ControlPlane, ControlPlaneError, Json, Options, wait_for
from scripts.tools.serving import Serve, serving

Note = Callable[[str], None]
POOL = "duckdb"
_CLAIMS = f"/v1/pools/{POOL}/claims"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_SYNC_SECONDS = 60.0


class Step(StrEnum):
    """What one call does."""

    PATCH = "one patch of a pod at the API server"
    CLAIM = "claim"
    AGAIN = "the same claimant again"
    RENEW = "renew"
    RELEASE = "release"
    NOTHING = "claim, nothing idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. ``crowds`` are (replicas, clients)."""

    nodes: int
    workers: int
    rounds: int
    calls: int
    seconds: float
    crowds: tuple[tuple[int, int], ...]


FULL = Size(
    nodes=500, workers=2000, rounds=5, calls=200, seconds=4.0, crowds=((1, 1), (1, 8), (1, 32), (3, 1), (3, 8), (3, 32))
)
QUICK = Size(nodes=20, workers=100, rounds=1, calls=20, seconds=1.0, crowds=((1, 1), (1, 8), (3, 8)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """One round of many clients: claims a second, their latency in milliseconds, and writes that lost a race."""

    per_second: float
    p50: float
    p99: float
    lost_races: float
    cpu_ms: float


class Caller:
    """One keep-alive connection."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._connection = (
            http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            if context is None
            else http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        )

    def call(
        self, method: str, path: str, body: Json | None = None, kind: str = "application/json"
    ) -> tuple[int, Json]:
        """Call: the status and the JSON that came back."""
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, {"Content-Type": kind})
        response = self._connection.getresponse()
        answer = response.read()
        return response.status, json.loads(answer) if answer else {}

    def claim(self, claimant: str) -> Json:
        """Claim a worker, which must be there."""
        status, claim = self.call("POST", _CLAIMS, {"claimant": claimant})
        if status not in (200, 201):
            raise ControlPlaneError(f"a claim was answered {status}: {claim}")
        return claim

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def measure(size: Size, note: Note) -> Report:
    """Measure and report."""
    neighbours = machine.Neighbours()
    options = Options(scheduler=False, controller_manager=False, kwok=False)
    with tempfile.TemporaryDirectory() as temporary, ControlPlane(options, note=note) as plane:
        note(f"creating {size.nodes} nodes and {size.workers} idle workers")
        nodes = sorted(cluster.make_nodes(plane, size.nodes))
        cluster.each(lambda number: _create_worker(plane, number, nodes[number % len(nodes)]), range(size.workers))
        steps: dict[Step, list[float]] = {}
        crowds: dict[tuple[int, int], list[Crowd]] = {}
        names = (f"query-{number}" for number in count())
        with _replicas(plane, Path(temporary), max(replicas for replicas, _ in size.crowds), size.workers) as running:
            for turn in range(size.rounds):
                for step, milliseconds in _steps(plane, running[0], size.calls, names).items():
                    steps.setdefault(step, []).append(_median(milliseconds))
                for replicas, clients in size.crowds:
                    found = _crowd(running[:replicas], clients, size.seconds, names)
                    crowds.setdefault((replicas, clients), []).append(found)
                    note(
                        f"round {turn + 1} of {size.rounds}, {replicas} replicas, {clients} clients: "
                        f"{found.per_second:.0f} claims/s, p50 {found.p50:.1f} ms"
                    )
        versions = {"kube-apiserver": plane.api("GET", "/version")["gitVersion"]}
    return _report(
        size, steps, crowds, machine.conditions(neighbours=neighbours, versions=versions, rounds=size.rounds)
    )


def _create_worker(plane: ControlPlane, number: int, node: str) -> None:
    pod = cluster.running_pod(number, node)
    status = pod["status"]
    plane.create({"apiVersion": "v1", "kind": "Pod", **{key: pod[key] for key in ("metadata", "spec")}})
    path = f"{_PODS}/{pod['metadata']['name']}"
    plane.api("PATCH", f"{path}/status", {"status": status})
    plane.api("PATCH", path, {"metadata": {"annotations": {"warmnode.dev/idle-since": "2026-01-01T00:00:00Z"}}})


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


def _steps(
    plane: ControlPlane, replica: tuple[Serve, int], calls: int, names: Iterator[str]
) -> dict[Step, list[float]]:
    """Time each sort of call, one after the other, in milliseconds."""
    found: dict[Step, list[float]] = {step: [] for step in Step}
    context = ssl.create_default_context(cafile=str(plane.ca_file))
    context.load_cert_chain(plane.client_certificate, plane.client_key)
    direct = Caller(int(plane.server_url.rpartition(":")[2]), context)
    ours = Caller(replica[1])

    def timed(step: Step, call: Callable[[], tuple[int, Json]], *wanted: int) -> Json:
        started = time.perf_counter()
        status, answer = call()
        found[step].append((time.perf_counter() - started) * 1000)
        if status not in wanted:
            raise ControlPlaneError(f"{step}: {status} {answer}")
        return answer

    for _ in range(calls):
        name = next(names)
        claim = timed(Step.CLAIM, lambda: ours.call("POST", _CLAIMS, {"claimant": name}), 201)  # noqa: B023
        timed(Step.AGAIN, lambda: ours.call("POST", _CLAIMS, {"claimant": name}), 200)  # noqa: B023
        path = f"{_CLAIMS}/{claim['id']}"
        timed(Step.RENEW, lambda: ours.call("PUT", path), 200)  # noqa: B023
        timed(Step.RELEASE, lambda: ours.call("DELETE", path), 204)  # noqa: B023
        pod = f"{_PODS}/{claim['pod']}"
        patch = {"metadata": {"annotations": {"benchmark": name}}}
        timed(Step.PATCH, lambda: direct.call("PATCH", pod, patch, "application/merge-patch+json"), 200)  # noqa: B023
        nothing = {"claimant": name}
        timed(Step.NOTHING, lambda: ours.call("POST", "/v1/pools/none/claims", nothing), 404)  # noqa: B023
    direct.close()
    ours.close()
    return found


def _crowd(replicas: Sequence[tuple[Serve, int]], clients: int, seconds: float, names: Iterator[str]) -> Crowd:
    """Let clients claim and release as fast as they can."""
    lost = sum(serve.metric("warmnode_claim_lost_races_total") for serve, _ in replicas)
    used = sum(machine.usage(serve.pid).cpu_seconds for serve, _ in replicas)
    lock = threading.Lock()

    def work(number: int) -> list[float]:
        caller = Caller(replicas[number % len(replicas)][1])
        latencies = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with lock:
                name = next(names)
            started = time.perf_counter()
            claim = caller.claim(name)
            latencies.append((time.perf_counter() - started) * 1000)
            caller.call("DELETE", f"{_CLAIMS}/{claim['id']}")
        caller.close()
        return latencies

    started = time.monotonic()
    with ThreadPoolExecutor(clients) as threads:
        latencies = [each for found in threads.map(work, range(clients)) for each in found]
    passed = time.monotonic() - started
    cuts = quantiles(latencies, n=100)
    return Crowd(
        per_second=len(latencies) / passed,
        p50=cuts[49],
        p99=cuts[98],
        lost_races=(sum(serve.metric("warmnode_claim_lost_races_total") for serve, _ in replicas) - lost)
        / len(latencies),
        cpu_ms=(sum(machine.usage(serve.pid).cpu_seconds for serve, _ in replicas) - used) * 1000 / len(latencies),
    )


def _median(values: Sequence[float]) -> float:
    return quantiles(values, n=2)[0]


def _report(
    size: Size,
    steps: dict[Step, list[float]],
    crowds: dict[tuple[int, int], list[Crowd]],
    conditions: tuple[str, ...],
) -> Report:
    alone = Table(
        title=f"One client, one call after the other, {size.workers:,} workers on {size.nodes:,} nodes",
        head=("call", "p50 ms", "over one patch"),
        rows=tuple(
            (str(step), shown(values), "1" if step is Step.PATCH else shown(ratios(values, steps[Step.PATCH])))
            for step, values in steps.items()
        ),
    )
    many = Table(
        title="Clients that claim and release as fast as they can",
        head=(
            "replicas",
            "clients",
            "claims/s",
            "p50 ms",
            "p99 ms",
            "lost races a claim",
            "CPU ms of warmnode a claim",
        ),
        rows=tuple(
            (
                str(replicas),
                str(clients),
                shown([each.per_second for each in found], 0),
                shown([each.p50 for each in found], 1),
                shown([each.p99 for each in found], 1),
                shown([each.lost_races for each in found]),
                shown([each.cpu_ms for each in found], 1),
            )
            for (replicas, clients), found in crowds.items()
        ),
        labels=2,
    )
    note = (
        "etcd, the API server, the replicas and the clients share the machine's cores, and the rates are what that "
        "allows: a claim is two lists and a patch, a release a read and a patch. Several replicas go for the same "
        "worker first, the warmest: whoever loses reads it and takes the next."
    )
    raw: dict[str, object] = {str(step): values for step, values in steps.items()}
    raw |= {
        f"{replicas} replicas, {clients} clients": [each.per_second for each in found]
        for (replicas, clients), found in crowds.items()
    }
    return Report(name="claims", conditions=conditions, tables=(alone, many), notes=(note,), raw=raw)
