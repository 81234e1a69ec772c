"""The two verbs that kube-scheduler calls. Decodes, asks the policy, encodes; keeps nothing and promises nothing.

A failure here is harmless by contract: prioritize errors are ignored by the scheduler, and an ignorable preempt
extender that fails leaves the victims as they were. So doubt answers at once and never waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from enum import StrEnum
from http import HTTPStatus
from time import perf_counter
from typing import NamedTuple

from aiohttp import web

from extender.clock import Clock
from extender.cluster.history import DecisionHistory
from extender.cluster.state import ClusterState
from extender.cluster.working_sets import WorkingSets
from extender.logs import fields
from extender.policy.affinity import Affinity
from extender.policy.decisions import KeptPlacement, PreemptionDecision
from extender.policy.pools import PoolsInForce, cache_key_of, pool_of
from extender.policy.preemption import PreemptionView, PreemptVerdict, choose_preemption
from extender.policy.scoring import Ranking, score_nodes
from extender.telemetry import Metrics
from extender.web import wire
from extender.web.requests import (
    BODY_DEADLINE_SECONDS,
    CRASHED,
    BodyRefused,
    Handler,
    json_response,
    once_answered,
    problem,
    read_body,
    route,
)

log = logging.getLogger("warmnode.webhook")

NO_SCORES = b"[]"


class WebhookOutcome(StrEnum):
    """What became of a call. Preempt calls are counted by their `PreemptVerdict` too."""

    SCORED = "scored"
    SHADOW = "shadow"
    NEUTRAL = "neutral"
    UNKNOWN_NODES = "unknownNodes"
    NOT_SYNCED = "notSynced"
    CLOCK_OFF = "clockOff"
    BAD_REQUEST = "badRequest"
    NOT_FOUND = "notFound"
    CRASHED = "crashed"


class WebhookAnswer(NamedTuple):
    """What a scheduler is told, how the call is counted, and the decision to be remembered, None where it was none."""

    content: bytes
    outcome: str
    decision: KeptPlacement | PreemptionDecision | None = None


class Webhook:
    """Answers ``POST /prioritize`` and ``POST /preempt``. ``pools`` is replaced when the configuration changes."""

    def __init__(
        self,
        *,
        state: ClusterState,
        pools: PoolsInForce,
        metrics: Metrics,
        history: DecisionHistory,
        clock: Clock,
        called: Callable[[], None] = lambda: None,
        body_deadline_seconds: float = BODY_DEADLINE_SECONDS,
    ) -> None:
        self.pools = pools
        self._state = state
        self._working_sets = WorkingSets(state, lambda pool, nodes: _tell_size(metrics, pool, nodes))
        self._history = history
        self._called = called
        self._clock = clock
        self._body_deadline_seconds = body_deadline_seconds
        self._counters = {
            (verb, str(outcome)): metrics.webhook_requests.labels(verb, outcome)
            for verb in ("prioritize", "preempt")
            for outcome in (*WebhookOutcome, *(PreemptVerdict if verb == "preempt" else ()))
        }
        self._seconds = {verb: metrics.webhook_seconds.labels(verb) for verb in ("prioritize", "preempt")}
        self._lost = metrics.webhook_requests.labels("none", WebhookOutcome.NOT_FOUND)
        self._garbled = metrics.webhook_requests.labels("none", WebhookOutcome.BAD_REQUEST)

    def handler(self) -> Handler:
        """Make the listener's handler."""
        return route(
            {
                ("POST", "/prioritize"): self._verb("prioritize", self.prioritize),
                ("POST", "/preempt"): self._verb("preempt", self.preempt),
            },
            refused=lambda status: self._lost.inc(),
        )

    def count_garbled(self, status: HTTPStatus) -> None:
        """Count what could not be read as HTTP."""
        self._garbled.inc()

    def prioritize(self, body: bytes) -> WebhookAnswer:
        """Answer a prioritize call: at most nine hosts of those that were sent, ``[]`` for a pod of no pool, or of one
        in the shadow.

        Raises:
            wire.BadRequest: the body is not a request.
        """
        request = wire.decode_prioritize(body)
        pool = pool_of(request.pod.namespace, request.pod.labels, self.pools.pools)
        if pool is None:
            return WebhookAnswer(NO_SCORES, WebhookOutcome.NEUTRAL)
        now = self._clock.now()
        ranking = self._state.ranking.as_of(now)
        scores, affinity = self._scored(pool, request, ranking)
        is_shadow = self.pools.is_shadow(pool)
        names = tuple([name for name, _ in scores])
        ranks = tuple(map(ranking.places().__getitem__, names))
        decision = KeptPlacement(
            at=now,
            namespace=request.pod.namespace,
            pod=request.pod.name,
            uid=request.pod.uid,
            pool=pool,
            key=affinity.key if affinity is not None else None,
            shadow=is_shadow,
            candidates=len(request.node_names),
            nodes=names,
            ranks=ranks,
            key_uses=tuple(affinity.workers(names, now)) if affinity else (),
            reach=affinity.reach if affinity else 0,
        )
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "prioritize",
                extra=fields(
                    namespace=request.pod.namespace,
                    pod=request.pod.name,
                    pool=pool,
                    cache_key=decision.key,
                    candidates=decision.candidates,
                    scores=dict(scores),
                    shadow=is_shadow,
                ),
            )
        if is_shadow:
            return WebhookAnswer(NO_SCORES, WebhookOutcome.SHADOW, decision)
        outcome = WebhookOutcome.SCORED if scores else WebhookOutcome.UNKNOWN_NODES
        return WebhookAnswer(wire.encode_priorities(scores), outcome, decision)

    def _scored(
        self, pool: str, request: wire.PrioritizeRequest, ranking: Ranking
    ) -> tuple[list[tuple[str, int]], Affinity | None]:
        """Score the candidates. The set of them ends here, before the list: else names are freed in no order, and those
        of the next request are all over the memory.
        """
        candidates, affinity = self._affinity(pool, request, ranking)
        return score_nodes(candidates, ranking, affinity), affinity

    def _affinity(
        self, pool: str, request: wire.PrioritizeRequest, ranking: Ranking
    ) -> tuple[Collection[str], Affinity | None]:
        """Give the candidates, and say how the worker's cache key orders them: None where age alone does."""
        rule = self.pools.of(pool).cache_key
        key = cache_key_of(request.pod.labels, rule)
        candidates: Collection[str] = request.node_names
        if rule is None or key is None:
            return candidates, None
        if rule.window is None:
            asks = wire.requests_of(request.pod)
            found = self._working_sets.reach(pool, ranking, request.node_names, asks, rule.slack)
            candidates, reach = found.feasible, found.nodes
        else:
            reach = ranking.last_place(candidates, rule.window)
        return candidates, Affinity(key=key, reach=reach, history=self._state.keys.history)

    def _view(self) -> PreemptionView:
        now = self._clock.now()
        return PreemptionView(
            order=self._state.order,
            preference=self._state.ranking.as_of(now),
            pods=self._state.pods,
            pools=self.pools,
            now=now,
        )

    def preempt(self, body: bytes) -> WebhookAnswer:
        """Answer a preempt call: one candidate, none (a veto), or on any doubt all of them as they came.

        Raises:
            wire.BadRequest: the body is not a request.
        """
        request = wire.decode_preempt(body)
        pool = pool_of(request.pod.namespace, request.pod.labels, self.pools.pools)
        pool = None if self.pools.is_shadow(pool) else pool
        decision = None
        if self._state.synced and self._clock.is_off:  # it may take a claimed worker for one that is idle
            nodes, outcome = tuple(request.candidates), str(WebhookOutcome.CLOCK_OFF)
        elif self._state.synced:
            choice = choose_preemption(preemptor_pool=pool, candidates=request.candidates, view=self._view())
            nodes, outcome = choice.nodes, str(choice.verdict)
            if choice.verdict in (PreemptVerdict.CHOSEN, PreemptVerdict.VETOED):
                decision = PreemptionDecision(
                    at=self._clock.now(),
                    namespace=request.pod.namespace,
                    pod=request.pod.name,
                    uid=request.pod.uid,
                    pool=pool,
                    candidates=len(request.candidates),
                    verdict=outcome,
                    node=nodes[0] if nodes else None,
                )
        else:
            nodes, outcome = tuple(request.candidates), str(WebhookOutcome.NOT_SYNCED)
        log.debug(
            "preempt",
            extra=fields(
                namespace=request.pod.namespace,
                pod=request.pod.name,
                pool=pool,
                candidates=len(request.candidates),
                verdict=outcome,
                nodes=nodes[:3],
            ),
        )
        return WebhookAnswer(wire.encode_preemption(request.candidates, nodes), outcome, decision)

    def _verb(self, verb: str, decide: Callable[[bytes], WebhookAnswer]) -> Handler:
        seconds = self._seconds[verb]
        counters = {outcome: counter for (of, outcome), counter in self._counters.items() if of == verb}

        def tell(outcome: str, answer: WebhookAnswer | None, took: float) -> None:
            counters[outcome].inc()
            seconds.observe(took)
            if answer is not None:
                self._called()
                if answer.decision is not None:
                    self._history.add(answer.decision)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            started = perf_counter()
            answer = None
            try:
                body = await read_body(request, deadline_seconds=self._body_deadline_seconds)
                if verb == "prioritize" and not self._state.synced:
                    outcome, response = (
                        str(WebhookOutcome.NOT_SYNCED),
                        problem(HTTPStatus.SERVICE_UNAVAILABLE, "nodes, pods and ledger are not loaded yet"),
                    )
                else:
                    answer = decide(body)
                    outcome, response = answer.outcome, json_response(answer.content)
            except (wire.BadRequest, BodyRefused) as error:
                status = error.status if isinstance(error, BodyRefused) else HTTPStatus.BAD_REQUEST
                outcome, response = str(WebhookOutcome.BAD_REQUEST), problem(status, str(error))
                log.warning("bad request", extra=fields(verb=verb, status=int(status), problem=str(error)[:200]))
            except Exception:
                outcome, response = str(WebhookOutcome.CRASHED), problem(HTTPStatus.INTERNAL_SERVER_ERROR, CRASHED)
                log.exception("a call failed", extra=fields(verb=verb))
            once_answered(tell, outcome, answer, perf_counter() - started)
            return response

        return handle


def _tell_size(metrics: Metrics, pool: str, nodes: int) -> None:
    metrics.working_set_nodes.labels(metrics.pool_label(pool)).set(nodes)
