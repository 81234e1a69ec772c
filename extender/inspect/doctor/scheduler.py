"""Checks of the scheduler's configuration: does it let what we answer count?

The rules are kube-scheduler's: pkg/scheduler/schedule_one.go (numFeasibleNodesToFind, prioritizeNodes) and
pkg/scheduler/extender.go. docs/weights.md explains the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from extender.inspect.doctor.evidence import Evidence, Extender, Kind, Profile, SchedulerConfig, WorkerFacts
from extender.inspect.doctor.findings import Check, Finding, Verdict, well, worst
from extender.inspect.doctor.our_extender import (
    address_of,
    config_of_ours,
    is_ours_for_certain,
    listening_ports,
    may_be_ours,
    ours_in,
    profiles_of_ours,
)
from extender.inspect.text import count, some, span

SAMPLED_FROM = 100
"""minFeasibleNodesToFind: a scheduler that may choose scores this many nodes at least."""
SLOW = timedelta(seconds=1)
CLUSTERS_LEASE = "kube-system/kube-scheduler"
"""What the cluster's own scheduler leads by, and every other one that is not told otherwise."""
CLUSTERS_PROFILE = "default-scheduler"
API_GROUP = "kubescheduler.config.k8s.io"
READ_BY = {"v1": (25, None), "v1beta3": (23, 28), "v1beta2": (22, 27), "v1beta1": (19, 22)}
"""The minors of kube-scheduler 1.x that read each version, first and last (KEP-785; removed by kubernetes/kubernetes
#104782, #117649 and #119994)."""
SCALE = 10
"""A score of 1 counts weight x 10 (MaxNodeScore / MaxExtenderPriority), a plugin up to its weight x 100."""

_GIVE_FILE = "pass the file that its flag --config names: warmnode doctor --scheduler-config FILE"
_COMPARE = "compare with manifests/base/kube-scheduler-config.yaml, and restart the scheduler: it reads the file once"


def check_extender(evidence: Evidence) -> Finding:
    """Does the scheduler's configuration name us, with verbs that we answer?"""
    check = Check.SCHEDULER_EXTENDER
    configs = evidence.scheduler_configs
    if not configs:
        return _no_config(check, evidence)
    config = config_of_ours(evidence)
    if config is None:
        names = sorted({profile.scheduler_name for each in configs for profile in each.profiles})
        return Finding(
            check=check,
            verdict=Verdict.PROBLEM,
            summary=f"no profile is called {some(sorted(evidence.schedulers))}: there are {some(names)}",
            remedy="give the profile that name, or name it in webhook.schedulers of warmnode's configuration",
        )
    ours = ours_in(config, evidence)
    if not ours:
        return _none_of_ours(config, evidence)
    faults = [
        *_unreadable(config, evidence),
        *_shared_lease(config, evidence),
        *(fault for extender in ours for fault in _faults(extender, evidence.workers or ())),
    ]
    if not faults and not is_ours_for_certain(ours, evidence):
        return _not_known(config, ours, evidence)
    if not faults:
        needs = (Kind.PODS,) if any(each.managed_resources for each in ours) else ()
        return well(check, evidence, f"{config.source} calls {some(each.url for each in ours)}", *needs)
    faults.sort(key=lambda fault: fault[0] is not Verdict.PROBLEM)
    return Finding(
        check=check,
        verdict=worst(verdict for verdict, _ in faults),
        summary=f"{config.source}: {faults[0][1]}",
        details=tuple(text for _, text in faults[1:]),
        remedy=_COMPARE,
    )


def _none_of_ours(config: SchedulerConfig, evidence: Evidence) -> Finding:
    """Say that nobody asks warmnode, unless several extenders may be it."""
    check = Check.SCHEDULER_EXTENDER
    scoring = [each for each in config.extenders if each.prioritize_verb]
    if maybe := [each for each in scoring if may_be_ours(each)]:
        return _not_known(config, maybe, evidence)
    said = "no extender has a prioritizeVerb, so nobody asks warmnode"
    if scoring:
        said = f"its extender {some(each.url for each in scoring)} is not warmnode, so nobody asks warmnode"
    return Finding(check=check, verdict=Verdict.PROBLEM, summary=f"{config.source}: {said}", remedy=_COMPARE)


def _not_known(config: SchedulerConfig, maybe: list[Extender], evidence: Evidence) -> Finding:
    urls = some(each.url for each in maybe)
    said = f"whether {urls} is warmnode: no calls come" if len(maybe) == 1 else f"which of {urls} is warmnode"
    return Finding(
        check=Check.SCHEDULER_EXTENDER,
        verdict=Verdict.UNKNOWN,
        summary=f"{config.source}: nothing tells {said}",
        details=(f"warmnode serve listens on port {some(sorted(listening_ports(evidence)))}, as far as its pods show",),
        remedy="compare urlPrefix with warmnode's --webhook-listen; it is known once a worker was placed with a call",
    )


def _unreadable(config: SchedulerConfig, evidence: Evidence) -> Iterator[tuple[Verdict, str]]:
    """A kube-scheduler that cannot read its configuration does not start."""
    group, _, version = config.api_version.rpartition("/")
    if group != API_GROUP or version not in READ_BY:
        yield Verdict.PROBLEM, f"apiVersion {config.api_version!r} is read by no kube-scheduler: it does not start"
        return
    first, last = READ_BY[version]
    reads = f"1.{first} and newer" if last is None else f"1.{first} to 1.{last}"
    runs = evidence.scheduler_version
    if runs is not None and not (1, first) <= runs <= (1, last if last is not None else runs[1]):
        said = f"kube-scheduler {runs[0]}.{runs[1]} does not read apiVersion {version} ({reads} do): it does not start"
        yield Verdict.PROBLEM, said
    elif runs is None and last is not None:
        yield Verdict.WARNING, f"apiVersion {version} is read by kube-scheduler {reads} only"


def _shared_lease(config: SchedulerConfig, evidence: Evidence) -> Iterator[tuple[Verdict, str]]:
    """Two schedulers on one Lease: one of them sleeps. The cluster's own has the profile default-scheduler."""
    if config.lease != CLUSTERS_LEASE or any(each.scheduler_name == CLUSTERS_PROFILE for each in config.profiles):
        return
    flags = ("--leader-elect-resource-name", "--leader-elect-resource-namespace", "--leader-elect=false")
    if any(word.startswith(flags) for program in evidence.programs or () for word in program.arguments):
        return  # flags go over the file
    yield (
        Verdict.PROBLEM,
        f"it leads by Lease {CLUSTERS_LEASE}, which the cluster's own scheduler holds: one of the two sleeps; set "
        "leaderElection.resourceName and resourceNamespace",
    )


def _faults(extender: Extender, workers: Iterable[WorkerFacts]) -> Iterator[tuple[Verdict, str]]:
    if address_of(extender.url).scheme not in ("http", "https") or not address_of(extender.url).hostname:
        yield Verdict.PROBLEM, f"urlPrefix {extender.url!r} is no address: it must begin with http:// or https://"
        return
    if (called := _path(extender, extender.prioritize_verb)) != "/prioritize":
        yield Verdict.PROBLEM, f"it posts to {called}, and warmnode answers /prioritize"
    for key, verb in (("filterVerb", extender.filter_verb), ("bindVerb", extender.bind_verb)):
        if verb:
            yield Verdict.PROBLEM, f"{key} is set: warmnode has no such verb, and pods would stay Pending"
    yield from _missing_resources(extender, workers)
    if not extender.preempt_verb:
        yield Verdict.WARNING, "no preemptVerb: preemption takes workers without asking, busy or not"
    elif (called := _path(extender, extender.preempt_verb)) != "/preempt":
        yield Verdict.WARNING, f"for preemption it posts to {called}, and warmnode answers /preempt"
    if not extender.ignorable and extender.preempt_verb:
        yield Verdict.WARNING, "ignorable is not true: when warmnode is away, nothing is preempted"
    if not extender.node_cache_capable:
        yield Verdict.WARNING, "nodeCacheCapable is not true: whole Node objects are sent, megabytes for each pod"
    if extender.timeout is None or extender.timeout > SLOW:
        waits = "5s, the default" if extender.timeout is None else span(extender.timeout)
        yield Verdict.WARNING, f"httpTimeout is {waits}: so long a pod waits for a warmnode that hangs; 250ms will do"
    yield from _unverified(extender)


def _unverified(extender: Extender) -> Iterator[tuple[Verdict, str]]:
    """makeTransport in pkg/scheduler/extender.go: enableHTTPS without a CA verifies nothing, and says nothing."""
    if address_of(extender.url).scheme != "https":
        if extender.enable_https:
            yield Verdict.WARNING, "enableHTTPS changes nothing: urlPrefix begins with http://, so it speaks plain HTTP"
    elif extender.insecure and extender.has_ca:
        yield Verdict.PROBLEM, "tlsConfig has insecure and a CA: with both kube-scheduler does not start"
    elif extender.insecure:
        yield (
            Verdict.WARNING,
            "tlsConfig.insecure is true: whoever answers is believed, and may choose nodes and victims",
        )
    elif extender.enable_https and not extender.has_ca:
        yield Verdict.WARNING, "enableHTTPS without a CA in tlsConfig verifies nothing: whoever answers is believed"


def _missing_resources(extender: Extender, workers: Iterable[WorkerFacts]) -> Iterator[tuple[Verdict, str]]:
    """IsInterested: with managedResources the scheduler calls only for pods that have one of them."""
    if not extender.managed_resources:
        return
    wanted = set(extender.managed_resources)
    seen = list(workers)
    without = [f"{each.pod.namespace}/{each.pod.name}" for each in seen if not wanted & each.resources]
    if without:
        names = " or ".join(sorted(wanted))
        verdict = Verdict.PROBLEM if len(without) == len(seen) else Verdict.WARNING
        yield verdict, f"{count(len(without), 'worker')} without resource {names}: not asked for {some(without)}"


def check_weight(evidence: Evidence) -> Finding:
    """Is the weight enough for age to decide before every plugin?"""
    check = Check.SCHEDULER_WEIGHT
    config = config_of_ours(evidence)
    ours = [] if config is None else ours_in(config, evidence)
    if config is None or not ours:
        return _no_config(check, evidence)
    weight = min(extender.weight for extender in ours)
    findings = [_weigh(profile, weight) for profile in profiles_of_ours(config, evidence)]
    others = [each for each in config.extenders if each.prioritize_verb and each not in ours]
    details = tuple(text for _, text in findings[1:])
    verdict = worst(each for each, _ in findings)
    if others:
        verdict = worst((verdict, Verdict.WARNING))
        details += (f"other extenders score too: {some(f'{each.url} with weight {each.weight}' for each in others)}",)
    if verdict is Verdict.OK and not is_ours_for_certain(ours, evidence):
        return _no_config(check, evidence)
    return Finding(
        check=check,
        verdict=verdict,
        summary=f"{config.source}: {findings[0][1]}",
        details=details,
        remedy=None
        if verdict is Verdict.OK
        else "raise the extender's weight (200 is shipped) if age is to decide; docs/weights.md has the softer ones",
    )


def _weigh(profile: Profile, weight: int) -> tuple[Verdict, str]:
    total = sum(profile.score_weights.values())
    needed = SCALE * total + 1  # one step of score, weight x 10, must be more than all plugins together, total x 100
    if weight >= needed:
        return Verdict.OK, f"weight {weight}, and age decides from {needed} on (profile {profile.scheduler_name})"
    if weight < total:  # even ten steps, weight x 100, are less
        said = "plugins can outweigh every score, and so age is no more than a hint"
        return Verdict.PROBLEM, f"weight {weight}: {said}; age decides from {needed} on"
    return Verdict.WARNING, f"weight {weight}: plugins may outweigh a step of age; age decides from {needed} on"


def check_sample(evidence: Evidence) -> Finding:
    """Does the scheduler look at all nodes, or at a sample in which the oldest node may be missing?"""
    check = Check.SCHEDULER_SAMPLE
    config = config_of_ours(evidence)
    if config is None:
        return _no_config(check, evidence)
    nodes = None if evidence.nodes is None else len(evidence.nodes)
    found = []
    for profile in profiles_of_ours(config, evidence):
        percentage = config.percentage if profile.percentage is None else profile.percentage
        if percentage < 100:
            found.append(_sampled(percentage, nodes))
        if profile.preemption_percentage < 100:
            text = f"minCandidateNodesPercentage is {profile.preemption_percentage}: preemption looks at a sample"
            verdict = Verdict.WARNING if nodes is None or nodes > SAMPLED_FROM else Verdict.OK
            found.append((verdict, text))
    if not found:
        return well(check, evidence, "every feasible node is scored")
    verdict = worst(each for each, _ in found)
    return Finding(
        check=check,
        verdict=verdict,
        summary=f"{config.source}: {found[0][1]}",
        details=tuple(text for _, text in found[1:]),
        remedy=None
        if verdict is Verdict.OK
        else "set percentageOfNodesToScore: 100, and minCandidateNodesPercentage: 100 of DefaultPreemption",
    )


def _sampled(percentage: int, nodes: int | None) -> tuple[Verdict, str]:
    given = str(percentage) if percentage else "not set"
    if nodes is None:
        return Verdict.WARNING, f"percentageOfNodesToScore is {given}: in a large cluster only a sample is scored"
    looked_at = nodes_scored(nodes, percentage)
    if looked_at < nodes:
        return Verdict.PROBLEM, (
            f"percentageOfNodesToScore is {given}: of {nodes:,} nodes the first {looked_at:,} that fit are scored, "
            "from a place that moves on with each pod, and the oldest may not be among them"
        )
    return Verdict.WARNING, f"percentageOfNodesToScore is {given}: beyond {SAMPLED_FROM} nodes only a sample is scored"


def nodes_scored(nodes: int, percentage: int) -> int:
    """Say how many feasible nodes a scheduler looks for: numFeasibleNodesToFind. ``percentage`` 0: its own choice."""
    if nodes < SAMPLED_FROM or percentage >= 100:
        return nodes
    share = percentage or max(5, 50 - nodes // 125)
    return min(nodes, max(SAMPLED_FROM, nodes * share // 100))


# -- which of the configurations --------------------------------------------------------------------------------------


def _no_config(check: Check, evidence: Evidence) -> Finding:
    if evidence.scheduler_config_problem is not None:
        return Finding(
            check=check, verdict=Verdict.UNKNOWN, summary=evidence.scheduler_config_problem, remedy=_GIVE_FILE
        )
    if evidence.scheduler_configs:
        return Finding(
            check=check, verdict=Verdict.UNKNOWN, summary="no configuration has a profile or extender of ours"
        )
    unread = evidence.why_unread(Kind.CONFIG_MAPS)
    found = f"no scheduler's configuration in a ConfigMap of namespace {evidence.namespace}"
    return Finding(check=check, verdict=Verdict.UNKNOWN, summary=unread or found, remedy=_GIVE_FILE)


def _path(extender: Extender, verb: str) -> str:
    """Say where kube-scheduler posts to: a slash at the end of urlPrefix is cut, one at the start of a verb is not."""
    whole = f"{extender.url.rstrip('/')}/{verb}"
    return whole.removeprefix(f"{address_of(extender.url).scheme}://{address_of(extender.url).netloc}")
