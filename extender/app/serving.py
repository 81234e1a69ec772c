"""The role `serve`: what answers callers, and on which listeners."""

from __future__ import annotations

from extender.app.options import RunOptions
from extender.app.shared import Shared, utc_now
from extender.kube.marks import Marks
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
        self.webhook = Webhook(
            state=shared.state,
            pools=shared.in_force.pools,
            metrics=shared.metrics,
            called=shared.metrics.webhook_last_call.set_to_current_time,
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
