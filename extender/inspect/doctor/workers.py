"""Checks of the workers: pools, idle marks, deletion costs, and the budgets that cover them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import timedelta

from extender.inspect.doctor.evidence import Evidence, Kind, WorkerFacts, by_pool
from extender.inspect.doctor.findings import Finding, needs, problem, together, unknown, warning, well
from extender.inspect.text import count, some
from extender.model import PlacementMode, PodBudget
from extender.policy.deletion_cost import KARPENTERS_NAME, CostState, as_number, cost_state
from extender.policy.idleness import (
    FUTURE_TOLERANCE,
    idle_since,
    is_bound_to_its_node,
    is_claimed,
    is_undisturbed,
    reports_idle,
)
from extender.policy.marks import parse_idle_mark
from extender.policy.pools import selects

OWN_BUSY_MARK = "busy at version "
"""What the claims listener writes in place of a mark when a worker says that it is busy."""
STEADY = timedelta(hours=1)
"""A worker that has run for so long would have been idle at some time."""
UNCHANGED = timedelta(days=1)
ENOUGH = 3
"""So many workers of a pool, or values in one, before their likeness means something."""
FREE = -134_217_728
"""At this deletion cost and below Karpenter, from 1.14 on, counts a pod as free: 1 + cost / 2^27 <= 0."""


@needs(Kind.PODS)
def check_pools(evidence: Evidence) -> Finding:
    """Are there workers at all, and may anything be written to them?"""
    if not evidence.workers:
        return warning(
            "no pod belongs to a pool: nothing is placed, reaped or claimed",
            remedy="label workers with warmnode.dev/pool: NAME, or select them in the configuration (--config FILE)",
        )
    sizes = Counter(worker.pod.pool or "" for worker in evidence.workers)
    details = [f"pool {name}: {count(size, 'worker')}" for name, size in sizes.most_common(10)]
    if dry := sorted(name for name in sizes if evidence.of_pool(name).dry_run):
        details.append(f"dry-run is on in {some(dry)}: nobody is evicted, and no deletion cost is written")
    if shadow := sorted(name for name in sizes if evidence.of_pool(name).placement is PlacementMode.SHADOW):
        details.append(f"placement is shadow in {some(shadow)}: schedulers are answered as for pods of no pool")
    summary = f"{count(sizes.total(), 'worker')} in {count(len(sizes), 'pool')}"
    return well(evidence, summary, Kind.PODS, Kind.SETTINGS, details=tuple(details))


@needs(Kind.PODS)
def check_idle_marks(evidence: Evidence) -> Finding:
    """Do workers say when they are idle, and do they mean it?"""
    workers = [each for each in evidence.workers if not each.pod.terminating]
    if faults := [*_bad_marks(workers, evidence), *_silent_pools(workers, evidence)]:
        return together(faults, _MARKS)
    idle = sum(reports_idle(each.pod, evidence.now) for each in workers)
    told = f"{idle:,} of {count(len(workers), 'worker')} say that they are idle"
    return well(evidence, told, Kind.PODS, Kind.SETTINGS)


_MARKS = (
    "docs/workers.md: a worker writes warmnode.dev/idle-since when it has nothing to do, and removes it before it "
    "takes work"
)


def _bad_marks(workers: Iterable[WorkerFacts], evidence: Evidence) -> Iterator[Finding]:
    stamped, ahead, unreadable = [], [], []
    for each in workers:
        mark, own_mark = each.idle_mark, each.pod.own_mark
        if mark is not None and parse_idle_mark(mark) is None and not mark.startswith(OWN_BUSY_MARK):
            unreadable.append(f"{each} ({mark[:30]!r})")
        elif own_mark is not None and own_mark < each.pod.created:
            stamped.append(str(each))
        elif own_mark is not None and own_mark > evidence.now + FUTURE_TOLERANCE:
            ahead.append(str(each))
    if stamped:
        yield problem(
            f"{count(len(stamped), 'worker')} idle since before they were created ({some(stamped)}): the mark stands "
            "in the pod template and nobody removes it, so they are evicted while they work"
        )
    if ahead:
        yield warning(
            f"{count(len(ahead), 'mark')} in the future, which count as busy ({some(ahead)}): whoever wrote them has a "
            "clock that is fast"
        )
    if unreadable:
        yield warning(f"{count(len(unreadable), 'mark')} that are no time count as busy: {some(unreadable)}")


def _silent_pools(workers: Iterable[WorkerFacts], evidence: Evidence) -> Iterator[Finding]:
    """Pools in which nobody was ever idle, or nothing has changed for a day."""
    placed = (each for each in workers if each.pod.ready_since is not None and not is_bound_to_its_node(each.pod))
    for name, members in by_pool(placed).items():
        settings = evidence.of_pool(name)
        is_used = settings.reap.enabled or settings.deletion_cost.enabled
        is_old = all(evidence.now - each.pod.created > STEADY for each in members)
        if is_used and is_old and len(members) >= ENOUGH and not any(map(_was_idle, members)):
            yield warning(
                f"pool {name}: none of {count(len(members), 'worker')} has ever said that it is idle, so nothing is "
                "reaped or handed out there"
            )
        ends = [idle_since(each.pod) for each in members if not is_claimed(each.pod, evidence.now)]
        unchanged = [end for end in ends if end is not None and evidence.now - end > UNCHANGED]
        if len(unchanged) == len(members) >= max(ENOUGH, settings.reap.floor + 1):
            yield warning(
                f"pool {name}: all {count(len(members), 'worker')} are idle, and no mark has changed for a day"
            )


def _was_idle(worker: WorkerFacts) -> bool:
    """True where a mark is there, or a deletion cost of ours that an earlier one has brought."""
    return worker.idle_mark is not None or worker.pod.cost_mark is not None


@needs(Kind.PODS)
def check_deletion_costs(evidence: Evidence) -> Finding:
    """Does somebody else write the deletion cost of our workers?"""
    states = [(each, cost_state(each.pod)) for each in evidence.workers]
    foreign = [each for each, state in states if state in (CostState.FOREIGN, CostState.OVERWRITTEN)]
    if not foreign:
        ours = sum(state is CostState.OURS for _, state in states)
        told = f"{count(ours, 'value')} of ours, none of others"
        return well(evidence, told, Kind.PODS, Kind.SETTINGS)
    overwritten = Counter(each.pod.pool or "" for each, state in states if state is CostState.OVERWRITTEN)
    contested = sorted(pool for pool, number in overwritten.items() if number >= ENOUGH)
    writers = sorted({each.cost_writer for each in foreign if each.cost_writer})
    details = [f"pool {pool}: {count(len(found), 'value')}" for pool, found in by_pool(foreign).items()]
    if writers:
        details.insert(0, f"written by {some(writers)} (from the pods' managedFields)")
    free = [each.pod for each in foreign if (as_number(each.pod.deletion_cost) or 0) <= FREE]
    if busy := [pod.name for pod in free if is_undisturbed(pod, evidence.now)]:
        details.append(f"at {FREE} and below Karpenter, from 1.14 on, takes busy workers for nothing: {some(busy)}")
    if KARPENTERS_NAME in writers:
        summary = "Karpenter writes deletion costs itself: a scale-in may take a busy worker (karpenterFeatureGates)"
        return problem(summary, tuple(details), _KARPENTERS)
    if contested:
        summary = f"another writer overwrites our deletion costs in {some(contested)}: none are written there any more"
        return problem(summary, tuple(details), _ONE_WRITER)
    summary = f"somebody else wrote the deletion cost of {count(len(foreign), 'worker')}: those are left alone"
    return warning(summary, tuple(details), _ONE_WRITER)


_KARPENTERS = "switch its gate PodDeletionCostManagement off, or hold busy workers (claims.doNotDisrupt: true)"
_ONE_WRITER = (
    "let one of the two write controller.kubernetes.io/pod-deletion-cost: switch the other off, or set "
    "deletionCost.enabled: false for the pool"
)


@needs(Kind.DISRUPTION_BUDGETS, Kind.PODS)
def check_disruption_budgets(evidence: Evidence) -> Finding:
    """Does a PodDisruptionBudget forbid what the reaper does, for ever or now?"""
    in_namespace: dict[str, list[WorkerFacts]] = defaultdict(list)
    for each in evidence.workers:
        in_namespace[each.pod.namespace].append(each)
    covered: Counter[str] = Counter()
    faults: list[Finding] = []
    for budget in evidence.budgets:
        workers = [each for each in in_namespace[budget.namespace] if _covers(budget, each)]
        covered.update(each.pod.uid for each in workers)
        if workers and (fault := _blocks(budget, workers)) is not None:
            faults.append(fault)
    if several := sorted({each.pod.name for each in evidence.workers if covered[each.pod.uid] > 1}):
        told = f"two budgets cover {count(len(several), 'worker')}, which then cannot be evicted: {some(several)}"
        faults.append(problem(told, remedy="change the selector of one, so that it does not cover workers"))
    if faults:
        return together(faults)
    told = f"{count(len(covered), 'worker')} covered, and evictions are possible"
    return well(evidence, told, Kind.DISRUPTION_BUDGETS, Kind.PODS, Kind.SETTINGS)


def _blocks(budget: PodBudget, workers: list[WorkerFacts]) -> Finding | None:
    """Say why a budget lets none of these workers be evicted, ever or now; None where it does.

    1. it cannot count pods without an owner; 2. it asks that all of them stay; 3. nobody has counted its pods; 4. too
    few are healthy at the moment.
    """
    spec = f"minAvailable {budget.min_available}"
    if budget.max_unavailable is not None:
        spec = f"maxUnavailable {budget.max_unavailable}"
    if (bare := sum(each.pod.owner is None for each in workers)) and not _counts_bare_pods(budget):
        return problem(
            f"a budget over pods without an owner allows no eviction, ever: {budget} ({spec}, {count(bare, 'worker')} "
            "without an owner)",
            remedy="give it minAvailable with a number: the API server cannot tell how many such pods there should be",
        )
    if _keeps_all(budget):
        return problem(
            f"a budget allows no eviction, ever: {budget} ({spec}, {count(len(workers), 'worker')})",
            remedy="let it spare at least one pod, or change its selector so that it does not cover workers: neither "
            "warmnode nor Karpenter can move what it covers",
        )
    if budget.expected is None:
        return unknown(
            f"the disruption controller has not looked at {budget}: nothing is evicted until it has",
            remedy="see that kube-controller-manager runs, and look again",
        )
    if budget.allowed == 0:
        healthy = f"{budget.healthy} of {budget.expected} pods are healthy, and {budget.desired} have to be"
        return warning(
            f"a budget allows no eviction now: {budget} ({spec}; {healthy})",
            remedy="see why the other pods it covers are not Ready; if it stays so, nothing there is ever evicted",
        )
    return None


def _keeps_all(budget: PodBudget) -> bool:
    """By what it says, or because as many have to be healthy as there are."""
    if budget.max_unavailable in ("0", "0%") or (budget.max_unavailable is None and budget.min_available == "100%"):
        return True
    return bool(budget.expected and budget.desired is not None and budget.desired >= budget.expected)


def _covers(budget: PodBudget, worker: WorkerFacts) -> bool:
    return budget.selector is not None and not worker.pod.finished and selects(budget.selector, worker.labels)


def _counts_bare_pods(budget: PodBudget) -> bool:
    """pkg/controller/disruption: only minAvailable as a number needs no controller that says how many there are."""
    return budget.max_unavailable is None and budget.min_available is not None and budget.min_available.isdigit()
