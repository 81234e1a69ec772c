"""Tidies up after claims that ran out: nobody released them, so what came with them is still on the pod.

A worker is free again without it. But ``karpenter.sh/do-not-disrupt`` that came with a claim would hold its node for
ever. Any number of replicas may do it: each write names the version of the pod, and one of them wins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from extender.clock import Clock
from extender.cluster.state import ClusterState
from extender.kube.claim_store import FoundPod
from extender.kube.errors import Conflict, KubeError, NotFound
from extender.logs import fields
from extender.model import Pod
from extender.policy.idleness import is_claimed
from extender.telemetry import Metrics

log = logging.getLogger("warmnode.claims")

INTERVAL = timedelta(seconds=5)
PATIENCE = timedelta(seconds=2)
"""A worker that is claimed again soon needs no tidying in between."""


@dataclass(slots=True, kw_only=True, eq=False)
class ClaimTidier:
    """Removes claims that ran out. ``free`` does, ``jitter`` gives 0..1, so that replicas do not all come at once."""

    state: ClusterState
    free: Callable[[Pod, datetime | None], Awaitable[FoundPod]]
    metrics: Metrics
    may_write: Callable[[str], bool]
    clock: Clock
    jitter: Callable[[], float]

    async def run(self) -> None:
        """Tidy up for ever. Ends only by cancellation."""
        while True:
            await asyncio.sleep(INTERVAL.total_seconds() * (0.5 + self.jitter()))
            if not self.state.synced:
                continue
            try:
                await self.tidy_up()
            except Exception:
                self.metrics.loop_crashes.labels("claims").inc()
                log.exception("tidying claims failed")

    async def tidy_up(self) -> int:
        """Look at all claims once, and say how many were removed. Those of pods that left their pool go too.

        A clock that is off judges none: others may hold that one for current.
        """
        removed, refusals = 0, list[KubeError]()
        for worker in self._run_out():
            if self.clock.is_off:
                break
            claim = worker.claim
            if claim is None or not self.may_write(pool := worker.pool or claim.pool):
                continue
            try:
                after = await self.free(worker, claim.expires)
            except (Conflict, NotFound):
                continue  # claimed again, or tidied by another replica
            except KubeError as error:
                refusals.append(error)
                if error.is_about_the_object:
                    continue
                break
            self.state.take_written(worker, after.pod)
            self.metrics.claims_expired.labels(self.metrics.pool_label(pool)).inc()
            log.info("claim expired", extra=fields(pool=pool, pod=worker.name, claimant=claim.claimant))
            removed += 1
        if refusals:
            log.warning("claims are not tidied away", extra=fields(refusals=len(refusals), problem=str(refusals[-1])))
        return removed

    def _run_out(self) -> list[Pod]:
        now = self.clock.now() - PATIENCE
        return [pod for pod in self.state.where.with_claim.values() if not is_claimed(pod, now)]
