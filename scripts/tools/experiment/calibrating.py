"""How far the simulation is off what really ran: the records of runs of jobs, as simulate --recorded reads them.

Owns the making of a recording out of a record, and which rule an arm is to the model.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from extender.inspect.record.recording import RecordedNode, RecordedWorker, Recording
from extender.simulate.pool import PoolShape
from extender.simulate.recorded import NEVER, Calibration, calibrate, observed_pool
from extender.simulate.rules import parse_rule
from extender.simulate.workload import BlockDrawer, DataSets
from scripts.tools.experiment.record import Record
from scripts.tools.experiment.scene import POOL, worker_cpu

RULES = {"default": "spread", "packing": "most-allocated", "placement": "oldest"}
"""By arm; the others have keys, or workers that outlive their jobs."""
START = datetime(2026, 1, 1, tzinfo=UTC)
"""A record has seconds since its run began. Which day that was changes nothing."""


def calibrated(record: Record) -> tuple[Calibration, int]:
    """Run the work of a record through the model: how far off it is, and how many of its nodes went."""
    recording = Recording(began=START, until=_at(record.run.seconds))
    for node in record.nodes:
        recording.nodes[node.name] = RecordedNode(
            uid=node.name, name=node.name, created=_at(node.added), gone=_at_or_none(node.deleted)
        )
    for pod in record.pods:
        recording.workers[pod.name] = RecordedWorker(
            uid=pod.name,
            namespace="",
            name=pod.name,
            pool=POOL,
            created=_at(pod.added),
            scheduler=record.run.arm,
            node=pod.node,
            bound=_at_or_none(pod.bound),
            ended=_at_or_none(pod.deleted),
            requests={"cpu": worker_cpu(record.run.slots)},
        )
    shape = PoolShape(slots=record.run.slots)
    seen = observed_pool(
        recording,
        BlockDrawer(DataSets(reads=0), Random(1)),
        cache_blocks=shape.cache_blocks,
    )
    shape = replace(
        shape,
        boot=seen.boot or shape.boot,
        first_nodes=seen.first_nodes,
        watched=seen.period,
        consolidate_after=seen.consolidate_after or NEVER,
    )
    gone = sum(node.deleted is not None for node in record.nodes)
    return calibrate(seen, shape, parse_rule(RULES[record.run.arm]), seed=1), gone


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _at_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else _at(seconds)
