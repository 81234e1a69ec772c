"""What must hold whatever happens: each rule is one function from the record to what broke it. Pure.

The promises are those of docs/workers.md, docs/claims.md and docs/architecture.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from scripts.tools.soak.facts import (
    AgeMoved,
    Bound,
    ForeignChanged,
    LeaderChanged,
    Mishap,
    Record,
    Rule,
    Sample,
    Span,
    Starved,
    Taken,
    Told,
    Unsettled,
)

WORKERS_SCHEDULER, PLAIN_SCHEDULER = "warmnode", "default-scheduler"
EXTENDER_SECONDS = 0.25
"""The extender's httpTimeout: what warmnode may cost a pod at most."""
NOISE_SECONDS = 0.1
"""What one watch hears later than another, and an event that came in the same moment as another."""
COMPARED_WITHIN = 10.0
"""A worker's wait is compared with the longest of the stock scheduler's pods within so many seconds of it."""
MORE = 2.0
"""What takes the API server and the scheduler long may take them longer for the next pod."""
STEPS = 8
"""Between a pod's creation and the news of its binding at most so many processes have to be woken one after another:
each may be kept waiting by a busy machine as long as the longest that was measured."""
AFTERMATH = 15.0
"""What a fault excuses it excuses so long after its end: backoff, watches that begin again, queues."""
LEADER_AFTERMATH = 20.0
WARM_UP = 100.0
"""A process that is younger still fills its caches, and meets its first wave of each kind of work."""
GROWTH_MIB, GROWTH_FILES = 24.0, 150
"""Two lanes of connections to the API server may fill in a burst, and connections of callers come and go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that did not hold. Rule and time stay the same whenever the record is asked; ``what`` may grow."""

    rule: Rule
    at: float
    what: str


def accepted_work(record: Record) -> Iterator[Violation]:
    """No worker that is at work or claimed is evicted: at its eviction it had its idle mark and no claim that runs."""
    for each in record.of(Taken):
        if not each.idle or each.claimed:
            state = "claimed" if each.claimed else "at work"
            yield Violation(rule=Rule.ACCEPTED_WORK, at=each.at, what=f"{each.pod} was evicted while it was {state}")


def owned(record: Record) -> Iterator[Violation]:
    """A Deployment's worker is never evicted: a new one would be made. Which of them go is its ReplicaSet's choice."""
    for each in record.of(Taken):
        if each.is_owned:
            yield Violation(rule=Rule.OWNED, at=each.at, what=f"{each.pod} of the Deployment was evicted")


def one_claimant(record: Record) -> Iterator[Violation]:
    """No two claimants may use one worker at the same time."""
    by_pod: dict[str, list[Told]] = defaultdict(list)
    for each in record.of(Told):
        by_pod[each.uid].append(each)
    for told in by_pod.values():
        told.sort(key=lambda each: (each.at, each.claimant))
        for number, later in enumerate(told):
            for earlier in told[:number]:
                if earlier.claimant != later.claimant and later.at < earlier.until:
                    what = f"{later.pod} was given to {later.claimant} while {earlier.claimant} had it"
                    yield Violation(rule=Rule.ONE_CLAIMANT, at=later.at, what=what)


def floor(record: Record, *, keep: int, most_per_pass: int) -> Iterator[Violation]:
    """The floor is kept by evictions, but for one pass around a change of leader.

    Workers that took work in the last seconds count as if they had not: a pass cannot know of them.
    """
    changes = [each.at for each in record.of(LeaderChanged)]
    spans = _excused(record, Rule.FLOOR)
    for each in record.of(Taken):
        near = any(0 <= each.at - at <= LEADER_AFTERMATH for at in changes)
        least = keep - most_per_pass if near else keep
        if not each.is_leaving and not each.is_owned and each.lately < least and not _within(each.at, spans):
            what = f"{each.lately} claimable workers were left without {each.pod}, and the floor is {keep}"
            yield Violation(rule=Rule.FLOOR, at=each.at, what=what)


def bound_in_time(record: Record) -> Iterator[Violation]:
    """A worker that fits is bound within what the stock scheduler takes at that time and 250 ms.

    Given away is what the machine itself keeps everybody waiting.
    """
    spans = _excused(record, Rule.BOUND_IN_TIME)
    bound = list(record.of(Bound))
    plain = [each for each in bound if each.scheduler == PLAIN_SCHEDULER]
    starved = list(record.of(Starved))
    for each in bound:
        allowed = EXTENDER_SECONDS + NOISE_SECONDS
        if each.scheduler != WORKERS_SCHEDULER or each.waited <= allowed or _within(each.at, spans):
            continue
        own = max((one.waited for one in plain if abs(one.at - each.at) <= COMPARED_WITHIN), default=None)
        late = max((one.seconds for one in starved if abs(one.at - each.at) <= COMPARED_WITHIN), default=0.0)
        if own is not None and each.waited > MORE * own + allowed + STEPS * late:
            machine = f", and this machine kept threads waiting for {late:.2f} s"
            what = f"{each.pod} waited {each.waited:.2f} s, the stock scheduler's pods {own:.2f} s{machine}"
            yield Violation(rule=Rule.BOUND_IN_TIME, at=each.at, what=what)


def ages(record: Record) -> Iterator[Violation]:
    """No node gets younger in the ledger, whatever happens to the ledger."""
    for each in record.of(AgeMoved):
        if each.now > each.earliest:
            what = f"node {each.uid} was seen at {each.earliest}, and the ledger says {each.now}"
            yield Violation(rule=Rule.AGES, at=each.at, what=what)


def foreign(record: Record) -> Iterator[Violation]:
    """What others wrote stays as they wrote it."""
    for each in record.of(ForeignChanged):
        yield Violation(rule=Rule.FOREIGN, at=each.at, what=each.what)


def converged(record: Record) -> Iterator[Violation]:
    """Once nothing disturbs it any more, everything is in a minute as if nothing had."""
    for each in record.of(Unsettled):
        yield Violation(rule=Rule.CONVERGED, at=each.at, what=each.what)


def flat(record: Record) -> Iterator[Violation]:
    """A process does not grow: once it is warm, neither its memory nor its open files do.

    The middle third after the warm-up is compared with the last third, by the least that each holds. What is told is
    when its life began.
    """
    lives: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for each in record.of(Sample):
        lives[(each.program, each.pid)].append(each)
    for (program, _), samples in lives.items():
        warm = [each for each in samples if each.at - samples[0].at >= WARM_UP]
        third = len(warm) // 3
        if third < 3:
            continue
        early, late = warm[-2 * third : -third], warm[-third:]
        memory = min(each.resident_mib for each in late) - min(each.resident_mib for each in early)
        files = min(each.files for each in late) - min(each.files for each in early)
        if memory > GROWTH_MIB or files > GROWTH_FILES:
            what = f"{program} grew by {memory:.0f} MiB and {files} open files"
            yield Violation(rule=Rule.FLAT, at=samples[0].at, what=what)


def alive(record: Record) -> Iterator[Violation]:
    """No process of warmnode ends by itself, and none writes a traceback."""
    for each in record.of(Mishap):
        yield Violation(rule=Rule.ALIVE, at=each.at, what=f"{each.program}: {each.what}")


Invariant = Callable[[Record], Iterator[Violation]]


def invariants(*, keep: int, most_per_pass: int) -> Mapping[Rule, Invariant]:
    """Give all rules by name, for a pool's floor and its ``maxPerPass``."""
    return {
        Rule.ACCEPTED_WORK: accepted_work,
        Rule.ONE_CLAIMANT: one_claimant,
        Rule.FLOOR: lambda record: floor(record, keep=keep, most_per_pass=most_per_pass),
        Rule.BOUND_IN_TIME: bound_in_time,
        Rule.AGES: ages,
        Rule.FOREIGN: foreign,
        Rule.CONVERGED: converged,
        Rule.FLAT: flat,
        Rule.ALIVE: alive,
        Rule.OWNED: owned,
    }


def is_disturbed(record: Record, at: float, fault: str) -> bool:
    """Say whether a fault of this name lasted at a moment, or had ended a while before."""
    return _within(at, [_disturbed(each) for each in record.of(Span) if each.fault == fault])


def _excused(record: Record, rule: Rule) -> list[tuple[float, float]]:
    return [_disturbed(each) for each in record.of(Span) if rule in each.excuses]


def _disturbed(span: Span) -> tuple[float, float]:
    return span.at, (span.end if span.end is not None else float("inf")) + AFTERMATH


def _within(at: float, spans: list[tuple[float, float]]) -> bool:
    return any(begin <= at <= end for begin, end in spans)
