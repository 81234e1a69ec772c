"""docs/idle-sources.md says what is true: its file is accepted, its worker answers, its tables are complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from extender.model import IdleBasis
from extender.policy.defaults import HttpProbe
from extender.policy.sources import PrometheusQuery, Said
from extender.settings import load_configuration
from extender.settings.in_force import InForce
from extender.sources.http import ask_worker
from extender.sources.session import AskingSession
from extender.telemetry import Metrics
from scripts.tools.controlplane.client import wait_for
from scripts.tools.controlplane.processes import free_ports
from tests.builders import clock_of

PAGE = (Path(__file__).parents[2] / "docs" / "idle-sources.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """Give a block of the page, as it is written there."""
    found = re.search(rf"<!-- (?:run|query): {name} -->\n *```\w+\n(.*?) *```", PAGE, re.DOTALL)
    assert found is not None, f"docs/idle-sources.md has no block {name!r}"
    return found[1]


def test_configuration_is_accepted_and_means_what_the_page_says() -> None:
    """Three pools: asked themselves, by Prometheus, and both the worker's word and a question."""
    in_force = InForce(load_configuration(block("configuration"), source="page.yaml"))
    basis = {pool: in_force.sources(pool).basis for pool in ("ducks", "notebooks", "careful", "other")}
    assert basis == {
        "ducks": IdleBasis.SOURCES,
        "notebooks": IdleBasis.SOURCES,
        "careful": IdleBasis.BOTH,
        "other": IdleBasis.WORKER,
    }
    assert in_force.sources("careful").stale_after == timedelta(seconds=20)
    (query,) = in_force.sources("notebooks").outside
    assert isinstance(query, PrometheusQuery)
    assert query.query == block("fresh").strip()
    assert query.max_age == timedelta(seconds=30)


async def test_worker_of_the_page_answers_idle() -> None:
    """The program runs as it stands there, and the source understands it."""
    port = free_ports(1)[0]
    process = subprocess.Popen(  # noqa: ASYNC220 - a moment, in a test
        [sys.executable, "-c", block("worker")], env={**os.environ, "PORT": str(port)}, stderr=subprocess.DEVNULL
    )
    session = AskingSession(user_agent="warmnode/test")
    probe = HttpProbe(port=port, path="/idle", interval=timedelta(seconds=10), timeout=timedelta(seconds=10))
    try:
        wait_for(lambda: is_open(port), 20, "the worker to listen")
        answer = await ask_worker(session, probe, "127.0.0.1", clock_of(lambda: datetime.now(UTC)))
    finally:
        process.kill()
        process.wait()
        await session.close()
    assert answer.said is Said.IDLE


def is_open(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_every_reason_is_in_the_table() -> None:
    """And no other."""
    table = PAGE.partition("| `said` |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert set(rows) == {str(said) for said in Said}


def test_every_metric_is_named_as_it_is() -> None:
    """A name with _total is a counter's."""
    exposed = Metrics().exposition().decode()
    for name in set(re.findall(r"warmnode_\w+", PAGE)):
        assert f"# HELP {name} " in exposed, name
