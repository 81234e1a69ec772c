"""The demo's own judgement: a run that breaks the promise is called one."""

from __future__ import annotations

import pytest

from scripts.tools.demo.findings import Findings, PlannedNode, Room, broken_promises, compare, summary
from scripts.tools.demo.page import WIDTH, Page

PLAN = (
    PlannedNode(name="old", rank=1, why="first worker ready 3d ago"),
    PlannedNode(name="middle", rank=2, why="first worker ready 9h ago"),
    PlannedNode(name="new", rank=3, why="no worker seen yet, created 12s ago: after all seen nodes"),
    PlannedNode(name="cordoned", rank=None, why="leaving (cordoned): no score"),
)
ROOMS = {
    "old": Room(running=1, free=3),
    "middle": Room(running=1, free=3),
    "new": Room(running=0, free=4),
    "cordoned": Room(running=2, free=2),
}
SPREAD = {"old": 1, "middle": 1, "new": 2}


def findings(**warmnode: int) -> Findings:
    return compare(PLAN, ROOMS, SPREAD, warmnode)


@pytest.mark.parametrize("placed", [{}, {"old": 2}, {"old": 3, "middle": 1}, {"old": 3, "middle": 3, "new": 4}])
def test_filling_by_rank_breaks_no_promise(placed: dict[str, int]) -> None:
    """The last node that is used may have room, and no other."""
    assert broken_promises(findings(**placed)) == []


def test_worker_on_a_newer_node_while_an_older_one_has_room_is_told() -> None:
    """With both nodes and the room that was left."""
    assert broken_promises(findings(old=2, middle=2)) == [
        "middle (rank 2) got 2 workers while old (rank 1) had room for 1 more"
    ]


def test_worker_on_a_leaving_node_is_told() -> None:
    """It was cordoned, and got one all the same."""
    assert broken_promises(findings(old=3, cordoned=1)) == ["cordoned is leaving and got 1 workers"]


def test_spread_is_told_for_every_newer_node() -> None:
    """What the default scheduler does would not pass."""
    assert len(broken_promises(findings(**SPREAD))) == 2


def test_empty_nodes_have_neither_workers_of_before_nor_of_the_deployment() -> None:
    """A cordoned node with two workers is not empty."""
    found = findings(old=3, middle=1)
    assert [row.node.name for row in found.empty("warmnode")] == ["new"]
    assert found.empty("default") == []


def test_summary_counts_what_was_found() -> None:
    """Nothing in it is written down beforehand."""
    assert summary(findings(old=3, middle=1)) == (
        "The same 4 workers: the default scheduler used 3 of 3 usable nodes and left none empty; "
        "warmnode used the 2 oldest and left 1 empty."
    )


def test_page_is_plain_and_fits_where_it_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """As in a log of CI."""
    page = Page()
    page.step("starting")
    page.placements(findings(old=3, middle=1))
    page.empty_nodes(findings(old=3, middle=1))
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() and len(line) <= WIDTH for line in lines)
    (old,) = (line for line in lines if line.startswith("old"))
    assert old.split()[-4:] == ["o#..", "1", "o###", "3"]
