"""Checks of the installation: the configuration, the ledger, who leads, permissions, clocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta

from extender.inspect.doctor.evidence import Evidence, Kind
from extender.inspect.doctor.findings import Check, Finding, Verdict, well, worst
from extender.inspect.text import count, some, span
from extender.model import AgeSource
from extender.policy.ages import observed_first_seen
from extender.policy.brakes import BrakeRecord

LEDGER_LIMIT = 1024 * 1024
NEARLY_FULL = 0.8
RECORDED_WITHIN = timedelta(minutes=2)
"""The ledger is written every two seconds; a worker that was Ready for two minutes is in it, or nobody writes."""
SILENT_LEADER = timedelta(minutes=1)
MANY, SEVERAL_TIMES = 20, 5
"""So many evictions within the hour, and so many times what a pool has, look like a circle."""
SKEW_SEEN = timedelta(seconds=5)
SKEW_HURTS = timedelta(seconds=30)
"""A mark that is further in the future counts as busy."""
NAME_THE_FILE = "pass the file that it runs with: warmnode doctor --config FILE"


def check_configuration(evidence: Evidence) -> Finding:
    """Which configuration is in force, as far as it shows?"""
    check, facts = Check.CONFIGURATION, evidence.configuration
    if facts.problem is not None:
        return Finding(
            check=check,
            verdict=Verdict.PROBLEM,
            summary=f"{facts.source} is refused: {facts.problem}",
            details=("a process that runs keeps the last good one; these checks go by the defaults",),
            remedy="correct it: warmnode config check FILE names every mistake",
        )
    note = "; dry-run is on: nothing is written outside warmnode's own namespace" if facts.dry_run else ""
    return well(check, evidence, f"{facts.source}{note}", Kind.SETTINGS, remedy=NAME_THE_FILE)


def check_ledger(evidence: Evidence) -> Finding:
    """Is it recorded when nodes were first seen, and is there room?"""
    name = f"{evidence.namespace}/{evidence.ledger_name}"
    if evidence.age is AgeSource.CREATED:
        return _ledger(Verdict.OK, "not needed: age is created")
    if (unread := evidence.why_unread(Kind.CONFIG_MAPS)) is not None:
        return _ledger(Verdict.UNKNOWN, unread)
    ledger = evidence.ledger
    if ledger is None:
        running = evidence.webhook is not None or evidence.leader is not None
        return _ledger(
            Verdict.PROBLEM if running and evidence.workers else Verdict.UNKNOWN,
            f"there is no ledger {name}" + (", so ages are lost at every restart" if running else ""),
            remedy="look into warmnode's log for 'the ledger is not written'"
            if running
            else "install warmnode, or name the namespace where it is installed with --namespace",
        )
    faults: list[tuple[Verdict, str]] = []
    share = ledger.size_bytes / LEDGER_LIMIT
    if share > NEARLY_FULL:
        faults.append((Verdict.PROBLEM, f"it uses {share:.0%} of what a ConfigMap holds, and takes no more when full"))
    missing = _unrecorded(evidence)
    if missing:
        text = f"{count(len(missing), 'node')} with a Ready worker missing in it ({some(missing)}): nobody writes it"
        faults.append((Verdict.PROBLEM, text))
    if ledger.ignored:
        text = f"{count(len(ledger.ignored), 'key')} that make no sense are ignored: {some(ledger.ignored)}"
        faults.append((Verdict.WARNING, text))
    ahead = [uid for uid, seen in ledger.first_seen.items() if seen > evidence.now + SKEW_HURTS]
    if ahead:
        faults.append((Verdict.WARNING, f"{count(len(ahead), 'node')} first seen in the future: {some(ahead)}"))
    if faults:
        return _ledger(
            worst(verdict for verdict, _ in faults),
            f"{name}: {faults[0][1]}",
            tuple(text for _, text in faults[1:]),
            "see that a warmnode runs and may write it; remove keys that make no sense by hand. The reaper prunes "
            "nodes that are gone",
        )
    told = f"{name}: {count(len(ledger.first_seen), 'node')}, {share:.0%} of its room"
    return well(Check.LEDGER, evidence, told, Kind.CONFIG_MAPS, Kind.NODES, Kind.PODS, Kind.SETTINGS)


def _unrecorded(evidence: Evidence) -> list[str]:
    """Name the nodes on which a worker was Ready for a while and of which the ledger knows nothing."""
    if evidence.ledger is None:
        return []
    nodes = {node.name: node for node in evidence.nodes or ()}
    missing = set()
    for worker in evidence.workers or ():
        node = nodes.get(worker.pod.node or "")
        if node is None or node.uid in evidence.ledger.first_seen or node.uid in evidence.ledger.ignored:
            continue
        seen = observed_first_seen(node, worker.pod, evidence.now)
        if seen is not None and evidence.now - seen > RECORDED_WITHIN:
            missing.add(node.name)
    return sorted(missing)


def _ledger(verdict: Verdict, summary: str, details: tuple[str, ...] = (), remedy: str | None = None) -> Finding:
    return Finding(check=Check.LEDGER, verdict=verdict, summary=summary, details=details, remedy=remedy)


def check_reaper(evidence: Evidence) -> Finding:
    """Does a reaper lead?"""
    check, leader = Check.REAPER, evidence.leader
    if (unread := evidence.why_unread(Kind.LEASES)) is not None:
        return Finding(check=check, verdict=Verdict.UNKNOWN, summary=unread)
    runs = [program.name for program in evidence.programs or () if _is_reaper(program.program, program.arguments)]
    look = "look at its pods and their logs, and at the permissions below"
    if leader is None:
        if runs:
            summary = f"{some(runs)} should reap, and there is no Lease {evidence.namespace}/{evidence.leader_lease}"
            return Finding(check=check, verdict=Verdict.PROBLEM, summary=summary, remedy=look)
        summary = (
            f"no reaper has run with namespace {evidence.namespace}: nothing is evicted, no deletion cost is written"
        )
        if evidence.webhook is None and not any(each.program == "warmnode" for each in evidence.programs or ()):
            summary = f"nothing of warmnode was found in namespace {evidence.namespace}"
            remedy = "install warmnode, or name the namespace where it is installed with --namespace"
            return Finding(check=check, verdict=Verdict.UNKNOWN, summary=summary, remedy=remedy)
        return well(check, evidence, summary, Kind.LEASES, Kind.PODS, Kind.SETTINGS)
    if not leader.holder:
        verdict = Verdict.PROBLEM if runs else Verdict.WARNING
        summary = "nobody leads: the last reaper was stopped in order"
        return Finding(check=check, verdict=verdict, summary=summary, remedy="start warmnode reap, if it is to reap")
    silent = evidence.now - leader.renewed if leader.renewed is not None else None
    if silent is None or silent > max(SILENT_LEADER, 2 * (leader.duration or timedelta(0))):
        since = f"for {span(silent)}" if silent is not None else "ever"
        summary = f"{leader.holder} holds the Lease and has not renewed it {since}"
        return Finding(check=check, verdict=Verdict.PROBLEM, summary=summary, remedy=look)
    if leader.brakes is None:
        summary = f"{leader.holder} leads; its version does not say which pools it pauses"
        remedy = "bring it to the version of this command"
        return Finding(check=check, verdict=Verdict.UNKNOWN, summary=summary, remedy=remedy)
    faults = [*_paused(leader.brakes), *_in_a_circle(evidence, leader.brakes)]
    if not faults:
        return well(check, evidence, f"{leader.holder} leads", Kind.LEASES, Kind.PODS)
    return Finding(
        check=check,
        verdict=Verdict.WARNING,
        summary=f"{leader.holder} leads; {faults[0]}",
        details=tuple(faults[1:]),
        remedy="something makes a new worker for each that is evicted: use scaleIn: auto, or raise reap.floor to what "
        "is needed. A pause ends by itself; restarting the reaper ends it now",
    )


def _paused(brakes: Mapping[str, BrakeRecord]) -> Iterator[str]:
    for pool, record in sorted(brakes.items()):
        if record.paused_until is not None:
            yield (
                f"pool {pool} is paused until {record.paused_until:%H:%M:%S} UTC: workers came back after "
                f"{count(record.evicted, 'eviction')}"
            )


def _in_a_circle(evidence: Evidence, brakes: Mapping[str, BrakeRecord]) -> Iterator[str]:
    """Name the pools that lost several times as many workers as they have: somebody made them anew."""
    if evidence.workers is None:
        return
    sizes = Counter(worker.pod.pool for worker in evidence.workers)
    for pool, record in sorted(brakes.items()):
        again = record.evicted / max(sizes[pool], 1)
        if record.paused_until is None and record.evicted >= MANY and again >= SEVERAL_TIMES and sizes[pool]:
            yield (
                f"pool {pool} has {count(sizes[pool], 'worker')}, and lost {record.evicted:,} by eviction within "
                f"{span(evidence.now - record.since)}"
            )


def _is_reaper(program: str, arguments: tuple[str, ...]) -> bool:
    return program == "warmnode" and ("reap" in arguments or "run" in arguments)


def check_permissions(evidence: Evidence) -> Finding:
    """May warmnode do what it has to?"""
    check, access = Check.PERMISSIONS, evidence.access
    if access is None:
        unread = evidence.unread.get(Kind.ACCESS_REVIEWS, "nobody was asked")
        return Finding(check=check, verdict=Verdict.UNKNOWN, summary=f"not checked: {unread}")
    who = some(access.asked_for, most=5)
    if not access.missing and access.not_asked:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            summary=f"{who}: all there; whose token {some(access.not_asked)} has is not known",
            remedy="call the Secret after its service account, NAME-token",
        )
    if not access.missing:
        return well(check, evidence, f"{who}: all there", Kind.ACCESS_REVIEWS, Kind.PODS)
    needed = [each for each in access.missing if not each.optional]
    shown = sorted(access.missing, key=lambda each: (each.optional, each.who, each.duty, each.access))
    verdict = Verdict.WARNING if not needed or not access.is_installed else Verdict.PROBLEM
    return Finding(
        check=check,
        verdict=verdict,
        summary=f"{who}: {count(len(access.missing), 'permission')} missing"
        + ("" if needed else ", and warmnode does without"),
        details=tuple(
            f"{each.who} may not {each.access} ({each.duty}): {'optional, to ' if each.optional else 'to '}{each.why}"
            for each in shown
        ),
        remedy="apply the RBAC of the manifests again"
        if access.is_installed
        else "only if warmnode is to run as you: nothing was found that runs it here",
    )


def check_clocks(evidence: Evidence) -> Finding:
    """Do those who write times agree with the API server on what time it is?"""
    check = Check.CLOCKS
    if not evidence.clocks:
        why = "a file has no clock" if evidence.clocks is None else "no answer of the API server told its time"
        return Finding(check=check, verdict=Verdict.UNKNOWN, summary=f"not checked: {why}")
    wrong = sorted((each for each in evidence.clocks if abs(each.ahead) > SKEW_SEEN), key=lambda each: -abs(each.ahead))
    if not wrong:
        names = some([each.whose for each in evidence.clocks], most=4)
        told = f"within {span(SKEW_SEEN)} of the API server: {names}"
        return well(check, evidence, told, Kind.LEASES, Kind.NODE_LEASES)
    hurts = [each for each in wrong if abs(each.ahead) > SKEW_HURTS and not each.is_ours]
    texts = [
        f"{each.whose} is {span(abs(each.ahead))} {'fast' if each.ahead > timedelta(0) else 'slow'}" for each in wrong
    ]
    return Finding(
        check=check,
        verdict=Verdict.PROBLEM if hurts else Verdict.WARNING,
        summary=f"{texts[0]} by the API server's clock",
        details=tuple(texts[1:]),
        remedy="synchronize the clocks (NTP): idle marks of the future count as busy, and ages come out wrong",
    )
