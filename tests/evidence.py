"""Evidence of an installation that is well: a test changes what its rule is about."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from extender.inspect.doctor.evidence import (
    AccessFacts,
    ChosenConfiguration,
    ClockReading,
    Evidence,
    KarpenterFacts,
    Kind,
    WorkerFacts,
)
from extender.inspect.doctor.scheduler_config import SchedulerConfig, parse_scheduler_configs
from extender.model import Pod
from extender.policy.election import LeaseRecord
from extender.policy.scheduler_silence import Refusal, WebhookRecord
from extender.settings import Configuration
from extender.settings.in_force import InForce
from tests.builders import NOW, ledger, minutes_ago, node, worker

NAMESPACE = "warmnode"


def facts(pod: Pod | None = None, **given: Any) -> WorkerFacts:
    """A worker of our scheduler that has been running for half an hour and was idle before."""
    pod = pod or worker(scheduler="warmnode", idle_since=minutes_ago(10))
    usual: dict[str, Any] = {"pod": pod, "scheduled": minutes_ago(35), "idle_mark": str(pod.idle_since)}
    return WorkerFacts(**(usual | given))


def configured(**given: Any) -> ChosenConfiguration:
    """What is set in a file with these keys."""
    head = {"apiVersion": "warmnode.dev/v1alpha1", "kind": "Configuration"}
    return ChosenConfiguration(in_force=InForce(Configuration.model_validate(head | given)), source="the defaults")


def extender(**given: Any) -> dict[str, Any]:
    """Our entry of ``extenders``, as it is shipped."""
    shipped = {
        "urlPrefix": "http://127.0.0.1:8888",
        "prioritizeVerb": "prioritize",
        "preemptVerb": "preempt",
        "weight": 200,
        "nodeCacheCapable": True,
        "ignorable": True,
        "httpTimeout": "250ms",
    }
    return shipped | given


def profile(name: str = "warmnode", *, preemption_percentage: int = 100, **given: Any) -> dict[str, Any]:
    """A profile, as it is shipped."""
    preemption = {"name": "DefaultPreemption", "args": {"minCandidateNodesPercentage": preemption_percentage}}
    return {"schedulerName": name, "pluginConfig": [preemption], **given}


def config(*extenders: dict[str, Any], profiles: Any = None, **given: Any) -> SchedulerConfig:
    """A scheduler's configuration; without ``extenders`` and ``profiles`` the shipped one."""
    tree = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"resourceName": "warmnode-scheduler", "resourceNamespace": "warmnode"},
        "profiles": profiles or [profile()],
        "extenders": extenders or [extender()],
        "percentageOfNodesToScore": 100,
    }
    (found,) = parse_scheduler_configs(json.dumps(tree | given), source="the file")
    return found


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
        "configuration": configured(),
        "nodes": (node("node-a"), node("node-b")),
        "workers": (facts(),),
        "ledger": ledger({"uid-of-node-a": minutes_ago(30)}),
        "scheduler_configs": (config(),),
        "webhook": called(minutes_ago(1)),
        "leader": LeaseRecord(holder="reap_1", renewed=NOW, duration=timedelta(seconds=15)),
        "brakes": {},
        "access": AccessFacts(asked_for=("service account warmnode/warmnode",)),
        "clocks": (ClockReading(whose="warmnode serve", ahead=timedelta(0)),),
        "unread": {Kind.NODE_POOLS: "not in this cluster", Kind.NODE_CLAIMS: "not in this cluster"},
    }
    return Evidence(**(well | given))


def with_karpenter(version: tuple[int, int] | None, *pools: Any, **given: Any) -> Evidence:
    """The same with Karpenter and these NodePools. ``version`` None: nothing tells."""
    where = "the image that runs, pod karpenter/a"
    karpenter = KarpenterFacts(version=version, where=where, feature_gates={}, is_running=True)
    return evidence(**({"node_pools": pools, "karpenter": karpenter, "unread": {}} | given))
