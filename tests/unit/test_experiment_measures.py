"""What the experiment computes from a record: each definition on a record made for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.tools.experiment.matrix import Run
from scripts.tools.experiment.measures import count_reads, figures, first_starts, lifetimes, why_disturbed
from scripts.tools.experiment.record import Attempt, Conditions, NodeRecord, PodRecord, Record, read, write
from scripts.tools.experiment.traffic import READS_PER_TASK, blocks_of
from scripts.tools.experiment.workloads import BOOT_SECONDS

RUN = Run(workload="jobs", consolidate_after=15, arm="default", seed=101, seconds=1000, warm_up=100)


def attempt(
    task: int, *, node: str = "a", started: float = 200, ended: float | None = 240, done: bool = True
) -> Attempt:
    return Attempt(
        task=task,
        tenant=0,
        arrived=started - 1,
        duration=40,
        started=started,
        node=node,
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
    assert found.node_lifetime == 90  # the median of 100 and 80; the one that went in the warm-up is not counted


def test_lifetimes_say_which_nodes_were_still_there() -> None:
    """A node that outlives the run has lived until its end."""
    nodes = [NodeRecord(name="stays", added=900), NodeRecord(name="went", added=200, deleted=230)]
    assert lifetimes(record(nodes=nodes)) == [(30, True), (100, False)]


def test_second_task_of_the_same_blocks_hits_on_the_same_node_only() -> None:
    """A cache belongs to one node: the same task again finds its blocks there, and finds none elsewhere."""
    distinct = len(set(blocks_of(RUN.seed, 1, 0)))
    again = 2 * READS_PER_TASK
    same = record(attempts=[attempt(1), attempt(1, started=300, ended=340)])
    other = record(attempts=[attempt(1), attempt(1, node="b", started=300, ended=340)])
    assert count_reads(same, 4000) == (again, again - distinct)
    assert count_reads(other, 4000) == (again, again - 2 * distinct)
    assert figures(same).hits["large"] == (again - distinct) / again
    assert figures(same).fetched["large"] == distinct / 2


def test_cache_is_filled_in_the_warm_up_but_not_counted() -> None:
    """What was read before is there; whether it was a hit then is not asked."""
    nodes = [NodeRecord(name="a", added=10)]
    found = record(nodes=nodes, attempts=[attempt(1, started=20, ended=60), attempt(1, started=300, ended=340)])
    assert count_reads(found, 4000) == (READS_PER_TASK, READS_PER_TASK)


def test_interrupted_task_has_read_only_what_it_came_to() -> None:
    """A pod that went after half of the time has read half of the blocks."""
    half = READS_PER_TASK // 2
    found = record(attempts=[attempt(1, ended=220, done=False)])
    assert count_reads(found, 4000) == (half, half - len(set(blocks_of(RUN.seed, 1, 0)[:half])))
    assert figures(found).fetched["large"] is None


def test_disturbed_are_tasks_that_ended_without_being_done() -> None:
    """A task that still runs when the run ends was not disturbed."""
    found = figures(
        record(attempts=[attempt(1), attempt(2, done=False), attempt(3, started=990, ended=None, done=False)])
    )
    assert (found.disturbed, found.tasks_done) == (1, 1)


def test_wait_counts_the_first_start_of_a_task() -> None:
    """A task that starts again has waited once."""
    attempts = [attempt(1, started=300, ended=340), attempt(1, started=200, ended=220, done=False)]
    assert [each.started for each in first_starts(attempts)] == [200]
    assert figures(record(attempts=attempts)).wait == 1


def test_used_is_the_share_of_slots_that_worked() -> None:
    """40 s of one slot, of a node that cost 50 s and has four."""
    nodes = [NodeRecord(name="a", added=200, deleted=240)]
    assert figures(record(nodes=nodes, attempts=[attempt(1)])).used == 40 / (4 * (40 + BOOT_SECONDS))


def test_age_is_that_of_the_node_when_work_starts() -> None:
    """Work starts at 200 on a node of 150, and at 600."""
    found = figures(record(attempts=[attempt(1), attempt(2, started=600, ended=640)]))
    assert found.age == (50 + 450) / 2
    assert found.old_enough == 0.5


def test_time_to_place_is_from_creation_to_binding() -> None:
    """A pod that was never bound has none."""
    pods = [PodRecord(name="a", added=200, node="a", bound=203), PodRecord(name="b", added=200)]
    found = figures(record(pods=pods))
    assert (found.time_to_place, found.time_to_place_p95) == (3, 3)


def test_run_on_a_starved_machine_is_marked() -> None:
    """Actions that come late, or bindings that take long where there is room, mean that the machine was busy."""
    calm = record(pods=[PodRecord(name="a", added=200, node="a", bound=200.02)])
    assert why_disturbed(calm) is None
    assert why_disturbed(replace(calm, conditions=Conditions(late_p95=0.6))) == "the harness was 0.6 s late"
    slow = record(pods=[PodRecord(name="a", added=200, node="a", bound=200.2)])
    assert why_disturbed(slow) == "a binding took 200 ms"


def test_empty_record_has_no_figures_and_no_failure() -> None:
    """Nothing happened: zeros and None."""
    found = figures(record(nodes=[]))
    assert (found.node_seconds, found.used, found.age, found.wait, found.hits["small"]) == (0, 0, None, None, 0)


def test_record_survives_being_written(tmp_path: Path) -> None:
    """What is read is what was written."""
    written = record(
        pods=[PodRecord(name="a", added=1.5, node="a", bound=2.25, evicted="EvictionByEvictionAPI")],
        attempts=[attempt(1)],
    )
    written.conditions = Conditions(cores=2, samples=[(5.0, 0.5, 1.25, 0.25)], own={"etcd": 1.5})
    write(written, tmp_path / "x.json.gz")
    assert read(tmp_path / "x.json.gz") == written
    assert [each.name for each in tmp_path.iterdir()] == ["x.json.gz"]


def test_record_of_another_format_is_refused(tmp_path: Path) -> None:
    """Numbers of another meaning must not be mixed in."""
    import gzip

    (tmp_path / "x.json.gz").write_bytes(gzip.compress(b'{"format":0}'))
    with pytest.raises(ValueError, match="not a record of format"):
        read(tmp_path / "x.json.gz")
