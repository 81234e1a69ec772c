"""What `scripts/test` runs side by side, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sharing import group_of, in_order, workers_for

HERE = Path(__file__)
ROOT = HERE.parents[2]


@pytest.mark.parametrize(
    ("paths", "workers"),
    [
        ([HERE], 0),
        ([f"{HERE}::test_one[a/b]"], 0),
        ([HERE.parent], 2),
        ([HERE, HERE.parent / "test_docs.py"], 2),
        ([ROOT / "tests"], 3),
        ([ROOT / "tests" / "integration", HERE.parent], 3),
    ],
)
def test_control_planes_are_waited_for_by_one_process_more_than_there_are_cores(
    paths: list[object], workers: int
) -> None:
    """A single module is run here, without the start of others."""
    assert workers_for(map(str, paths), cores=2) == workers


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/unit/test_a.py::test_b[1.15.0-c]", "tests/unit/test_a.py"),
        ("tests/integration/test_a.py::test_b", "tests/integration/test_a.py"),
        ("tests/integration/test_karpenter.py::test_b[1.15.0]", "tests/integration/test_karpenter.py 1.15.0"),
        ("tests/integration/test_karpenter.py::test_b[1.15.0-c]", "tests/integration/test_karpenter.py 1.15.0"),
        ("tests/integration/test_karpenter_held.py::test_b", "tests/integration/test_karpenter_held.py "),
    ],
)
def test_what_shares_a_fixture_stays_together(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group


def test_karpenter_is_waited_for_beside_other_work_and_short_tests_are_last() -> None:
    unit, karpenter, other = "tests/unit/{}", "tests/integration/test_karpenter_{}", "tests/integration/test_{}"
    groups = [
        unit.format(1),
        other.format(1),
        other.format(2),
        other.format(3),
        karpenter.format(1),
        karpenter.format(2),
    ]
    expected = [
        karpenter.format(1),
        other.format(1),
        karpenter.format(2),
        other.format(2),
        other.format(3),
        unit.format(1),
    ]
    assert in_order(groups) == expected
