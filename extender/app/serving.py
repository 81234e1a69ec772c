"""The role `serve`: what answers callers, and on which listeners."""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any

from extender import __version__
from extender.app.options import RunOptions
from extender.app.shared import Shared, utc_now
from extender.kube.marks import Marks
from extender.kube.webhook_lease import WebhookLease
from extender.loops.calls import CallWatch
from extender.loops.elector import make_identity
from extender.web.callers import callers_for
from extender.web.http import Handler, route
from extender.web.idle import IdleApi
from extender.web.server import Address, Listener, ServerTls
from extender.web.webhook import Webhook


class Serving:
    """Builds the webhook and the claims listener. Nothing listens before `Listener.start`."""

    def __init__(self, options: RunOptions, shared: Shared, tls: ServerTls | None) -> None:
        self._shared = shared
        self._has_tls = tls is not None
        configuration = shared.in_force.configuration
        self.calls = CallWatch(
            WebhookLease(shared.client, namespace=shared.namespace, name=configuration.webhook.lease_name),
            identity=make_identity(Random()),  # noqa: S311 - a name, no secret
            version=__version__,
            metrics=shared.metrics,
            schedulers=lambda: frozenset(shared.in_force.configuration.webhook.schedulers),
            schedulable_nodes=lambda: len(shared.state.preference),
            clock=utc_now,
        )
        self.webhook = Webhook(
            state=shared.state,
            pools=shared.in_force.pools,
            metrics=shared.metrics,
            called=self.calls.called,
        )
        self.listeners: list[Listener] = []
        if options.webhook_listen is not None:
            self.listeners.append(
                Listener(
                    name="webhook",
                    address=options.webhook_listen,
                    handler=self.webhook.handler(),
                    tls=tls,
                    refused=self.webhook.count_garbled,
                )
            )
        if options.claims_listen is not None:
            handler = self._claims_handler(options.claims_listen)
            self.listeners.append(Listener(name="claims", address=options.claims_listen, handler=handler, tls=tls))

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Give the loops by name, to be run until they are cancelled."""
        return {"watch calls": self.calls.run()}

    def take_configuration(self) -> None:
        """Go by the configuration that is in force now."""
        self.webhook.pools = self._shared.in_force.pools

    def _claims_handler(self, address: Address) -> Handler:
        shared = self._shared
        idle = IdleApi(
            marks=Marks(shared.client, shared.in_force.classify),
            callers=callers_for(shared.client, address=address, has_tls=self._has_tls),
            is_dry_run=lambda pool: shared.in_force.settings(pool).dry_run,
            takes_marks=lambda pool: shared.in_force.sources(pool).annotation,
            metrics=shared.metrics,
            clock=utc_now,
        )
        return route({}, templates=idle.routes(), refused=lambda status: None)
