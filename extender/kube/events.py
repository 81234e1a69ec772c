"""Kubernetes Events: what was done to a pod and why, where people look for it.

Owns the request and the damping. An Event that cannot be written is a log line and nothing else.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from enum import StrEnum

import msgspec
from cachetools import TTLCache

from extender.clock import Clock
from extender.kube.api_client import KubeClient
from extender.kube.codec import check_answer
from extender.kube.errors import KubeError
from extender.logs import fields
from extender.model import Pod

log = logging.getLogger("warmnode.events")

CONTROLLER = "warmnode.dev/reaper"
DAMPED_FOR = timedelta(minutes=10)
DAMPED_SUBJECTS = 10_000
EVENT_TIMEOUT = timedelta(seconds=5)
NOTE_LIMIT = 1024
"""Characters of a note: events.k8s.io/v1 validation."""


class EventReason(StrEnum):
    EVICTED_IDLE = "EvictedIdleWorker"
    POOL_PAUSED = "ReapingPaused"
    COSTS_GIVEN_UP = "DeletionCostsGivenUp"


class EventRecorder:
    """Writes Events about pods, the same one at most every ten minutes.

    Forgetting what was written is harmless: an Event more. So a bounded cache is enough.
    """

    def __init__(self, client: KubeClient, *, instance: str, clock: Clock) -> None:
        self._client = client
        self._instance = instance
        self._clock = clock
        self._written: TTLCache[tuple[str, str], bool] = TTLCache(
            DAMPED_SUBJECTS, DAMPED_FOR.total_seconds(), timer=lambda: clock.steady().seconds
        )

    async def evicted(self, pod: Pod, why: str) -> None:
        await self._record(pod, EventReason.EVICTED_IDLE, "Evict", "Normal", f"Evicted an idle worker: {why}", pod.uid)

    async def paused(self, pool: str, pod: Pod, why: str) -> None:
        await self._record(
            pod, EventReason.POOL_PAUSED, "Pause", "Warning", f"Pool {pool} is not reaped: {why}", f"pool {pool}"
        )

    async def gave_up(self, pod: Pod, why: str) -> None:
        await self._record(pod, EventReason.COSTS_GIVEN_UP, "GiveUp", "Warning", why, "deletion costs")

    async def _record(self, pod: Pod, reason: EventReason, action: str, kind: str, note: str, subject: str) -> None:
        if (subject, reason) in self._written:
            return
        self._written[(subject, reason)] = True
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{pod.name[:200]}-", "namespace": pod.namespace},
            "eventTime": self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "reason": reason,
            "action": action,
            "type": kind,
            "note": note[:NOTE_LIMIT],
            "regarding": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": pod.namespace,
                "name": pod.name,
                "uid": pod.uid,
            },
        }
        path = f"/apis/events.k8s.io/v1/namespaces/{pod.namespace}/events"
        try:
            check_answer(await self._client.send("POST", path, msgspec.json.encode(body), timeout=EVENT_TIMEOUT))
        except KubeError as error:
            log.warning("an Event is not written", extra=fields(pod=pod.name, problem=str(error)))
