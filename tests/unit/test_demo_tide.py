"""The second half of the demo: a burst that ends badly is told, one that ends well is summed up."""

from __future__ import annotations

import pytest

from scripts.tools.demo.findings import PlannedNode
from scripts.tools.demo.tide import Shore, broken_shores, compare_shores, tide_in_words


def shore(
    name: str, rank: int | None, *, busy: int = 0, burst: int = 0, left: int = 0, is_there: bool = True, lost: int = 0
) -> Shore:
    planned = PlannedNode(name=name, rank=rank, why="")
    return Shore(node=planned, busy=busy, burst=burst, busy_after=busy - lost, burst_after=left, is_there=is_there)


OLD = shore("old", 1, busy=2, burst=2, left=2)
NEW = shore("new", 2, burst=4, is_there=False)
CORDONED = shore("cordoned", None, busy=2)


def test_a_burst_that_drains_from_the_newest_node_breaks_no_promise() -> None:
    """And is summed up with what was evicted, taken and kept."""
    assert broken_shores([OLD, NEW, CORDONED]) == []
    assert tide_in_words([OLD, NEW, CORDONED]) == (
        "The burst needed 1 nodes more. When it was over, warmnode evicted 4 idle workers, the newest nodes first, and "
        "kept 2; Karpenter took the 1 nodes that it had added. The 1 others stay, and so do all 4 busy workers."
    )


@pytest.mark.parametrize(
    ("shores", "told"),
    [
        ([shore("old", 1, busy=2, lost=1)], "old lost a busy worker"),
        ([shore("old", 1, busy=2, is_there=False)], "old had busy workers and is gone"),
        (
            [shore("old", 1, burst=2, left=1), shore("new", 2, burst=4, left=1)],
            "old lost an idle worker while the newer new kept one",
        ),
    ],
)
def test_what_goes_against_the_promise_is_told(shores: list[Shore], told: str) -> None:
    """A busy worker that went, a node with one, an old node that lost what a newer one kept."""
    assert broken_shores(shores) == [told]


def test_nodes_are_compared_in_the_order_of_the_plan() -> None:
    """Those that are gone too: the plan is of the peak."""
    plan = [PlannedNode(name="old", rank=1, why=""), PlannedNode(name="new", rank=2, why="")]
    found = compare_shores(plan, ({"old": 2}, {"old": 2, "new": 4}), ({"old": 2}, {"old": 2}), {"old"})
    assert found == [OLD, NEW]
