"""How many pods a second a real kube-scheduler places, without and with extenders; and what preemption costs.

Every round is a fresh kube-scheduler with the shipped configuration, changed only in what the arm needs. All pods are
there before it starts; the time runs from the first binding to the last. Nodes do not beat and nothing makes pods
Ready: etcd, API server, scheduler and the arm's extender are all that runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.tools.benchmarks import cluster, machine, preemption, programs
from scripts.tools.benchmarks.cluster import NAMESPACE, POOL_LABEL
from scripts.tools.benchmarks.events import Event, EventTimes, per_second
from scripts.tools.benchmarks.extenders import Arm, Bench
from scripts.tools.benchmarks.figures import ratios, rotated, shown, spread
from scripts.tools.benchmarks.preemption import Preemption, Sample
from scripts.tools.benchmarks.report import Report, Table, Target
from scripts.tools.controlplane import ControlPlane, ControlPlaneError, Options
from scripts.tools.controlplane.processes import Spawner

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    nodes: int
    pods: int
    preemptors: int
    rounds: int


FULL = Size(nodes=1000, pods=2000, preemptors=200, rounds=10)
QUICK = Size(nodes=200, pods=200, preemptors=20, rounds=1)
TIMEOUT_SECONDS = 300.0
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_OPTIONS = Options(
    scheduler=False, controller_manager=False, kwok=False, apiserver_flags=("--delete-collection-workers=8",)
)


def measure(size: Size, note: Note) -> Report:
    """Measure and report."""
    neighbours = machine.Neighbours()
    placed: dict[Arm, list[float]] = {arm: [] for arm in Arm}
    preempted: dict[Sample, list[Preemption]] = {sample: [] for sample in Sample}
    spawner = Spawner()
    try:
        with tempfile.TemporaryDirectory() as temporary, ControlPlane(_OPTIONS, note=note) as plane:
            note(f"creating {size.nodes} nodes")
            ages = cluster.make_nodes(plane, size.nodes)
            bench = Bench.prepare(plane, Path(temporary), spawner, ages)
            for turn in range(size.rounds):
                for arm in map(Arm, rotated(list(Arm), turn)):
                    rate = _place(bench, arm, size.pods, f"placing-{turn}-{arm.name.lower()}")
                    placed[arm].append(rate)
                    note(f"round {turn + 1} of {size.rounds}, {arm}: {rate:.0f} pods/s")
            preemption.prepare(plane)
            for turn in range(size.rounds):
                for sample in map(Sample, rotated(list(Sample), turn)):
                    preemption.fill(plane, sorted(ages))
                    name = f"preempting-{turn}-{sample.name.lower()}"
                    found = preemption.measure(bench, sample, size.preemptors, name)
                    preempted[sample].append(found)
                    _delete_pods(plane, "benchmark-role=preemptor")
                    note(f"round {turn + 1} of {size.rounds}, preemption, {sample}: {found.whole:.1f} ms")
            versions = {"Go": programs.go_version(), "kube-scheduler": plane.api("GET", "/version")["gitVersion"]}
    finally:
        spawner.close()
    conditions = machine.conditions(neighbours=neighbours, versions=versions, rounds=size.rounds)
    return _report(size, placed, preempted, conditions)


def _place(bench: Bench, arm: Arm, pods: int, name: str) -> float:
    """Create the pods, start the arm's extender and a scheduler, and return how many pods a second were bound."""
    plane = bench.plane
    cluster.each(lambda number: plane.create(cluster.new_pod(f"worker-{number}")), range(pods))
    with bench.running(arm) as (config, serve), EventTimes(plane, POOL_LABEL, Event.BOUND) as bound:
        scheduler = plane.start_scheduler(name, config)
        try:
            rate = per_second(bound.await_count(pods, TIMEOUT_SECONDS))
        finally:
            scheduler.stop()
        if serve is not None:
            scored = serve.metric("warmnode_webhook_requests_total", verb="prioritize", outcome="scored")
            if scored < pods:
                raise ControlPlaneError(f"{pods} pods were placed and warmnode scored {scored:.0f}: not measured")
    _delete_pods(plane, POOL_LABEL)
    return rate


def _delete_pods(plane: ControlPlane, label_selector: str) -> None:
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
    plane.api("DELETE", _PODS, options, params={"labelSelector": label_selector})


def _report(
    size: Size,
    placed: dict[Arm, list[float]],
    preempted: dict[Sample, list[Preemption]],
    conditions: tuple[str, ...],
) -> Report:
    def relative(arm: Arm, base: Arm) -> str:
        return shown(ratios(placed[arm], placed[base])) if arm != base else "1"

    bases = (Arm.NONE, Arm.NO_OP, Arm.AIOHTTP, Arm.GO)
    throughput = Table(
        title=f"{size.pods:,} pods on {size.nodes:,} nodes",
        head=("extender", "pods/s", "/ none", "/ no-op", "/ aiohttp", "/ Go"),
        rows=tuple(
            (str(arm), shown(rates, 0), *(relative(arm, base) for base in bases)) for arm, rates in placed.items()
        ),
    )

    def column(sample: Sample, figure: str) -> list[float]:
        return [float(asdict(each)[figure]) for each in preempted[sample]]

    figures = ("whole", "search", "webhook")
    costs = Table(
        title=f"{size.preemptors} preemptors on {size.nodes:,} full nodes, warmnode's preempt in both, ms a preemptor",
        head=("nodes tried", "victim to victim", "search for victims", "of it warmnode"),
        rows=(
            *((str(sample), *(shown(column(sample, each)) for each in figures)) for sample in Sample),
            (
                "100 % / 10 %",
                *(shown(ratios(column(Sample.ALL, each), column(Sample.DEFAULT, each))) for each in figures),
            ),
        ),
    )
    targets = tuple(
        Target(
            what=f"pods/s with warmnode over {words}",
            wanted=f">= {goal:.2f}",
            measured=relative(Arm.WARMNODE, base),
            met=spread(ratios(placed[Arm.WARMNODE], placed[base])).median >= goal,
        )
        for base, words, goal in (
            (Arm.NO_OP, "a no-op extender", 0.92),
            (Arm.GO, "the Go extender that answers every host", 1.25),
        )
    )
    raw = {
        "placed": {str(arm): rates for arm, rates in placed.items()},
        "preempted": {str(sample): [asdict(each) for each in rounds] for sample, rounds in preempted.items()},
    }
    return Report(name="scheduler", conditions=conditions, tables=(throughput, costs), targets=targets, raw=raw)
