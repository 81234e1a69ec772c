"""A recording: one line of JSON for a worker or a node each time that something of it is new. Pure.

Owns the lines and how they are read. Of several lines about one thing the last one counts; a line that was cut off when
the recorder was killed is left out. docs/simulate.md describes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import TypeAlias

import msgspec
from msgspec import Struct

from extender.model import Node, Pod
from extender.policy.resources import Resources

NOTED = ("cpu", "memory")
SCHEMA = "warmnode.dev/recording/v1alpha1"


class RecordingStart(Struct, frozen=True, kw_only=True, rename="camel", tag="start"):
    """The recorder began, or went on after an interruption."""

    schema: str
    at: datetime
    anonymized: bool = False


class StillWatching(Struct, frozen=True, kw_only=True, tag="watching"):
    """Everything until now is in the lines before."""

    at: datetime


class RecordedWorker(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, tag="worker"):
    """A worker. ``started``: first Ready. ``ended_about``: it ended while nobody watched, after ``ended``.

    ``idle`` are the spans in which its mark said idle; an open one has no end.
    """

    uid: str
    namespace: str
    name: str
    pool: str
    created: datetime
    scheduler: str
    key: str | None = None
    node: str | None = None
    bound: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    ended_about: bool = False
    requests: Mapping[str, str] = {}
    idle: tuple[tuple[datetime, datetime | None], ...] = ()


class RecordedNode(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, tag="node"):
    """A node. ``gone_about``: it went while nobody watched, after ``gone``."""

    uid: str
    name: str
    created: datetime
    gone: datetime | None = None
    gone_about: bool = False
    instance_type: str | None = None
    node_pool: str | None = None
    allocatable: Mapping[str, str] = {}


RecordingLine: TypeAlias = RecordingStart | StillWatching | RecordedWorker | RecordedNode

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[RecordingLine] = msgspec.json.Decoder(RecordingLine)


class RecordingError(Exception):
    """A recording that is no good. The message is one line."""


@dataclass(slots=True)
class Recording:
    """What a file holds. ``began`` and ``until`` are None where it holds nothing yet."""

    began: datetime | None = None
    until: datetime | None = None
    anonymized: bool = False
    workers: dict[str, RecordedWorker] = field(default_factory=dict)
    nodes: dict[str, RecordedNode] = field(default_factory=dict)

    def take(self, line: RecordingLine) -> None:
        """Take the next line."""
        match line:
            case RecordingStart():
                self.began = self.began or line.at
                self.until = self.until or line.at
                self.anonymized = line.anonymized
            case StillWatching():
                self.until = line.at
            case RecordedWorker():
                self.workers[line.uid] = line
            case RecordedNode():
                self.nodes[line.uid] = line


def encode_line(line: RecordingLine) -> bytes:
    """Write a line, with its end."""
    return _encoder.encode(line) + b"\n"


def complete_lines(content: bytes) -> bytes:
    """Leave out what follows the last end of a line: it was cut off."""
    return content[: content.rfind(b"\n") + 1]


def read_recording(content: bytes, source: str) -> Recording:
    """Read a file.

    Raises:
        RecordingError: it is none, or a line in it cannot be read.
    """
    recording = Recording()
    for number, line in enumerate(complete_lines(content).splitlines(), 1):
        try:
            read = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RecordingError(f"{source}:{number}: it is no line of a recording: {error}") from error
        if number == 1 and not (isinstance(read, RecordingStart) and read.schema == SCHEMA):
            raise RecordingError(f"{source}:1: it is no recording; make one with: warmnode record {source}")
        recording.take(read)
    return recording


def disguised_pod(pod: Pod) -> Pod:
    """Replace names, keys and UIDs by hashes of them: the same name is the same hash. Times stay."""
    return msgspec.structs.replace(
        pod,
        uid=_hashed(pod.uid),
        namespace=_hashed(pod.namespace),
        name=_hashed(pod.name),
        pool=_hashed_or_none(pod.pool),
        cache_key=_hashed_or_none(pod.cache_key),
        node=_hashed_or_none(pod.node),
        scheduler=_hashed(pod.scheduler),
    )


def disguised_node(node: Node) -> Node:
    """Replace names and UIDs likewise. The instance type stays."""
    return msgspec.structs.replace(
        node, uid=_hashed(node.uid), name=_hashed(node.name), node_pool=_hashed_or_none(node.node_pool)
    )


def _hashed(name: str) -> str:
    return blake2b(name.encode(errors="replace"), digest_size=8).hexdigest()


def _hashed_or_none(name: str | None) -> str | None:
    return None if name is None else _hashed(name)


def written_amounts(amounts: Resources) -> dict[str, str]:
    """Write cores and bytes as Kubernetes would, of cpu and memory."""
    return {name: f"{amounts[name].normalize():f}" for name in NOTED if name in amounts}


def open_spans_closed(
    idle: Iterable[tuple[datetime, datetime | None]], at: datetime
) -> tuple[tuple[datetime, datetime | None], ...]:
    """End the last span where it is open."""
    return tuple((start, end or max(start, at)) for start, end in idle)
