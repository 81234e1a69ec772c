"""Deliberate defects: each breaks one rule of warmnode, and the soak has to notice it.

Owns how they are built into a process that `scripts.tools.soak.starting` starts. Nothing else loads them, and warmnode
knows nothing of them: a function is replaced from outside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import msgspec

from scripts.tools.soak.facts import Rule

DEFECT = "SOAK_DEFECT"
"""The environment variable that names one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """``caught_by``: the rule that notices it, with these ``faults``. ``is_slow``: the scheduler's patience is 5 s."""

    says: str
    caught_by: Rule
    build_in: Callable[[], None]
    faults: tuple[str, ...] = ()
    is_slow: bool = False


def _replace(module: str, name: str, new: object) -> None:
    """Put ``new`` in a function's or a method's place. Fails where it is not there any more."""
    owner: Any = import_module(module)
    *way, last = name.split(".")
    for each in way:
        owner = getattr(owner, each)
    assert callable(getattr(owner, last))
    setattr(owner, last, new)


def _wrap(module: str, name: str, wrapped: Callable[[Any], object]) -> None:
    """Put what ``wrapped`` makes of a function or a method in its place."""
    owner: Any = import_module(module)
    for each in name.split("."):
        owner = getattr(owner, each)
    _replace(module, name, wrapped(owner))


def _eviction_without_version() -> None:
    """Whatever happened to a pod since it was read, it is evicted."""
    annotate: Any = import_module("extender.kube.eviction")

    async def evict(self: Any, pod: Any) -> Any:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction"
        try:
            await self._client.send("POST", path, json.dumps(body).encode())
        except annotate.KubeError as error:
            return annotate.result_of(error)
        return annotate.EvictionResult(outcome=annotate.EvictionOutcome.EVICTED)

    _replace("extender.kube.eviction", "Evictor.evict", evict)


def _claim_without_version() -> None:
    """Whatever happened to a pod since it was heard of, it is claimed: the later claim replaces the earlier."""

    def wrapped(patch_metadata: Any) -> object:
        async def patch(client: Any, pod: Any, *given: Any, **named: Any) -> Any:
            return await patch_metadata(client, msgspec.structs.replace(pod, resource_version=""), *given, **named)

        return patch

    _wrap("extender.kube.claim_store", "patch_metadata", wrapped)


def _not_asked_again() -> None:
    """What was judged at the beginning of a pass is carried out, whatever the pod is like by now."""
    _replace("extender.policy.recheck", "Standing.why_not_now", lambda *_: None)


def _no_floor() -> None:
    """A pass may take all, and nobody counts before an eviction."""
    _replace("extender.policy.recheck", "Standing.claimable_besides", lambda *_: 10**6)

    def wrapped(planning: Any) -> object:
        return lambda nodes, limits, *more: planning(nodes, replace(limits, floor=0), *more)

    _wrap("extender.policy.judging", "planning", wrapped)


def _owner_ignored() -> None:
    """A worker may go whoever would make a new one."""

    def wrapped(why: Any) -> object:
        return lambda *asked: None if (found := why(*asked)) == "ownerRecreates" else found

    _wrap("extender.policy.idleness", "why_owner_keeps", wrapped)


def _ledger_overwritten() -> None:
    """Each replica writes what it thinks, and it thinks that all nodes are new."""

    def now(recorded: object, known: Mapping[str, datetime]) -> dict[str, datetime]:
        return dict.fromkeys(known, datetime.now(UTC))

    for module in ("extender.policy.ledger_merge", "extender.kube.ledger_store"):
        _replace(module, "missing_from", now)


def _ledger_forgotten() -> None:
    """Where the ledger is gone, so is what was known: nodes are as old as what happens next on them."""

    def take(self: Any, ledger: Any, live: object) -> None:
        if ledger is None and self.ledger is not None:
            self._observed = dict.fromkeys(self.ledger.first_seen, datetime.now(UTC))
        self._guessed = {}
        self.ledger = ledger

    _replace("extender.cluster.node_ages", "NodeAges.take_ledger", take)


def _foreign_cost_overwritten() -> None:
    """A deletion cost of somebody else counts as none."""
    states: Any = import_module("extender.policy.deletion_cost").CostState

    def wrapped(cost_state: Any) -> object:
        def state(*given: Any) -> Any:
            found = cost_state(*given)
            return states.NONE if found is states.FOREIGN else found

        return state

    for module in ("extender.policy.deletion_cost", "extender.loops.costs"):
        _wrap(module, "cost_state", wrapped)


def _grows() -> None:
    """Every line of a watch is kept, for ever, forty times."""
    kept: list[bytes] = []

    def wrapped(apply: Any) -> object:
        def keeps(self: Any, line: bytes) -> Any:
            kept.append(b"".join([bytes(line)] * 40))
            return apply(self, line)

        return keeps

    _wrap("extender.kube.watch", "Reflector._apply", wrapped)


def _deaf() -> None:
    """A watch that broke is never begun again."""
    _replace("extender.kube.watch", "Reflector._backoff", lambda _: 1e9)


def _nothing() -> None:
    """The defect is in the configuration of the scheduler."""


DEFECTS: Mapping[str, Defect] = {
    "eviction-without-version": Defect(
        says="an eviction names no resourceVersion",
        caught_by=Rule.ACCEPTED_WORK,
        build_in=_eviction_without_version,
        faults=("latency",),
    ),
    "not-asked-again": Defect(
        says="workers are not judged again right before their eviction",
        caught_by=Rule.ACCEPTED_WORK,
        build_in=_not_asked_again,
        faults=("latency",),
    ),
    "owner-ignored": Defect(
        says="an owner that makes a new worker keeps none",
        caught_by=Rule.OWNED,
        build_in=_owner_ignored,
    ),
    "claim-without-version": Defect(
        says="a claim names no resourceVersion",
        caught_by=Rule.ONE_CLAIMANT,
        build_in=_claim_without_version,
        faults=("latency", "watch-silent"),
    ),
    "no-floor": Defect(says="the floor is not looked at", caught_by=Rule.FLOOR, build_in=_no_floor),
    "ledger-overwritten": Defect(
        says="a ledger's earlier times are overwritten", caught_by=Rule.AGES, build_in=_ledger_overwritten
    ),
    "ledger-forgotten": Defect(
        says="with the ledger all ages are forgotten",
        caught_by=Rule.AGES,
        build_in=_ledger_forgotten,
        faults=("ledger-deleted",),
    ),
    "foreign-cost-overwritten": Defect(
        says="a deletion cost of somebody else is overwritten",
        caught_by=Rule.FOREIGN,
        build_in=_foreign_cost_overwritten,
    ),
    "patient-scheduler": Defect(
        says="the scheduler waits 5 s for an extender that does not answer",
        caught_by=Rule.BOUND_IN_TIME,
        build_in=_nothing,
        faults=("stop-serve",),
        is_slow=True,
    ),
    "grows": Defect(says="what a watch says is kept for ever", caught_by=Rule.FLAT, build_in=_grows),
    "deaf": Defect(
        says="a watch that breaks is not begun again",
        caught_by=Rule.CONVERGED,
        build_in=_deaf,
        faults=("kill-api-server", "watch-torn"),
    ),
}
