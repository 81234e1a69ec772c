"""The reaper while the API server is in trouble: nothing is evicted on stale data, and all goes on by itself.

The tests that kill the API server come last: the controller manager takes its time to come back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scripts.tools.controlplane import Component, ControlPlane, Options, wait_for
from scripts.tools.controlplane.fixtures import RequireBinaries
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.proxy import Proxy, Refusal, Seen
from scripts.tools.serving import Serve
from tests.integration.ground import POOL, SECONDS, Ground
from tests.integration.reapers import LONG_AGO, Reapers, evicted, reaping, wait_evicted

pytestmark = pytest.mark.controlplane

MINUTE = 60.0
GRACE = "20s"
"""How long the node controller waits for a sign of life, which comes every ten seconds: it must miss the outage."""


@pytest.fixture(scope="module")
def plane(require_binaries: RequireBinaries) -> Iterator[ControlPlane]:
    """A control plane of our own, whose API server can be stopped, with a node controller that notices."""
    flags = (f"--node-monitor-grace-period={GRACE}", "--node-monitor-period=1s")
    options = Options(scheduler=False, controller_manager_flags=flags)
    require_binaries(options.binaries())
    with ControlPlane(options) as running:
        yield running


@pytest.fixture
def own(plane: ControlPlane, tmp_path: Path) -> Iterator[Reapers]:
    """Workers and reapers on that control plane, in a namespace of the test's own."""
    ground = Ground(plane, plane.create_namespace(), 0, tmp_path)
    try:
        with reaping(ground, tmp_path) as made:
            yield made
    finally:
        ground.close()


def wait_leading(reaper: Serve, leads: bool = True) -> None:
    wait_for(lambda: reaper.metric("warmnode_leader") == leads, SECONDS, lambda: reaper.text()[-2000:])


def follows(reaper: Serve) -> bool:
    """All that an eviction depends on is being watched, as /readyz shows it."""
    collections = reaper.readiness()["collections"]
    return all(collections[name]["following"] for name in ("nodes", "pods", "ledger"))


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_nothing_is_decided_on_what_was_known_before_a_cut(own: Reapers, tmp_path: Path) -> None:
    """A worker gets work while we hear nothing. Back again, no other is evicted that the floor needs by now."""
    names = own.some_workers(3)
    own.mark_idle(*names, since=ago(5))
    with Proxy(own.control_plane) as proxy:
        reaper = own.start(kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig"), floor=2, idleTimeout="1h")
        wait_leading(reaper)
        own.wait_passes(reaper)
        proxy.cut()
        wait_leading(reaper, False)
        own.mark_busy("w0")
        own.configure(floor=2)  # from now on all three are idle for long enough
        wait_for(lambda: reaper.lines("configuration reloaded"), SECONDS, lambda: reaper.text()[-2000:])
        # watches wait for up to 30 s before they try again, leadership is tried for each half second
        wait_for(lambda: len(reaper.lines("watch failed")) >= 12, SECONDS, lambda: reaper.text()[-2000:])
        proxy.mend()
        wait_leading(reaper)
        own.wait_passes(reaper, 2)
        assert own.names() == set(names)
        assert evicted(reaper) == []
        own.mark_idle("w0", since=LONG_AGO)
        own.wait_names({"w0", "w1"})
        reaper.stop()


def test_api_server_that_is_stopped_and_continued(own: Reapers) -> None:
    """Connections stay open and nothing comes: nobody leads until it goes on, then all does."""
    names = own.some_workers(2)
    own.mark_busy(*names)
    reaper = own.start()
    wait_leading(reaper)
    own.control_plane.pause(Component.API_SERVER)
    try:
        wait_leading(reaper, False)
    finally:
        own.control_plane.resume(Component.API_SERVER)
    wait_leading(reaper)
    own.mark_idle(*names, since=LONG_AGO)
    own.wait_names(set())
    wait_evicted(reaper, "w1", "w0")
    assert "Traceback" not in reaper.text()
    assert reaper.stop() == 0


def test_evictions_that_the_api_server_refuses_are_tried_again(own: Reapers, tmp_path: Path) -> None:
    """429 and 500 to an eviction are outcomes: counted, backed off from, and done once the API server is well."""
    own.some_workers(1)
    with Proxy(own.control_plane) as proxy:
        refusals = [Refusal(status=429, retry_after=1), Refusal(status=500)]
        proxy.hook = lambda seen: refusals.pop(0) if seen.is_eviction() and refusals else None
        reaper = own.start(kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig"))
        own.wait_names(set())
        wait_evicted(reaper, "w0")
        evictions = "warmnode_evictions_total"
        wait_for(lambda: reaper.metric(evictions, pool=POOL, outcome="evicted") == 1, SECONDS, "it to be counted")
        for outcome in ("throttled", "failed"):
            assert reaper.metric(evictions, pool=POOL, outcome=outcome) == 1, outcome
        assert "Traceback" not in reaper.text()
        reaper.stop()


def test_nothing_is_evicted_while_the_lists_fail(own: Reapers, tmp_path: Path) -> None:
    """A start with an API server that answers 500 for pods and hangs for nodes: not ready, no eviction; then all is."""
    own.some_workers(2)
    with Proxy(own.control_plane) as proxy:
        released = threading.Event()

        def trouble(seen: Seen) -> Refusal | None:
            if seen.path == "/api/v1/nodes":
                released.wait(SECONDS)
            return Refusal(status=500) if seen.path == "/api/v1/pods" and not released.is_set() else None

        proxy.hook = trouble
        own.configure()
        reaper = own.make(kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig")).start(wait_ready=False)
        own.ground.wait(lambda: reaper.metric("warmnode_leader") == 1, lambda: reaper.text()[-2000:])
        own.ground.wait(
            lambda: sum(seen.path == "/api/v1/pods" for seen in list(proxy.seen)) >= 3, lambda: reaper.text()[-2000:]
        )
        status, body = reaper.get("/readyz")
        assert status == 503
        assert "pods: not listed yet" in body
        assert "nodes: not listed yet" in body
        assert proxy.evictions() == []
        released.set()
        own.wait_names(set())
        assert reaper.get("/readyz")[0] == 200
        wait_evicted(reaper, "w1", "w0")
        reaper.stop()


def test_eviction_without_an_answer_is_given_up(own: Reapers, tmp_path: Path) -> None:
    """After ten seconds it counts as failed and others go on. If it is carried out later, then on that version only."""
    own.some_workers(2)
    with Proxy(own.control_plane) as proxy:
        released = threading.Event()

        def hang(seen: Seen) -> None:
            if seen.is_eviction() and "/w1/" in seen.path:
                released.wait(SECONDS)

        proxy.hook = hang
        reaper = own.start(kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig"))
        own.wait_names({"w1"})
        wait_evicted(reaper, "w0")
        assert reaper.metric("warmnode_evictions_total", pool=POOL, outcome="failed") == 1
        assert reaper.metric("warmnode_leader_changes_total", change="lost") == 0
        own.mark_busy("w1")
        released.set()
        own.ground.wait(
            lambda: [status for seen, status in list(proxy.answered) if "/w1/eviction" in seen.path] == [409],
            "the late eviction to be refused",
        )
        assert own.names() == {"w1"}
        assert "Traceback" not in reaper.text()
        reaper.stop()


def test_api_server_that_refuses_or_hangs_and_recovers(own: Reapers, tmp_path: Path) -> None:
    """500, 429 and no answer, to every request: nobody leads, nothing is evicted; then it goes on by itself."""
    names = own.some_workers(2)
    own.mark_busy(*names)
    with Proxy(own.control_plane) as proxy:
        reaper = own.start(kubeconfig=proxy.kubeconfig(tmp_path / "proxy.kubeconfig"))
        wait_leading(reaper)
        released = threading.Event()

        def refuse(seen: Seen) -> Refusal:
            return Refusal(status=429, retry_after=1)

        def hang(seen: Seen) -> Refusal:
            released.wait(SECONDS)
            return Refusal(status=500)

        proxy.hook = lambda seen: Refusal(status=500)
        proxy.cut()  # the watches too have to begin anew
        proxy.mend()
        wait_leading(reaper, False)
        own.mark_idle(*names, since=LONG_AGO)
        for trouble in (refuse, hang):
            proxy.hook = trouble
            proxy.wait_seen(4)
        assert reaper.metric("warmnode_leader") == 0
        ready = reaper.readiness()
        assert ready["ready"], ready  # what is known is not two minutes old
        assert not follows(reaper)
        assert reaper.get("/healthz")[0] == 200
        assert own.names() == set(names)
        proxy.hook = None
        released.set()
        own.wait_names(set())
        wait_evicted(reaper, "w1", "w0")
        assert follows(reaper)
        assert "Traceback" not in reaper.text()
        reaper.stop()


def test_start_without_an_api_server(own: Reapers) -> None:
    """It starts, says that it is not ready and why, and works as soon as there is one."""
    own.some_workers(1)
    own.configure()
    own.control_plane.kill(Component.API_SERVER)
    try:
        reaper = own.make().start(wait_ready=False)
        wait_for(lambda: reaper.lines("watch failed"), SECONDS, lambda: reaper.text()[-2000:])
        status, body = reaper.get("/readyz")
        assert status == 503
        assert "nodes: not listed yet" in body
        assert reaper.get("/healthz")[0] == 200
    finally:
        own.control_plane.restart(Component.API_SERVER)
    own.wait_names(set())
    assert reaper.get("/readyz")[0] == 200


def test_api_server_away_for_a_minute(own: Reapers) -> None:
    """Nobody leads meanwhile, and what is shown says how old it is. Afterwards the floor is kept and all goes on.

    When it is back, the node controller finds that no node has given a sign of life and marks all workers unready.
    """
    names = own.some_workers(4)
    own.mark_idle(*names, since=ago(5))
    reaper = own.start(floor=2, idleTimeout="1h")
    wait_leading(reaper)
    own.wait_passes(reaper)

    own.control_plane.kill(Component.API_SERVER)
    own.control_plane.pause(Component.KWOK)  # else nodes may give a sign of life before it is found that they gave none
    try:
        wait_leading(reaper, False)
        passes = reaper.metric("warmnode_reap_passes_total", outcome="done")
        looked = reaper.metric("warmnode_reap_last_success_timestamp_seconds", pool=POOL)
        age = "warmnode_collection_age_seconds"
        wait_for(lambda: reaper.metric(age, collection="pods") > MINUTE, 2 * MINUTE, "a minute to pass")
        assert reaper.metric(age, collection="nodes") > MINUTE - 2
        assert reaper.metric("warmnode_watch_failures_total", collection="pods") > 1
        assert reaper.metric("warmnode_reap_passes_total", outcome="done") == passes
        assert reaper.metric("warmnode_reap_last_success_timestamp_seconds", pool=POOL) == looked
        assert reaper.readiness()["collections"]["pods"]["ageSeconds"] >= MINUTE
        assert not follows(reaper)
        assert reaper.get("/healthz")[0] == 200
    finally:
        own.control_plane.restart(Component.API_SERVER)

    own.ground.wait(lambda: not any(map(is_ready, own.ground.pods().values())), "all workers to be marked unready")
    own.control_plane.resume(Component.KWOK)
    wait_leading(reaper)
    wait_for(lambda: follows(reaper), 2 * SECONDS, lambda: reaper.text()[-2000:])  # it tries each half minute at least
    assert reaper.metric(age, collection="pods") < MINUTE
    own.configure(floor=2)
    own.ground.wait(lambda: own.skipped(reaper, "floor") == 4, lambda: reaper.text()[-3000:])
    assert own.names() == set(names)
    for name in names:
        own.ground.set_ready(name, ready=True, at=ago(0))
    own.wait_names({"w0", "w1"})
    wait_evicted(reaper, "w3", "w2")
    assert reaper.get("/readyz")[0] == 200
    assert reaper.metric("warmnode_reap_last_success_timestamp_seconds", pool=POOL) > looked
    assert "Traceback" not in reaper.text()
    assert reaper.stop() == 0
