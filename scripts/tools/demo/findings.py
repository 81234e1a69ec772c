"""What two runs show: where each worker went, whether warmnode kept its promise, which nodes are empty. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    """A node as ``warmnode plan --output json`` shows it: ``rank`` counts from 1, None for a leaving node."""

    name: str
    rank: int | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A node before the Deployment came: workers that ran there, and how many more fit (cordoned or not)."""

    running: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One node in both runs. ``default`` and ``warmnode`` count the Deployment's workers on it."""

    node: PlannedNode
    room: Room
    default: int
    warmnode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Both runs at one size, rows in the order of the plan."""

    rows: tuple[Row, ...]

    @property
    def workers(self) -> int:
        """Workers that the Deployment placed."""
        return sum(row.warmnode for row in self.rows)

    def used(self, scheduler: str) -> list[Row]:
        """Rows with a worker of the Deployment, by ``default`` or ``warmnode``."""
        return [row for row in self.rows if getattr(row, scheduler)]

    def empty(self, scheduler: str) -> list[Row]:
        """Rows without any worker at all: what Karpenter could take away."""
        return [row for row in self.rows if not row.room.running and not getattr(row, scheduler)]


def compare(
    plan: Sequence[PlannedNode], rooms: Mapping[str, Room], default: Mapping[str, int], warmnode: Mapping[str, int]
) -> Findings:
    """Put both runs beside each other, node by node in the order of the plan."""
    return Findings(
        rows=tuple(
            Row(node=n, room=rooms[n.name], default=default.get(n.name, 0), warmnode=warmnode.get(n.name, 0))
            for n in plan
        )
    )


def broken_promises(findings: Findings) -> list[str]:
    """Say what warmnode did against its plan; empty when it kept it.

    1. no worker on a leaving node; 2. no worker on a node while a better-ranked one has room.
    """
    found = [
        f"{row.node.name} is leaving and got {row.warmnode} workers"
        for row in findings.rows
        if row.node.rank is None and row.warmnode
    ]
    ranked = sorted((row for row in findings.rows if row.node.rank is not None), key=lambda row: row.node.rank or 0)
    roomy = next((row for row in ranked if row.warmnode < row.room.free), None)
    if roomy is not None:
        found += [
            f"{row.node.name} (rank {row.node.rank}) got {row.warmnode} workers while {roomy.node.name} "
            f"(rank {roomy.node.rank}) had room for {roomy.room.free - roomy.warmnode} more"
            for row in ranked[ranked.index(roomy) + 1 :]
            if row.warmnode
        ]
    return found


def summary(findings: Findings) -> str:
    """Say in one sentence what was seen. Only true of findings without `broken_promises`."""
    usable = sum(row.node.rank is not None for row in findings.rows)
    default, warmnode = len(findings.used("default")), len(findings.used("warmnode"))
    return (
        f"The same {findings.workers} workers: the default scheduler used {default} of {usable} usable nodes and left "
        f"{len(findings.empty('default')) or 'none'} empty; warmnode used the {warmnode} oldest and left "
        f"{len(findings.empty('warmnode')) or 'none'} empty."
    )
