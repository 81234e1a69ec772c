"""What doctor checks: all checks, in the order of the page. Each stands in the module of its subject beside this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

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
from extender.inspect.doctor.findings import Finding, Judge, Verdict, worst


class Check(StrEnum):
    """Every check: its name, a key of the JSON form, words for people, and what makes it."""

    words: str
    judge: Judge

    def __new__(cls, name: str, words: str, judge: Judge) -> Check:
        """Make a member: it is its name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.words = words
        member.judge = judge
        return member

    SCHEDULER_CALLS = "schedulerCalls", "the scheduler calls", scheduler_calls.check_calls
    SCHEDULER_EXTENDER = "schedulerExtender", "the scheduler's configuration", scheduler.check_extender
    SCHEDULER_WEIGHT = "schedulerWeight", "the extender's weight", scheduler.check_weight
    SCHEDULER_SAMPLE = "schedulerSample", "nodes that are scored", scheduler.check_sample
    SCHEDULER_NAMES = "schedulerNames", "schedulers of workers", scheduler_calls.check_names
    CONFIGURATION = "configuration", "warmnode's configuration", installation.check_configuration
    POOLS = "pools", "pools", workers.check_pools
    WAITING_WORKERS = "waitingWorkers", "workers without a node", waiting_workers.check_waiting
    IDLE_MARKS = "idleMarks", "idle marks", workers.check_idle_marks
    DELETION_COSTS = "deletionCosts", "deletion costs", workers.check_deletion_costs
    DISRUPTION_BUDGETS = "disruptionBudgets", "PodDisruptionBudgets", workers.check_disruption_budgets
    LEDGER = "ledger", "the ledger", installation.check_ledger
    REAPER = "reaper", "the reaper", installation.check_reaper
    PERMISSIONS = "permissions", "permissions", installation.check_permissions
    CLOCKS = "clocks", "clocks", installation.check_clocks
    KARPENTER_GENERATION = "karpenterGeneration", "Karpenter's generation", karpenter.check_generation
    KARPENTER_EXPIRY = "karpenterExpiry", "Karpenter's expireAfter", karpenter.check_expiry
    KARPENTER_NODE_POOLS = "karpenterNodePools", "NodePools", karpenter.check_node_pools
    KARPENTER_NODES = "karpenterNodes", "nodes that stay", karpenter.check_nodes
    KARPENTER_PRIORITIES = "karpenterPriorities", "priorities of workers", karpenter_prices.check_priorities
    KARPENTER_FEATURE_GATES = "karpenterFeatureGates", "Karpenter's feature gates", karpenter_prices.check_feature_gates


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings as of ``now``. ``unread`` are kinds that could not be read, each with the reason."""

    now: datetime
    source: str
    namespace: str
    findings: Mapping[Check, Finding]
    unread: tuple[tuple[str, str], ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return worst(finding.verdict for finding in self.findings.values())


def diagnose(evidence: Evidence, *, source: str) -> Diagnosis:
    """Make every check. ``source`` says in words what was looked at."""
    return Diagnosis(
        now=evidence.now,
        source=source,
        namespace=evidence.namespace,
        findings={check: check.judge(evidence) for check in Check},
        unread=tuple(sorted((str(kind), why) for kind, why in evidence.unread.items() if why != NOT_HERE)),
    )
