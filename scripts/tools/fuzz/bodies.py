"""Bodies to the two verbs of the webhook: whatever is sent, no answer is one that a kube-scheduler would trip over.

Owns a small cluster with a pool of each kind, and what must hold of an answer. tests/contract has the rules one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from extender.cluster.history import DecisionHistory
from extender.model import BusyVictims, CacheKeyRule, Node, PlacementMode, Pod, Pool, Selector
from extender.policy.pools import POOL_LABEL, PoolsInForce
from extender.web.webhook import Webhook, WebhookAnswer
from extender.web.wire import MAX_INT64, BadRequest, decode_preempt, decode_prioritize
from tests.builders import NOW, ledger, minutes_ago, node, stranger, worker
from tests.listening import synced_state, webhook_over

HIGHEST_SCORE = 10
"""MaxExtenderPriority of k8s.io/kube-scheduler/extender/v1. One host with more spoils the sum of all extenders."""
MOST_SCORES = 9

_POOLS = (
    Pool(name="ducks", busy_victims=BusyVictims.LAST_RESORT, cache_key=CacheKeyRule(label="tenant")),
    Pool(name="geese", busy_victims=BusyVictims.PROTECT, cache_key=CacheKeyRule(label="tenant", window=2)),
    Pool(name="swans", busy_victims=BusyVictims.PROTECT, placement=PlacementMode.SHADOW),
)


class Replicas:
    """Two replicas that know the same cluster, which they were told of in another order: their answers are equal."""

    def __init__(self) -> None:
        self._webhooks = [_webhook(1), _webhook(-1)]
        self._history = DecisionHistory(now=lambda: NOW)

    def prioritize(self, body: bytes) -> None:
        """Each host once, of those that were sent, whole scores from 0 to 10, nine at most."""
        try:
            request = decode_prioritize(body)
        except BadRequest as error:
            return self._all_refuse(Webhook.prioritize, body, error)
        scores = json.loads(self._agreed(Webhook.prioritize, body))
        assert isinstance(scores, list)
        assert all(each.keys() == {"Host", "Score"} for each in scores)
        hosts = [each["Host"] for each in scores]
        assert len(set(hosts)) == len(hosts) <= MOST_SCORES
        assert set(hosts) <= set(request.node_names)
        assert all(type(each["Score"]) is int and 0 <= each["Score"] <= HIGHEST_SCORE for each in scores)
        return None

    def preempt(self, body: bytes) -> None:
        """Candidates that were sent, with their victims as they came, and no null: it would crash a scheduler."""
        try:
            request = decode_preempt(body)
        except BadRequest as error:
            return self._all_refuse(Webhook.preempt, body, error)
        answer = json.loads(self._agreed(Webhook.preempt, body))
        assert answer.keys() == {"NodeNameToMetaVictims"}
        for name, entry in answer["NodeNameToMetaVictims"].items():
            sent = request.candidates[name]
            assert entry == {"Pods": [{"UID": uid} for uid in sent.pod_uids], "NumPDBViolations": sent.pdb_violations}
            assert -MAX_INT64 - 1 <= entry["NumPDBViolations"] <= MAX_INT64
        return None

    def _agreed(self, verb: Callable[[Webhook, bytes], WebhookAnswer], body: bytes) -> bytes:
        first, second = (verb(each, body) for each in self._webhooks)
        assert first.content == second.content, "two replicas that know the same answer differently"
        if first.decision is not None:
            self._history.add(first.decision)
        return first.content

    def _all_refuse(self, verb: Callable[[Webhook, bytes], WebhookAnswer], body: bytes, refusal: BadRequest) -> None:
        """What is no request is refused in one line."""
        assert "\n" not in str(refusal)
        for each in self._webhooks:
            try:
                verb(each, body)
            except BadRequest:
                continue
            raise AssertionError("what cannot be read was answered")


def _webhook(step: int) -> Webhook:
    """Know six nodes, the oldest first, of which the last was never seen, and workers of each pool in each state.

    ``step`` 1 or -1: in which order it was told of them.
    """
    pools = [replace(each, selector=Selector(match_labels=((POOL_LABEL, each.name),))) for each in _POOLS]
    in_force = PoolsInForce(Pool(name="", busy_victims=BusyVictims.LAST_RESORT), pools)
    nodes, pods = _nodes(), _pods()
    ages = ledger({each.uid: minutes_ago(60 - number) for number, each in enumerate(nodes[:-1])})
    return webhook_over(synced_state(nodes[::step], pods[::step], ages), pools=in_force)


def _nodes() -> list[Node]:
    return [
        node("n0"),
        node("n1"),
        node("n2", unschedulable=True),
        node("n3", ready=False, not_ready_since=minutes_ago(9)),
        node("n4", deleting=True),
        node("n5"),
    ]


def _pods() -> list[Pod]:
    found: list[Pod] = []
    for number, pool in enumerate([each.name for each in _POOLS] * 2):
        on = f"n{number}"
        found += [
            worker(f"b{number}", uid=f"b{number}", pool=pool, node=on, cache_key="t1"),
            worker(f"i{number}", uid=f"i{number}", pool=pool, node=on, idle_since=minutes_ago(3), cache_key="t2"),
            worker(f"d{number}", uid=f"d{number}", pool=pool, node=on, do_not_disrupt_until=NOW + timedelta(hours=1)),
            worker(f"t{number}", uid=f"t{number}", pool=pool, node=on, terminating=True),
            stranger(f"s{number}", node=on, priority=number),
        ]
    return found
