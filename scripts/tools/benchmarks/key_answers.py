"""What a cache key costs an answer of prioritize, in CPU time and inside one process: by key, beside by age alone.

CPU time of the best of many calls hardly knows what else the machine does, so the ratios hold on a busy one too.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from random import Random

from extender.clock import Clock, Steady
from extender.cluster.history import DecisionHistory
from extender.cluster.state import ClusterState
from extender.model import BusyVictims, CacheKeyRule, Ledger, Node, Pod, Pool
from extender.policy.pools import POOL_LABEL, PoolsInForce
from extender.telemetry import Metrics
from extender.web.webhook import Webhook
from scripts.tools.benchmarks import cluster

NOW = datetime(2026, 11, 1, tzinfo=UTC)
KEYS = 1_000
PER_NODE = 20
_CALLS = 30
_BODIES = 6


class Before(StrEnum):
    """What happens before each call."""

    NOTHING = ""
    PLACED = "a worker placed before each call"
    FILLED = "a worker placed before each call that fills its node"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTimes:
    """Microseconds of CPU time."""

    names: int
    before: Before
    by_age: float
    by_key: float


def measure_answers(nodes: int, names: Sequence[int], rounds: int) -> list[AnswerTimes]:
    """Measure, ``rounds`` times each: the cluster has 20 workers on each node, and room for two more."""
    scene = _Scene(nodes)
    with _no_collections():
        return [
            AnswerTimes(
                names=count,
                before=before,
                by_age=scene.best(count, before, by_key=False),
                by_key=scene.best(count, before, by_key=True),
            )
            for _ in range(rounds)
            for count in names
            for before in Before
        ]


class _Scene:
    """A webhook over a state that is made up, and requests to it."""

    def __init__(self, nodes: int) -> None:
        self._random = Random(1)  # noqa: S311 - the same in every run
        self._names = [cluster.node_name(number) for number in range(nodes)]
        self._placed = 0
        room = {"cpu": Decimal(PER_NODE + 2) * Decimal("2.02"), "memory": Decimal(2**40), "pods": Decimal(110)}
        self._state = ClusterState(clock=lambda: NOW)
        self._state.replace_nodes(
            [Node(name=name, uid=name, created=NOW - timedelta(days=30), allocatable=room) for name in self._names]
        )
        self._state.replace_pods([self._worker(name) for name in self._names for _ in range(PER_NODE)])
        ages = self._random.sample(range(nodes), nodes)
        seen = {name: NOW - timedelta(minutes=1 + age) for name, age in zip(self._names, ages, strict=True)}
        self._state.take_ledger(Ledger(first_seen=seen))
        self._state.begin()
        rule = CacheKeyRule(label=cluster.TENANT_LABEL)
        self._webhook = Webhook(
            state=self._state,
            pools=PoolsInForce(Pool(name="", busy_victims=BusyVictims.LAST_RESORT, cache_key=rule)),
            metrics=Metrics(),
            history=DecisionHistory(now=lambda: NOW),
            clock=Clock(now=lambda: NOW, steady=lambda: Steady(0.0)),
        )

    def best(self, names: int, before: Before, *, by_key: bool) -> float:
        """Give the time of an answer: the mean of some requests, of each the best of many calls."""
        found = []
        for _ in range(_BODIES):
            feasible = self._random.sample(self._names, names)
            key = self._key() if by_key else None
            self._webhook.prioritize(self._body(feasible, key))
            found.append(min(self._time(feasible, key, before) for _ in range(_CALLS)))
        return 1e6 * sum(found) / len(found)

    def _time(self, feasible: list[str], key: str | None, before: Before) -> float:
        if before is not Before.NOTHING:
            node = feasible.pop() if before is Before.FILLED else self._random.choice(self._names)
            self._state.upsert_pod(self._worker(node))
            self._state.delete_pod(self._state.pods[f"worker-{self._placed - len(self._names)}"])
        body = self._body(feasible, key)
        began = time.process_time()
        self._webhook.prioritize(body)
        return time.process_time() - began

    def _worker(self, node: str) -> Pod:
        self._placed += 1
        name = f"worker-{self._placed}"
        created = NOW - timedelta(minutes=self._random.randrange(1, 600))
        return Pod(
            uid=name, namespace="default", name=name, created=created, node=node, pool="ducks", cache_key=self._key()
        )

    def _key(self) -> str:
        return f"tenant-{self._random.randrange(KEYS)}"

    def _body(self, feasible: Sequence[str], key: str | None) -> bytes:
        pod = cluster.pod_as_sent()
        pod["metadata"]["labels"] = {POOL_LABEL: "ducks"} | ({cluster.TENANT_LABEL: key} if key is not None else {})
        return json.dumps({"Pod": pod, "Nodes": None, "NodeNames": feasible}, separators=(",", ":")).encode()


@contextmanager
def _no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
