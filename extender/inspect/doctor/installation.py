"""Checks of the installation: the configuration, the ledger, who leads, permissions, clocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta

from extender.inspect.doctor.evidence import Evidence, Kind
from extender.inspect.doctor.findings import Finding, Verdict, needs, ok, problem, together, unknown, warning, well
from extender.inspect.text import count, some, span
from extender.model import AgeSource, Ledger
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
INSTALL = "install warmnode, or name the namespace where it is installed with --namespace"
LOOK_AT_REAPERS = "look at its pods and their logs, and at the permissions below"
NAME_THE_FILE = "pass the file that it runs with: warmnode doctor --config FILE"


def check_configuration(evidence: Evidence) -> Finding:
    """Which configuration is in force, as far as it shows?"""
    chosen = evidence.configuration
    if chosen.problem is not None:
        return problem(
            f"{chosen.source} is refused: {chosen.problem}",
            ("a process that runs keeps the last good one; these checks go by the defaults",),
            remedy="correct it: warmnode config check FILE names every mistake",
        )
    note = "; dry-run is on: nothing is written outside warmnode's own namespace" if evidence.settings.dry_run else ""
    return well(evidence, f"{chosen.source}{note}", Kind.SETTINGS, remedy=NAME_THE_FILE)


def check_ledger(evidence: Evidence) -> Finding:
    """Is it recorded when nodes were first seen, and is there room?"""
    name = f"{evidence.namespace}/{evidence.settings.ledger.name}"
    if evidence.settings.age is AgeSource.CREATED:
        return ok("not needed: age is created")
    if (unread := evidence.why_unread(Kind.CONFIG_MAPS)) is not None:
        return unknown(unread)
    ledger = evidence.ledger
    if ledger is None:
        if evidence.webhook is None and evidence.leader is None:
            return unknown(f"there is no ledger {name}", remedy=INSTALL)
        return Finding(
            Verdict.PROBLEM if evidence.workers else Verdict.UNKNOWN,
            f"there is no ledger {name}, so ages are lost at every restart",
            remedy="look into warmnode's log for 'the ledger is not written'",
        )
    if faults := list(_faults_of_ledger(ledger, evidence)):
        return together(
            faults,
            "see that a warmnode runs and may write it; remove keys that make no sense by hand. The reaper prunes "
            "nodes that are gone",
            about=f"{name}: ",
        )
    told = f"{name}: {count(len(ledger.first_seen), 'node')}, {ledger.size_bytes / LEDGER_LIMIT:.0%} of its room"
    return well(evidence, told, Kind.CONFIG_MAPS, Kind.NODES, Kind.PODS, Kind.SETTINGS)


def _faults_of_ledger(ledger: Ledger, evidence: Evidence) -> Iterator[Finding]:
    share = ledger.size_bytes / LEDGER_LIMIT
    if share > NEARLY_FULL:
        yield problem(f"it uses {share:.0%} of what a ConfigMap holds, and takes no more when full")
    if missing := _unrecorded(ledger, evidence):
        named = some(missing)
        yield problem(f"{count(len(missing), 'node')} with a Ready worker missing in it ({named}): nobody writes it")
    if ledger.ignored:
        yield warning(f"{count(len(ledger.ignored), 'key')} that make no sense are ignored: {some(ledger.ignored)}")
    if ahead := [uid for uid, seen in ledger.first_seen.items() if seen > evidence.now + SKEW_HURTS]:
        yield warning(f"{count(len(ahead), 'node')} first seen in the future: {some(ahead)}")


def _unrecorded(ledger: Ledger, evidence: Evidence) -> list[str]:
    """Name the nodes on which a worker was Ready for a while and of which the ledger knows nothing."""
    nodes = {node.name: node for node in evidence.nodes}
    missing = set()
    for worker in evidence.workers:
        node = nodes.get(worker.pod.node or "")
        if node is None or node.uid in ledger.first_seen or node.uid in ledger.ignored:
            continue
        seen = observed_first_seen(node, worker.pod, evidence.now)
        if seen is not None and evidence.now - seen > RECORDED_WITHIN:
            missing.add(node.name)
    return sorted(missing)


@needs(Kind.LEASES)
def check_reaper(evidence: Evidence) -> Finding:
    """Does a reaper lead?"""
    leader, namespace = evidence.leader, evidence.namespace
    reapers = [program.name for program in evidence.programs if program.runs("reap")]
    if leader is None and reapers:
        lease = f"{namespace}/{evidence.settings.leader_election.name}"
        return problem(f"{some(reapers)} should reap, and there is no Lease {lease}", remedy=LOOK_AT_REAPERS)
    if leader is None:
        if evidence.webhook is None and not any(each.program == "warmnode" for each in evidence.programs):
            return unknown(f"nothing of warmnode was found in namespace {namespace}", remedy=INSTALL)
        told = f"no reaper has run with namespace {namespace}: nothing is evicted, no deletion cost is written"
        return well(evidence, told, Kind.LEASES, Kind.PODS, Kind.SETTINGS)
    if not leader.holder:
        verdict = Verdict.PROBLEM if reapers else Verdict.WARNING
        summary = "nobody leads: the last reaper was stopped in order"
        return Finding(verdict, summary, remedy="start warmnode reap, if it is to reap")
    silent = evidence.now - leader.renewed if leader.renewed is not None else None
    if silent is None or silent > max(SILENT_LEADER, 2 * (leader.duration or timedelta(0))):
        since = f"for {span(silent)}" if silent is not None else "ever"
        return problem(f"{leader.holder} holds the Lease and has not renewed it {since}", remedy=LOOK_AT_REAPERS)
    if evidence.brakes is None:
        return unknown(
            f"{leader.holder} leads; its version does not say which pools it pauses",
            remedy="bring it to the version of this command",
        )
    if faults := [*_paused(evidence.brakes), *_in_a_circle(evidence, evidence.brakes)]:
        return together(
            faults,
            "something makes a new worker for each that is evicted: use scaleIn: auto, or raise reap.floor to what is "
            "needed. A pause ends by itself; restarting the reaper ends it now",
            about=f"{leader.holder} leads; ",
        )
    return well(evidence, f"{leader.holder} leads", Kind.LEASES, Kind.PODS)


def _paused(brakes: Mapping[str, BrakeRecord]) -> Iterator[Finding]:
    for pool, record in sorted(brakes.items()):
        if record.paused_until is not None:
            yield warning(
                f"pool {pool} is paused until {record.paused_until:%H:%M:%S} UTC: workers came back after "
                f"{count(record.evicted, 'eviction')}"
            )


def _in_a_circle(evidence: Evidence, brakes: Mapping[str, BrakeRecord]) -> Iterator[Finding]:
    """Name the pools that lost several times as many workers as they have: somebody made them anew."""
    sizes = Counter(worker.pod.pool for worker in evidence.workers)
    for pool, record in sorted(brakes.items()):
        again = record.evicted / max(sizes[pool], 1)
        if record.paused_until is None and record.evicted >= MANY and again >= SEVERAL_TIMES and sizes[pool]:
            yield warning(
                f"pool {pool} has {count(sizes[pool], 'worker')}, and lost {record.evicted:,} by eviction within "
                f"{span(evidence.now - record.since)}"
            )


def check_permissions(evidence: Evidence) -> Finding:
    """May warmnode do what it has to?"""
    access = evidence.access
    if access is None:
        return unknown(f"not checked: {evidence.unread.get(Kind.ACCESS_REVIEWS, 'nobody was asked')}")
    who = some(access.asked_for, most=5)
    if not access.missing and access.not_asked:
        return unknown(
            f"{who}: all there; whose token {some(access.not_asked)} has is not known",
            remedy="call the Secret after its service account, NAME-token",
        )
    if not access.missing:
        return well(evidence, f"{who}: all there", Kind.ACCESS_REVIEWS, Kind.PODS)
    is_needed = any(not each.optional for each in access.missing)
    shown = sorted(access.missing, key=lambda each: (each.optional, each.who, each.duty, each.access))
    missing = count(len(access.missing), "permission")
    return Finding(
        Verdict.PROBLEM if is_needed and access.is_installed else Verdict.WARNING,
        f"{who}: {missing} missing" + ("" if is_needed else ", and warmnode does without"),
        tuple(
            f"{each.who} may not {each.access} ({each.duty}): {'optional, to ' if each.optional else 'to '}{each.why}"
            for each in shown
        ),
        remedy="apply the RBAC of the manifests again"
        if access.is_installed
        else "only if warmnode is to run as you: nothing was found that runs it here",
    )


def check_clocks(evidence: Evidence) -> Finding:
    """Do those who write times agree with the API server on what time it is?"""
    if not evidence.clocks:
        why = "a file has no clock" if evidence.clocks is None else "no answer of the API server told its time"
        return unknown(f"not checked: {why}")
    wrong = sorted((each for each in evidence.clocks if abs(each.ahead) > SKEW_SEEN), key=lambda each: -abs(each.ahead))
    if not wrong:
        names = some([each.whose for each in evidence.clocks], most=4)
        told = f"within {span(SKEW_SEEN)} of the API server: {names}"
        return well(evidence, told, Kind.LEASES, Kind.NODE_LEASES)
    first, *others = [
        f"{each.whose} is {span(abs(each.ahead))} {'fast' if each.ahead > timedelta(0) else 'slow'}" for each in wrong
    ]
    hurts = any(abs(each.ahead) > SKEW_HURTS and not each.is_ours for each in wrong)
    return Finding(
        Verdict.PROBLEM if hurts else Verdict.WARNING,
        f"{first} by the API server's clock",
        tuple(others),
        remedy="synchronize the clocks (NTP): idle marks of the future count as busy, and ages come out wrong",
    )
