"""What the replicas of an installation remember of a pod or a node, read from each by port-forward.

Owns which pods are asked and what is said of those that cannot be. Writes nothing; the rights are those of the user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from extender.cluster.shadow import ShadowStanding
from extender.inspect.survey.survey_objects import NAME_LABEL, SurveyedPod, programs_of
from extender.kube.api_client import KubeClient
from extender.kube.errors import KubeError
from extender.kube.listing import list_objects
from extender.kube.port_forward import PortAnswer, get_from_pod
from extender.policy.decisions import Decision, decode_decision

T = TypeVar("T")

HISTORY_PORT = 9889
NOBODY = "no pod of warmnode runs here: nothing has been decided that could be remembered"
OTHER_VERSION = "what it answers cannot be read: it is of another version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A pod of warmnode, and where its decisions are read."""

    namespace: str
    name: str
    port: int = HISTORY_PORT

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """What one replica remembers, oldest first: ``oldest`` is of when its first decision is, of whatever. ``problem``:
    why it could not be asked."""

    replica: Replica
    decisions: tuple[Decision, ...] = ()
    oldest: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What all replicas remember, or why nobody was asked. ``shadow`` is of each replica that placed in the shadow."""

    replicas: tuple[Recollection, ...] = ()
    shadow: tuple[ShadowStanding, ...] = ()
    problem: str | None = None

    @property
    def decisions(self) -> list[Decision]:
        """All decisions, oldest first."""
        return sorted((each for one in self.replicas for each in one.decisions), key=lambda each: (each.at, each.uid))


async def recall(client: KubeClient, *, pod: str = "", node: str = "", last: int | None = None) -> History:
    """Ask every replica for its decisions about a pod (NAME or NAMESPACE/NAME), about a node, or for the last ones."""
    asked = {"pod": pod, "node": node, "last": "" if last is None else str(last)}
    target = "/decisions?" + urlencode({key: value for key, value in asked.items() if value})

    def read(replica: Replica, answer: PortAnswer) -> Recollection:
        decisions = tuple(map(decode_decision, answer.body.splitlines()))
        return Recollection(replica=replica, decisions=decisions, oldest=answer.headers.get("warmnode-oldest"))

    replicas = await _replicas(client)
    if isinstance(replicas, str):
        return History(problem=replicas)
    return History(replicas=tuple(await asyncio.gather(*(_ask(client, each, target, read) for each in replicas))))


async def recall_lately(client: KubeClient, last: int) -> History:
    """Ask every replica for its last decisions, and how all pools in the shadow stand."""
    history, shadow = await asyncio.gather(recall(client, last=last), recall_shadow(client))
    return replace(history, shadow=shadow.shadow)


async def recall_shadow(client: KubeClient, pool: str | None = None) -> History:
    """Ask every replica how a pool in the shadow stands, None: all of them. Named are those that could not be asked."""

    def read(_: Replica, answer: PortAnswer) -> list[ShadowStanding]:
        return msgspec.json.decode(answer.body, type=list[ShadowStanding])

    replicas = await _replicas(client)
    if isinstance(replicas, str):
        return History(problem=replicas)
    told = await asyncio.gather(*(_ask(client, each, "/shadow", read) for each in replicas))
    unreached = tuple(each for each in told if isinstance(each, Recollection))
    found = (standing for each in told if not isinstance(each, Recollection) for standing in each)
    return History(replicas=unreached, shadow=tuple(each for each in found if pool in (None, each.pool)))


async def _ask(
    client: KubeClient, replica: Replica, target: str, read: Callable[[Replica, PortAnswer], T]
) -> T | Recollection:
    try:
        answer = await get_from_pod(
            client, namespace=replica.namespace, pod=replica.name, port=replica.port, target=target
        )
        return read(replica, answer)
    except KubeError as error:
        return Recollection(replica=replica, problem=str(error))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Recollection(replica=replica, problem=OTHER_VERSION)


async def _replicas(client: KubeClient) -> list[Replica] | str:
    """Find the pods to ask, or say why there is nobody to ask."""
    try:
        found = await list_objects(
            client, "/api/v1/pods", SurveyedPod, _replica_from, label_selector=f"{NAME_LABEL}=warmnode"
        )
    except KubeError as error:
        return f"warmnode's pods cannot be listed: {error}"
    return [each for each in found if each is not None] or NOBODY


def _replica_from(raw: SurveyedPod) -> Replica | None:
    """Give a pod that runs one of the two roles, None for any other pod of an installation."""
    ours = next((each for each in programs_of(raw) if each.runs("serve") or each.runs("reap")), None)
    if ours is None or raw.status.phase != "Running":
        return None
    ports = (word.rpartition(":")[2] for word in ours.arguments if word.startswith("--history-listen="))
    port = next((int(port) for port in ports if port.isdigit()), HISTORY_PORT)
    return Replica(namespace=raw.metadata.namespace, name=raw.metadata.name, port=port)
