"""Which of the schedulers' configurations counts, and which of its extenders is warmnode.

An extender is an address and verbs: nothing in it says what listens there. A sign of ours does, and calls that come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from urllib.parse import SplitResult, urlsplit

from extender.inspect.doctor.evidence import Evidence
from extender.inspect.doctor.scheduler_config import Extender, Profile, SchedulerConfig
from extender.policy.scheduler_silence import SILENCE, should_have_called

RECORD_LAG = timedelta(seconds=90)
"""The last call is written with a delay of 75 s at most."""
APART = timedelta(seconds=30)
"""A worker gets its node seconds after the call, by another clock."""
PORT = "8888"
"""Where warmnode serve listens unless it is told otherwise."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def calling_schedulers(evidence: Evidence) -> frozenset[str]:
    """Name the schedulers that should call: those of the setting, and all profiles of a process that has our extender.

    Extenders are shared by all profiles of a process.
    """
    return evidence.schedulers | {
        profile.scheduler_name
        for config in evidence.scheduler_configs
        if (ours := ours_in(config, evidence)) and is_ours_for_certain(ours, evidence)
        for profile in config.profiles
    }


def placed_without_a_call(evidence: Evidence, schedulers: frozenset[str]) -> list[datetime]:
    """Say when workers of these schedulers got a node with no call before it that is known by now."""
    last = evidence.last_call
    return [
        at
        for at in _placed(evidence, schedulers)
        if last is None or (at > last + APART and evidence.now - at > RECORD_LAG)
    ]


def _placed(evidence: Evidence, schedulers: frozenset[str]) -> list[datetime]:
    return [
        each.scheduled
        for each in evidence.workers
        if each.scheduled is not None and should_have_called(each.pod, schedulers)
    ]


def config_of_ours(evidence: Evidence) -> SchedulerConfig | None:
    """Choose the configuration that counts: 1. with our extender; 2. with a profile of ours. None: neither."""
    with_profile = [config for config in evidence.scheduler_configs if _named(config, evidence)]
    with_extender = [config for config in with_profile if ours_in(config, evidence)]
    others = [each for each in evidence.scheduler_configs if any(_has_a_sign(e, evidence) for e in each.extenders)]
    return next(iter((*with_extender, *with_profile, *others)), None)


def profiles_of_ours(config: SchedulerConfig, evidence: Evidence) -> Sequence[Profile]:
    """Select the profiles that should call; all of them where none has one of our names."""
    return _named(config, evidence) or config.profiles


def _named(config: SchedulerConfig, evidence: Evidence) -> Sequence[Profile]:
    return [profile for profile in config.profiles if profile.scheduler_name in evidence.schedulers]


def ours_in(config: SchedulerConfig, evidence: Evidence) -> list[Extender]:
    """Select what is to be judged as ours: of the extenders that score, 1. those with a sign of ours; 2. the only one
    that has our verbs. What is wrong with it is wrong whoever it is."""
    scoring = [extender for extender in config.extenders if extender.prioritize_verb]
    if marked := [extender for extender in scoring if _has_a_sign(extender, evidence)]:
        return marked
    like = [extender for extender in scoring if may_be_ours(extender)]
    return like if len(like) == 1 else []


def is_ours_for_certain(selected: Iterable[Extender], evidence: Evidence) -> bool:
    """True where what `ours_in` selected has a sign of ours, or calls come."""
    return all(_has_a_sign(extender, evidence) for extender in selected) or _calls_come(evidence)


def _has_a_sign(extender: Extender, evidence: Evidence) -> bool:
    """True for one with our resource, our name in its address, or a port of this machine on which we listen."""
    parts = address_of(extender.url)
    host = parts.hostname or ""
    return (
        any(each.name.startswith("warmnode.dev/") for each in extender.managed_resources)
        or "warmnode" in host
        or (host in LOOPBACK and parts.netloc.rpartition(":")[2] in listening_ports(evidence))
    )


def may_be_ours(extender: Extender) -> bool:
    verbs_of_others = extender.filter_verb or extender.bind_verb
    return not verbs_of_others and extender.prioritize_verb.strip("/") == "prioritize"


def listening_ports(evidence: Evidence) -> frozenset[str]:
    """Give the ports on which the pods that run serve listen, or the usual one."""
    found = set()
    for program in evidence.programs:
        if program.runs("serve"):
            words = program.arguments
            given = program.environment.get("WARMNODE_WEBHOOK_LISTEN") or f":{PORT}"
            for word, following in zip(words, (*words[1:], ""), strict=True):
                name, _, value = word.partition("=")
                given = (value or following) if name == "--webhook-listen" else given
            found.add(given.rpartition(":")[2])
    return frozenset(found or {PORT})


def _calls_come(evidence: Evidence) -> bool:
    """True where the last worker of our schedulers was placed with a call, or there was a call of late."""
    last = evidence.last_call
    if last is None:
        return False
    placed = _placed(evidence, evidence.schedulers)
    return evidence.now - last < SILENCE or (bool(placed) and not placed_without_a_call(evidence, evidence.schedulers))


def address_of(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # an address in brackets that is none
        return urlsplit("")
