"""The idle mark on a pod: read it, write it, remove it, each time on one version of the pod and no other.

Owns what a mark looks like on the API server. Who may write one, and when to try again, is the caller's to decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from extender.kube.annotate import annotate, read_pod
from extender.kube.api_client import KubeClient
from extender.kube.objects import IDLE_SINCE, IDLE_SOURCE, Classify, pod_from
from extender.model import Pod
from extender.policy.marks import format_idle_mark


@dataclass(slots=True, eq=False)
class MarkStore:
    """Reads and writes idle marks. ``classify`` names a pod's pool.

    All methods raise `NotFound` where the pod is gone, and other `KubeError`; the writing ones raise `Conflict` where
    the pod changed since it was read, or another pod has its name.
    """

    client: KubeClient
    classify: Classify

    async def read(self, namespace: str, name: str) -> Pod:
        return pod_from(await read_pod(self.client, namespace, name), self.classify)

    async def write(self, pod: Pod, idle_since: datetime) -> Pod:
        """Mark the pod idle and give it is then. The mark is the worker's: a note of warmnode's goes."""
        marks = {IDLE_SINCE: format_idle_mark(idle_since), IDLE_SOURCE: None}
        return await annotate(self.client, pod, marks, self.classify)

    async def remove(self, pod: Pod) -> Pod:
        """Remove the mark and give the pod as it is then. Its resourceVersion has moved, even where no mark was there.

        A mark that somebody asked for and got no answer about may still be on its way to the store. It names the
        version that it is based on, so it fails once that has moved; removing what is not there moves nothing. So a
        value goes before it that is no time, which means busy, and that was not there before.

        What was noted for the sources outside goes with it: next time they have to agree anew.
        """
        if pod.own_mark is None:
            busy = {IDLE_SINCE: f"busy at version {pod.resource_version}"}
            pod = await annotate(self.client, pod, busy, self.classify)
        return await annotate(self.client, pod, {IDLE_SINCE: None, IDLE_SOURCE: None}, self.classify)
