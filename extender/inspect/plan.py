"""The plan as a value: every node in order of preference with its score and the reason, every pool with its workers.

Pure: built from a state and a time. `plan_text` shows it, and its JSON form is an interface: docs/plan.md describes it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

    @property
    def workers(self) -> int:
        return self.idle + self.busy + self.claimed + self.pending


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a cluster: the state, the plan that was made from it, the configuration."""

    state: ClusterState
    plan: Plan
    configuration: Configuration


def look_at(snapshot: Snapshot, configuration: Configuration, *, source: str) -> Look:
    """Look at what a snapshot shows, as of when it was taken: for a live one now."""
    now = snapshot.taken or EPOCH
    state = ClusterState(clock=lambda: now, age=configuration.age, ending_rules=configuration.ending)
    state.take_ledger(snapshot.ledger)
    state.replace_node_claims(snapshot.node_claims)
    state.objects.replace_node_pools(snapshot.node_pools)
    state.replace_nodes(snapshot.nodes)
    state.replace_pods(snapshot.pods)
    state.begin()
    return Look(state=state, plan=plan_for(state, snapshot, configuration, source=source), configuration=configuration)


def plan_for(state: ClusterState, snapshot: Snapshot, configuration: Configuration, *, source: str) -> Plan:
    """Plan for a state as of when ``snapshot`` was taken, which says what else was read and what was not."""
    now, settings = snapshot.taken or EPOCH, InForce(configuration).settings
    judgement = judge_snapshot(snapshot, state, configuration)
    pools = tuple(_pool_lines(state, settings, now))
    reaps = tuple(
        _shown(state, judged, settings(judged.pool).deletion_cost, now) for judged in judgement.pools.values()
    )
    return Plan(
        now=now,
        source=source,
        age=configuration.age,
        nodes=tuple(_node_lines(state, configuration.age, now)),
        pools=pools,
        unknown=tuple(what_is_unknown(snapshot, state, configuration, evicts=any(reap.victims for reap in reaps))),
        pods=len(state.pods),
        reaps=reaps,
        stuck=tuple(
            StuckNode(node=name, node_pool=state.nodes[name].node_pool or "", kept=kept)
            for name, kept in sorted(judgement.stuck.items())
        ),
        unnamed=() if pools else tuple(unnamed_pools(state.pods.values())),
    )


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


def _node_lines(state: ClusterState, age: AgeSource, now: datetime) -> Iterator[NodeLine]:
    """Rank all nodes as candidates: 1. by preference; 2. leaving nodes last, by order key.

    Which of them a pod fits on is kube-scheduler's to say: a score counts among those that do.
    """
    preference = state.ranking.as_of(now)
    scores = dict(score_nodes(state.nodes, preference))
    ranks = {name: position for position, name in enumerate(preference, 1)}
    leaving = sorted(state.order.keys() - preference.keys(), key=state.order.__getitem__)
    for name in (*preference, *leaving):
        node = state.nodes[name]
        workers = state.where.workers_on(name).values()
        first_seen = state.ages.first_seen(node)
        yield NodeLine(
            name=name,
            uid=node.uid,
            rank=ranks.get(name),
            score=scores.get(name, 0),
            created=node.created,
            first_seen=node.created if age is AgeSource.CREATED else first_seen,
            age_basis=_basis(state, node, first_seen, age),
            leaving=state.departure(name),
            ending=state.ranking.ending(name, now),
            workers=len(workers),
            idle=sum(_doing(worker, now) == "idle" for worker in workers),
            cache_keys=tuple(state.keys.history.uses(name, now)[:SHOWN_KEYS]),
        )


def _basis(state: ClusterState, node: Node, first_seen: datetime | None, age: AgeSource) -> AgeBasis:
    if age is AgeSource.CREATED:
        return AgeBasis.CREATED
    if first_seen is None:
        return AgeBasis.NOT_SEEN
    if state.ages.ledger is None:
        return AgeBasis.ESTIMATED
    return AgeBasis.RECORDED if state.ages.ledger.first_seen.get(node.uid) == first_seen else AgeBasis.OBSERVED


def _pool_lines(state: ClusterState, settings: Callable[[str], PoolSettings], now: datetime) -> Iterator[PoolLine]:
    members: dict[str, list[Pod]] = defaultdict(list)
    for pod in state.pods.values():
        if pod.pool is not None and not pod.finished:
            members[pod.pool].append(pod)
    for name, pods in sorted(members.items()):
        doing = Counter(_doing(pod, now) for pod in pods)
        rule = to_cache_key_rule(settings(name).cache_key)
        working_set = None
        if rule is not None and rule.window is None:
            working_set = working_set_of(state, name, rule.slack, now)
        yield PoolLine(
            name=name,
            idle=doing["idle"],
            busy=doing["busy"],
            claimed=doing["claimed"],
            pending=doing["pending"],
            nodes=len({pod.node for pod in pods if pod.node is not None}),
            needs=len(packed(state, name, now)),
            placement=settings(name).placement,
            working_set=working_set,
        )


def _doing(worker: Pod, now: datetime) -> str:
    """Say what a worker does, as the fields of `PoolLine` call it."""
    if worker.node is None:
        return "pending"
    if is_claimed(worker, now):
        return "claimed"
    return "idle" if reports_idle(worker, now) else "busy"
