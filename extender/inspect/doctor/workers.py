"""Checks of the workers: pools, idle marks, deletion costs, and the budgets that cover them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import timedelta

from extender.inspect.doctor.evidence import DisruptionBudgetFacts, Evidence, Kind, WorkerFacts
from extender.inspect.doctor.findings import Check, Finding, Verdict, well, worst
from extender.inspect.text import count, some
from extender.policy.deletion_cost import KARPENTERS_NAME, CostState, cost_state
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


def check_pools(evidence: Evidence) -> Finding:
    """Are there workers at all, and may anything be written to them?"""
    if evidence.workers is None:
        return _finding(Check.POOLS, Verdict.UNKNOWN, evidence.why_unread(Kind.PODS) or "no pods")
    if not evidence.workers:
        return _finding(
            Check.POOLS,
            Verdict.WARNING,
            "no pod belongs to a pool: nothing is placed, reaped or claimed",
            remedy="label workers with warmnode.dev/pool: NAME, or select them in the configuration (--config FILE)",
        )
    sizes = Counter(worker.pod.pool or "" for worker in evidence.workers)
    dry = sorted(name for name, pool in evidence.pools.items() if pool.dry_run)
    details = tuple(f"pool {name}: {count(size, 'worker')}" for name, size in sizes.most_common(10))
    if dry:
        details += (f"dry-run is on in {some(dry)}: nobody is evicted, and no deletion cost is written",)
    if shadow := sorted(name for name, pool in evidence.pools.items() if pool.shadow):
        details += (f"placement is shadow in {some(shadow)}: schedulers are answered as without warmnode",)
    summary = f"{count(sum(sizes.values()), 'worker')} in {count(len(sizes), 'pool')}"
    return well(Check.POOLS, evidence, summary, Kind.PODS, Kind.SETTINGS, details=details)


def check_idle_marks(evidence: Evidence) -> Finding:
    """Do workers say when they are idle, and do they mean it?"""
    if evidence.workers is None:
        return _finding(Check.IDLE_MARKS, Verdict.UNKNOWN, evidence.why_unread(Kind.PODS) or "no pods")
    workers = [each for each in evidence.workers if not each.pod.terminating]
    faults = [*_bad_marks(workers, evidence), *_silent_pools(workers, evidence)]
    if faults:
        return _finding(
            Check.IDLE_MARKS,
            worst(verdict for verdict, _ in faults),
            faults[0][1],
            tuple(text for _, text in faults[1:]),
            "docs/workers.md: a worker writes warmnode.dev/idle-since when it has nothing to do, and removes it before "
            "it takes work",
        )
    idle = sum(reports_idle(each.pod, evidence.now) for each in workers)
    told = f"{idle:,} of {count(len(workers), 'worker')} say that they are idle"
    return well(Check.IDLE_MARKS, evidence, told, Kind.PODS, Kind.SETTINGS)


def _bad_marks(workers: Iterable[WorkerFacts], evidence: Evidence) -> Iterator[tuple[Verdict, str]]:
    stamped, ahead, unreadable = [], [], []
    for each in workers:
        pod = each.pod
        name = f"{pod.namespace}/{pod.name}"
        is_time = parse_idle_mark(each.idle_mark) is not None
        if each.idle_mark is not None and not is_time and not each.idle_mark.startswith(OWN_BUSY_MARK):
            unreadable.append(f"{name} ({each.idle_mark[:30]!r})")
        elif pod.own_mark is not None and pod.own_mark < pod.created:
            stamped.append(name)
        elif pod.own_mark is not None and pod.own_mark > evidence.now + FUTURE_TOLERANCE:
            ahead.append(name)
    if stamped:
        yield (
            Verdict.PROBLEM,
            (
                f"{count(len(stamped), 'worker')} idle since before they were created ({some(stamped)}): the mark "
                "stands in the pod template and nobody removes it, so they are evicted while they work"
            ),
        )
    if ahead:
        yield (
            Verdict.WARNING,
            (
                f"{count(len(ahead), 'mark')} in the future, which count as busy ({some(ahead)}): whoever wrote them "
                "has a clock that is fast"
            ),
        )
    if unreadable:
        yield Verdict.WARNING, f"{count(len(unreadable), 'mark')} that are no time count as busy: {some(unreadable)}"


def _silent_pools(workers: Iterable[WorkerFacts], evidence: Evidence) -> Iterator[tuple[Verdict, str]]:
    """Pools in which nobody was ever idle, or nothing has changed for a day."""
    of_pool: dict[str, list[WorkerFacts]] = defaultdict(list)
    for each in workers:
        if each.pod.ready_since is not None and not is_bound_to_its_node(each.pod):
            of_pool[each.pod.pool or ""].append(each)
    for name, members in sorted(of_pool.items()):
        settings = evidence.pools.get(name)
        old = [each for each in members if evidence.now - each.pod.created > STEADY]
        is_used = settings is None or settings.reap_enabled or settings.deletion_costs
        if is_used and len(old) == len(members) >= ENOUGH and not any(map(_was_idle, members)):
            yield (
                Verdict.WARNING,
                (
                    f"pool {name}: none of {count(len(members), 'worker')} has ever said that it is idle, so nothing "
                    "is reaped or handed out there"
                ),
            )
        ends = [idle_since(each.pod) for each in members if not is_claimed(each.pod, evidence.now)]
        marks = [end for end in ends if end is not None]
        floor = 0 if settings is None else settings.floor
        if len(marks) == len(members) >= max(ENOUGH, floor + 1) and all(
            evidence.now - mark > UNCHANGED for mark in marks
        ):
            yield (
                Verdict.WARNING,
                (f"pool {name}: all {count(len(members), 'worker')} are idle, and no mark has changed for a day"),
            )


def _was_idle(worker: WorkerFacts) -> bool:
    """True where a mark is there, or a deletion cost of ours that an earlier one has brought."""
    return worker.idle_mark is not None or worker.pod.cost_mark is not None


def check_deletion_costs(evidence: Evidence) -> Finding:
    """Does somebody else write the deletion cost of our workers?"""
    if evidence.workers is None:
        return _finding(Check.DELETION_COSTS, Verdict.UNKNOWN, evidence.why_unread(Kind.PODS) or "no pods")
    foreign: dict[str, list[WorkerFacts]] = defaultdict(list)
    overwritten: Counter[str] = Counter()
    ours = 0
    for each in evidence.workers:
        state = cost_state(each.pod)
        ours += state is CostState.OURS
        if state in (CostState.FOREIGN, CostState.OVERWRITTEN):
            foreign[each.pod.pool or ""].append(each)
            overwritten[each.pod.pool or ""] += state is CostState.OVERWRITTEN
    if not foreign:
        told = f"{count(ours, 'value')} of ours, none of others"
        return well(Check.DELETION_COSTS, evidence, told, Kind.PODS, Kind.SETTINGS)
    contested = sorted(pool for pool, number in overwritten.items() if number >= ENOUGH)
    total = sum(map(len, foreign.values()))
    writers = sorted({each.cost_writer for found in foreign.values() for each in found if each.cost_writer})
    details = [f"pool {pool}: {count(len(found), 'value')}" for pool, found in sorted(foreign.items())]
    if writers:
        details.insert(0, f"written by {some(writers)} (from the pods' managedFields)")
    free = [each for found in foreign.values() for each in found if _is_free(each.pod.deletion_cost)]
    if free:
        busy = [each.pod.name for each in free if is_undisturbed(each.pod, evidence.now)]
        if busy:
            details.append(f"at {FREE} and below Karpenter, from 1.14 on, takes busy workers for nothing: {some(busy)}")
    if KARPENTERS_NAME in writers:
        summary = "Karpenter writes deletion costs itself: a scale-in may take a busy worker (karpenterFeatureGates)"
        return _finding(Check.DELETION_COSTS, Verdict.PROBLEM, summary, tuple(details), _KARPENTERS)
    if contested:
        summary = f"another writer overwrites our deletion costs in {some(contested)}: none are written there any more"
        return _finding(Check.DELETION_COSTS, Verdict.PROBLEM, summary, tuple(details), _ONE_WRITER)
    summary = f"somebody else wrote the deletion cost of {count(total, 'worker')}: those are left alone"
    return _finding(Check.DELETION_COSTS, Verdict.WARNING, summary, tuple(details), _ONE_WRITER)


_KARPENTERS = "switch its gate PodDeletionCostManagement off, or hold busy workers (claims.doNotDisrupt: true)"
_ONE_WRITER = (
    "let one of the two write controller.kubernetes.io/pod-deletion-cost: switch the other off, or set "
    "deletionCost.enabled: false for the pool"
)


def _is_free(text: str | None) -> bool:
    try:
        return text is not None and int(text) <= FREE
    except ValueError:
        return False


def check_disruption_budgets(evidence: Evidence) -> Finding:
    """Does a PodDisruptionBudget forbid what the reaper does, for ever or now?"""
    check = Check.DISRUPTION_BUDGETS
    if (unread := evidence.why_unread(Kind.DISRUPTION_BUDGETS, Kind.PODS)) is not None:
        return _finding(check, Verdict.UNKNOWN, unread)
    in_namespace: dict[str, list[WorkerFacts]] = defaultdict(list)
    for each in evidence.workers or ():
        in_namespace[each.pod.namespace].append(each)
    covered: Counter[str] = Counter()
    faults: list[tuple[Verdict, str, str]] = []
    not_judged: list[str] = []
    for budget in evidence.budgets or ():
        workers = [each for each in in_namespace[budget.namespace] if _covers(budget, each)]
        covered.update(each.pod.uid for each in workers)
        if not workers:
            continue
        if (fault := _blocks(budget, workers)) is not None:
            faults.append(fault)
        elif budget.allowed is None:
            not_judged.append(f"{budget.namespace}/{budget.name}")
    several = sorted({each.pod.name for each in evidence.workers or () if covered[each.pod.uid] > 1})
    if several:
        told = f"two budgets cover {count(len(several), 'worker')}, which then cannot be evicted: {some(several)}"
        faults.append((Verdict.PROBLEM, told, "change the selector of one, so that it does not cover workers"))
    if faults:
        faults.sort(key=lambda fault: fault[0] is not Verdict.PROBLEM)
        details = tuple(text for _, text, _ in faults[1:])
        return _finding(check, worst(verdict for verdict, _, _ in faults), faults[0][1], details, faults[0][2])
    if not_judged:
        told = f"the disruption controller has not looked at {some(not_judged)}: nothing is evicted until it has"
        return _finding(check, Verdict.UNKNOWN, told, remedy="see that kube-controller-manager runs, and look again")
    told = f"{count(len(covered), 'worker')} covered, and evictions are possible"
    return well(check, evidence, told, Kind.DISRUPTION_BUDGETS, Kind.PODS, Kind.SETTINGS)


def _blocks(budget: DisruptionBudgetFacts, workers: list[WorkerFacts]) -> tuple[Verdict, str, str] | None:
    """Say why a budget lets none of these workers be evicted, ever or now; None where it does.

    1. it cannot count pods without an owner; 2. it asks that all of them stay; 3. too few are healthy at the moment.
    """
    name = f"{budget.namespace}/{budget.name}"
    spec = f"minAvailable {budget.min_available}"
    if budget.max_unavailable is not None:
        spec = f"maxUnavailable {budget.max_unavailable}"
    if (bare := sum(each.pod.owner is None for each in workers)) and not _counts_bare_pods(budget):
        return (
            Verdict.PROBLEM,
            f"a budget over pods without an owner allows no eviction, ever: {name} ({spec}, {count(bare, 'worker')} "
            "without an owner)",
            "give it minAvailable with a number: the API server cannot tell how many such pods there should be",
        )
    if _keeps_all(budget):
        return (
            Verdict.PROBLEM,
            f"a budget allows no eviction, ever: {name} ({spec}, {count(len(workers), 'worker')})",
            "let it spare at least one pod, or change its selector so that it does not cover workers: neither warmnode "
            "nor Karpenter can move what it covers",
        )
    if budget.allowed == 0:
        healthy = f"{budget.healthy} of {budget.expected} pods are healthy, and {budget.desired} have to be"
        return (
            Verdict.WARNING,
            f"a budget allows no eviction now: {name} ({spec}; {healthy})",
            "see why the other pods it covers are not Ready; if it stays so, nothing there is ever evicted",
        )
    return None


def _keeps_all(budget: DisruptionBudgetFacts) -> bool:
    """By what it says, or because as many have to be healthy as there are."""
    given = budget.max_unavailable if budget.max_unavailable is not None else budget.min_available
    by_name = {"0", "0%"} if budget.max_unavailable is not None else {"100%"}
    return given in by_name or (
        bool(budget.expected) and budget.desired is not None and budget.desired >= (budget.expected or 0)
    )


def _covers(budget: DisruptionBudgetFacts, worker: WorkerFacts) -> bool:
    return budget.selector is not None and not worker.pod.finished and selects(budget.selector, worker.labels)


def _counts_bare_pods(budget: DisruptionBudgetFacts) -> bool:
    """pkg/controller/disruption: only minAvailable as a number needs no controller that says how many there are."""
    return budget.max_unavailable is None and budget.min_available is not None and budget.min_available.isdigit()


def _finding(
    check: Check, verdict: Verdict, summary: str, details: tuple[str, ...] = (), remedy: str | None = None
) -> Finding:
    return Finding(check=check, verdict=verdict, summary=summary, details=details, remedy=remedy)
