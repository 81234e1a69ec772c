"""How soon a worker is handed out that somebody waits for: many calls wait, and one worker after the other gets idle.

Owns the waiting clients and the workers of a pool of their own. Part of the claims' benchmark.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from scripts.tools.benchmarks import cluster
from scripts.tools.benchmarks.asking import Caller
from scripts.tools.controlplane import ControlPlane, ControlPlaneError
from scripts.tools.controlplane.client import MERGE_PATCH

PER_SECOND = 10
POOL = "awaited"
_PATH = f"/v1/pools/{POOL}"
_PODS = f"/api/v1/namespaces/{cluster.NAMESPACE}/pods"
_STANDS_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitSize:
    """So many clients wait, and so many workers get idle while they do."""

    clients: int
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Milliseconds from when the API server knew that a worker is idle to when a client had it."""

    p50: float
    longest: float


def measure_waits(plane: ControlPlane, port: int, size: WaitSize, nodes: Sequence[str], turn: int) -> Waits:
    """Measure once, with workers of this turn that are gone afterwards. ``port`` is that of the claims."""
    names = [f"awaited-{turn}-{number}" for number in range(size.workers)]
    cluster.each(lambda number: _create_busy(plane, names[number], nodes[number % len(nodes)]), range(size.workers))
    try:
        found = asyncio.run(_handed_out(plane, port, size.clients, names))
    finally:
        cluster.each(lambda name: plane.api("DELETE", f"{_PODS}/{name}?gracePeriodSeconds=0"), names)
    return Waits(p50=median(found), longest=max(found))


def _create_busy(plane: ControlPlane, name: str, node: str) -> None:
    pod = cluster.running_pod(0, node)
    labels = {**pod["metadata"]["labels"], cluster.POOL_LABEL: POOL}
    cluster.create_running(plane, {**pod, "metadata": {**pod["metadata"], "name": name, "labels": labels}})


async def _handed_out(plane: ControlPlane, port: int, clients: int, names: Sequence[str]) -> list[float]:
    """Let clients wait, make the workers idle one after the other, and time how long each took to be somebody's."""
    callers = [await Caller.connect(port) for _ in range(clients)]
    direct = await Caller.at_api_server(plane)
    had: dict[str, float] = {}

    async def wait(number: int) -> None:
        answer = await callers[number].must(201, "POST", f"{_PATH}/claims?wait=60s", {"claimant": f"waits-{number}"})
        had[json.loads(answer)["pod"]] = time.perf_counter()

    waiting = [asyncio.create_task(wait(number)) for number in range(clients)]
    await _all_stand(port, clients)
    idle: dict[str, float] = {}
    began = time.perf_counter()
    for number, name in enumerate(names):
        await asyncio.sleep(began + number / PER_SECOND - time.perf_counter())
        mark = {"metadata": {"annotations": {"warmnode.dev/idle-since": "2026-01-01T00:00:00Z"}}}
        await direct.must(200, "PATCH", f"{_PODS}/{name}", mark, MERGE_PATCH)
        idle[name] = time.perf_counter()
    while len(had) < len(names):
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=_STANDS_SECONDS)
        if not done:
            raise ControlPlaneError(f"{len(had)} of {len(names)} idle workers were handed out, and then no more")
        for task in done:
            task.result()
        waiting = [task for task in waiting if task not in done]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for caller in (*callers, direct):
        caller.close()
    return [max(0.0, had[name] - idle[name]) * 1000 for name in names]


async def _all_stand(port: int, clients: int) -> None:
    asking = await Caller.connect(port)
    deadline = time.monotonic() + _STANDS_SECONDS
    while json.loads(await asking.must(200, "GET", f"{_PATH}/wanted"))["waiting"] < clients:
        if time.monotonic() > deadline:
            raise ControlPlaneError(f"not all of {clients} calls wait within {_STANDS_SECONDS:g} s")
        await asyncio.sleep(0.05)
    asking.close()
