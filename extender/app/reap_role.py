"""The role `reap`: one leader by a Lease, idle sources outside, evictions, deletion costs."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from itertools import chain
from random import Random
from typing import Any

from extender.app.shared import Shared
from extender.kube.annotate import annotate, cost_annotations, mark_annotations
from extender.kube.api_client import USER_AGENT
from extender.kube.events import EventRecorder
from extender.kube.eviction import Evictor
from extender.kube.lease import LeaseStore
from extender.kube.managed_fields import is_priced_by_karpenter
from extender.kube.pod_disruption_budgets import list_pod_budgets
from extender.kube.reaper_notes import brake_note
from extender.loops.cost_contests import Contests
from extender.loops.costs import CostWriter
from extender.loops.election_observer import ElectionTelemetry
from extender.loops.elector import LeaderElector, make_identity
from extender.loops.evictions import Hands
from extender.loops.idle_answers import Answers
from extender.loops.idle_sources import IdleSources
from extender.loops.pass_report import EvictionHistory
from extender.loops.reaper import Reaper
from extender.model import Pod
from extender.policy.deletion_cost import CostWrite
from extender.policy.sources import MarkWrite
from extender.sources.http import ask_worker
from extender.sources.prometheus import ask_prometheus
from extender.sources.session import AskingSession
from extender.telemetry import Figure


class Reaping:
    """Builds the loops that act, and says when they may."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        clock = shared.clock
        election = shared.in_force.configuration.leader_election
        identity = make_identity(Random())  # noqa: S311 - a name, no secret
        self.elector = LeaderElector(
            LeaseStore(
                shared.client,
                namespace=shared.namespace,
                name=election.name,
                notes=lambda: brake_note(self.reaper.brakes),
            ),
            identity=identity,
            lease_duration=election.lease_duration,
            renew_deadline=election.renew_deadline,
            retry_period=election.retry_period,
            random=Random(),  # noqa: S311 - jitter
            clock=clock,
            observer=ElectionTelemetry(shared.metrics, identity=identity),
        )
        announcer = EventRecorder(shared.client, instance=identity, clock=clock)
        self.costs = CostWriter(
            state=shared.state,
            write=self._write_cost,
            contests=Contests(
                is_priced_by_karpenter=lambda pod: is_priced_by_karpenter(shared.client, pod),
                gave_up=announcer.gave_up,
                clock=clock,
            ),
            metrics=shared.metrics,
            rules=shared.in_force.settings,
            may_write=self._may_act,
            clock=clock,
        )
        self._session = session = AskingSession(user_agent=USER_AGENT)
        self.sources = IdleSources(
            state=shared.state,
            answers=Answers(
                ask_worker=lambda probe, address: ask_worker(session, probe, address, clock),
                ask_prometheus=lambda query: ask_prometheus(session, query, clock),
                metrics=shared.metrics,
                clock=clock,
            ),
            write=self._write_mark,
            metrics=shared.metrics,
            rules=shared.in_force.sources,
            asks_anybody=lambda: shared.in_force.asks_anybody,
            is_leader=self.is_leading,
            may_write=self._may_act,
            clock=clock,
        )
        self.reaper = Reaper(
            state=shared.state,
            hands=Hands(
                pods=Evictor(shared.client, shared.in_force.classify),
                announcer=announcer,
                metrics=shared.metrics,
                may_evict=self._may_act,
                confirm=self.sources.confirm,
            ),
            clock=clock,
            rules=shared.in_force.settings,
            workers=self.sources.view,
            pod_budgets=lambda: list_pod_budgets(shared.client),
            passed=EvictionHistory(shared.history).passed,
        )
        shared.metrics.show(self._figures)

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Give the loops by name, to be run until they are cancelled."""
        return {
            "elect": self.elector.run(),
            "ask idle sources": self.sources.run(),
            "reap": self.reaper.run(),
            "write costs": self.costs.run(),
        }

    async def close(self) -> None:
        """Give up the Lease, and close what is open towards workers. The loops have ended."""
        await self.elector.release()
        await self._session.close()

    def is_leading(self) -> bool:
        """True while this process leads and was not told to stop."""
        return self.elector.is_leader and not self._shared.stopping.is_set()

    def _may_act(self) -> bool:
        return self.is_leading() and self._shared.feed.is_fresh()

    def _figures(self) -> Iterable[Figure]:
        """Give what is to be shown of the pools: by the leader only, or two would contradict each other."""
        if not self.is_leading():
            return ()
        return chain(self.reaper.figures(), self.costs.figures(), self.sources.figures())

    def take_configuration(self) -> None:
        """Go by the configuration that is in force now."""
        self.costs.forgive()

    async def _write_cost(self, write: CostWrite) -> Pod:
        classify = self._shared.in_force.classify
        return await annotate(self._shared.client, write.pod, cost_annotations(write.values), classify)

    async def _write_mark(self, write: MarkWrite) -> Pod:
        marks = mark_annotations(write.since, whole=write.whole)
        return await annotate(self._shared.client, write.pod, marks, self._shared.in_force.classify)
