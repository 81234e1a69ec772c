"""One run, from an empty machine to a record."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from scripts.tools.controlplane import ControlPlaneError
from scripts.tools.controlplane.watching import Watch
from scripts.tools.experiment.arms import ARMS
from scripts.tools.experiment.caches import NodeCaches
from scripts.tools.experiment.cluster_recording import recorded
from scripts.tools.experiment.conditions import SAMPLE_SECONDS, Machine
from scripts.tools.experiment.jobs import Jobs
from scripts.tools.experiment.loop import Loop
from scripts.tools.experiment.matrix import Run
from scripts.tools.experiment.record import Conditions, Record
from scripts.tools.experiment.recorder import Recorder
from scripts.tools.experiment.stage import KARPENTER, Stage
from scripts.tools.experiment.traffic import arrivals
from scripts.tools.experiment.workers import Replicas, Sessions
from scripts.tools.experiment.workloads import WORKLOADS, Kind

Driver = Jobs | Sessions | Replicas
NODES = "/api/v1/nodes"
HEALTH_SECONDS = 5.0


def run_one(run: Run, stop: threading.Event, note: Callable[[str], None], recording: Path | None = None) -> Record:
    """Carry one run out, and have `warmnode record` write into ``recording`` what it sees of it.

    Raises Stopped where ``stop`` is set before its end, ControlPlaneError if a program dies.
    """
    arm, workload = ARMS[run.arm], WORKLOADS[run.workload]
    tasks = arrivals(workload.traffic, run.seed, run.seconds)
    note(f"{run.id}: starting; {len(tasks)} tasks in {run.seconds:.0f} s")
    with ExitStack() as ends:
        stage = ends.enter_context(Stage(arm, workload, run.consolidate_after))
        caches = NodeCaches(workload.models)
        if recording is not None:
            ends.enter_context(recorded(stage.plane.kubeconfig, recording))
        record = Record(run=run, began=datetime.now(UTC).isoformat(timespec="seconds"))
        server = stage.plane.api("GET", "/version")["gitVersion"]
        record.versions = {"Kubernetes": server, "Karpenter": KARPENTER, "warmnode": version("warmnode")}
        start = time.monotonic()
        used = stage.cpu_seconds() | {"harness": time.process_time()}
        loop, state = Loop(start, stop), Machine()
        driver: Driver
        match workload.kind:
            case Kind.JOBS:
                driver = Jobs(loop, stage.scene, caches, tasks)
            case Kind.DEPLOYMENT:
                driver = Replicas(loop, stage.scene, caches, tasks)
            case Kind.SESSIONS:
                driver = Sessions(loop, stage.scene, caches, arm, tasks)
        recorder = Recorder(start, lambda pod: loop.hear(lambda: driver.heard(pod)))
        watches = [
            Watch(stage.plane, NODES, recorder.node),
            Watch(stage.plane, stage.scene.pods, recorder.pod),
        ]
        for each in watches:
            ends.callback(each.close)
            each.start()
        loop.every(SAMPLE_SECONDS, lambda: state.sample(loop.now()))
        loop.every(HEALTH_SECONDS, lambda: _check(stage, watches))
        gc.freeze()  # what was loaded is not looked through again
        loop.run(run.seconds)
        late = loop.late()
        spent = stage.cpu_seconds() | {"harness": time.process_time()}
        record.conditions = Conditions(
            cores=len(os.sched_getaffinity(0)),
            samples=state.samples,
            own={name: seconds - used.get(name, 0.0) for name, seconds in spent.items()},
            late_median=late[0],
            late_p95=late[1],
            late_worst=late[2],
        )
        record.reaper = stage.reaper_figures()
        record.nodes, record.pods = recorder.nodes(), recorder.pods()
        record.attempts, record.waiting, record.refusals = driver.attempts, driver.waiting, driver.refusals
    cores = sum(record.conditions.own.values()) / run.seconds
    note(f"{run.id}: done; {len(record.nodes)} nodes, {len(record.pods)} pods, {cores:.2f} of a core")
    return record


def _check(stage: Stage, watches: Iterable[Watch]) -> None:
    """A run whose programs died, or that did not see everything, is no run."""
    if dead := stage.dead():
        raise ControlPlaneError(f"{', '.join(dead)} ended during the run")
    for each in watches:
        if each.failure is not None:
            raise ControlPlaneError(f"a watch broke off: {each.failure}")
