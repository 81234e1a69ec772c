"""Checks of who calls: does a scheduler, and are the workers of one that does?"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from extender.inspect.doctor.evidence import Evidence, Kind, WorkerFacts
from extender.inspect.doctor.findings import Finding, Verdict, needs, problem, unknown, warning, well
from extender.inspect.doctor.our_extender import RECORD_LAG, calling_schedulers, placed_without_a_call
from extender.inspect.text import count, some, span
from extender.policy.departure import departure_of
from extender.policy.scheduler_silence import EXPIRES_SOON, SILENCE, HandshakeFailure, WebhookRecord

LATE, ALIVE = timedelta(minutes=2, seconds=30), timedelta(minutes=5)
"""A replica of serve writes once a minute: after two writes that did not come it is late, after five none runs."""
UNSEEN = timedelta(minutes=2)
"""A scheduler that runs has looked at a pod after that time, and says so on it."""
FEW = 2
"""So many workers without a call may have had one feasible node each."""
_HANDSHAKE_REMEDIES = {
    HandshakeFailure.CERTIFICATE_REFUSED: "in the extender's tlsConfig, caFile must hold the CA of warmnode's "
    "--tls-cert-file and serverName a name in it, and the certificate must not have expired; then restart the "
    "scheduler: it reads its CA once",
    HandshakeFailure.NO_CLIENT_CERTIFICATE: "give the extender's tlsConfig a certFile and a keyFile of the CA in "
    "warmnode's --client-ca-file, and restart the scheduler",
    HandshakeFailure.CLIENT_CERTIFICATE_REFUSED: "compare certFile in the extender's tlsConfig with warmnode's "
    "--client-ca-file: it must be of that CA and must not have expired",
    HandshakeFailure.PLAIN_HTTP: "set enableHTTPS: true for the extender, and begin its urlPrefix with https://",
}
"""What a port scan leaves, any other failure, is in the metric and no finding."""


def check_calls(evidence: Evidence) -> Finding:
    """Is a scheduler calling us? By the Lease of serve, and by workers not looked at, or placed without a call."""
    if (waiting := _waiting(evidence, calling_schedulers(evidence))) is not None:
        return waiting
    if (unread := evidence.why_unread(Kind.LEASES)) is not None:
        return unknown(unread)
    webhook, now, lease = evidence.webhook, evidence.now, evidence.settings.webhook.lease_name
    if webhook is None and any(program.runs("serve") for program in evidence.programs):
        return problem(
            f"warmnode serve runs and there is no Lease {evidence.namespace}/{lease}",
            remedy="look into its log for 'the Lease with the last call is not kept': it may not write it",
        )
    if webhook is None:
        return unknown(
            f"no warmnode serve has run with namespace {evidence.namespace} (no Lease {lease})",
            remedy="install warmnode, or name the namespace where it is installed with --namespace",
        )
    if webhook.written is None or now - webhook.written > LATE:
        since = "ever" if webhook.written is None else f"for {span(now - webhook.written)}"
        return Finding(
            Verdict.PROBLEM if webhook.written is None or now - webhook.written > ALIVE else Verdict.WARNING,
            f"no replica of warmnode serve has written its Lease {since}, as one does each minute: none runs, or none "
            "reaches the API server",
            remedy="look at its pods and their logs",
        )
    return _judge_calls(evidence, webhook)


def _judge_calls(evidence: Evidence, webhook: WebhookRecord) -> Finding:
    last, now = webhook.last_call, evidence.now
    called = f"last called {span(now - last)} ago" if last is not None else "never called"
    schedulers = calling_schedulers(evidence)
    missed = placed_without_a_call(evidence, schedulers)
    claims = evidence.node_claims
    schedulable = sum(departure_of(node, claims.get(node.node_claim or "")) is None for node in evidence.nodes)
    if webhook.certificate_ends is not None and webhook.certificate_ends - now <= EXPIRES_SOON:
        return _expiring(webhook.certificate_ends - now, called)
    refusal = webhook.last_refusal
    if refusal is not None and refusal.failure in _HANDSHAKE_REMEDIES and (last is None or refusal.at > last):
        return Finding(
            Verdict.PROBLEM if last is None or missed else Verdict.WARNING,
            f"{called}; {span(now - refusal.at)} ago a TLS handshake failed: {refusal.failure.meaning}",
            remedy=_HANDSHAKE_REMEDIES[refusal.failure],
        )
    remedy = (
        "see the next checks: the scheduler's configuration must name warmnode as an extender; if it does, look into "
        "the scheduler's log (-v=5 shows extender errors) and compare the address with warmnode's --webhook-listen"
    )
    if missed and schedulable >= FEW and (last is None or now - last >= SILENCE):
        told = f"{called}, and {count(len(missed), 'worker')} got a node since"
        if last is not None and len(missed) <= FEW:
            details = ("a worker that fits on one node only is placed without a call: then this is no fault",)
            return warning(told, details, remedy)
        return problem(told, remedy=remedy)
    if last is not None and len(missed) > FEW and schedulable >= FEW:
        told = f"{called}, and {count(len(missed), 'worker')} got a node since"
        details = ("workers that fit on one node only, or whose volumes took long, bring no call, or an early one",)
        return warning(told, details, remedy)
    rests_on = (Kind.LEASES, Kind.PODS, Kind.NODES) if missed else (Kind.LEASES, Kind.PODS)
    if last is None and evidence.why_unread(*rests_on) is None:
        return unknown(
            f"{called}: no worker of {some(sorted(schedulers))} was placed where two nodes could be scored",
            remedy="place a worker with that spec.schedulerName, and look again after a minute",
        )
    if missed:
        called += f"; {count(len(missed), 'worker')} got a node since"
    elif last is not None and now - last >= SILENCE:
        called += "; no worker had to be placed since"
    return well(evidence, called, *rests_on)


def _waiting(evidence: Evidence, schedulers: frozenset[str]) -> Finding | None:
    """Find workers of these schedulers that nobody has looked at: whatever called once, it does not run now."""
    waiting = _unseen(evidence, schedulers)
    if not waiting:
        return None
    last = evidence.last_call
    calls = last is not None and evidence.now - last <= RECORD_LAG
    names = some(sorted({each.pod.scheduler for each in waiting}))
    longest = span(evidence.now - min(each.pod.created for each in waiting))
    told = f"{count(len(waiting), 'worker')} of {names} that no scheduler has looked at, for up to {longest}"
    return Finding(
        Verdict.WARNING if calls else Verdict.PROBLEM,
        f"last called {span(evidence.now - last)} ago; {told}" if last is not None else told,
        (some(map(str, waiting)),),
        remedy="see that the scheduler of that name runs, leads by its own Lease, and keeps up"
        if calls
        else "start the scheduler that their spec.schedulerName names; if it runs, its log tells whether it leads, by "
        "a Lease of its own, and may read what it has to",
    )


def _unseen(evidence: Evidence, schedulers: frozenset[str]) -> list[WorkerFacts]:
    return [
        each
        for each in evidence.workers
        if each.pod.scheduler in schedulers
        and each.pod.node is None
        and not (each.is_seen or each.pod.gated or each.pod.terminating)
        and evidence.now - each.pod.created > UNSEEN
    ]


def _expiring(left: timedelta, called: str) -> Finding:
    """Tell of a certificate that has expired, or expires soon: callers refuse it then, and log nothing."""
    told = f"expires in {span(left)}" if left > timedelta(0) else f"expired {span(-left)} ago"
    return Finding(
        Verdict.WARNING if left > timedelta(0) else Verdict.PROBLEM,
        f"{called}; warmnode's certificate {told}, and a scheduler refuses one that has expired",
        remedy="renew the certificate in the Secret of --tls-cert-file (cert-manager's Certificate, or by hand); it is "
        "read again within a minute or two, without a restart",
    )


@needs(Kind.PODS)
def check_names(evidence: Evidence) -> Finding:
    """Do the workers name a scheduler that calls us?"""
    schedulers = calling_schedulers(evidence)
    workers = [each.pod for each in evidence.workers if each.pod.owner != "DaemonSet.apps" and not each.pod.static]
    strange = Counter((pod.pool or "", pod.scheduler) for pod in workers if pod.scheduler not in schedulers)
    ours = some(sorted(schedulers))
    if not strange:
        return well(evidence, f"all {count(len(workers), 'worker')} name {ours}", Kind.PODS, Kind.SETTINGS)
    lines = [f"pool {pool}: {count(n, 'worker')} of {scheduler}" for (pool, scheduler), n in sorted(strange.items())]
    if unseen := _unseen(evidence, frozenset(scheduler for _, scheduler in strange)):
        named = some(sorted({each.pod.scheduler for each in unseen}))
        lines.append(f"no scheduler has looked at {count(len(unseen), 'worker')}: is there one called {named}?")
    number = sum(strange.values())
    return Finding(
        Verdict.PROBLEM if number == len(workers) else Verdict.WARNING,
        f"{number:,} of {count(len(workers), 'worker')} are placed by a scheduler that does not call warmnode",
        tuple(lines),
        remedy=f"set spec.schedulerName in their pod template to {ours}, or name their scheduler in webhook.schedulers "
        "if it does call",
    )
