"""Reads a snapshot: any ``List`` in JSON, such as ``kubectl get nodes,pods -A -o json`` prints.

Owns what a snapshot may look like and what is said about one that is no good. Needs no cluster and no permission.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from extender.kube.ledger import COMPONENT_LABEL, LABELS
from extender.kube.objects import Classify, ConfigMapObject, NodeObject, PodObject, ledger_from, node_from, pod_from
from extender.model import Ledger, Node, Pod

REMEDY = "make one with: kubectl get nodes,pods -A -o json > snapshot.json"


class SnapshotError(ValueError):
    """A snapshot that cannot be read. The message is one line with the remedy."""


class _Header(Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""


class _List(Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""
    items: list[Raw] | None = None


class _HeartBeat(Struct, rename="camel"):
    last_heartbeat_time: datetime | None = None
    last_transition_time: datetime | None = None


class _NodeStatus(Struct, rename="camel"):
    conditions: list[_HeartBeat] | None = None


class _NodeTimes(Struct, rename="camel"):
    status: _NodeStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at a cluster. ``taken`` is the newest time in it, None where it holds no time at all.

    ``ledger`` is None where the snapshot has none; ``kinds`` counts the objects of every kind that it holds.
    """

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    ledger: Ledger | None
    kinds: dict[str, int]
    taken: datetime | None


def read_snapshot_bytes(source: str) -> bytes:
    """Read a file, or standard input for ``-``.

    Raises:
        SnapshotError: there is nothing to read.
    """
    if source == "-":
        if sys.stdin.isatty():
            raise SnapshotError(f"standard input is a terminal; pipe a snapshot into it, or {REMEDY}")
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise SnapshotError(f"{source}: {(error.strerror or str(error)).lower()}; {REMEDY}") from error


def parse_snapshot(content: bytes, classify: Classify, *, source: str) -> Snapshot:
    """Read Nodes, Pods and the ledger out of a List; other kinds are counted and left out.

    Raises:
        SnapshotError: it is no JSON, no list, holds no Node, or an object in it cannot be read.
    """
    listed = _parse_list(content, source)
    nodes: list[Node] = []
    pods: list[Pod] = []
    ledgers: list[Ledger] = []
    kinds: dict[str, int] = {}
    times: list[datetime] = []
    of_list = listed.kind.removesuffix("List")
    for position, raw in enumerate(listed.items or ()):
        try:
            kind = msgspec.json.decode(raw, type=_Header).kind or of_list
            kinds[kind] = kinds.get(kind, 0) + 1
            if kind == "Node":
                nodes.append(node_from(msgspec.json.decode(raw, type=NodeObject)))
                times.extend(_node_times(msgspec.json.decode(raw, type=_NodeTimes)))
            elif kind == "Pod":
                pods.append(pod_from(msgspec.json.decode(raw, type=PodObject), classify))
            elif kind == "ConfigMap":
                config_map = msgspec.json.decode(raw, type=ConfigMapObject)
                if (config_map.metadata.labels or {}).get(COMPONENT_LABEL) == LABELS[COMPONENT_LABEL]:
                    ledgers.append(ledger_from(config_map))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SnapshotError(f"{source}: item {position} cannot be read: {error}; {REMEDY}") from error
    if not nodes:
        held = ", ".join(sorted(kinds)) or "nothing"
        raise SnapshotError(f"{source}: there is no Node in it (it holds {held}); {REMEDY}")
    times.extend(_pod_times(pods))
    times.extend(node.created for node in nodes)
    return Snapshot(
        nodes=tuple(nodes),
        pods=tuple(pods),
        ledger=ledgers[0] if ledgers else None,
        kinds=kinds,
        taken=max(times, default=None),
    )


def _parse_list(content: bytes, source: str) -> _List:
    if not content.strip():
        raise SnapshotError(f"{source}: it is empty; {REMEDY}")
    if not content.lstrip().startswith(b"{"):
        raise SnapshotError(f"{source}: it is not JSON (written without -o json?); {REMEDY}")
    try:
        listed = msgspec.json.decode(content, type=_List)
    except msgspec.ValidationError as error:
        raise SnapshotError(f"{source}: it is not a Kubernetes list: {error}; {REMEDY}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        more = " (is it more than one document?)" if "trailing" in str(error) else ""
        raise SnapshotError(f"{source}: it is not JSON: {error}{more}; {REMEDY}") from error
    if listed.items is None:
        what = f"a {listed.kind}" if listed.kind else "an object without items"
        raise SnapshotError(f"{source}: it is {what}, not a list; {REMEDY}")
    return listed


def _node_times(node: _NodeTimes) -> Iterable[datetime]:
    for condition in (node.status.conditions if node.status is not None else None) or ():
        for time in (condition.last_heartbeat_time, condition.last_transition_time):
            if time is not None:
                yield time


def _pod_times(pods: Iterable[Pod]) -> Iterable[datetime]:
    for pod in pods:
        yield pod.created
        if pod.ready_since is not None:
            yield pod.ready_since
