"""Lines of watches: whatever an API server sends, the state stays that of its objects, and policies can judge it.

Owns how an input is read, and what must hold of the state. A line is a collection and an event, as in
``pods {"type": "ADDED", "object": ...}``.
"""

from __future__ import annotations

from typing import Any, cast

from extender.cluster.feed import ClusterFeed
from extender.cluster.pod_index import PodIndex
from extender.cluster.state import ClusterState
from extender.kube.errors import KubeError
from extender.kube.watch import ListWatchClient, NullObserver
from extender.policy.judging import judge
from extender.policy.recheck import Circumstances
from extender.settings import Configuration
from extender.settings.in_force import InForce
from tests.builders import NOW, by_label

_RULES = InForce(Configuration.default()).settings


def follow(lines: bytes) -> None:
    """Take each line as the event that comes next, and look at what has become of the state."""
    state = ClusterState(clock=lambda: NOW)
    nobody = cast(ListWatchClient, None)
    feed = ClusterFeed(nobody, state, classify=by_label, ledger=("warmnode", "ledger"), observer=NullObserver())
    state.begin()
    reflectors = {each.name.encode(): each for each in feed.reflectors}
    for line in lines.split(b"\n"):
        name, _, event = line.partition(b" ")
        if name in reflectors:
            try:
                reflectors[name]._apply(event)
            except KubeError:
                continue  # the watch ends, and goes on or is listed anew: what came before stays
    _equals_that_of_lists(state)
    _ranks_every_node(state)
    _can_be_judged(state)


def _equals_that_of_lists(state: ClusterState) -> None:
    """Who was told event by event knows what another one knows, who has listed everything now."""
    other = ClusterState(clock=lambda: NOW)
    other.replace_nodes(state.nodes.values())
    other.replace_pods(state.pods.values())
    assert other.pods == state.pods
    assert _shown(other.where) == _shown(state.where)


def _shown(index: PodIndex) -> dict[str, Any]:
    """All that an index holds; of the room that is needed the sums, and not how it came to them."""
    held = dict(vars(index))
    needed = held.pop("_needed")
    return held | {pool: (room.on, room.idle, room.workers, room.at_work) for pool, room in needed.items()}


def _ranks_every_node(state: ClusterState) -> None:
    """Each node has a place in the one order, and none has two."""
    assert state.order.keys() == state.nodes.keys()
    preferred = list(state.preferred(NOW))
    assert len(set(preferred)) == len(preferred)
    assert set(preferred) == {name for name in state.nodes if state.departure(name) is None}


def _can_be_judged(state: ClusterState) -> None:
    """Each pool is judged, and whoever would be evicted is an idle worker of it that nobody holds."""
    pools = state.where.pool_names()
    judgement = judge(state, Circumstances(rules=_RULES), pools, NOW)
    assert judgement.pools.keys() == pools
    for pool, judged in judgement.pools.items():
        assert not judged.skipped.keys() & {victim.uid for victim in judged.victims}
        for victim in judged.victims:
            assert state.pods[victim.uid] == victim
            assert victim.pool == pool
            assert victim.idle_since is not None
            assert victim.claim is None or victim.claim.expires < NOW
            assert not victim.terminating
