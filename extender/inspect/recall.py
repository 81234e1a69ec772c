"""What the replicas of an installation remember of a pod or a node, read from each by port-forward.

Owns which pods are asked and what is said of those that cannot be. Writes nothing; the rights are those of the user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlencode

import msgspec

from extender.kube.api_client import KubeClient
from extender.kube.errors import KubeError
from extender.kube.listing import list_objects
from extender.kube.objects import ObjectMeta
from extender.kube.port_forward import PortAnswer, get_from_pod
from extender.policy.decisions import Decision, decode_decision

HISTORY_PORT = 9889
NOBODY = "no pod of warmnode runs here: nothing has been decided that could be remembered"
OTHER_VERSION = "what it answers cannot be read: it is of another version"
_FLAG = "--history-listen="
_LABEL = "app.kubernetes.io/name=warmnode"


class _Container(msgspec.Struct, frozen=True):
    args: list[str] | None = None
    command: list[str] | None = None


class _Spec(msgspec.Struct, rename="camel", frozen=True):
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None


class _Status(msgspec.Struct, frozen=True):
    phase: str = ""


class _ReplicaObject(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: _Spec = _Spec()
    status: _Status = _Status()


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


class ShadowTold(msgspec.Struct, frozen=True):
    """How a pool in the shadow stands, as a replica tells it: `cluster.shadow.ShadowStanding`."""

    pool: str
    verdicts: dict[str, int]
    spared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What all replicas remember, or why nobody was asked. ``shadow`` is of each replica that placed in the shadow."""

    replicas: tuple[Recollection, ...] = ()
    shadow: tuple[ShadowTold, ...] = ()
    problem: str | None = None

    @property
    def decisions(self) -> list[Decision]:
        """All decisions, oldest first."""
        return sorted((each for one in self.replicas for each in one.decisions), key=lambda each: (each.at, each.uid))


async def recall(client: KubeClient, *, pod: str = "", node: str = "", last: int | None = None) -> History:
    """Ask every replica for its decisions about a pod (NAME or NAMESPACE/NAME), about a node, or for the last ones."""
    asked = {"pod": pod, "node": node, "last": "" if last is None else str(last)}
    target = "/decisions?" + urlencode({key: value for key, value in asked.items() if value})
    replicas = await _replicas(client)
    if isinstance(replicas, str):
        return History(problem=replicas)
    return History(replicas=tuple(await asyncio.gather(*(_ask(client, each, target) for each in replicas))))


async def recall_lately(client: KubeClient, last: int) -> History:
    """Ask every replica for its last decisions, and how all pools in the shadow stand."""
    history, shadow = await asyncio.gather(recall(client, last=last), recall_shadow(client))
    return replace(history, shadow=shadow.shadow)


async def recall_shadow(client: KubeClient, pool: str | None = None) -> History:
    """Ask every replica how a pool in the shadow stands, None: all of them."""
    replicas = await _replicas(client)
    if isinstance(replicas, str):
        return History(problem=replicas)
    told = await asyncio.gather(*(_ask_shadow(client, each) for each in replicas))
    unreached = tuple(each for each in told if isinstance(each, Recollection))
    found = (standing for each in told if not isinstance(each, Recollection) for standing in each)
    return History(replicas=unreached, shadow=tuple(each for each in found if pool in (None, each.pool)))


async def _replicas(client: KubeClient) -> list[Replica] | str:
    """Find the pods to ask, or say why there is nobody to ask."""
    try:
        found = await list_objects(client, "/api/v1/pods", _ReplicaObject, _replica_from, label_selector=_LABEL)
    except KubeError as error:
        return f"warmnode's pods cannot be listed: {error}"
    replicas = [each for each in found if each is not None]
    return replicas or NOBODY


async def _get(client: KubeClient, replica: Replica, target: str) -> PortAnswer:
    return await get_from_pod(client, namespace=replica.namespace, pod=replica.name, port=replica.port, target=target)


async def _ask_shadow(client: KubeClient, replica: Replica) -> list[ShadowTold] | Recollection:
    try:
        return msgspec.json.decode((await _get(client, replica, "/shadow")).body, type=list[ShadowTold])
    except KubeError as error:
        return Recollection(replica=replica, problem=str(error))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Recollection(replica=replica, problem=OTHER_VERSION)


async def _ask(client: KubeClient, replica: Replica, target: str) -> Recollection:
    try:
        answer = await _get(client, replica, target)
        decisions = tuple(decode_decision(line) for line in answer.body.splitlines())
    except KubeError as error:
        return Recollection(replica=replica, problem=str(error))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Recollection(replica=replica, problem=OTHER_VERSION)
    return Recollection(replica=replica, decisions=decisions, oldest=answer.headers.get("warmnode-oldest"))


def _replica_from(raw: _ReplicaObject) -> Replica | None:
    """Give a pod that runs one of the two roles, None for any other pod of an installation."""
    programs = [*(raw.spec.containers or ()), *(raw.spec.init_containers or ())]
    ours = next((words for words in map(_words, programs) if {"serve", "reap", "run"} & set(words[:2])), None)
    if ours is None or raw.status.phase != "Running":
        return None
    return Replica(namespace=raw.metadata.namespace, name=raw.metadata.name, port=_port_in(ours))


def _words(container: _Container) -> list[str]:
    return [*(container.command or ()), *(container.args or ())]


def _port_in(words: Iterable[str]) -> int:
    """Read from a replica's command line where it tells its decisions."""
    for word in words:
        port = word.rpartition(":")[2]
        if word.startswith(_FLAG) and port.isdigit():
            return int(port)
    return HISTORY_PORT
