"""What the experiment computes from a record: each definition on a record made for it."""

from __future__ import annotations

import gzip
import json
import lzma
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from scripts.tools.experiment.caches import COLD_SECONDS, WARM_SECONDS
from scripts.tools.experiment.matrix import Run
from scripts.tools.experiment.measures import TAIL_SECONDS, figures, why_disturbed
from scripts.tools.experiment.record import Attempt, Conditions, NodeRecord, PodRecord, Record, read, write
from scripts.tools.experiment.workloads import BOOT_SECONDS

RUN = Run(workload="jobs4", consolidate_after=10, arm="default", seed=101, seconds=1000, warm_up=100)


def attempt(
    task: int,
    *,
    arrived: float = 199,
    started: float = 200,
    ended: float | None = 240,
    done: bool = True,
    hit: bool = True,
) -> Attempt:
    return Attempt(
        task=task,
        model=0,
        arrived=arrived,
        work=40,
        hit=hit,
        loading=WARM_SECONDS if hit else COLD_SECONDS,
        started=started,
        node="a",
        pod=f"p{task}",
        ended=ended,
        done=done,
    )


def record(
    *, nodes: list[NodeRecord] | None = None, pods: list[PodRecord] | None = None, attempts: list[Attempt] | None = None
) -> Record:
    nodes = [NodeRecord(name="a", added=150), NodeRecord(name="b", added=150)] if nodes is None else nodes
    return Record(run=RUN, began="2026-11-24T12:00:00+00:00", nodes=nodes, pods=pods or [], attempts=attempts or [])


def test_node_costs_from_launch_to_the_end_of_the_node() -> None:
    """The boot counts; what lies before the warm-up's end or after the run does not."""
    nodes = [
        NodeRecord(name="whole", added=200, deleted=300),
        NodeRecord(name="before", added=20, deleted=90),
        NodeRecord(name="across", added=50, deleted=130),
        NodeRecord(name="stays", added=900),
    ]
    expected = (100 + BOOT_SECONDS) + 0 + 30 + (100 + BOOT_SECONDS)
    found = figures(record(nodes=nodes))
    assert found.node_seconds == expected
    assert found.nodes_created == 2
    assert figures(record(pods=[PodRecord(name="a", added=99), PodRecord(name="b", added=200)])).pods_created == 1


def test_latency_is_from_arrival_to_the_end_of_the_attempt_that_was_done() -> None:
    """What was interrupted before is part of it; a task counts once."""
    lost = attempt(1, arrived=190, started=200, ended=220, done=False)
    found = figures(record(attempts=[lost, attempt(1, arrived=190, started=230, ended=280), attempt(2)]))
    assert (found.latency, found.latency_p95, found.tasks) == ((90 + 41) / 2, 90, 2)


def test_latency_of_a_task_that_is_not_done_is_what_it_took_so_far() -> None:
    """At the end of the run; those that came in the warm-up or just before the end do not count."""
    late = RUN.seconds - TAIL_SECONDS
    attempts = [
        attempt(1, arrived=late - 1, ended=None, done=False),
        attempt(2, arrived=late, started=late, ended=late + 10),
        attempt(3, arrived=99),
    ]
    found = figures(record(attempts=attempts))
    assert (found.latency, found.tasks) == (TAIL_SECONDS + 1, 1)


def test_a_task_that_never_started_counts_as_if_it_ended_with_the_run() -> None:
    """Whoever makes work wait to the end would look quick without it; one that was started before is counted once."""
    found = record(attempts=[attempt(1), attempt(2, ended=300, done=False)])
    found.waiting = [(2, 199), (3, 500), (4, RUN.seconds - 1)]
    assert (figures(found).tasks, figures(found).latency) == (3, (41 + 801 + 500) / 3)


def test_time_in_misses_is_that_of_all_attempts_at_a_task() -> None:
    """What was warm is no miss; a task that starts again may miss again."""
    lost = attempt(1, ended=220, done=False, hit=False)
    found = figures(record(attempts=[lost, attempt(1, started=230, ended=280, hit=False), attempt(2)]))
    assert found.in_misses == COLD_SECONDS
    assert found.hits == 1 / 3


def test_interrupted_are_tasks_that_ended_without_being_done() -> None:
    """A task that still runs when the run ends was not interrupted."""
    found = figures(
        record(attempts=[attempt(1), attempt(2, done=False), attempt(3, started=990, ended=None, done=False)])
    )
    assert found.interrupted == 1


def test_run_on_a_starved_machine_is_marked() -> None:
    """Actions that come late, or bindings that take long where there is room, mean that the machine was busy."""
    calm = record(pods=[PodRecord(name="a", added=200, node="a", bound=200.02)])
    assert why_disturbed(calm) is None
    assert why_disturbed(replace(calm, conditions=Conditions(late_p95=0.6))) == "the harness was 0.6 s late"
    slow = record(pods=[PodRecord(name="a", added=200, node="a", bound=200.2)])
    assert why_disturbed(slow) == "a binding took 200 ms"


def test_empty_record_has_no_figures_and_no_failure() -> None:
    """Nothing happened: zeros."""
    found = figures(record(nodes=[]))
    assert (found.node_seconds, found.latency, found.latency_p95, found.hits, found.tasks) == (0, 0, 0, 0, 0)


def test_record_survives_being_written(tmp_path: Path) -> None:
    """What is read is what was written, to a hundredth of a second."""
    written = record(
        pods=[PodRecord(name="a", added=1.5, node="a", bound=2.25, evicted="EvictionByEvictionAPI")],
        attempts=[attempt(1)],
    )
    written.conditions = Conditions(cores=2, samples=[(5.0, 0.5, 1.25, 0.25)], own={"etcd": 1.5})
    write(written, tmp_path / "x.json.xz")
    assert read(tmp_path / "x.json.xz") == written
    assert [each.name for each in tmp_path.iterdir()] == ["x.json.xz"]


def test_record_of_another_format_is_refused(tmp_path: Path) -> None:
    """Numbers of another meaning must not be mixed in."""
    (tmp_path / "x.json.xz").write_bytes(lzma.compress(b'{"format":0}'))
    with pytest.raises(ValueError, match="not a record of format"):
        read(tmp_path / "x.json.xz")


def test_record_of_the_first_experiment_has_nodes_and_pods(tmp_path: Path) -> None:
    """Its attempts are left out: they had no model, and no misses that took time."""
    old = asdict(record(pods=[PodRecord(name="a", added=1.5)]))
    old |= {"format": 1, "attempts": [{"task": 1, "tenant": 2, "duration": 3.0}]}
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(json.dumps(old).encode()))
    found = read(tmp_path / "x.json.gz")
    assert (found.pods, len(found.nodes), found.attempts) == ([PodRecord(name="a", added=1.5)], 2, [])
