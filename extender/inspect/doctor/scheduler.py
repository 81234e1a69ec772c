"""Checks of the scheduler's configuration: does it let what we answer count?

The rules are kube-scheduler's: pkg/scheduler/schedule_one.go (numFeasibleNodesToFind, prioritizeNodes) and
pkg/scheduler/extender.go. docs/weights.md explains the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from urllib.parse import SplitResult, urlsplit

from extender.inspect.doctor.evidence import Evidence, Extender, Kind, Profile, SchedulerConfig, WorkerFacts
from extender.inspect.doctor.findings import Check, Finding, Verdict, worst
from extender.inspect.text import count, some, span

SAMPLED_FROM = 100
"""minFeasibleNodesToFind: a scheduler that may choose scores this many nodes at least."""
SLOW = timedelta(seconds=1)
SCALE = 10
"""A score of 1 counts weight x 10 (MaxNodeScore / MaxExtenderPriority), a plugin up to its weight x 100."""

_GIVE_FILE = "pass the file that its flag --config names: warmnode doctor --scheduler-config FILE"
_COMPARE = "compare with manifests/base/kube-scheduler-config.yaml, and restart the scheduler: it reads the file once"


def calling_schedulers(evidence: Evidence) -> frozenset[str]:
    """Name the schedulers that should call: those of the setting, and all profiles of a process that has our extender.

    Extenders are shared by all profiles of a process.
    """
    named = {p.scheduler_name for c in evidence.scheduler_configs if _ours_in(c) for p in c.profiles}
    return evidence.schedulers | named


def check_extender(evidence: Evidence) -> Finding:
    """Does the scheduler's configuration name us, with verbs that we answer?"""
    check = Check.SCHEDULER_EXTENDER
    configs = evidence.scheduler_configs
    if not configs:
        return _no_config(check, evidence)
    config = _of_our_schedulers(evidence)
    if config is None:
        names = sorted({profile.scheduler_name for each in configs for profile in each.profiles})
        return Finding(
            check=check,
            verdict=Verdict.PROBLEM,
            summary=f"no profile is called {some(sorted(evidence.schedulers))}: there are {some(names)}",
            remedy="give the profile that name, or name it in webhook.schedulers of warmnode's configuration",
        )
    ours = _ours_in(config)
    if not ours:
        return Finding(
            check=check,
            verdict=Verdict.PROBLEM,
            summary=f"{config.source}: no extender has a prioritizeVerb, so nobody asks warmnode",
            remedy=_COMPARE,
        )
    faults = [fault for extender in ours for fault in _faults(extender, evidence.workers or ())]
    if not faults:
        return Finding(
            check=check, verdict=Verdict.OK, summary=f"{config.source} calls {some(each.url for each in ours)}"
        )
    return Finding(
        check=check,
        verdict=worst(verdict for verdict, _ in faults),
        summary=f"{config.source}: {faults[0][1]}",
        details=tuple(text for _, text in faults[1:]),
        remedy=_COMPARE,
    )


def _faults(extender: Extender, workers: Iterable[WorkerFacts]) -> Iterator[tuple[Verdict, str]]:
    path = _parts(extender.url).path.rstrip("/")
    if extender.prioritize_verb.strip("/") != "prioritize" or path:
        called = f"{path}/{extender.prioritize_verb}"
        yield Verdict.PROBLEM, f"it posts to {called}, and warmnode answers /prioritize"
    for key, verb in (("filterVerb", extender.filter_verb), ("bindVerb", extender.bind_verb)):
        if verb:
            yield Verdict.PROBLEM, f"{key} is set: warmnode has no such verb, and pods would stay Pending"
    yield from _missing_resources(extender, workers)
    if not extender.preempt_verb:
        yield Verdict.WARNING, "no preemptVerb: preemption takes workers without asking, busy or not"
    elif extender.preempt_verb.strip("/") != "preempt":
        yield Verdict.WARNING, f"preemptVerb is {extender.preempt_verb!r}: warmnode answers preempt"
    if not extender.ignorable and extender.preempt_verb:
        yield Verdict.WARNING, "ignorable is not true: when warmnode is away, nothing is preempted"
    if not extender.node_cache_capable:
        yield Verdict.WARNING, "nodeCacheCapable is not true: whole Node objects are sent, megabytes for each pod"
    if extender.timeout is None or extender.timeout > SLOW:
        waits = "5s, the default" if extender.timeout is None else span(extender.timeout)
        yield Verdict.WARNING, f"httpTimeout is {waits}: so long a pod waits for a warmnode that hangs; 250ms will do"


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
    config = _of_our_schedulers(evidence)
    if config is None or not _ours_in(config):
        return _no_config(check, evidence)
    weight = min(extender.weight for extender in _ours_in(config))
    findings = [_weigh(profile, weight) for profile in _our_profiles(config, evidence)]
    others = [each for each in config.extenders if each.prioritize_verb and each not in _ours_in(config)]
    details = tuple(text for _, text in findings[1:])
    verdict = worst(each for each, _ in findings)
    if others:
        verdict = worst((verdict, Verdict.WARNING))
        details += (f"other extenders score too: {some(f'{each.url} with weight {each.weight}' for each in others)}",)
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
    config = _of_our_schedulers(evidence)
    if config is None:
        return _no_config(check, evidence)
    nodes = None if evidence.nodes is None else len(evidence.nodes)
    found = []
    for profile in _our_profiles(config, evidence):
        percentage = config.percentage if profile.percentage is None else profile.percentage
        if percentage < 100:
            found.append(_sampled(percentage, nodes))
        if profile.preemption_percentage < 100:
            text = f"minCandidateNodesPercentage is {profile.preemption_percentage}: preemption looks at a sample"
            verdict = Verdict.WARNING if nodes is None or nodes > SAMPLED_FROM else Verdict.OK
            found.append((verdict, text))
    if not found:
        return Finding(check=check, verdict=Verdict.OK, summary="every feasible node is scored")
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


def _of_our_schedulers(evidence: Evidence) -> SchedulerConfig | None:
    """Choose the configuration that counts: 1. with our extender; 2. with a profile of ours. None: neither."""
    with_profile = [
        config
        for config in evidence.scheduler_configs
        if any(profile.scheduler_name in evidence.schedulers for profile in config.profiles)
    ]
    with_extender = [config for config in with_profile if _ours_in(config)]
    others = [config for config in evidence.scheduler_configs if _is_marked(config)]
    return next(iter((*with_extender, *with_profile, *others)), None)


def _our_profiles(config: SchedulerConfig, evidence: Evidence) -> list[Profile]:
    named = [profile for profile in config.profiles if profile.scheduler_name in evidence.schedulers]
    return named or list(config.profiles)


def _ours_in(config: SchedulerConfig) -> list[Extender]:
    """Select our extenders: of those that score, the ones that look like ours, or the only one there is."""
    scoring = [extender for extender in config.extenders if extender.prioritize_verb]
    marked = [extender for extender in scoring if _looks_like_ours(extender)]
    return marked or (scoring if len(scoring) == 1 else [])


def _is_marked(config: SchedulerConfig) -> bool:
    return any(_looks_like_ours(extender) for extender in config.extenders)


def _looks_like_ours(extender: Extender) -> bool:
    resources = any(name.startswith("warmnode.dev/") for name in extender.managed_resources)
    parts = _parts(extender.url)
    return resources or "warmnode" in (parts.hostname or "") or parts.netloc.endswith(":8888")


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # an address in brackets that is none
        return urlsplit("")
