"""The second half of the demo: a burst that needs more nodes, its end, and what becomes of nodes and workers.

Asks the cluster, and decides whether what it saw is what was promised. Prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from scripts.tools.controlplane.karpenter import create_node_class, create_node_pool
from scripts.tools.demo import scenario
from scripts.tools.demo.findings import PlannedNode
from scripts.tools.demo.stage import PODS, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Shore:
    """A node at the peak of the burst, and after it: its busy workers, those of the burst, and whether it is there."""

    node: PlannedNode
    busy: int
    burst: int
    busy_after: int
    burst_after: int
    is_there: bool

    @property
    def evicted(self) -> int:
        """Workers of the burst that went."""
        return self.burst - self.burst_after


def rise(stage: Stage) -> set[str]:
    """Let a burst of bare workers come for which there is not enough room. Returns the nodes that Karpenter added."""
    before = stage.nodes()
    create_node_class(stage.cluster)
    create_node_pool(stage.cluster, scenario.NODE_POOL, consolidate_after="5s", budgets=[{"nodes": "100%"}])
    for number in range(scenario.TIDE):
        stage.cluster.create(scenario.burst_worker(number))
    stage.wait(
        lambda: sum(stage.workers("burst").values()) == scenario.TIDE, f"{scenario.TIDE} workers of the burst to run"
    )
    return stage.nodes() - before


def fall(stage: Stage) -> None:
    """End the burst: each of its workers says that it is idle. Waits until the floor is reached."""
    mark = {"metadata": {"annotations": {"warmnode.dev/idle-since": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}}}
    for number in range(scenario.TIDE):
        stage.cluster.api("PATCH", f"{PODS}/burst-{number:02}", mark)
    stage.wait(
        lambda: sum(stage.workers("burst").values()) == scenario.FLOOR, f"{scenario.FLOOR} idle workers to be left"
    )


def ebb(stage: Stage, added: set[str]) -> None:
    """Wait until Karpenter has taken the nodes that it added."""
    stage.wait(lambda: not added & stage.nodes(), f"Karpenter to take {', '.join(sorted(added))}")


def counted(stage: Stage) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Count on each node the workers that are busy, and those of the burst."""
    before, deployed = stage.workers("before"), stage.workers("workers")
    return {name: before.get(name, 0) + deployed.get(name, 0) for name in before | deployed}, stage.workers("burst")


def compare_shores(
    plan: Sequence[PlannedNode],
    peak: tuple[Mapping[str, int], Mapping[str, int]],
    after: tuple[Mapping[str, int], Mapping[str, int]],
    there: set[str],
) -> list[Shore]:
    """Put the peak and what was left beside each other, node by node in the order of the plan."""
    return [
        Shore(
            node=each,
            busy=peak[0].get(each.name, 0),
            burst=peak[1].get(each.name, 0),
            busy_after=after[0].get(each.name, 0),
            burst_after=after[1].get(each.name, 0),
            is_there=each.name in there,
        )
        for each in plan
    ]


def broken_shores(shores: Sequence[Shore]) -> list[str]:
    """Say what went against the promise; empty when it was kept.

    1. a busy worker is gone; 2. an idle one went while a newer node kept one; 3. a node went that had a busy one.
    """
    broken = [f"{each.node.name} lost a busy worker" for each in shores if each.busy_after < each.busy]
    broken += [f"{each.node.name} had busy workers and is gone" for each in shores if each.busy and not each.is_there]
    ranked = sorted((each for each in shores if each.node.rank is not None), key=lambda each: each.node.rank or 0)
    for place, each in enumerate(ranked):
        newer = next((other for other in ranked[place + 1 :] if other.burst_after), None)
        if each.evicted and newer is not None:
            broken.append(f"{each.node.name} lost an idle worker while the newer {newer.node.name} kept one")
    return broken


def tide_in_words(shores: Sequence[Shore]) -> str:
    """Say in one sentence what was seen. Only true of what `broken_shores` finds nothing in."""
    evicted = sum(each.evicted for each in shores)
    gone = [each for each in shores if not each.is_there]
    stay = [each for each in shores if each.is_there and each.node.rank is not None]
    return (
        f"The burst needed {len(gone)} nodes more. When it was over, warmnode evicted {evicted} idle workers, the "
        f"newest nodes first, and kept {scenario.FLOOR}; Karpenter took the {len(gone)} nodes that it had added. "
        f"The {len(stay)} others stay, and so do all {sum(each.busy for each in shores)} busy workers."
    )
