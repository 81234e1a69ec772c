"""What doctor checks: all checks, in the order of the page. Each stands in the module of its subject beside this."""

from __future__ import annotations

from collections.abc import Mapping

from extender.inspect.doctor import (
    installation,
    karpenter,
    karpenter_prices,
    scheduler,
    scheduler_calls,
    waiting_workers,
    workers,
)
from extender.inspect.doctor.evidence import NOT_HERE, Evidence
from extender.inspect.doctor.findings import Check, Diagnosis, Judge

CHECKS: Mapping[Check, Judge] = {
    Check.SCHEDULER_CALLS: scheduler_calls.check_calls,
    Check.SCHEDULER_EXTENDER: scheduler.check_extender,
    Check.SCHEDULER_WEIGHT: scheduler.check_weight,
    Check.SCHEDULER_SAMPLE: scheduler.check_sample,
    Check.SCHEDULER_NAMES: scheduler_calls.check_names,
    Check.CONFIGURATION: installation.check_configuration,
    Check.POOLS: workers.check_pools,
    Check.WAITING_WORKERS: waiting_workers.check_waiting,
    Check.IDLE_MARKS: workers.check_idle_marks,
    Check.DELETION_COSTS: workers.check_deletion_costs,
    Check.DISRUPTION_BUDGETS: workers.check_disruption_budgets,
    Check.LEDGER: installation.check_ledger,
    Check.REAPER: installation.check_reaper,
    Check.PERMISSIONS: installation.check_permissions,
    Check.CLOCKS: installation.check_clocks,
    Check.KARPENTER_GENERATION: karpenter.check_generation,
    Check.KARPENTER_EXPIRY: karpenter.check_expiry,
    Check.KARPENTER_NODE_POOLS: karpenter.check_node_pools,
    Check.KARPENTER_NODES: karpenter.check_nodes,
    Check.KARPENTER_PRIORITIES: karpenter_prices.check_priorities,
    Check.KARPENTER_FEATURE_GATES: karpenter_prices.check_feature_gates,
}


def diagnose(evidence: Evidence, *, source: str) -> Diagnosis:
    """Make every check. ``source`` says in words what was looked at."""
    return Diagnosis(
        now=evidence.now,
        source=source,
        namespace=evidence.namespace,
        findings={check: judge(evidence) for check, judge in CHECKS.items()},
        unread=tuple(sorted((str(kind), why) for kind, why in evidence.unread.items() if why != NOT_HERE)),
    )
