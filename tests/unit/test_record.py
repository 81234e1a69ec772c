"""A recording of a cluster: what is written, that it survives any end, and how it is replayed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.cli import main
from extender.inspect.record.noting import Notes
from extender.inspect.record.recorder import Progress, RecordOptions, record
from extender.inspect.record.recording import (
    SCHEMA,
    RecordedNode,
    RecordedWorker,
    Recording,
    RecordingError,
    RecordingLine,
    RecordingStart,
    StillWatching,
    encode_line,
    read_recording,
)
from extender.kube.api_client import KubeClient
from extender.kube.credentials import Access
from extender.kube.transport import Transport
from extender.model import Membership
from extender.simulate.pool import PoolShape
from extender.simulate.recorded import NEVER, ObservedPool, calibrate, observed_pool
from extender.simulate.rules import Order, Rule
from extender.simulate.workload import BlockDrawer, DataSets
from tests.builders import by_label, minutes_ago, worker
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.store import NODES, PODS

START = RecordingStart(schema=SCHEMA, at=minutes_ago(60))
SPREAD = Rule(order=Order.SPREAD)


def at(minutes: float) -> datetime:
    """So many minutes after the beginning."""
    return minutes_ago(60 - minutes)


def written(*lines: RecordingLine) -> bytes:
    return b"".join(map(encode_line, (START, *lines)))


def life(name: str, begin: float, end: float | None, on: str = "a", key: str | None = None) -> RecordedWorker:
    """A worker that ran on a node from one minute to another."""
    return RecordedWorker(
        uid=name,
        namespace="default",
        name=name,
        pool="ducks",
        created=at(begin),
        scheduler="default-scheduler",
        key=key,
        node=on,
        bound=at(begin),
        ended=None if end is None else at(end),
    )


def machine(name: str, came: float, gone: float | None = None) -> RecordedNode:
    """A node that was there from one minute to another."""
    return RecordedNode(uid=name, name=name, created=at(came), gone=None if gone is None else at(gone))


# -- the file ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 600))
def test_a_file_that_was_cut_anywhere_is_read_up_to_its_last_complete_line(length: int) -> None:
    """As after kill -9, or a full disk."""
    lines = life("w1", 1, None), machine("a", 0), StillWatching(at=at(5)), life("w1", 1, 9), StillWatching(at=at(9))
    whole = written(*lines)
    found = read_recording(whole[:length], "f")
    complete = whole[:length].count(b"\n")
    assert len(found.workers) == (complete >= 2)
    assert len(found.nodes) == (complete >= 3)
    assert found.until == (None if complete < 1 else START.at if complete < 4 else at(5) if complete < 6 else at(9))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"arrives,duration,key\n1,2,3\n", "f:1: it is no line of a recording"),
        (written() + b"{}\n", "f:2: it is no line of a recording"),
        (encode_line(machine("a", 0)), "f:1: it is no recording; make one with: warmnode record f"),
        (written().replace(b"v1alpha1", b"v9"), "f:1: it is no recording; make one with: warmnode record f"),
    ],
)
def test_what_is_no_recording_is_refused(content: bytes, problem: str) -> None:
    """In one line that says where."""
    with pytest.raises(RecordingError) as refused:
        read_recording(content, "f")
    assert str(refused.value).startswith(problem)


# -- what is noted ----------------------------------------------------------------------------------------------------


class Seen:
    """Notes over what a file holds, and the lines that they write."""

    def __init__(self, before: Recording | None = None) -> None:
        self.now = at(10)
        self.lines: list[RecordingLine] = []
        self.notes = Notes(before or Recording(), self.lines.append, lambda: self.now)

    @property
    def workers(self) -> list[RecordedWorker]:
        return [each for each in self.lines if isinstance(each, RecordedWorker)]


def test_a_worker_has_a_line_for_each_thing_that_is_new_and_none_for_what_is_not() -> None:
    """Created, bound when that was seen, started, idle spans, ended."""
    seen = Seen()
    new = worker("w", node=None, ready_since=None, bound=None, created=at(9))
    seen.notes.worker(new, {"cpu": "1"})
    seen.notes.worker(new, {"cpu": "1"})
    seen.now = at(11)
    bound = msgspec.structs.replace(new, node="a", bound=at(10.9))
    seen.notes.worker(bound, {"cpu": "1"})
    seen.now = at(12)
    seen.notes.worker(msgspec.structs.replace(bound, ready_since=at(12), idle_since=at(12)), {"cpu": "1"})
    seen.now = at(13)
    seen.notes.worker(msgspec.structs.replace(bound, ready_since=at(12)), {"cpu": "1"})
    seen.now = at(14)
    seen.notes.worker_gone(bound)
    assert len(seen.workers) == 5
    last = seen.workers[-1]
    assert (last.created, last.bound, last.started, last.ended) == (at(9), at(11), at(12), at(14))
    assert last.idle == ((at(12), at(13)),)
    assert last.requests == {"cpu": "1"}
    assert not last.ended_about
    assert seen.notes.running_workers == 0


def test_what_is_missing_after_an_interruption_ended_while_nobody_watched() -> None:
    """At the last time that somebody did, and the line says that this is not exact."""
    before = read_recording(
        written(life("w1", 1, None), life("w2", 1, None), machine("a", 0), StillWatching(at=at(5))), "f"
    )
    seen = Seen(before)
    seen.notes.list_nodes([])
    seen.notes.list_workers([(worker("w2", uid="w2", node="a", created=at(1), bound=at(1), pool="ducks"), {})])
    gone = next(each for each in seen.lines if isinstance(each, RecordedNode))
    assert (gone.gone, gone.gone_about) == (at(5), True)
    assert [(each.uid, each.ended, each.ended_about) for each in seen.workers if each.ended] == [("w1", at(5), True)]
    assert seen.notes.seen_workers == 2


def test_pods_of_no_pool_and_finished_ones_are_passed_by() -> None:
    """A finished worker has ended."""
    seen = Seen()
    seen.notes.worker(worker("s", pool=None), {})
    seen.notes.worker(worker("done", finished=True), {})
    assert seen.lines == []
    seen.notes.worker(worker("w"), {})
    seen.notes.worker(worker("w", finished=True), {})
    assert [each.ended for each in seen.workers] == [None, seen.now]


# -- a recorder -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as running:
        running.store.create(NODES, "", {"metadata": {"name": "a", "uid": "node-uid"}})
        yield running


@pytest.fixture
async def client(server: FakeApiServer) -> AsyncIterator[KubeClient]:
    access = Access(server=server.url, namespace="default")
    connected = KubeClient(Transport(access, user_agent="test"), namespace="default")
    yield connected
    await connected.close()


def create(server: FakeApiServer, name: str, **labels: str) -> None:
    """A worker on node a."""
    spec = {"nodeName": "a", "containers": [{"resources": {"requests": {"cpu": "500m"}}}] * 2}
    tree = {"metadata": {"name": name, "labels": {"warmnode.dev/pool": "ducks", **labels}}, "spec": spec}
    server.store.create(PODS, "default", tree)


async def recorded(client: KubeClient, options: RecordOptions, until: int) -> Recording:
    """Record until so many workers are there, or were."""
    stopping = asyncio.Event()

    def tell(progress: Progress) -> None:
        if progress.seen >= until:
            stopping.set()

    await record(client, options, tell, stopping)
    return read_recording(options.file.read_bytes(), "f")


@pytest.mark.looptime
async def test_a_recorder_writes_a_file_and_goes_on_with_it(
    server: FakeApiServer, client: KubeClient, tmp_path: Path
) -> None:
    """Also where its last line was cut off. Nothing is sent but GET."""
    options = RecordOptions(file=tmp_path / "f", length=timedelta(hours=1), classify=by_label)
    create(server, "w1")
    found = await recorded(client, options, 1)
    (first,) = found.workers.values()
    assert (first.name, first.node, first.pool, dict(first.requests)) == ("w1", "a", "ducks", {"cpu": "1"})
    assert [each.name for each in found.nodes.values()] == ["a"]
    with options.file.open("ab") as file:
        file.write(b'{"type":"wor')
    server.store.delete(PODS, ("default", "w1"), {}, grace=0)
    create(server, "w2")
    found = await recorded(client, options, 2)
    assert {each.name: each.ended is not None for each in found.workers.values()} == {"w1": True, "w2": False}
    assert {each.method for each in server.requests} == {"GET"}


@pytest.mark.looptime
async def test_a_recording_without_names_has_none(server: FakeApiServer, client: KubeClient, tmp_path: Path) -> None:
    """Nor goes it on with names."""
    options = RecordOptions(
        file=tmp_path / "f",
        length=timedelta(hours=1),
        classify=lambda namespace, labels: Membership(pool="ducks", cache_key=labels.get("tenant")),
        anonymize=True,
    )
    create(server, "secret-pod", tenant="secret-tenant")
    await recorded(client, options, 1)
    found = await recorded(client, options, 1)
    assert [each.ended for each in found.workers.values()] == [None]
    text = options.file.read_text()
    assert "secret" not in text
    assert "ducks" not in text
    (named,) = found.nodes.values()
    assert next(iter(found.workers.values())).node == named.name
    with pytest.raises(RecordingError, match="begun with --anonymize"):
        await recorded(client, replace(options, anonymize=False), 1)


# -- replayed ---------------------------------------------------------------------------------------------------------


def observed(*lines: RecordingLine, until: float = 30) -> ObservedPool:
    recording = read_recording(written(*lines, StillWatching(at=at(until))), "f")
    drawer = BlockDrawer(DataSets(), Random(1))  # noqa: S311 - a model
    return observed_pool(recording, drawer, cache_blocks=1000)


def test_what_the_pool_looked_like_is_read_from_the_recording() -> None:
    """Slots, boot, consolidateAfter, node-hours; a worker that was there before arrives at the beginning."""
    pool = observed(
        machine("a", -100),
        machine("b", 4, gone=20),
        machine("other", -100),
        life("w1", -50, 10),
        life("w2", 5, 15, on="b"),
        life("w3", 6, 15, on="b"),
        life("w4", 16, None),
    )
    assert [(job.arrives, job.lasts) for job in pool.jobs] == [(0, 600), (300, 600), (360, 540), (960, 840)]
    assert (pool.slots, pool.first_nodes, pool.peak_nodes) == (2, 1, 2)
    assert (pool.boot, pool.consolidate_after) == (timedelta(minutes=1), timedelta(minutes=5))
    assert pool.node_hours == pytest.approx(46 / 60)


def test_slots_are_what_fits_where_sizes_are_known_and_what_was_seen_elsewhere() -> None:
    """A pool whose nodes were never full has more room than was ever used."""
    worker_of_one = msgspec.structs.replace(life("w", 1, 5), requests={"cpu": "1"})
    roomy = msgspec.structs.replace(machine("a", 0), allocatable={"cpu": "4"})
    assert observed(roomy, worker_of_one).slots == 4
    assert observed(machine("a", 0), worker_of_one).slots == 1
    assert observed(roomy, life("w", 1, 5)).slots == 1


@pytest.mark.parametrize("lines", [(), (machine("a", 0),), (life("w", 40, 50),)])
def test_a_recording_without_a_worker_is_refused(lines: tuple[RecordingLine, ...]) -> None:
    """There is nothing to replay."""
    with pytest.raises(RecordingError):
        observed(*lines)


def test_a_pool_that_does_what_the_model_does_is_calibrated() -> None:
    """Two nodes that never go, watched for half an hour: an hour of nodes, observed and as simulated."""
    lives = [life(f"w{number}", number / 2, number / 2 + 1, on="ab"[number % 2]) for number in range(50)]
    pool = observed(machine("a", -10), machine("b", -10), *lives)
    shape = PoolShape(slots=pool.slots, consolidate_after=NEVER, first_nodes=pool.first_nodes, watched=pool.period)
    found = calibrate(pool, shape, SPREAD, seed=1)
    assert found.observed == pytest.approx(found.simulated) == pytest.approx(1)
    assert found.is_close
    assert found.misses == ()


def test_a_pool_that_does_something_else_is_said_not_to_match() -> None:
    """Nodes that other pods keep for long: the model has them go."""
    pool = observed(machine("a", -10), machine("b", 1), life("w1", 0, 2), life("w2", 1, 3, on="b"))
    shape = PoolShape(slots=1, consolidate_after=timedelta(minutes=1), first_nodes=1, watched=pool.period)
    found = calibrate(pool, shape, SPREAD, seed=1)
    assert not found.is_close
    assert any("other pods" in each for each in found.misses)


def test_a_recording_is_simulated_with_the_calibration_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the real point among the others."""
    file = tmp_path / "f"
    lives = [life(f"w{number}", number / 2, number / 2 + 1, key="k") for number in range(40)]
    file.write_bytes(written(machine("a", -10), *lives, StillWatching(at=at(30))))
    assert main(["simulate", "--recorded", str(file), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("calibration: 0.50 node-hours observed, 0.50 as simulated by default spread (+0.0%)")
    assert any(line.startswith("as observed") for line in lines)
    assert main(["simulate", "--recorded", str(file), "--quiet", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["calibration"]["observedNodeHours"] == 0.5
    picture = tmp_path / "frontier.svg"
    assert main(["simulate", "--recorded", str(file), "--quiet", "--svg", str(picture)]) == 0
    capsys.readouterr()
    assert "as observed" in picture.read_text()
    assert main(["simulate", "--recorded", str(tmp_path / "none"), "--quiet"]) == 2
    assert main(["simulate", "--recorded", str(file), "--jobs-csv", "x", "--quiet"]) == 2
    file.write_bytes(b"")
    assert main(["simulate", "--recorded", str(file), "--quiet"]) == 2
