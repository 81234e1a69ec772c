"""Checks of who calls: does a scheduler, and are the workers of one that does?"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from extender.inspect.doctor.evidence import Evidence, Kind
from extender.inspect.doctor.findings import Check, Finding, Verdict
from extender.inspect.doctor.scheduler import calling_schedulers
from extender.inspect.text import count, some, span
from extender.policy.calling import EXPIRES_SOON, SILENCE, HandshakeFailure, should_have_called

LATE, ALIVE = timedelta(minutes=2, seconds=30), timedelta(minutes=5)
"""A replica of serve writes once a minute: after two writes that did not come it is late, after five none runs."""
RECORD_LAG = timedelta(seconds=90)
"""The last call is written with a delay of 75 s at most."""
APART = timedelta(seconds=30)
"""A worker gets its node seconds after the call, by another clock."""
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
    """Is a scheduler calling us? By the Lease of serve, and by workers that got a node without a call."""
    if (unread := evidence.why_unread(Kind.LEASES)) is not None:
        return _calls(Verdict.UNKNOWN, unread)
    webhook, now = evidence.webhook, evidence.now
    if webhook is None:
        if any(program.program == "warmnode" and "serve" in program.arguments for program in evidence.programs or ()):
            return _calls(
                Verdict.PROBLEM,
                f"warmnode serve runs and there is no Lease {evidence.namespace}/{evidence.webhook_lease}",
                remedy="look into its log for 'the Lease with the last call is not kept': it may not write it",
            )
        return _calls(
            Verdict.UNKNOWN,
            f"no warmnode serve has run with namespace {evidence.namespace} (no Lease {evidence.webhook_lease})",
            remedy="install warmnode, or name the namespace where it is installed with --namespace",
        )
    if webhook.written is None or now - webhook.written > LATE:
        since = "ever" if webhook.written is None else f"for {span(now - webhook.written)}"
        return _calls(
            Verdict.PROBLEM if webhook.written is None or now - webhook.written > ALIVE else Verdict.WARNING,
            f"no replica of warmnode serve has written its Lease {since}, as one does each minute: none runs, or none "
            "reaches the API server",
            remedy="look at its pods and their logs",
        )
    return _judge_calls(evidence)


def _judge_calls(evidence: Evidence) -> Finding:
    webhook, now = evidence.webhook, evidence.now
    last = webhook.last_call if webhook is not None else None
    called = f"last called {span(now - last)} ago" if last is not None else "never called"
    schedulers = calling_schedulers(evidence)
    placed = [
        worker.scheduled
        for worker in evidence.workers or ()
        if worker.scheduled is not None and should_have_called(worker.pod, schedulers)
    ]
    missed = [at for at in placed if (last is None or at > last + APART) and now - at > RECORD_LAG]
    schedulable = sum(not (node.deleting or node.disrupted or node.unschedulable) for node in evidence.nodes or ())
    if (expiring := _expiring(evidence, called)) is not None:
        return expiring
    refusal = webhook.last_refusal if webhook is not None else None
    if refusal is not None and refusal.failure in _HANDSHAKE_REMEDIES and (last is None or refusal.at > last):
        return _calls(
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
            return _calls(Verdict.WARNING, told, details=details, remedy=remedy)
        return _calls(Verdict.PROBLEM, told, remedy=remedy)
    if last is not None and len(missed) > FEW and schedulable >= FEW:
        told = f"{called}, and {count(len(missed), 'worker')} got a node since"
        details = ("workers that fit on one node only, or whose volumes took long, bring no call, or an early one",)
        return _calls(Verdict.WARNING, told, details=details, remedy=remedy)
    if (unread := evidence.why_unread(Kind.PODS, Kind.NODES)) is not None and (last is None or now - last >= SILENCE):
        return _calls(Verdict.UNKNOWN, f"{called}; {unread}")
    if last is None:
        return _calls(
            Verdict.UNKNOWN,
            f"{called}: no worker of {some(sorted(schedulers))} was placed where two nodes could be scored",
            remedy="place a worker with that spec.schedulerName, and look again after a minute",
        )
    if now - last < SILENCE:
        since = f"; {count(len(missed), 'worker')} got a node since" if missed else ""
        return _calls(Verdict.OK, called + since)
    return _calls(Verdict.OK, f"{called}; no worker had to be placed since")


def _expiring(evidence: Evidence, called: str) -> Finding | None:
    """Tell of a certificate that has expired, or expires soon: callers refuse it then, and log nothing."""
    ends = evidence.webhook.certificate_ends if evidence.webhook is not None else None
    if ends is None or ends - evidence.now > EXPIRES_SOON:
        return None
    left = ends - evidence.now
    told = f"expires in {span(left)}" if left > timedelta(0) else f"expired {span(-left)} ago"
    return _calls(
        Verdict.WARNING if left > timedelta(0) else Verdict.PROBLEM,
        f"{called}; warmnode's certificate {told}, and a scheduler refuses one that has expired",
        remedy="renew the certificate in the Secret of --tls-cert-file (cert-manager's Certificate, or by hand); it is "
        "read again within a minute or two, without a restart",
    )


def _calls(verdict: Verdict, summary: str, details: tuple[str, ...] = (), remedy: str | None = None) -> Finding:
    return Finding(check=Check.SCHEDULER_CALLS, verdict=verdict, summary=summary, details=details, remedy=remedy)


def check_names(evidence: Evidence) -> Finding:
    """Do the workers name a scheduler that calls us?"""
    check = Check.SCHEDULER_NAMES
    if evidence.workers is None:
        return Finding(check=check, verdict=Verdict.UNKNOWN, summary=evidence.why_unread(Kind.PODS) or "no pods")
    schedulers = calling_schedulers(evidence)
    workers = [each.pod for each in evidence.workers if each.pod.owner != "DaemonSet.apps" and not each.pod.static]
    strange = Counter((pod.pool or "", pod.scheduler) for pod in workers if pod.scheduler not in schedulers)
    ours = some(sorted(schedulers))
    if not strange:
        return Finding(check=check, verdict=Verdict.OK, summary=f"all {count(len(workers), 'worker')} name {ours}")
    lines = [f"pool {pool}: {count(n, 'worker')} of {scheduler}" for (pool, scheduler), n in sorted(strange.items())]
    number = sum(strange.values())
    return Finding(
        check=check,
        verdict=Verdict.PROBLEM if number == len(workers) else Verdict.WARNING,
        summary=f"{number:,} of {count(len(workers), 'worker')} are placed by a scheduler that does not call warmnode",
        details=tuple(lines),
        remedy=f"set spec.schedulerName in their pod template to {ours}, or name their scheduler in webhook.schedulers "
        "if it does call",
    )
