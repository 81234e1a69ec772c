"""What a preemption costs on a full cluster: with the scheduler's own sample of nodes, and with all of them.

`minCandidateNodesPercentage: 100` in the shipped configuration lets warmnode choose among all nodes; the scheduler
then tries the preemption on every one of them.
"""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from enum import StrEnum

from scripts.tools.benchmarks import cluster
from scripts.tools.benchmarks.cluster import NAMESPACE
from scripts.tools.benchmarks.events import Event, EventTimes, per_second
from scripts.tools.benchmarks.extenders import Arm, Bench
from scripts.tools.controlplane import ControlPlane, ControlPlaneError, Json, Process

TIMEOUT_SECONDS = 300.0
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_PER_NODE = 2
_ROLE = "benchmark-role"


class Sample(StrEnum):
    """On how many nodes the scheduler tries a preemption."""

    DEFAULT = "10 %, the scheduler's default"
    ALL = "100 %, as shipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preemption:
    """Means of one round, in milliseconds a preemptor.

    ``whole``: from one victim that is gone to the next; ``search``: the scheduler's PostFilter; ``webhook``: our share
    of that.
    """

    whole: float
    search: float
    webhook: float


def prepare(plane: ControlPlane) -> None:
    """Create the two priority classes."""
    for name, value in (("benchmark-low", 100), ("benchmark-high", 1000)):
        item = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
        plane.create({**item, "value": value})


def fill(plane: ControlPlane, nodes: list[str]) -> None:
    """Fill every node with two workers of low priority, one of them idle, that end at once; keeps those that run."""
    present = {
        pod["metadata"]["name"] for pod in plane.api("GET", _PODS, params={"labelSelector": f"{_ROLE}=victim"})["items"]
    }
    wanted = [(node, f"victim-{number}-{each}") for number, node in enumerate(nodes) for each in range(_PER_NODE)]

    def create(place: tuple[str, str]) -> None:
        node, name = place
        pod = _pod(name, "victim", "benchmark-low")
        pod["spec"]["nodeName"] = node
        if name.endswith("-0"):
            pod["metadata"]["annotations"]["warmnode.dev/idle-since"] = "2026-01-01T00:00:00Z"
        plane.create(pod)

    cluster.each(create, [place for place in wanted if place[1] not in present])


def measure(bench: Bench, sample: Sample, preemptors: int, name: str) -> Preemption:
    """Let ``preemptors`` pods of high priority take their places on a full cluster. ``name`` names the scheduler."""
    plane = bench.plane
    cluster.each(
        lambda number: plane.create(_pod(f"preemptor-{number}", "preemptor", "benchmark-high")), range(preemptors)
    )
    with (
        bench.running(Arm.WARMNODE) as (config, serve),
        EventTimes(plane, f"{_ROLE}=preemptor", Event.BOUND) as bound,
        EventTimes(plane, f"{_ROLE}=victim", Event.GONE) as gone,
    ):
        assert serve is not None
        if sample == Sample.DEFAULT:
            for profile in config["profiles"]:
                del profile["pluginConfig"]
        scheduler = plane.start_scheduler(name, config)
        try:
            bound.await_count(preemptors, TIMEOUT_SECONDS)
            search, searches = _post_filter(plane, scheduler)
        finally:
            scheduler.stop()
        calls = serve.metric("warmnode_webhook_duration_seconds_count", verb="preempt")
        ours = serve.metric("warmnode_webhook_duration_seconds_sum", verb="preempt")
    if calls < preemptors:
        raise ControlPlaneError(f"{preemptors} preemptors, and warmnode was asked {calls:.0f} times: not measured")
    return Preemption(
        whole=1000 / per_second(gone.await_count(preemptors, TIMEOUT_SECONDS)),
        search=search * 1000 / searches,
        webhook=ours * 1000 / calls,
    )


def _pod(name: str, role: str, priority_class: str) -> Json:
    container = {"name": "worker", "image": "worker", "resources": {"requests": {"cpu": "8"}}}
    pod = cluster.new_pod(
        name,
        priorityClassName=priority_class,
        terminationGracePeriodSeconds=0,  # no kubelet is there that would end it
        containers=[container],
        initContainers=[],
        volumes=[],
    )
    pod["metadata"]["labels"][_ROLE] = role
    return pod


def _post_filter(plane: ControlPlane, scheduler: Process) -> tuple[float, float]:
    """Read (seconds, count) of the scheduler's PostFilter, which is the search for victims with our answer in it."""
    connection = http.client.HTTPSConnection("127.0.0.1", scheduler.port, context=plane.api_client.tls, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    series = (
        r'^scheduler_framework_extension_point_duration_seconds_{}\{{[^}}]*extension_point="PostFilter".*\}} (\S+)$'
    )
    seconds, count = (
        sum(map(float, re.findall(series.format(suffix), text, re.MULTILINE))) for suffix in ("sum", "count")
    )
    if not count:
        raise ControlPlaneError("kube-scheduler shows no PostFilter in its metrics: nothing was preempted")
    return seconds, count
