"""The role `reap`: one leader by a Lease, evictions, deletion costs."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from random import Random
from typing import Any

from extender.app.shared import Shared, utc_now
from extender.kube.annotate import annotate, cost_annotations
from extender.kube.events import EventRecorder
from extender.kube.eviction import Evictor
from extender.kube.lease import LeaseStore
from extender.loops.costs import CostWriter
from extender.loops.election_observer import ElectionTelemetry
from extender.loops.elector import LeaderElector, make_identity
from extender.loops.reaper import Reaper
from extender.model import Pod
from extender.policy.deletion_cost import CostWrite


class Reaping:
    """Builds the loops that act, and says when they may."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        election = shared.in_force.configuration.leader_election
        identity = make_identity(Random())  # noqa: S311 - a name, no secret
        self.elector = LeaderElector(
            LeaseStore(shared.client, namespace=shared.namespace, name=election.name),
            identity=identity,
            lease_duration=election.lease_duration,
            renew_deadline=election.renew_deadline,
            retry_period=election.retry_period,
            random=Random(),  # noqa: S311 - jitter
            wall_clock=utc_now,
            observer=ElectionTelemetry(shared.metrics, identity=identity),
        )
        self.costs = CostWriter(
            state=shared.state,
            write=self._write_cost,
            metrics=shared.metrics,
            pool_settings=shared.in_force.costs,
            may_write=lambda: self.is_leading() and shared.feed.is_fresh(),
            clock=utc_now,
        )
        self.reaper = Reaper(
            state=shared.state,
            pods=Evictor(shared.client, shared.in_force.classify),
            announcer=EventRecorder(shared.client, instance=identity, clock=utc_now, timer=time.monotonic),
            metrics=shared.metrics,
            pool_settings=shared.in_force.reaping,
            is_leader=self.is_leading,
            is_fresh=shared.feed.is_fresh,
            clock=utc_now,
        )

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Give the loops by name, to be run until they are cancelled."""
        return {"elect": self.elector.run(), "reap": self.reaper.run(), "write costs": self.costs.run()}

    def is_leading(self) -> bool:
        """True while this process leads and was not told to stop."""
        return self.elector.is_leader and not self._shared.stopping.is_set()

    def take_configuration(self) -> None:
        """Go by the configuration that is in force now."""
        self.costs.forgive()

    async def _write_cost(self, write: CostWrite) -> Pod:
        classify = self._shared.in_force.classify
        return await annotate(self._shared.client, write.pod, cost_annotations(write.value), classify)
