"""A large cluster in the fake API server, in a process of its own: what `warmnode serve` is measured on for memory.

A real API server with 100,000 pods takes longer to fill than everything else here takes together. The fake serves the
same bytes a pod, in pages and as a watch. Run by `memory`: writes one JSON line when it is filled, then one for each
line with ``{"rate": events a second, "seconds": ...}`` that it reads; ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.tools.benchmarks import cluster
from scripts.tools.controlplane import Json
from scripts.tools.controlplane.objects import node
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.store import CONFIG_MAPS, NODES, PODS, Store

_TICK_SECONDS = 0.01
_STRIDE = 7919  # a prime: the workers that change one after the other are far apart


def fill(store: Store, nodes: int, pods: int, tenants: int = 0) -> int:
    """Create nodes, the ledger and running workers; return the mean size of a pod in bytes.

    With ``tenants`` each worker is one's, and those on a node are of different ones.
    """
    names = [cluster.node_name(number) for number in range(nodes)]
    uids = {name: store.create(NODES, "", _older_than_its_pods(name)).tree["metadata"]["uid"] for name in names}
    store.create(CONFIG_MAPS, cluster.NAMESPACE, cluster.ledger(cluster.first_seen(names, time.time()), uids))
    size = 0
    gc.disable()
    for number in range(pods):
        tenant = f"tenant-{(number // nodes + number) % tenants}" if tenants else None
        pod = cluster.running_pod(number, names[number % nodes], tenant)
        size += len(store.create(PODS, cluster.NAMESPACE, pod).raw)
    store.compact()
    gc.freeze()
    gc.enable()
    return size // pods


def _older_than_its_pods(name: str) -> Json:
    """Make a node that was there before its pods: else they would say nothing of it, and be kept as such."""
    made = node(name)
    made["metadata"]["creationTimestamp"] = "2026-10-01T00:00:00Z"
    return made


async def change(store: Store, rate: float, seconds: float, turns: Iterator[int]) -> int:
    """Turn the idle marks of workers, ``rate`` times a second; return how many. ``turns`` never repeats itself."""
    names = [(cluster.NAMESPACE, stored.tree["metadata"]["name"]) for stored in store.select(PODS, "")]
    started = time.monotonic()
    done = 0
    while (passed := time.monotonic() - started) < seconds:
        while done < passed * rate:
            turn = next(turns)
            mark = None if turn % 2 else f"2026-11-23T10:00:{turn // 2 % 60:02}Z"
            patch = {"metadata": {"annotations": {"warmnode.dev/idle-since": mark, "turn": str(turn)}}}
            store.patch(PODS, names[turn * _STRIDE % len(names)], patch)
            done += 1
        await asyncio.sleep(_TICK_SECONDS)
    return done


async def main() -> None:
    """Fill, serve and obey."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--pods", type=int, required=True)
    parser.add_argument("--tenants", type=int, default=0)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    options = parser.parse_args()
    async with FakeApiServer() as server:
        pod_bytes = fill(server.store, options.nodes, options.pods, options.tenants)
        server.write_kubeconfig(options.kubeconfig, namespace=cluster.NAMESPACE)
        print(json.dumps({"url": server.url, "pod_bytes": pod_bytes}), flush=True)
        turns = itertools.count()
        while line := await asyncio.to_thread(sys.stdin.readline):
            wanted = json.loads(line)
            sent = await change(server.store, wanted["rate"], wanted["seconds"], turns)
            print(json.dumps({"sent": sent}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
