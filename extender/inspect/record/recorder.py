"""Records a cluster: lists and watches pods and nodes, and appends a line to a file for whatever is new.

Owns the file and the loop. Writes nothing into the cluster, and needs no right but to list and watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from random import Random
from typing import BinaryIO

from msgspec import Struct

from extender.inspect.live_snapshot import server_time
from extender.inspect.record.noting import Notes
from extender.inspect.record.recording import (
    NOTED,
    SCHEMA,
    Recording,
    RecordingError,
    RecordingLine,
    RecordingStart,
    StillWatching,
    complete_lines,
    disguised_node,
    disguised_pod,
    encode_line,
    read_recording,
    written_amounts,
)
from extender.inspect.text import printable
from extender.kube.api_client import KubeClient
from extender.kube.objects import Classify, NodeObject, PodObject, PodSpec, node_from, pod_from
from extender.kube.watch import CallingSink, Reflector
from extender.kube.watch_reports import NullObserver
from extender.model import Pod
from extender.policy.resources import Resources, quantity, requests_in_all

TICK = timedelta(seconds=5)
"""So much is not known after an end without warning."""

WorkerSeen = tuple[Pod, dict[str, str]]


class _Asked(Struct, frozen=True):
    requests: dict[str, str | int | float] | None = None


class _AskingContainer(Struct, frozen=True):
    resources: _Asked | None = None


class _AskingSpec(PodSpec, frozen=True, rename="camel", gc=False):
    containers: list[_AskingContainer] | None = None


class _AskingPod(PodObject, frozen=True, rename="camel", gc=False):
    spec: _AskingSpec = _AskingSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """What is recorded, and where to. ``selector`` is for the API server; ``classify`` says who is a worker."""

    file: Path
    length: timedelta
    classify: Classify
    selector: str = ""
    anonymize: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is. ``problem`` is why nothing is heard now."""

    since: timedelta
    running: int
    seen: int
    nodes: int
    problem: str | None


async def record(
    client: KubeClient, options: RecordOptions, tell: Callable[[Progress], None], stopping: asyncio.Event
) -> Progress:
    """Record for as long as is asked, or until ``stopping``. A file that is there already is continued.

    Raises:
        RecordingError: the file is no recording.
        OSError: it cannot be read or written.
        KubeError: pods or nodes cannot be listed at first.
    """
    with _opened(options) as (file, before):

        def write(line: RecordingLine) -> None:
            file.write(encode_line(line))

        notes = Notes(before, write, lambda: server_time(client))
        sink: CallingSink[WorkerSeen] = CallingSink(
            notes.list_workers, lambda seen: notes.worker(*seen), lambda seen: notes.worker_gone(seen[0])
        )
        pods = Reflector(
            client,
            path="/api/v1/pods",
            struct=_AskingPod,
            trim=lambda raw: _worker_seen(raw, options),
            sink=sink,
            name="pods",
            random=Random(),  # noqa: S311 - jitter
            label_selector=options.selector,
            observer=NullObserver(),
        )
        nodes = Reflector(
            client,
            path="/api/v1/nodes",
            struct=NodeObject,
            trim=lambda raw: disguised_node(node_from(raw)) if options.anonymize else node_from(raw),
            sink=CallingSink(notes.list_nodes, notes.node, notes.node_gone),
            name="nodes",
            random=Random(),  # noqa: S311 - jitter
            observer=NullObserver(),
        )
        await client.get_bytes("/api/v1/nodes", params={"limit": "1"})  # so that what is forbidden is told at once
        await client.get_bytes("/api/v1/pods", params={"limit": "1"})
        write(RecordingStart(schema=SCHEMA, at=server_time(client), anonymized=options.anonymize))
        began = server_time(client)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each.run(), name=f"record {each.name}") for each in (nodes, pods)]
            while True:
                if pods.following_since is not None and nodes.following_since is not None:
                    now = server_time(client)
                    notes.still_watching(now)
                    write(StillWatching(at=now))
                file.flush()
                since = server_time(client) - began
                progress = Progress(
                    since=since,
                    running=notes.running_workers,
                    seen=notes.seen_workers,
                    nodes=notes.running_nodes,
                    problem=client.problem or pods.problem or nodes.problem,
                )
                tell(progress)
                if stopping.is_set() or since >= options.length:
                    break
                try:
                    async with asyncio.timeout(min(TICK, options.length - since).total_seconds()):
                        await stopping.wait()
                except TimeoutError:
                    pass
            for task in tasks:
                task.cancel()
        return progress


@contextmanager
def _opened(options: RecordOptions) -> Iterator[tuple[BinaryIO, Recording]]:
    """Open the file at its last complete line, for us alone."""
    name = printable(str(options.file))
    with options.file.open("a+b") as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            raise RecordingError(f"{name}: another recorder writes to it; choose another file") from error
        file.seek(0)
        content = file.read()
        before = read_recording(content, name)
        if before.began is not None and before.anonymized != options.anonymize:
            how = "with" if before.anonymized else "without"
            raise RecordingError(f"{name}: it was begun {how} --anonymize; go on so, or choose another file")
        file.truncate(len(complete_lines(content)))
        yield file, before


def _worker_seen(raw: _AskingPod, options: RecordOptions) -> WorkerSeen:
    pod = pod_from(raw, options.classify)
    return disguised_pod(pod) if options.anonymize else pod, _requests(raw)


def _requests(raw: _AskingPod) -> dict[str, str]:
    """Sum up cpu and memory over the containers, as Kubernetes writes numbers: cores and bytes."""
    given = [each.resources.requests or {} for each in raw.spec.containers or () if each.resources is not None]
    amounts: list[Resources] = [{name: quantity(each[name]) for name in NOTED if name in each} for each in given]
    return written_amounts(requests_in_all(amounts))
