"""Evidence of an installation that is well: a test changes what its rule is about."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from extender.inspect.doctor.evidence import (
    AccessFacts,
    ClockReading,
    ConfigurationFacts,
    Evidence,
    Extender,
    KarpenterFacts,
    Kind,
    LeaderFacts,
    PoolFacts,
    Profile,
    SchedulerConfig,
    Sureness,
    WorkerFacts,
)
from extender.inspect.survey.scheduler_config import DEFAULT_SCORE_WEIGHTS
from extender.model import AgeSource, Pod
from extender.policy.scheduler_silence import Refusal, WebhookRecord
from tests.builders import NOW, ledger, minutes_ago, node, worker

NAMESPACE = "warmnode"


def facts(pod: Pod | None = None, **given: Any) -> WorkerFacts:
    """A worker of our scheduler that has been running for half an hour and was idle before."""
    pod = pod or worker(scheduler="warmnode", idle_since=minutes_ago(10))
    usual: dict[str, Any] = {"pod": pod, "scheduled": minutes_ago(35), "idle_mark": str(pod.idle_since)}
    return WorkerFacts(**(usual | given))


def extender(**given: Any) -> Extender:
    """Our entry of ``extenders``, as it is shipped."""
    shipped: dict[str, Any] = {
        "url": "http://127.0.0.1:8888",
        "prioritize_verb": "prioritize",
        "preempt_verb": "preempt",
        "weight": 200,
        "node_cache_capable": True,
        "ignorable": True,
        "timeout": timedelta(milliseconds=250),
    }
    return Extender(**(shipped | given))


def config(*extenders: Extender, global_percentage: int = 100, **profile: Any) -> SchedulerConfig:
    """A scheduler's configuration with one profile; without ``extenders`` the shipped one."""
    shipped: dict[str, Any] = {
        "scheduler_name": "warmnode",
        "score_weights": DEFAULT_SCORE_WEIGHTS,
        "preemption_percentage": 100,
    }
    return SchedulerConfig(
        source="the file",
        api_version="kubescheduler.config.k8s.io/v1",
        lease="warmnode/warmnode-scheduler",
        profiles=(Profile(**(shipped | profile)),),
        extenders=extenders or (extender(),),
        percentage=global_percentage,
    )


def called(
    last_call: datetime | None,
    written: datetime | None = NOW,
    *,
    refusal: Refusal | None = None,
    ends: datetime | None = None,
) -> WebhookRecord:
    """What the Lease says."""
    return WebhookRecord(
        holder="serve_1",
        version="1.2.3",
        written=written,
        last_call=last_call,
        last_refusal=refusal,
        certificate_ends=ends,
    )


def evidence(**given: Any) -> Evidence:
    """An installation that is well, with two nodes and a worker, in a cluster without Karpenter."""
    well: dict[str, Any] = {
        "now": NOW,
        "namespace": NAMESPACE,
        "age": AgeSource.FIRST_SEEN,
        "schedulers": frozenset({"warmnode"}),
        "ledger_name": "warmnode-first-seen",
        "webhook_lease": "warmnode-webhook",
        "leader_lease": "warmnode-reaper",
        "configuration": ConfigurationFacts(source="the defaults"),
        "nodes": (node("node-a"), node("node-b")),
        "workers": (facts(),),
        "programs": (),
        "pools": {"pool": PoolFacts(reap_enabled=True, floor=1, deletion_costs=True, dry_run=False)},
        "ledger": ledger({"uid-of-node-a": minutes_ago(30)}),
        "scheduler_configs": (config(),),
        "webhook": called(minutes_ago(1)),
        "leader": LeaderFacts(holder="reap_1", renewed=NOW, duration=timedelta(seconds=15), brakes={}),
        "budgets": (),
        "access": AccessFacts(asked_for=("service account warmnode/warmnode",)),
        "clocks": (ClockReading(whose="warmnode serve", ahead=timedelta(0)),),
        "kept_nodes": (),
        "unread": {Kind.NODE_POOLS: "not in this cluster", Kind.NODE_CLAIMS: "not in this cluster"},
    }
    return Evidence(**(well | given))


def with_karpenter(version: tuple[int, int] | None, *pools: Any, **given: Any) -> Evidence:
    """The same with Karpenter and these NodePools. ``version`` None: nothing tells."""
    sureness = Sureness.IMAGE if version is not None else None
    karpenter = KarpenterFacts(
        version=version, sureness=sureness, where="pod karpenter/a", feature_gates={}, is_running=True
    )
    return evidence(**({"node_pools": pools, "karpenter": karpenter, "unread": {}} | given))
