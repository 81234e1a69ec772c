"""Checks of the scheduler's configuration: does it let what we answer count?

The rules are kube-scheduler's: pkg/scheduler/schedule_one.go (numFeasibleNodesToFind, prioritizeNodes) and
pkg/scheduler/extender.go. docs/weights.md explains the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from extender.inspect.doctor.evidence import Evidence, Kind, WorkerFacts
from extender.inspect.doctor.findings import Finding, Verdict, ok, problem, together, unknown, warning, well
from extender.inspect.doctor.our_extender import (
    address_of,
    config_of_ours,
    is_ours_for_certain,
    listening_ports,
    may_be_ours,
    ours_in,
    profiles_of_ours,
)
from extender.inspect.doctor.scheduler_config import Extender, Profile, SchedulerConfig
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
    configs = evidence.scheduler_configs
    if not configs:
        return _no_config(evidence)
    config = config_of_ours(evidence)
    if config is None:
        names = sorted({profile.scheduler_name for each in configs for profile in each.profiles})
        return problem(
            f"no profile is called {some(sorted(evidence.schedulers))}: there are {some(names)}",
            remedy="give the profile that name, or name it in webhook.schedulers of warmnode's configuration",
        )
    ours = ours_in(config, evidence)
    if not ours:
        return _none_of_ours(config, evidence)
    faults = [
        *_unreadable(config, evidence),
        *_shared_lease(config, evidence),
        *(fault for extender in ours for fault in _faults(extender, evidence.workers)),
    ]
    if faults:
        return together(faults, _COMPARE, about=f"{config.source}: ")
    if not is_ours_for_certain(ours, evidence):
        return _not_known(config, ours, evidence)
    needs = (Kind.PODS,) if any(each.managed_resources for each in ours) else ()
    return well(evidence, f"{config.source} calls {some(each.url for each in ours)}", *needs)


def _none_of_ours(config: SchedulerConfig, evidence: Evidence) -> Finding:
    """Say that nobody asks warmnode, unless several extenders may be it."""
    scoring = [each for each in config.extenders if each.prioritize_verb]
    if maybe := [each for each in scoring if may_be_ours(each)]:
        return _not_known(config, maybe, evidence)
    said = "no extender has a prioritizeVerb, so nobody asks warmnode"
    if scoring:
        said = f"its extender {some(each.url for each in scoring)} is not warmnode, so nobody asks warmnode"
    return problem(f"{config.source}: {said}", remedy=_COMPARE)


def _not_known(config: SchedulerConfig, maybe: Sequence[Extender], evidence: Evidence) -> Finding:
    urls = some(each.url for each in maybe)
    said = f"whether {urls} is warmnode: no calls come" if len(maybe) == 1 else f"which of {urls} is warmnode"
    return unknown(
        f"{config.source}: nothing tells {said}",
        (f"warmnode serve listens on port {some(sorted(listening_ports(evidence)))}, as far as its pods show",),
        remedy="compare urlPrefix with warmnode's --webhook-listen; it is known once a worker was placed with a call",
    )


def _unreadable(config: SchedulerConfig, evidence: Evidence) -> Iterator[Finding]:
    """A kube-scheduler that cannot read its configuration does not start."""
    group, _, version = config.api_version.rpartition("/")
    if group != API_GROUP or version not in READ_BY:
        yield problem(f"apiVersion {config.api_version!r} is read by no kube-scheduler: it does not start")
        return
    first, last = READ_BY[version]
    reads = f"1.{first} and newer" if last is None else f"1.{first} to 1.{last}"
    runs = evidence.scheduler_version
    if runs is not None and not (1, first) <= runs <= (1, last if last is not None else runs[1]):
        said = f"kube-scheduler {runs[0]}.{runs[1]} does not read apiVersion {version} ({reads} do): it does not start"
        yield problem(said)
    elif runs is None and last is not None:
        yield warning(f"apiVersion {version} is read by kube-scheduler {reads} only")


def _shared_lease(config: SchedulerConfig, evidence: Evidence) -> Iterator[Finding]:
    """Two schedulers on one Lease: one of them sleeps. The cluster's own has the profile default-scheduler."""
    if config.lease != CLUSTERS_LEASE or any(each.scheduler_name == CLUSTERS_PROFILE for each in config.profiles):
        return
    flags = ("--leader-elect-resource-name", "--leader-elect-resource-namespace", "--leader-elect=false")
    if any(word.startswith(flags) for program in evidence.programs for word in program.arguments):
        return  # flags go over the file
    yield problem(
        f"it leads by Lease {CLUSTERS_LEASE}, which the cluster's own scheduler holds: one of the two sleeps; set "
        "leaderElection.resourceName and resourceNamespace"
    )


def _faults(extender: Extender, workers: Sequence[WorkerFacts]) -> Iterator[Finding]:
    if address_of(extender.url).scheme not in ("http", "https") or not address_of(extender.url).hostname:
        yield problem(f"urlPrefix {extender.url!r} is no address: it must begin with http:// or https://")
        return
    if (called := _path(extender, extender.prioritize_verb)) != "/prioritize":
        yield problem(f"it posts to {called}, and warmnode answers /prioritize")
    for key, verb in (("filterVerb", extender.filter_verb), ("bindVerb", extender.bind_verb)):
        if verb:
            yield problem(f"{key} is set: warmnode has no such verb, and pods would stay Pending")
    yield from _missing_resources(extender, workers)
    if not extender.preempt_verb:
        yield warning("no preemptVerb: preemption takes workers without asking, busy or not")
    elif (called := _path(extender, extender.preempt_verb)) != "/preempt":
        yield warning(f"for preemption it posts to {called}, and warmnode answers /preempt")
    if not extender.ignorable and extender.preempt_verb:
        yield warning("ignorable is not true: when warmnode is away, nothing is preempted")
    if not extender.node_cache_capable:
        yield warning("nodeCacheCapable is not true: whole Node objects are sent, megabytes for each pod")
    if extender.timeout is None or extender.timeout > SLOW:
        waits = "5s, the default" if extender.timeout is None else span(extender.timeout)
        yield warning(f"httpTimeout is {waits}: so long a pod waits for a warmnode that hangs; 250ms will do")
    yield from _unverified(extender)


def _unverified(extender: Extender) -> Iterator[Finding]:
    """makeTransport in pkg/scheduler/extender.go: enableHTTPS without a CA verifies nothing, and says nothing."""
    tls = extender.tls_config
    if address_of(extender.url).scheme != "https":
        if extender.enable_https:
            yield warning("enableHTTPS changes nothing: urlPrefix begins with http://, so it speaks plain HTTP")
    elif tls.insecure and tls.has_ca:
        yield problem("tlsConfig has insecure and a CA: with both kube-scheduler does not start")
    elif tls.insecure:
        yield warning("tlsConfig.insecure is true: whoever answers is believed, and may choose nodes and victims")
    elif extender.enable_https and not tls.has_ca:
        yield warning("enableHTTPS without a CA in tlsConfig verifies nothing: whoever answers is believed")


def _missing_resources(extender: Extender, workers: Sequence[WorkerFacts]) -> Iterator[Finding]:
    """IsInterested: with managedResources the scheduler calls only for pods that have one of them."""
    wanted = {each.name for each in extender.managed_resources}
    without = [str(each) for each in workers if wanted and not wanted & each.resources]
    if without:
        verdict = Verdict.PROBLEM if len(without) == len(workers) else Verdict.WARNING
        names = " or ".join(sorted(wanted))
        yield Finding(
            verdict, f"{count(len(without), 'worker')} without resource {names}: not asked for {some(without)}"
        )


def check_weight(evidence: Evidence) -> Finding:
    """Is the weight enough for age to decide before every plugin?"""
    config = config_of_ours(evidence)
    ours = [] if config is None else ours_in(config, evidence)
    if config is None or not ours:
        return _no_config(evidence)
    weight = min(extender.weight for extender in ours)
    found = [_weigh(profile, weight) for profile in profiles_of_ours(config, evidence)]
    if others := [each for each in config.extenders if each.prioritize_verb and each not in ours]:
        weights = some(f"{each.url} with weight {each.weight}" for each in others)
        found.append(warning(f"other extenders score too: {weights}"))
    finding = together(
        found,
        "raise the extender's weight (200 is shipped) if age is to decide; docs/weights.md has the softer ones",
        about=f"{config.source}: ",
    )
    is_sure = finding.verdict is not Verdict.OK or is_ours_for_certain(ours, evidence)
    return finding if is_sure else _no_config(evidence)


def _weigh(profile: Profile, weight: int) -> Finding:
    total = sum(profile.score_weights.values())
    needed = SCALE * total + 1  # one step of score, weight x 10, must be more than all plugins together, total x 100
    if weight >= needed:
        return ok(f"weight {weight}, and age decides from {needed} on (profile {profile.scheduler_name})")
    if weight < total:  # even ten steps, weight x 100, are less
        said = "plugins can outweigh every score, and so age is no more than a hint"
        return problem(f"weight {weight}: {said}; age decides from {needed} on")
    return warning(f"weight {weight}: plugins may outweigh a step of age; age decides from {needed} on")


def check_sample(evidence: Evidence) -> Finding:
    """Does the scheduler look at all nodes, or at a sample in which the oldest node may be missing?"""
    config = config_of_ours(evidence)
    if config is None:
        return _no_config(evidence)
    nodes = None if Kind.NODES in evidence.unread else len(evidence.nodes)
    found = []
    for profile in profiles_of_ours(config, evidence):
        percentage = config.percentage if profile.percentage is None else profile.percentage
        if percentage < 100:
            found.append(_sampled(percentage, nodes))
        if profile.preemption_percentage < 100:
            text = f"minCandidateNodesPercentage is {profile.preemption_percentage}: preemption looks at a sample"
            found.append(warning(text) if nodes is None or nodes > SAMPLED_FROM else ok(text))
    if not found:
        return ok("every feasible node is scored")
    remedy = "set percentageOfNodesToScore: 100, and minCandidateNodesPercentage: 100 of DefaultPreemption"
    return together(found, remedy, about=f"{config.source}: ")


def _sampled(percentage: int, nodes: int | None) -> Finding:
    given = str(percentage) if percentage else "not set"
    if nodes is None:
        return warning(f"percentageOfNodesToScore is {given}: in a large cluster only a sample is scored")
    looked_at = nodes_scored(nodes, percentage)
    if looked_at < nodes:
        return problem(
            f"percentageOfNodesToScore is {given}: of {nodes:,} nodes the first {looked_at:,} that fit are scored, "
            "from a place that moves on with each pod, and the oldest may not be among them"
        )
    return warning(f"percentageOfNodesToScore is {given}: beyond {SAMPLED_FROM} nodes only a sample is scored")


def nodes_scored(nodes: int, percentage: int) -> int:
    """Say how many feasible nodes a scheduler looks for: numFeasibleNodesToFind. ``percentage`` 0: its own choice."""
    if nodes < SAMPLED_FROM or percentage >= 100:
        return nodes
    share = percentage or max(5, 50 - nodes // 125)
    return min(nodes, max(SAMPLED_FROM, nodes * share // 100))


def _no_config(evidence: Evidence) -> Finding:
    if evidence.scheduler_config_problem is not None:
        return unknown(evidence.scheduler_config_problem, remedy=_GIVE_FILE)
    if evidence.scheduler_configs:
        return unknown("no configuration has a profile or extender of ours")
    found = f"no scheduler's configuration in a ConfigMap of namespace {evidence.namespace}"
    return unknown(evidence.why_unread(Kind.CONFIG_MAPS) or found, remedy=_GIVE_FILE)


def _path(extender: Extender, verb: str) -> str:
    """Say where kube-scheduler posts to: a slash at the end of urlPrefix is cut, one at the start of a verb is not."""
    whole = f"{extender.url.rstrip('/')}/{verb}"
    return whole.removeprefix(f"{address_of(extender.url).scheme}://{address_of(extender.url).netloc}")
