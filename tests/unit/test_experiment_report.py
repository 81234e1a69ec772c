"""What the experiment's page is made of: tables from records, and what was to be reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.experiment.goals import goals, over
from scripts.tools.experiment.matrix import CONSOLIDATE_AFTER, Run
from scripts.tools.experiment.measures import Figures
from scripts.tools.experiment.record import Attempt, Conditions, NodeRecord, PodRecord, Record
from scripts.tools.experiment.report import by_point, write


def made(workload: str, arm: str, seed: int, *, after: int = 10, nodes: int = 1, took: float = 10.0) -> Record:
    """One run with so many nodes for all of its time, and one task that took so long."""
    run = Run(workload=workload, consolidate_after=after, arm=arm, seed=seed, seconds=500, warm_up=100)
    attempt = Attempt(
        task=1, model=0, arrived=200, work=1, hit=True, loading=1, started=200, node="n0", pod="p", ended=200 + took
    )
    attempt.done = True
    found = [NodeRecord(name=f"n{number}", added=0) for number in range(nodes)]
    conditions = Conditions(cores=2, samples=[(150.0, 0.5, 1.0, 0.1), (155.0, 0.5, 1.0, 0.1)])
    return Record(
        run=run,
        began="2026-11-28T12:00:00+00:00",
        versions={"Kubernetes": "v1"},
        nodes=found,
        pods=[PodRecord(name="p", added=190, node="n0", bound=190.1)],
        attempts=[attempt],
        conditions=conditions,
    )


def measured(*records: Record) -> dict[tuple[str, int, str], dict[int, Figures]]:
    return by_point(records)


def test_ratio_is_taken_seed_by_seed() -> None:
    """A seed that one of the two arms has not is left out, and an arm is not held against itself."""
    found = measured(
        made("jobs2", "packing", 301, nodes=2),
        made("jobs2", "packing", 302, nodes=4),
        made("jobs2", "set10", 301, nodes=3),
        made("jobs2", "set10", 303, nodes=9),
    )
    base = ("jobs2", 10, "packing")
    assert over(found, ("jobs2", 10, "set10"), base, "node_seconds") == [1.5]
    assert over(found, base, base, "node_seconds") == []


def test_goal_says_the_worst_point_first() -> None:
    """The median over the seeds; which point that is, and in how many the goal was reached."""
    records = [made("jobs1", "packing", 301, nodes=100), made("jobs8", "packing", 301, nodes=100)]
    records += [made("jobs1", "set10", 301, nodes=101), made("jobs8", "set10", 301, nodes=107)]
    line, latency = goals(measured(*records)).rows
    assert line[0] == "node-seconds"
    assert line[3:] == ("at most 1.02", "1.07 (jobs8 10 s)", "1 of 2", "1.01, 1.07")
    assert latency[4:6] == ("1.00 (jobs1 10 s)", "0 of 2")


def test_older_scheduler_is_held_against_its_own_packing() -> None:
    """And so is the set with the newest one."""
    after = CONSOLIDATE_AFTER[-1]
    records = [
        made("jobs2", "packing134", 301, after=after, nodes=10),
        made("jobs2", "set134", 301, after=after, nodes=8),
    ]
    (line,) = goals(measured(*records)).rows
    assert line[2:5] == ("MostAllocated, scheduler 1.34", "at most 0.85", "0.80 (jobs2 100 s)")


def test_report_fills_the_page_and_draws_a_plot_for_each_kind(tmp_path: Path) -> None:
    """The page in the repository has all of the places; what was not run stays as it is."""
    page = tmp_path / "experiment.md"
    page.write_text((ROOT / "docs" / "experiment.md").read_text())
    records = [made("jobs4", arm, 301, nodes=nodes) for arm, nodes in (("packing", 2), ("set10", 3))]
    records[1].run = replace(records[1].run, tries=2)
    written = write(records, tmp_path)
    assert [path.name for path in written] == ["experiment.md", "jobs.svg"]
    assert "| 10 s | warmnode, working set, slack 0.1 | 1 | 1,200 | 1.50 | 10.0 | 1.00 |" in page.read_text()
    assert "2 runs, seeds 301" in page.read_text()
    assert "Repeated because they failed: `jobs4-10s-set10-301`" in page.read_text()


def test_report_without_records_is_refused(tmp_path: Path) -> None:
    """With what there is to do."""
    with pytest.raises(ValueError, match="carry out `scripts/experiment run` first"):
        write([], tmp_path)
