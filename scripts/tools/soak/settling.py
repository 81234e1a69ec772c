"""What everything has to be like once nothing disturbs it: as if nothing ever had.

Owns the list of what is looked at. Each answer is one line, none where all is well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.karpenter import NODE_POOL_LABEL
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.soak.observer import CLAIM, COST, FLEET, FOREIGN, IDLE, POOL, POOL_LABEL
from scripts.tools.soak.stage import FLOOR, LEASE, LEDGER_PATH, SYSTEM, Stage

LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"


def unsettled(stage: Stage) -> Iterator[str]:
    """Say what is not as it should be: 1. every program runs and is ready; 2. one reaper leads, and the Lease is fresh;
    3. the floor is kept exactly, by idle workers that nobody claims; 4. the ledger has every node that has a Ready
    worker; 5. replicas of serve give one order, the ledger's; 6. idle workers' deletion costs follow it; 7. Karpenter
    keeps no node without a worker; 8. the Deployment has the workers that are wanted, all idle.
    """
    for name, program in stage.programs.items():
        if program.exit_code is not None:
            yield f"{name} does not run"
    for replica in stage.replicas.values():
        if not replica.is_ready():
            yield f"{replica.name} is not ready"
    leaders = [each.name for each in stage.reaps if each.leads()]
    if len(leaders) != 1:
        yield f"{len(leaders)} reapers lead"
    lease = stage.plane.api("GET", f"{LEASES}/{LEASE}")
    if not lease["spec"].get("holderIdentity"):
        yield "nobody holds the Lease"
    pods = [
        each
        for each in stage.plane.api("GET", stage.pods)["items"]
        if POOL_LABEL in _labels(each) and "deletionTimestamp" not in each["metadata"]
    ]
    by_pool = {pool: [each for each in pods if _labels(each)[POOL_LABEL] == pool] for pool in (POOL, FLEET)}
    yield from _workers(by_pool[POOL], FLOOR)
    yield from _workers(by_pool[FLEET], stage.spare)
    nodes = {each["metadata"]["name"]: each for each in stage.plane.api("GET", "/api/v1/nodes")["items"]}
    ledger = stage.plane.api("GET", LEDGER_PATH).get("data") or {}
    seen = {name: int(ledger[uid]) for name, node in nodes.items() if (uid := node["metadata"]["uid"]) in ledger}
    for pod in pods:
        if is_ready(pod) and pod["spec"]["nodeName"] not in seen:
            yield f"the ledger lacks {pod['spec']['nodeName']}"
            return
    used = {pod["spec"].get("nodeName") for pod in pods}
    if empty := [name for name, node in nodes.items() if NODE_POOL_LABEL in _labels(node) and name not in used]:
        yield f"{len(empty)} nodes of Karpenter's are empty: {', '.join(empty[:3])}"
    yield from _order(stage, seen)
    for each in by_pool.values():
        yield from _costs(each, seen)


def _workers(pods: list[Json], wanted: int) -> Iterator[str]:
    idle = [each for each in pods if IDLE in _notes(each)]
    if len(idle) != wanted:
        yield f"{len(idle)} workers are idle, and wanted are {wanted}"
    busy = [each["metadata"]["name"] for each in pods if each not in idle]
    if busy:
        yield f"{len(busy)} workers are at work: {', '.join(busy[:3])}"
    if claimed := sum(CLAIM in _notes(each) for each in pods):
        yield f"{claimed} claims are left"


def _order(stage: Stage, seen: dict[str, int]) -> Iterator[str]:
    orders = []
    for replica in stage.serves:
        try:
            orders.append(replica.preferred(sorted(seen)))
        except OSError as error:
            yield f"{replica.name} does not say its order: {error}"
            return
    if any(each != orders[0] for each in orders):
        yield f"replicas differ in their order: {orders}"
    minutes = [seen[name] // 60 for name in orders[0]]
    oldest = sorted(each // 60 for each in seen.values())[: len(minutes)]
    if minutes != oldest:
        yield f"the order is not the ledger's: {minutes}, not {oldest}"


def _costs(pods: list[Json], seen: dict[str, int]) -> Iterator[str]:
    ours = [
        (seen[each["spec"]["nodeName"]] // 60, each) for each in pods if FOREIGN not in _notes(each) and is_ready(each)
    ]
    if lacking := [each["metadata"]["name"] for _, each in ours if COST not in _notes(each)]:
        yield f"{len(lacking)} idle workers have no deletion cost: {', '.join(lacking[:3])}"
        return
    by_age = sorted(ours, key=lambda each: each[0])
    for (minute, older), (later, newer) in itertools.pairwise(by_age):
        if minute < later and int(_notes(older)[COST]) < int(_notes(newer)[COST]):
            yield f"{older['metadata']['name']} on an older node costs less than {newer['metadata']['name']}"


def _labels(item: Json) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def _notes(pod: Json) -> dict[str, str]:
    return pod["metadata"].get("annotations") or {}
