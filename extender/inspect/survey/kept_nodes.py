"""Which nodes Karpenter would not take, by the same functions as a pass of the reaper; for doctor."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from extender.cluster.state import ClusterState
from extender.inspect.doctor.evidence import KeptNode, Kind
from extender.inspect.survey.material import Material
from extender.kube.karpenter_events import last_words
from extender.policy.judging import judge
from extender.policy.node_pool_budgets import PodBudgets
from extender.policy.node_pool_room import what_keeps
from extender.policy.recheck import Circumstances
from extender.settings import Configuration
from extender.settings.in_force import InForce


def kept_nodes_of(material: Material, now: datetime) -> Sequence[KeptNode]:
    """Give the nodes with workers that would stay without them, and the empty ones that stay.

    Leaving nodes are left out. None is known where nodes, pods or NodePools were not read.
    """
    if not {Kind.NODES, Kind.PODS, Kind.NODE_POOLS}.isdisjoint(material.unread):
        return ()
    state = ClusterState(clock=lambda: now)
    state.replace_node_claims(material.node_claims)
    state.replace_node_pools(material.node_pools)
    state.replace_nodes(material.nodes)
    state.replace_pods(each.pod for each in material.pods if each.pod is not None)
    budgets = PodBudgets(material.budgets)
    judgement = judge(state, Circumstances(rules=InForce(Configuration.default()).settings, budgets=budgets), (), now)
    found = {name: (0, kept) for name, kept in judgement.stuck.items()}
    for name in state.where.names_with_workers():
        workers = sum(not worker.terminating for worker in state.where.workers_on(name).values())
        kept = what_keeps(state, name, now, budgets)
        if workers and kept is not None and state.departure(name) is None:
            found[name] = (workers, kept)
    said = last_words(material.events)
    return [
        KeptNode(name=name, workers=workers, kept=kept, said=said.get(name))
        for name, (workers, kept) in sorted(found.items())
    ]
