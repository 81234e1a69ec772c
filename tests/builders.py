"""Builders with defaults: a test names only what its rule is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from extender.clock import Clock, Moment, Steady
from extender.inspect.plan import Plan, look_at
from extender.inspect.snapshot import Snapshot
from extender.model import (
    Departure,
    Ending,
    Ledger,
    Membership,
    Node,
    NodeClaim,
    NodeClaimCondition,
    NodePool,
    Pod,
    PodBudget,
    PodClaim,
    Selector,
    Victims,
)
from extender.policy.pools import pool_of
from extender.policy.reaping import EvictionPlan, at_once, planning
from extender.settings import Configuration
from extender.telemetry import Collected, Figure, Metrics

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def minutes_ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


AN_HOUR_AGO = minutes_ago(60)
HALF_AN_HOUR_AGO = minutes_ago(30)
FORTY_MINUTES_AGO = minutes_ago(40)


def node(
    name: str = "node-a",
    *,
    uid: str | None = None,
    created: datetime = AN_HOUR_AGO,
    deleting: bool = False,
    disrupted: bool = False,
    unschedulable: bool = False,
    announced: Departure | None = None,
    announced_ending: Ending | None = None,
    not_ready_since: datetime | None = None,
    unreachable: bool = False,
    node_claim: str | None = None,
    node_pool: str | None = None,
    initialized: bool = False,
    ready: bool = True,
    do_not_disrupt: bool = False,
    instance_type: str | None = None,
    allocatable: Mapping[str, Decimal] | None = None,
) -> Node:
    return Node(
        name=name,
        uid=uid or f"uid-of-{name}",
        created=created,
        deleting=deleting,
        disrupted=disrupted,
        unschedulable=unschedulable,
        announced=announced,
        announced_ending=announced_ending,
        not_ready_since=not_ready_since,
        unreachable=unreachable,
        node_claim=node_claim,
        node_pool=node_pool,
        initialized=initialized,
        ready=ready,
        do_not_disrupt=do_not_disrupt,
        instance_type=instance_type,
        allocatable=allocatable or {},
    )


def node_claim(
    name: str = "claim-a",
    *conditions: NodeClaimCondition,
    created: datetime = AN_HOUR_AGO,
    node_pool: str | None = "workers",
    deleting: bool = False,
    has_deadline: bool = False,
    expire_after: timedelta | None = None,
    quiet_since: datetime | None = None,
    consolidatable_since: datetime | None = None,
) -> NodeClaim:
    return NodeClaim(
        name=name,
        uid=f"uid-of-{name}",
        created=created,
        node_pool=node_pool,
        deleting=deleting,
        has_deadline=has_deadline,
        conditions=frozenset(conditions),
        expire_after=expire_after,
        quiet_since=quiet_since,
        consolidatable_since=consolidatable_since,
    )


def node_pool(name: str = "workers", **given: Any) -> NodePool:
    return NodePool(name=name, uid=f"uid-of-{name}", **given)


def worker(
    name: str = "worker-1",
    *,
    uid: str | None = None,
    pool: str | None = "pool",
    node: str | None = "node-a",
    ready_since: datetime | None = HALF_AN_HOUR_AGO,
    idle_since: datetime | None = None,
    priority: int | None = 0,
    terminating: bool = False,
    going_until: datetime | None = None,
    bound: datetime | None = None,
    old_machine: bool = False,
    gated: bool = False,
    finished: bool = False,
    do_not_disrupt_until: datetime | None = None,
    namespace: str = "default",
    created: datetime = FORTY_MINUTES_AGO,
    owner: str | None = None,
    static: bool = False,
    deletion_cost: str | None = None,
    cost_mark: str | None = None,
    disruption_cost: str | None = None,
    disruption_mark: str | None = None,
    own_mark: datetime | None = None,
    source_mark: str | None = None,
    ip: str | None = None,
    scheduler: str = "default-scheduler",
    cache_key: str | None = None,
    claim: PodClaim | None = None,
    claim_ended: datetime | None = None,
) -> Pod:
    return Pod(
        uid=uid or f"uid-of-{name}",
        namespace=namespace,
        name=name,
        created=created,
        owner=owner,
        static=static,
        deletion_cost=deletion_cost,
        cost_mark=cost_mark,
        disruption_cost=disruption_cost,
        disruption_mark=disruption_mark,
        scheduler=scheduler,
        cache_key=cache_key,
        claim=claim,
        claim_ended=claim_ended,
        node=node,
        pool=pool,
        priority=priority,
        ready_since=ready_since,
        idle_since=idle_since,
        terminating=terminating,
        going_until=going_until,
        bound=bound,
        old_machine=old_machine,
        gated=gated,
        finished=finished,
        do_not_disrupt_until=do_not_disrupt_until,
        own_mark=idle_since if own_mark is None and source_mark is None else own_mark,
        source_mark=source_mark,
        ip=ip,
    )


def claim(
    *,
    expires: datetime = NOW + timedelta(minutes=1),
    user: str = "front",
    pool: str = "pool",
    claimant: str = "query-1",
    id: str = "default.worker-1.abc",
    since: datetime = NOW - timedelta(minutes=1),
    renewals: int = 0,
    protects: bool = False,
) -> PodClaim:
    return PodClaim(
        id=id,
        pool=pool,
        user=user,
        claimant=claimant,
        since=since,
        expires=expires,
        renewals=renewals,
        protects=protects,
    )


def stranger(name: str = "stranger-1", *, node: str | None = "node-a", priority: int | None = 0) -> Pod:
    return worker(name, pool=None, node=node, priority=priority)


def daemon(name: str = "daemon-1", *, node: str | None = "node-a", labels: str = "app=agent") -> Pod:
    return replace(worker(name, pool=None, node=node, owner="DaemonSet.apps"), labels=labels)


def pod_budget(name: str = "guard", *, allowed: int = 0, unhealthy_may_go: bool = False) -> PodBudget:
    """Over the pods that `daemon` makes."""
    return PodBudget(
        namespace="default",
        name=name,
        selector=Selector(match_labels=(("app", "agent"),)),
        allowed=allowed,
        unhealthy_may_go=unhealthy_may_go,
    )


def by_label(namespace: str, labels: Mapping[str, str]) -> Membership | None:
    """Classify pods as without a configuration file: the label names the pool, and workers mark themselves."""
    pool = pool_of(namespace, labels, None)
    return None if pool is None else Membership(pool=pool)


def victims(*uids: str, violations: int = 0) -> Victims:
    return Victims(pod_uids=uids, pdb_violations=violations)


def ledger(first_seen: Mapping[str, datetime], *ignored: str) -> Ledger:
    return Ledger(first_seen=dict(first_seen), ignored=ignored, resource_version="1")


times = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
uids = st.uuids().map(str)


def plan_evictions(*given: Any, **named: Any) -> EvictionPlan:
    """Plan for one pool, see `planning`."""
    return at_once(planning(*given, **named))


def a_figure_of_each(metrics: Metrics) -> list[Figure]:
    """One value of each gauge that is collected, with ``x`` for every label."""
    gauges = [each for each in vars(metrics).values() if isinstance(each, Collected)]
    return [Figure(each, ("x",) * len(each.labels), 1) for each in gauges]


def steady(time: datetime) -> Steady:
    """Give the steady moment that goes with a time of day, where nobody has set the clock."""
    return Steady((time - NOW).total_seconds())


def moment(time: datetime) -> Moment:
    """Give that time of day and the steady moment that goes with it."""
    return Moment(now=time, steady=steady(time))


def clock_of(now: Callable[[], datetime], ahead: Callable[[], timedelta] = timedelta) -> Clock:
    """Make a clock from what is right; ``ahead`` says how far its time of day was set ahead of that."""
    return Clock(now=lambda: now() + ahead(), steady=lambda: steady(now()), skew=lambda: -ahead())


def plan_of(snapshot: Snapshot, configuration: Configuration, *, source: str) -> Plan:
    """Plan for a snapshot."""
    return look_at(snapshot, configuration, source=source).plan
