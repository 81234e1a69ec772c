"""Which nodes Karpenter would not take, by the same functions as a pass of the reaper; for doctor."""

from __future__ import annotations

from datetime import datetime

from extender.cluster.state import ClusterState
from extender.inspect.doctor.evidence import KeptNode
from extender.inspect.survey.to_evidence import Material
from extender.kube.karpenter_events import last_words
from extender.kube.pod_disruption_budgets import pod_budget_from
from extender.policy.judging import judge
from extender.policy.node_pool_budgets import PodBudgets
from extender.policy.node_pool_room import what_keeps
from extender.policy.recheck import Circumstances
from extender.settings import Configuration
from extender.settings.in_force import InForce


def kept_nodes_of(material: Material, now: datetime) -> tuple[KeptNode, ...] | None:
    """Give the nodes with workers that would stay without them, and the empty ones that stay; None: not known.

    Leaving nodes are left out.
    """
    if material.nodes is None or material.pods is None or material.node_pools is None:
        return None
    state = ClusterState(clock=lambda: now)
    state.replace_node_claims(material.node_claims or ())
    state.replace_node_pools(material.node_pools)
    state.replace_nodes(material.nodes)
    state.replace_pods(each.pod for each in material.pods if each.pod is not None)
    budgets = PodBudgets(map(pod_budget_from, material.budgets or ()))
    judgement = judge(state, Circumstances(rules=InForce(Configuration.default()).settings, budgets=budgets), (), now)
    found = {name: (0, kept) for name, kept in judgement.stuck.items()}
    for name in state.where.names_with_workers():
        workers = sum(not worker.terminating for worker in state.where.workers_on(name).values())
        kept = what_keeps(state, name, now, budgets)
        if workers and kept is not None and state.departure(name) is None:
            found[name] = (workers, kept)
    said = last_words(material.events or ())
    return tuple(
        KeptNode(
            name=name,
            node_pool=state.nodes[name].node_pool or "",
            workers=workers,
            kept=kept,
            said=said.get(name),
        )
        for name, (workers, kept) in sorted(found.items())
    )
