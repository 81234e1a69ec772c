"""Idle sources end to end: `warmnode reap` over a real API server, workers that answer on loopback addresses.

A worker's address is what its pod's status says, so each worker here has one of 127.0.0.0/8 to itself, and all have
the same port, as the containers of a pool have.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scripts.tools.controlplane import ApiError, Json
from scripts.tools.controlplane.errors import MissingTool
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.serving import Serve
from tests.answering import BAD_ANSWERS, WELL, AnsweringWorker, Behaviour, answers
from tests.integration.ground import POOL, Ground
from tests.integration.reapers import IDLE, LONG_AGO, Reapers, evicted, reaping, wait_evicted
from tests.prometheus import Prometheus, find_prometheus, skip_or_fail

pytestmark = pytest.mark.controlplane

NOTE = "warmnode.dev/idle-source"
SINCE = "2026-01-01T00:00:00.000Z"
BUSY = answers(409, b"{}")
DOCUMENTED = Path(__file__).resolve().parents[2] / "docs" / "idle-sources.md"


class Flock:
    """Workers that answer, by name, and the reapers that ask them."""

    def __init__(self, ground: Ground, reapers: Reapers) -> None:
        self.ground = ground
        self.reapers = reapers
        self.workers: dict[str, AnsweringWorker] = {}
        self.port = free_ports(1)[0]
        self.node = ground.nodes(1, cpu="64")[0]
        self._ends = ExitStack()

    def close(self) -> None:
        self._ends.close()

    def run(self, behaviours: dict[str, Behaviour], *, marked: Sequence[str] = ()) -> None:
        """Create workers that answer like this; those ``marked`` have an idle mark of their own."""
        for name, behaviour in behaviours.items():
            host = f"127.0.1.{len(self.workers) + 1}"
            server = AnsweringWorker(behaviour, host=host, port=self.port)
            self.workers[name] = self._ends.enter_context(server)
        places = dict.fromkeys(behaviours, self.node)
        self.reapers.run_workers(places, busy=[name for name in behaviours if name not in marked])
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(self._tell_address, behaviours))

    def http(self, **more: Any) -> Json:
        """The source, quick."""
        return {"http": {"port": self.port, "interval": "1s", "timeout": "500ms", **more}}

    def annotations(self, name: str) -> dict[str, str]:
        """Marks on a worker as it is now."""
        found = self.ground.pod(name)["metadata"].get("annotations") or {}
        return {key: value for key, value in found.items() if key in (IDLE, NOTE)}

    def wait_annotations(self, name: str, expected: dict[str, str]) -> None:
        """Wait until a worker has exactly these marks."""
        self.ground.wait(
            lambda: self.annotations(name) == expected, lambda: f"{name}: {expected}, not {self.annotations(name)}"
        )

    def wait_asked(self, *names: str, more: int = 2) -> None:
        """Wait until each of these workers was asked so many times more."""
        wanted = {name: len(self.workers[name].asked) + more for name in names}
        self.ground.wait(
            lambda: all(len(self.workers[name].asked) >= count for name, count in wanted.items()),
            lambda: f"{wanted} asked, not { {name: len(self.workers[name].asked) for name in names} }",
        )

    def _tell_address(self, name: str) -> None:
        """Write a pod's address into its status, as its kubelet does."""
        ip = self.workers[name].host
        path = f"/api/v1/namespaces/{self.ground.namespace}/pods/{name}/status"
        self.ground.control_plane.api("PATCH", path, {"status": {"podIP": ip, "podIPs": [{"ip": ip}]}})


@pytest.fixture
def reapers(ground: Ground, tmp_path: Path) -> Iterator[Reapers]:
    with reaping(ground, tmp_path) as made:
        yield made


@pytest.fixture
def flock(ground: Ground, reapers: Reapers) -> Iterator[Flock]:
    made = Flock(ground, reapers)
    try:
        yield made
    finally:
        made.close()


def sources(*given: Json, stale_after: str = "5s") -> Json:
    """The pool's setting."""
    return {"idle": {"sources": list(given), "staleAfter": stale_after}}


def answered(reaper: Serve, said: str, source: str = "http") -> float:
    """How many workers a source says this of now."""
    return reaper.metric("warmnode_idle_source_workers", pool=POOL, source=source, said=said)


def shown(reaper: Serve) -> list[str]:
    """What the sources say of all workers, for a message."""
    return [line for line in reaper.get("/metrics")[1].splitlines() if "source_workers{" in line]


# -- http -------------------------------------------------------------------------------------------------------------


def test_worker_that_answers_idle_is_marked_and_evicted_and_no_other(flock: Flock) -> None:
    """Slow, 500, HTML, redirect, huge, reset, garbage: busy, all of them, with a metric, and never a mark."""
    with AnsweringWorker(WELL) as elsewhere:
        redirect = answers(302, b"", f"Location: http://{elsewhere.host}:{elsewhere.port}/idle")
        named = {re.sub("[^a-z]", "-", name): behaviour for name, (behaviour, _) in BAD_ANSWERS.items()}
        bad = {**named, "redirect": redirect}
        flock.run({"idle": WELL, **bad})
        reaper = flock.reapers.start(pool=sources(flock.http()))
        flock.reapers.wait_names(set(bad))
        flock.wait_asked(*bad)
        assert {name: flock.annotations(name) for name in bad} == {name: {} for name in bad}
        assert elsewhere.asked == []
    assert evicted(reaper) == ["idle"]
    expected = [said for _, said in BAD_ANSWERS.values()] + ["redirect"]
    flock.ground.wait(
        lambda: (
            {said: answered(reaper, said) for said in set(expected)}
            == {said: float(expected.count(said)) for said in set(expected)}
        ),
        lambda: f"{sorted(expected)}: {shown(reaper)}",
    )
    assert flock.reapers.names() == set(bad)
    # one of them comes to its senses
    flock.workers["reset"].behaviour = WELL
    wait_evicted(reaper, "idle", "reset")


def test_mark_follows_the_worker_and_cleanup_removes_it(flock: Flock) -> None:
    """Idle, busy, idle again: written and removed. What is left at the end is removed by cleanup."""
    flock.run({"w": WELL, "foreign": WELL, "silent": BUSY}, marked=["foreign"])
    reaper = flock.reapers.start(pool=sources(flock.http()), idleTimeout="1h", floor=3)
    marked = {IDLE: SINCE, NOTE: f"marked {SINCE}"}
    flock.wait_annotations("w", marked)
    flock.wait_annotations("foreign", marked)
    flock.workers["w"].behaviour = BUSY
    flock.wait_annotations("w", {})
    flock.workers["w"].behaviour = WELL
    flock.wait_annotations("w", marked)
    assert flock.annotations("silent") == {}
    reaper.stop()
    command = [sys.executable, "-m", "extender", "cleanup", "--kubeconfig", str(flock.ground.control_plane.kubeconfig)]
    done = subprocess.run(
        [*command, "--namespace", flock.ground.namespace], capture_output=True, text=True, check=True, timeout=60
    )
    assert "w: " in done.stdout
    assert flock.annotations("w") == flock.annotations("foreign") == {}


def test_worker_that_is_busy_when_asked_once_more_stays(flock: Flock) -> None:
    """Its mark says idle, its eviction is decided, and the question right before it says busy."""
    asked: list[str] = []

    def idle_once(connection: Any, closing: Any) -> None:
        asked.append("")
        (WELL if len(asked) == 1 else BUSY)(connection, closing)

    flock.run({"w": idle_once})
    # asked every 100 s: whatever is asked after the first time is a confirmation
    reaper = flock.reapers.start(pool=sources(flock.http(interval="100s"), stale_after="200s"))
    flock.ground.wait(lambda: reaper.lines("idle no more"), lambda: f"a confirmation: {reaper.text()[-1500:]}")
    flock.wait_annotations("w", {})
    flock.reapers.wait_passes(reaper)
    assert flock.reapers.names() == {"w"}
    assert len(asked) == 2
    assert reaper.lines("idle no more")[0]["said"] == "busy"


def test_worker_that_marks_itself_and_the_probe_must_agree(flock: Flock) -> None:
    """The mark stays the worker's: it is confirmed beside it, never written, and not made again once it is gone."""
    flock.run({"agreed": WELL, "denied": BUSY, "unmarked": WELL, "gone": WELL}, marked=["agreed", "denied", "gone"])
    reaper = flock.reapers.start(pool=sources({"annotation": {}}, flock.http()), floor=2)
    both = {IDLE: LONG_AGO, NOTE: f"confirmed {SINCE}"}
    flock.wait_annotations("agreed", both)
    flock.wait_annotations("gone", both)
    flock.reapers.mark_busy("gone")
    flock.wait_annotations("gone", {})
    flock.wait_asked("agreed", more=3)
    assert flock.annotations("gone") == {}
    assert flock.annotations("denied") == {IDLE: LONG_AGO}
    assert flock.annotations("unmarked") == {}
    assert flock.workers["unmarked"].asked == []
    flock.reapers.configure(pool=sources({"annotation": {}}, flock.http()), floor=0)
    flock.reapers.wait_names({"denied", "unmarked", "gone"})
    assert flock.annotations("denied") == {IDLE: LONG_AGO}
    # without the probe the worker's own word is enough, and the note is taken away
    flock.workers["gone"].behaviour = BUSY
    flock.reapers.mark_idle("gone", since=LONG_AGO)
    flock.reapers.configure(pool=sources({"annotation": {}}), idleTimeout="1s", floor=0)
    flock.reapers.wait_names({"unmarked"})
    assert reaper.metric("warmnode_idle_mark_writes_total", pool=POOL, outcome="failed") == 0


def test_dry_run_asks_and_previews_and_writes_nothing(flock: Flock) -> None:
    """What the real run would evict is logged; no annotation is written; plan says what it cannot know."""
    flock.run({"idle": WELL, "busy": BUSY})
    reaper = flock.reapers.start("--dry-run", pool=sources(flock.http()))
    flock.ground.wait(lambda: reaper.lines("would evict"), lambda: f"a preview: {reaper.text()[-1500:]}")
    assert {line["pod"] for line in reaper.lines("would evict")} == {"idle"}
    assert flock.annotations("idle") == flock.annotations("busy") == {}
    assert answered(reaper, "idle", "all") == 1
    command = [sys.executable, "-m", "extender", "plan", "--config", str(flock.reapers.config_file)]
    done = subprocess.run(
        [*command, "--kubeconfig", str(flock.ground.control_plane.kubeconfig), "--namespace", flock.ground.namespace],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said = " ".join(done.stdout.split())  # lines are filled to the width of a terminal
    assert f"which workers of pool {POOL} are idle right now (http: only the reaper's leader asks" in said


def test_only_the_leader_asks(flock: Flock) -> None:
    """A second replica waits; when the leader is killed it asks anew and goes on."""
    flock.run({"w": BUSY})
    first = flock.reapers.start(pool=sources(flock.http()))
    second = flock.reapers.make().start()
    flock.wait_asked("w", more=3)
    assert second.metric("warmnode_idle_source_answers_total", source="http", said="busy") == 0
    first.kill()
    flock.workers["w"].behaviour = WELL
    wait_evicted(second, "w")
    assert evicted(first) == []


def test_work_accepted_after_the_mark_was_removed_is_never_lost(flock: Flock) -> None:
    """The worker's rule with a source that always says idle: whoever removed its mark and got an answer may work.

    Each worker marks itself, is confirmed, removes the mark, and works, over and over, while the reaper evicts what it
    can. A worker that was evicted found that out in the answer.
    """
    names = [f"w{number}" for number in range(6)]
    flock.run(dict.fromkeys(names, WELL))
    flock.reapers.start(pool=sources({"annotation": {}}, flock.http()), idleTimeout="0s")
    with ThreadPoolExecutor(len(names)) as threads:
        worked = list(threads.map(lambda name: work(flock, name, rounds=8), names))
    assert sum(worked) > 0


def work(flock: Flock, name: str, rounds: int) -> int:
    """Be idle and busy in turn: how often work was done. AssertionError where accepted work was lost."""
    done = 0
    for number in range(rounds):
        try:
            flock.reapers.mark_idle(name, since=LONG_AGO)
            if number % 2:  # every other time the reaper is given the time to come as far as it can
                flock.ground.wait(lambda: NOTE in flock.annotations(name), f"{name} confirmed")
            answer = flock.reapers.annotate(name, {IDLE: None})
        except ApiError as error:
            if error.status != 404:
                raise
            return done  # evicted while it was idle
        if "deletionTimestamp" in answer["metadata"]:
            return done
        for _ in range(20):  # at work
            assert "deletionTimestamp" not in flock.ground.pod(name)["metadata"], f"{name} was lost at work"
        done += 1
    return done


# -- prometheus -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def prometheus_program() -> Path:
    """The program of a real server."""
    try:
        return find_prometheus(os.environ, lambda line: print(line, file=sys.__stderr__, flush=True))
    except MissingTool as error:
        skip_or_fail(error, os.environ)


class Exporter:
    """What is scraped: lines of the text format, which a test may change."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.lines: list[str] = []

    def set(self, pod: str, *values: str, at: float | None = None) -> None:
        """Export these values for a pod, each as a series of its own; ``at`` is their time, epoch seconds."""
        time = "" if at is None else f" {int(at * 1000)}"
        labels = f'namespace="{self._ground.namespace}",pod="{pod}"'
        self.lines = [line for line in self.lines if f'pod="{pod}"' not in line]
        for number, value in enumerate(values):
            self.lines.append(f'worker_idle_since_seconds{{{labels},part="{number}"}} {value}{time}')

    def answer(self, connection: Any, closing: Any) -> None:
        """Answer a scrape."""
        body = "".join(f"{line}\n" for line in self.lines).encode()
        answers(200, body, content_type="text/plain; version=0.0.4")(connection, closing)


def problems(reaper: Serve) -> list[str]:
    """What was logged about Prometheus."""
    return [line["problem"] for line in reaper.lines("prometheus does not say who is idle")]


def documented_query(name: str) -> str:
    """A query of docs/idle-sources.md, as it is written there."""
    found = re.search(rf"<!-- query: {name} -->\n *```promql\n *(.*?)\n *```", DOCUMENTED.read_text(), re.DOTALL)
    assert found is not None, f"docs/idle-sources.md has no query {name!r}"
    return found[1]


def test_series_of_a_real_prometheus_say_who_is_idle(
    flock: Flock, ground: Ground, reapers: Reapers, prometheus_program: Path, tmp_path: Path
) -> None:
    """One series with a time is idle. None, several, NaN, infinite, negative, 0, future: busy, and counted.

    A target that cannot be scraped any more, and a server that is away, turn idle workers busy. A sample that is older
    than the documented query allows is no answer.
    """
    now = datetime.now(UTC).timestamp()
    exporter = Exporter(ground)
    given = {
        "idle": [f"{now}"],
        "steady": [f"{now}"],
        "nan": ["NaN"],
        "infinite": ["+Inf"],
        "negative": ["-5"],
        "zero": ["0"],
        "future": [f"{now + 3600}"],
        "several": [f"{now}", f"{now}"],
        "none": [],
    }
    reapers.run_workers(dict.fromkeys(given, flock.node), busy=list(given))
    for name, values in given.items():
        exporter.set(name, *values)
    exporter.set("old", f"{now}", at=now - 60)
    with (
        AnsweringWorker(exporter.answer) as target,
        Prometheus(prometheus_program, tmp_path, [f"{target.host}:{target.port}"]) as server,
    ):
        ground.wait(lambda: server.query("worker_idle_since_seconds"), "the first scrape")
        query = documented_query("fresh")
        found = {series["metric"]["pod"] for series in server.query(query)}
        assert "old" not in found
        assert {"idle", "several", "nan"} <= found
        source = {"prometheus": {"url": server.url, "query": query, "interval": "1s", "timeout": "900ms"}}
        reaper = reapers.start(pool=sources(source), floor=1)
        ground.wait(lambda: len(evicted(reaper)) == 1, lambda: f"one eviction: {reaper.text()[-1500:]}")
        expected = {"idle": 1, "noTime": 3, "otherPod": 1, "future": 1, "severalSeries": 1, "noSeries": 1}
        ground.wait(
            lambda: {said: answered(reaper, said, "prometheus") for said in expected} == expected,
            lambda: f"{expected}: {shown(reaper)}",
        )
        (left,) = {"idle", "steady"} - set(evicted(reaper))
        assert reapers.names() == set(given) - set(evicted(reaper))
        marked = flock.annotations(left)
        assert marked[NOTE] == f"marked {marked[IDLE]}"
        # the worker cannot be scraped any more
        exporter.set(left)
        flock.wait_annotations(left, {})
        exporter.set(left, f"{now}")
        flock.wait_annotations(left, marked)
        told = len(reaper.lines("prometheus does not say who is idle"))
        server.stop()
        flock.wait_annotations(left, {})
        assert [line["url"] for line in reaper.lines("prometheus does not say who is idle")[told:]] == [server.url]
        server.start()
        flock.wait_annotations(left, marked)
        # a query that is none
        broken = {"prometheus": {**source["prometheus"], "query": "worker_idle_since_seconds{"}}
        reapers.configure(pool=sources(broken), floor=1)
        ground.wait(lambda: "parse error" in problems(reaper)[-1], lambda: f"a parse error: {problems(reaper)}")
        flock.wait_annotations(left, {})
