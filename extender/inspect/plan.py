"""The plan as a value: every node in order of preference with its score and the reason, every pool with its workers.

Pure: built from a state and a time. `plan_text` shows it, and its JSON form is an interface: docs/plan.md describes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from extender.cluster.state import ClusterState
from extender.inspect.packing import PoolSet, packed, working_set_of
from extender.inspect.snapshot import Snapshot
from extender.inspect.unknowns import what_is_unknown
from extender.inspect.unnamed_pools import UnnamedPool, unnamed_pools
from extender.model import AgeSource, Departure, Ending, Node, PlacementMode, Pod, SkipReason
from extender.policy.affinity import KeyUse
from extender.policy.defaults import PoolCosts
from extender.policy.deletion_cost import CostState, CostWrite, cost_state
from extender.policy.idleness import idle_since, is_claimed, reports_idle
from extender.policy.judging import Judgement, PoolJudgement, judge
from extender.policy.node_pool_budgets import Kept, PodBudgets
from extender.policy.recheck import Circumstances
from extender.policy.scoring import score_nodes
from extender.settings import Configuration, PoolSettings, to_cache_key_rule
from extender.settings.in_force import InForce

SHOWN_KEYS = 10
"""So many cache keys of a node are shown."""

EPOCH = datetime.fromtimestamp(0, UTC)


class AgeBasis(StrEnum):
    """Where a node's first-seen time comes from."""

    RECORDED = "recorded"
    OBSERVED = "observed"
    ESTIMATED = "estimated"
    CREATED = "created"
    NOT_SEEN = "notSeen"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine:
    """One node. ``rank`` counts from 1, None for a leaving node; ``score`` is what prioritize answers, 0 for none.

    ``cache_keys`` are those with most workers placed there of late, most first.
    """

    name: str
    uid: str
    rank: int | None
    score: int
    created: datetime
    first_seen: datetime | None
    age_basis: AgeBasis
    leaving: Departure | None
    ending: Ending | None
    workers: int
    idle: int
    cache_keys: tuple[KeyUse, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLine:
    """One pool. ``idle``, ``busy`` and ``claimed`` workers are placed ones, ``pending`` have no node yet.

    ``needs``: so many nodes would do if the workers were packed, oldest node first, see `packing.packed`.
    ``working_set``: among which nodes a cache key chooses, None where it does not, or not in such a set.
    """

    name: str
    idle: int
    busy: int
    claimed: int
    pending: int
    nodes: int
    needs: int = 0
    placement: PlacementMode = PlacementMode.ACTIVE
    working_set: PoolSet | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReap:
    """One pool's judgement, to be shown: ``stays`` is by reason, ``claimable`` in the order of claims.

    ``waits`` is why the whole pool waits, None where it does not: then nothing of ``victims`` goes now.
    ``paused_until``: until when, where it pauses, by what the reaper that leads says. ``settling`` counts idle workers
    that get their cost once they have been idle for ``settle``.
    """

    pool: str
    floor: int
    dry_run: bool
    waits: SkipReason | None = None
    victims: tuple[Pod, ...] = ()
    stays: tuple[tuple[Pod, SkipReason], ...] = ()
    costs: tuple[CostWrite, ...] = ()
    claimable: tuple[Pod, ...] = ()
    paused_until: datetime | None = None
    settling: int = 0
    settle: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckNode:
    """An empty node that Karpenter could have taken and has not. ``kept`` is what keeps it, None: not known."""

    node: str
    node_pool: str
    kept: Kept | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be done at ``now``. ``unknown`` names what could not be read and what that leaves open.

    ``unnamed``: what looks like a pool, where no pod belongs to one.
    """

    now: datetime
    source: str
    age: AgeSource
    nodes: tuple[NodeLine, ...]
    pools: tuple[PoolLine, ...]
    unknown: tuple[str, ...]
    pods: int
    reaps: tuple[PoolReap, ...] = ()
    stuck: tuple[StuckNode, ...] = ()
    unnamed: tuple[UnnamedPool, ...] = ()


def plan_of(snapshot: Snapshot, configuration: Configuration, *, source: str) -> Plan:
    """Plan for a snapshot as of when it was taken, which for a live one is now."""
    return look_at(snapshot, configuration, source=source)[1]


def look_at(snapshot: Snapshot, configuration: Configuration, *, source: str) -> tuple[ClusterState, Plan]:
    """Give the state that a snapshot shows, and the plan for it."""
    now = snapshot.taken or EPOCH
    state = ClusterState(clock=lambda: now, age=configuration.age, ending_rules=configuration.ending)
    state.take_ledger(snapshot.ledger)
    state.replace_node_claims(snapshot.node_claims)
    state.replace_node_pools(snapshot.node_pools)
    state.replace_nodes(snapshot.nodes)
    state.replace_pods(snapshot.pods)
    state.begin()
    return state, plan_for(state, snapshot, configuration, source=source)


def plan_for(state: ClusterState, snapshot: Snapshot, configuration: Configuration, *, source: str) -> Plan:
    """Plan for a state as of when ``snapshot`` was taken, which says what else was read and what was not."""
    now = snapshot.taken or EPOCH
    judgement = judge_snapshot(snapshot, state, configuration)
    settings = InForce(configuration).settings
    reaps = tuple(
        _shown(state, judged, settings(judged.pool).deletion_cost, now) for judged in judgement.pools.values()
    )
    unknown = what_is_unknown(snapshot, state, configuration, evicts=any(reap.victims for reap in reaps))
    plan = make_plan(state, now, source=source, age=configuration.age, unknown=unknown)
    pools = tuple(
        replace(line, placement=settings(line.name).placement, working_set=_working_set(state, line, settings, now))
        for line in plan.pools
    )
    unnamed = () if pools else tuple(unnamed_pools(state.pods.values()))
    return replace(plan, pools=pools, reaps=reaps, stuck=_stuck(state, judgement), unnamed=unnamed)


def _working_set(
    state: ClusterState, line: PoolLine, settings: Callable[[str], PoolSettings], now: datetime
) -> PoolSet | None:
    rule = to_cache_key_rule(settings(line.name).cache_key)
    return working_set_of(state, line.name, rule.slack, now) if rule is not None and rule.window is None else None


def judge_snapshot(snapshot: Snapshot, state: ClusterState, configuration: Configuration) -> Judgement:
    """Judge every pool that has a worker, as the reaper's next pass would.

    It differs from a pass by what a look at one moment cannot know: which evictions a budget refuses, and when a node
    fell empty where Karpenter has not noted it.
    """
    paused = {pool: record.paused_until for pool, record in (snapshot.brakes or {}).items()}
    circumstances = Circumstances(
        rules=InForce(configuration).settings,
        paused={pool: until for pool, until in paused.items() if until is not None},
        budgets=PodBudgets(snapshot.pod_budgets),
    )
    pools = {pod.pool for pod in state.pods.values() if pod.pool is not None and not pod.finished}
    return judge(state, circumstances, pools, snapshot.taken or EPOCH)


def _shown(state: ClusterState, judged: PoolJudgement, costs: PoolCosts, now: datetime) -> PoolReap:
    idle = (*judged.victims, *(state.pods[uid] for uid in judged.skipped))
    stays = [(state.pods[uid], reason) for uid, reason in judged.skipped.items()]
    return PoolReap(
        pool=judged.pool,
        floor=judged.floor,
        dry_run=judged.dry_run,
        waits=judged.waits,
        victims=judged.victims,
        stays=tuple(sorted(stays, key=lambda entry: (entry[1], entry[0].namespace, entry[0].name))),
        costs=tuple(sorted(judged.costs, key=lambda write: (write.pod.namespace, write.pod.name))),
        paused_until=judged.paused_until,
        claimable=judged.claimable,
        settling=sum(_settles(pod, costs, now) for pod in idle),
        settle=costs.settle,
    )


def _settles(pod: Pod, costs: PoolCosts, now: datetime) -> bool:
    """True for an idle worker whose cost is only waiting: nobody has written one, and it has just fallen idle."""
    since = idle_since(pod)
    if since is None or not reports_idle(pod, now) or is_claimed(pod, now):
        return False
    return costs.enabled and cost_state(pod) is CostState.NONE and now - since < costs.settle


def _stuck(state: ClusterState, judgement: Judgement) -> tuple[StuckNode, ...]:
    return tuple(
        StuckNode(node=name, node_pool=state.nodes[name].node_pool or "", kept=kept)
        for name, kept in sorted(judgement.stuck.items())
    )


def make_plan(state: ClusterState, now: datetime, *, source: str, age: AgeSource, unknown: Iterable[str] = ()) -> Plan:
    """Rank all nodes as candidates: 1. by preference; 2. leaving nodes last, by order key.

    Which of them a pod fits on is kube-scheduler's to say: a score counts among those that do.
    """
    preference = state.ranking.as_of(now)
    scores = dict(score_nodes(state.nodes, preference))
    staying = list(preference)
    leaving = sorted(state.order.keys() - preference.keys(), key=state.order.__getitem__)
    ranks: Mapping[str, int] = {name: position for position, name in enumerate(staying, 1)}
    return Plan(
        now=now,
        source=source,
        age=age,
        nodes=tuple(
            _node_line(state, state.nodes[name], now, rank=ranks.get(name), score=scores.get(name, 0), age=age)
            for name in (*staying, *leaving)
        ),
        pools=_pool_lines(state, now),
        unknown=tuple(unknown),
        pods=len(state.pods),
    )


def _node_line(
    state: ClusterState, node: Node, now: datetime, *, rank: int | None, score: int, age: AgeSource
) -> NodeLine:
    workers = state.where.workers_on(node.name).values()
    first_seen = state.ages.first_seen(node)
    return NodeLine(
        name=node.name,
        uid=node.uid,
        rank=rank,
        score=score,
        created=node.created,
        first_seen=node.created if age is AgeSource.CREATED else first_seen,
        age_basis=_basis(state, node, first_seen, age),
        leaving=state.departure(node.name),
        ending=state.ranking.ending(node.name, now),
        workers=len(workers),
        idle=sum(reports_idle(worker, now) and not is_claimed(worker, now) for worker in workers),
        cache_keys=tuple(state.keys.history.uses(node.name, now)[:SHOWN_KEYS]),
    )


def _basis(state: ClusterState, node: Node, first_seen: datetime | None, age: AgeSource) -> AgeBasis:
    if age is AgeSource.CREATED:
        return AgeBasis.CREATED
    if first_seen is None:
        return AgeBasis.NOT_SEEN
    if state.ages.ledger is None:
        return AgeBasis.ESTIMATED
    return AgeBasis.RECORDED if state.ages.ledger.first_seen.get(node.uid) == first_seen else AgeBasis.OBSERVED


def _pool_lines(state: ClusterState, now: datetime) -> tuple[PoolLine, ...]:
    idle: Counter[str] = Counter()
    busy: Counter[str] = Counter()
    claimed: Counter[str] = Counter()
    pending: Counter[str] = Counter()
    nodes: dict[str, set[str]] = {}
    for pod in state.pods.values():
        if pod.pool is None or pod.finished:
            continue
        nodes.setdefault(pod.pool, set())
        if pod.node is None:
            pending[pod.pool] += 1
            continue
        nodes[pod.pool].add(pod.node)
        (claimed if is_claimed(pod, now) else idle if reports_idle(pod, now) else busy)[pod.pool] += 1
    return tuple(
        PoolLine(
            name=name,
            idle=idle[name],
            busy=busy[name],
            claimed=claimed[name],
            pending=pending[name],
            nodes=len(nodes[name]),
            needs=len(packed(state, name, now)),
        )
        for name in sorted(nodes)
    )
