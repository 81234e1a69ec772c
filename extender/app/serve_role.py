"""The role `serve`: what answers callers, and on which listeners."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from random import Random
from typing import Any

from extender import __version__
from extender.app.files import tell_certificates
from extender.app.options import CLAIMS, WEBHOOK, RunOptions
from extender.app.shared import Shared
from extender.cluster.shadow import ShadowScore
from extender.kube.claim_store import ClaimStore
from extender.kube.mark_store import MarkStore
from extender.kube.webhook_lease import WebhookLease
from extender.loops.call_lease import CallWatch
from extender.loops.claim_tidier import ClaimTidier
from extender.loops.elector import make_identity
from extender.model import Pod
from extender.policy.scheduler_silence import HandshakeFailure
from extender.web.admission import CLAIMS_PLACES
from extender.web.authorization import Authorization
from extender.web.callers import Callers, callers_for
from extender.web.claim_answers import ClaimAnswers
from extender.web.claiming import Claiming
from extender.web.claims_api import ClaimsApi
from extender.web.held_claims import HeldClaims
from extender.web.idle_api import IdleApi
from extender.web.openapi import DOCUMENT_PATH, document_handler
from extender.web.requests import Handler, route
from extender.web.server import Listener, TurnedAway
from extender.web.tls import ServerTls
from extender.web.wanted_workers import WantedWorkers
from extender.web.webhook import Webhook

NONCE_BYTES = 10
"""Of a claim's ID: on a listener without authentication it is all that others must not know."""


class Serving:
    """Builds the webhook and the claims listener. Nothing listens before `Listener.start`."""

    def __init__(self, options: RunOptions, shared: Shared, tls: Mapping[str, ServerTls]) -> None:
        self._shared = shared
        configuration = shared.in_force.configuration
        self.calls = CallWatch(
            WebhookLease(shared.client, namespace=shared.namespace, name=configuration.webhook.lease_name),
            identity=make_identity(Random()),  # noqa: S311 - a name, no secret
            version=__version__,
            metrics=shared.metrics,
            schedulers=lambda: frozenset(shared.in_force.configuration.webhook.schedulers),
            schedulable_nodes=lambda: len(shared.state.ranking.as_of(shared.clock.now())),
            clock=shared.clock,
            certificate_ends=lambda: tls[WEBHOOK].ends if WEBHOOK in tls else None,
        )
        self.shadow = ShadowScore(shared.state)
        self.webhook = Webhook(
            state=shared.state,
            pools=shared.in_force.pools,
            metrics=shared.metrics,
            history=shared.history,
            called=self.calls.called,
            clock=shared.clock,
        )
        for listener, files in tls.items():
            for failure in HandshakeFailure:
                shared.metrics.handshake_failures.labels(listener, failure)  # from 0: an alert needs the increase
            if files.ends is not None:
                shared.metrics.certificate_expiry.labels(listener).set_function(partial(_epoch_of_end, files))
        tell_certificates(tls.values(), shared.clock.now())
        self._loops: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {"watch calls": self.calls.run}
        self.listeners: list[Listener] = []
        if options.webhook_listen is not None:
            self.listeners.append(
                Listener(
                    name=WEBHOOK,
                    address=options.webhook_listen,
                    handler=self.webhook.handler(),
                    tls=tls.get(WEBHOOK),
                    turned_away=TurnedAway(
                        refused=self.webhook.count_garbled,
                        handshake_failed=self._handshake_failed,
                        crowded=shared.metrics.connections_refused.labels(WEBHOOK).inc,
                    ),
                )
            )
        if options.claims_listen is not None:
            self.listeners.append(
                Listener(
                    name=CLAIMS,
                    address=options.claims_listen,
                    handler=self._claims_handler(
                        callers_for(shared.client, address=options.claims_listen, has_tls=CLAIMS in tls)
                    ),
                    tls=tls.get(CLAIMS),
                    turned_away=TurnedAway(
                        handshake_failed=lambda failure: self._count_handshake(CLAIMS, failure),
                        crowded=shared.metrics.connections_refused.labels(CLAIMS).inc,
                    ),
                    places=CLAIMS_PLACES,
                )
            )

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Give the loops by name, to be run until they are cancelled."""
        return {name: run() for name, run in self._loops.items()}

    def bound(self, worker: Pod) -> None:
        """Take note of a worker that got its node."""
        self.calls.bound(worker)
        placement = self._shared.history.bound(worker)
        if placement is None or not placement.shadow:
            return
        metrics, pool = self._shared.metrics, worker.pool or ""
        label = metrics.pool_label(pool)
        metrics.shadow_placements.labels(label, self.shadow.bound(worker, placement.decision())).inc()
        metrics.shadow_spared_nodes.labels(label).set_function(partial(self.shadow.spared, pool))

    def take_configuration(self) -> None:
        """Go by the configuration that is in force now."""
        self.webhook.pools = self._shared.in_force.pools

    async def _end_waiting(self, claiming: Claiming) -> None:
        await self._shared.stopping.wait()
        claiming.lines.close()

    def _may_tidy(self, pool: str) -> bool:
        return not self._shared.in_force.settings(pool).dry_run and not self._shared.stopping.is_set()

    def _handshake_failed(self, failure: HandshakeFailure) -> None:
        self._count_handshake(WEBHOOK, failure)
        self.calls.refused(failure)

    def _count_handshake(self, listener: str, failure: HandshakeFailure) -> None:
        self._shared.metrics.handshake_failures.labels(listener, failure).inc()

    def _claims_handler(self, callers: Callers) -> Handler:
        """Build what answers claims, with the loops that it needs."""
        shared = self._shared
        store = ClaimStore(shared.client, shared.in_force.classify)
        idle = IdleApi(
            marks=MarkStore(shared.client, shared.in_force.classify),
            callers=callers,
            is_dry_run=lambda pool: shared.in_force.settings(pool).dry_run,
            takes_marks=lambda pool: shared.in_force.sources(pool).annotation,
            metrics=shared.metrics,
            clock=shared.clock,
        )
        held = HeldClaims(
            state=shared.state, claims=store, clock=shared.clock, lost_race=shared.metrics.claim_lost_races.inc
        )
        claiming = Claiming(
            state=shared.state,
            held=held,
            clock=shared.clock,
            nonce=lambda: secrets.token_hex(NONCE_BYTES),
            replica=secrets.token_hex(NONCE_BYTES),
            knows_now=shared.feed.is_fresh,
        )
        wanted = WantedWorkers(
            state=shared.state,
            lines=claiming.lines,
            settings=shared.in_force.claims,
            listed=shared.in_force.listed,
            clock=shared.clock,
        )
        shared.metrics.show(lambda: wanted.figures(shared.metrics))
        tidier = ClaimTidier(
            state=shared.state,
            free=store.free,
            metrics=shared.metrics,
            may_write=self._may_tidy,
            clock=shared.clock,
            jitter=Random().random,  # noqa: S311 - when to look, no secret
        )
        self._loops |= {
            "tidy claims": tidier.run,
            "call waiting": claiming.call_waiting,
            "end waiting": lambda: self._end_waiting(claiming),
            "count wanted": wanted.run,
        }
        claims = ClaimsApi(
            answers=ClaimAnswers(
                claiming=claiming,
                held=held,
                wanted=wanted,
                state=shared.state,
                history=shared.history,
            ),
            state=shared.state,
            callers=callers,
            authorization=Authorization(shared.client),
            settings=shared.in_force.claims,
            unlisted=lambda: shared.in_force.unlisted_claims,
            namespace=shared.namespace,
            metrics=shared.metrics,
            clock=shared.clock,
        )
        return route(
            {("GET", DOCUMENT_PATH): document_handler()},
            templates={**claims.routes(), **idle.routes()},
        )


def _epoch_of_end(tls: ServerTls) -> float:
    return 0.0 if tls.ends is None else tls.ends.timestamp()
