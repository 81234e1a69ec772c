"""A remembered decision in one sentence, for people. Owns the words; decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

from extender.cluster.shadow import ShadowStanding, ShadowVerdict
from extender.inspect.reason_words import REASONS
from extender.inspect.recall import History
from extender.inspect.text import count, span
from extender.policy.decisions import (
    ClaimDecision,
    Decision,
    EvictionDecision,
    PlacementDecision,
    PreemptionDecision,
    RankedNode,
)

SHOWN_DECISIONS = 10
SHOWN_NODES = 3


def tell_history(history: History, now: datetime) -> Iterator[str]:
    """Tell what is remembered, the last decision first, how far back each replica goes, and whom nobody could ask."""
    if history.problem is not None:
        yield f"what was decided of late: {history.problem}"
        return
    decisions = history.decisions[::-1]
    yield "what was decided of late:" if not history.shadow else "placed in the shadow:"
    yield from map(tell_standing, history.shadow)
    yield from (tell_decision(each, now) for each in decisions[:SHOWN_DECISIONS])
    if len(decisions) > SHOWN_DECISIONS:
        yield f"and {len(decisions) - SHOWN_DECISIONS:,} earlier ones (--output json lists them)"
    for one in history.replicas:
        if one.problem is not None:
            yield f"{one.replica} could not be asked: {one.problem}"
        elif one.oldest is None:
            yield f"{one.replica} remembers no decision yet"
        elif not one.decisions:
            yield f"{one.replica} remembers none of it; what it knows begins at {one.oldest}"


def tell_standing(told: ShadowStanding) -> str:
    verdicts = told.verdicts
    asked = sum(verdicts.values())
    fewer = f"{told.spared:,} nodes fewer would be in use (estimated)"
    return (
        f"{count(asked, 'worker')} bound: {verdicts.get(ShadowVerdict.AGREED, 0):,} where they would have gone, "
        f"{verdicts.get(ShadowVerdict.OLDER_NODE, 0):,} would be on an older node, "
        f"{verdicts.get(ShadowVerdict.KEY_NODE, 0):,} on one that knows their key; {fewer}"
    )


def tell_decision(decision: Decision, now: datetime) -> str:
    """Tell one, with how long ago it was."""
    ago = f"{span(now - decision.at)} ago"
    pod = f"{decision.namespace}/{decision.pod}"
    match decision:
        case PlacementDecision():
            return f"{_placed(decision, pod)} {ago}: {_ranked(decision)}"
        case EvictionDecision():
            of_idle = f", idle for {span(decision.at - decision.idle_since)}" if decision.idle_since else ""
            if decision.outcome == "evicted":
                return f"{pod} evicted from {decision.node} {ago}{of_idle}"
            why = REASONS.get(decision.outcome, decision.outcome)
            return f"{pod} not evicted from {decision.node} {ago}{of_idle}: {why}"
        case ClaimDecision():
            return (
                f"{pod} on {decision.node} claimed {ago} by {decision.claimant} of {decision.user}, "
                f"until {decision.expires:%H:%M:%S} UTC"
            )
        case PreemptionDecision():
            among = f"of {count(decision.candidates, 'node')} where it could"
            if decision.node is None:
                return f"{pod} was not let make room {ago}: busy workers are protected on each {among}"
            return f"{pod} was sent to make room on {decision.node} {ago}, one {among}"
        case _:
            assert_never(decision)


def _placed(decision: PlacementDecision, pod: str) -> str:
    if decision.node is None:
        return f"{pod} asked for"
    after = "" if decision.bound_after_seconds is None else f", bound {decision.bound_after_seconds:g} s later,"
    return f"{pod} placed on {decision.node}{after}"


def _ranked(decision: PlacementDecision) -> str:
    if not decision.best:
        return f"none of {count(decision.candidates, 'candidate')} is known here"
    key = f" for key {decision.key}" if decision.key is not None else ""
    would = "shadow, nothing was answered; it would have been " if decision.shadow else ""
    nodes = ", then ".join(_node(each, has_key=decision.key is not None) for each in decision.best[:SHOWN_NODES])
    return f"{would}{nodes}; of {count(decision.candidates, 'candidate')}{key}"


def _node(node: RankedNode, *, has_key: bool) -> str:
    uses = f", {node.key_uses:g} of its key" if has_key and node.key_uses >= 0.005 else ""
    return f"{node.node} (rank {node.rank}{uses})"
