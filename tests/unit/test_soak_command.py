"""The command line of scripts/soak."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.tools.soak.defects import DEFECTS
from scripts.tools.soak.facts import Bound, Record, Rule, Span, Taken, Told
from scripts.tools.soak.faults import FAULTS
from scripts.tools.soak.invariants import PLAIN_SCHEDULER, WORKERS_SCHEDULER, Violation
from scripts.tools.soak.report import Run, as_json, as_text, never_asked


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--for", "soon"], "write a time such as 90s, 4m or 1h (got 'soon')"),
        (["--for", "30s"], "at least 90s"),
        (["--faults", "kill-leader,rain"], "no such fault: rain"),
        (["--defect", "rust"], "invalid choice: 'rust'"),
        (["--workers", "500"], "twice as many must fit on the nodes"),
    ],
)
def test_bad_usage_is_refused_before_anything_starts(arguments: list[str], says: str) -> None:
    """With what is wrong, and exit code 2."""
    command = [sys.executable, "-P", "-m", "scripts.tools.soak", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_each_defect_names_faults_that_there_are() -> None:
    """There are at least eight, and each is to be noticed by one rule."""
    assert len(DEFECTS) >= 8
    assert all(set(each.faults) <= set(FAULTS) for each in DEFECTS.values())


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_can_be_built_in(name: str) -> None:
    """What it replaces is still there."""
    code = f"from scripts.tools.soak.defects import DEFECTS; DEFECTS[{name!r}].build_in()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_report_says_which_rules_held_and_what_broke_the_others() -> None:
    """As text and as JSON, with how often each fault came and how long pods waited."""
    record = Record()
    record.add(Span(at=1.0, end=2.0, fault="kill-leader"), Bound(at=3.0, pod="p", scheduler="warmnode", waited=0.01))
    broken = Violation(rule=Rule.FLOOR, at=4.0, what="9 were left")
    run = Run(seed=7, seconds=240.0, defect=None, counts={"jobs": 3}, rules=[Rule.AGES, Rule.FLOOR])
    found = as_json(run, record, [broken])
    assert found["held"] is False
    assert found["faults"] == {"kill-leader": 1}
    assert found["boundSeconds"]["warmnode"]["pods"] == 1
    text = as_text(found)
    assert "held   ages" in text
    assert "BROKEN floor: 1 times" in text
    assert "9 were left" in text


def test_a_run_in_which_nothing_happened_proves_nothing() -> None:
    """Rules that were never asked hold. What was missing is named."""
    record = Record()
    assert len(never_asked(record)) == 4
    record.add(
        Taken(at=1.0, pod="w", idle=True, claimed=False, left=9, lately=9, is_leaving=False, is_owned=False),
        Told(at=1.0, until=2.0, claimant="c", pod="w", uid="u"),
        Bound(at=1.0, pod="p", scheduler=WORKERS_SCHEDULER, waited=0.1),
    )
    assert never_asked(record) == ["pod bound by the stock scheduler"]
    record.add(Bound(at=1.0, pod="p", scheduler=PLAIN_SCHEDULER, waited=0.1))
    assert not never_asked(record)
