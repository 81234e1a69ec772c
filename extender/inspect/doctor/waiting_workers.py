"""Check of the workers that wait for a node: for how long, why, and whether an idle one stands in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal

from extender.inspect.doctor.evidence import Evidence, Kind, Needs, WorkerFacts, by_pool
from extender.inspect.doctor.findings import Finding, needs, warning, well
from extender.inspect.text import count, some, span
from extender.policy.brakes import holds_up
from extender.policy.idleness import is_claimed, reports_idle

TOO_LONG = timedelta(minutes=15)
"""For a pool in which waiting workers hold reaping up for ever."""
TOLD = 10
"""So many workers are told of; they are looked for among all of their pool."""
SAID = 300
"""So much of a scheduler's message is shown: it may name every node."""
REMEDY = (
    "correct what such a worker asks for (nodeSelector, affinity, tolerations, requests), or let nodes of that kind "
    "come; delete it if nobody needs it"
)


@needs(Kind.PODS)
def check_waiting(evidence: Evidence) -> Finding:
    """Does a worker wait for a node that never comes?"""
    waiting = [
        each for each in evidence.workers if each.pod.node is None and not each.pod.terminating and not each.pod.gated
    ]
    stuck = [each for each in waiting if evidence.now - each.pod.created > (_pending_for(evidence, each) or TOO_LONG)]
    if not stuck:
        young = f", {len(waiting):,} for a moment" if waiting else ""
        return well(evidence, f"no worker waits for a node for long{young}", Kind.PODS, Kind.SETTINGS)
    stuck.sort(key=lambda each: (each.pod.created, each.pod.uid))
    longest = span(evidence.now - stuck[0].pod.created)
    members = by_pool(evidence.workers)
    details = tuple(line for each in stuck[:TOLD] for line in _about(each, members[each.pod.pool or ""], evidence))
    summary = f"{count(len(stuck), 'worker')} without a node for up to {longest}: {some(map(str, stuck))}"
    return warning(summary, details, REMEDY)


def _pending_for(evidence: Evidence, worker: WorkerFacts) -> timedelta:
    return evidence.of_pool(worker.pod.pool).reap.pending_for


def _about(worker: WorkerFacts, pool: Sequence[WorkerFacts], evidence: Evidence) -> Iterator[str]:
    pod, name = worker.pod, str(worker)
    said = " ".join((worker.unscheduled_message or "").split())[:SAID]
    yield f"{name} ({span(evidence.now - pod.created)}): {said or f'scheduler {pod.scheduler} has said nothing of it'}"
    placers = {each.pod.scheduler for each in pool if each.pod.node is not None}
    if holds_up(pod, placers, _pending_for(evidence, worker), evidence.now):
        yield f"pool {pod.pool} is not reaped while {name} waits (reap.pendingFor: 0s)"
    beside = next((each for each in pool if _would_make_room(each, worker, evidence)), None)
    if beside is not None:
        there = f"{beside} on {beside.pod.node}"
        yield f"{name} asks for nothing that idle worker {there} does not have: it would fit there in its place"


def _would_make_room(standing: WorkerFacts, waiting: WorkerFacts, evidence: Evidence) -> bool:
    pod = standing.pod
    return (
        pod.node is not None
        and not pod.terminating
        and reports_idle(pod, evidence.now)
        and not is_claimed(pod, evidence.now)
        and standing.needs is not None
        and waiting.needs is not None
        and fits_in_place_of(waiting.needs, standing.needs)
    )


def fits_in_place_of(waiting: Needs, standing: Needs) -> bool:
    """Say whether a pod would fit on a node with the room that another one on it gives back.

    It asks for 1. no label that the other does not ask for; 2. no more of anything; 3. the same affinity and spread, or
    none; and 4. it tolerates what the other does. False where that cannot be told: it may fit all the same.
    """
    return (
        waiting.node_selector.items() <= standing.node_selector.items()
        and all(amount <= standing.requests.get(name, Decimal(0)) for name, amount in waiting.requests.items())
        and waiting.affinity in (b"", standing.affinity)
        and waiting.spread in (b"", standing.spread)
        and waiting.tolerations >= standing.tolerations
    )
