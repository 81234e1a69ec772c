"""The http source over real sockets: 200 with a time is idle, and whatever else comes back is busy with its reason."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from extender.policy.defaults import HttpProbe
from extender.policy.sources import Answer, Said
from extender.sources.http import ask_worker
from extender.sources.session import AskingSession
from scripts.tools.controlplane.processes import free_ports
from tests.answering import BAD_ANSWERS, WELL, AnsweringWorker, answers
from tests.builders import NOW, clock_of, steady

IDLE = Answer(asked=steady(NOW), said=Said.IDLE, idle_since=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
async def session() -> AsyncIterator[AskingSession]:
    """The session that the leader uses."""
    made = AskingSession(user_agent="warmnode/test")
    yield made
    await made.close()


def probe(port: int, *, path: str = "/idle", within: float = 10) -> HttpProbe:
    return HttpProbe(port=port, path=path, interval=timedelta(seconds=10), timeout=timedelta(seconds=within))


async def ask(session: AskingSession, worker: AnsweringWorker, *, within: float = 10) -> Answer:
    return await ask_worker(session, probe(worker.port, within=within), worker.host, clock_of(lambda: NOW))


async def test_time_in_the_body_is_idle_since_then(session: AskingSession) -> None:
    """The one good answer, to a plain GET of the path; more keys in it do not harm."""
    with AnsweringWorker(WELL) as worker:
        assert await ask(session, worker) == IDLE
        worker.behaviour = answers(200, b'{"idleSince": "2026-01-01T01:00:00+01:00", "queries": 0}')
        other = probe(worker.port, path="/a%20b?c=d")
        assert await ask_worker(session, other, worker.host, clock_of(lambda: NOW)) == IDLE
        assert worker.asked == ["GET /idle", "GET /a%20b?c=d"]


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_bad_answer_is_busy(session: AskingSession, name: str) -> None:
    """None of them raises, none of them is idle, and each has its reason."""
    behaviour, said = BAD_ANSWERS[name]
    with AnsweringWorker(behaviour) as worker:
        found = await ask(session, worker, within=0.2 if said == "timeout" else 10)
    assert found == Answer(asked=steady(NOW), said=Said(said))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_busy_and_not_followed(session: AskingSession, status: int) -> None:
    """A worker cannot make us ask somebody else, not even one who would say idle."""
    with AnsweringWorker(WELL) as elsewhere:
        target = f"Location: http://{elsewhere.host}:{elsewhere.port}/idle"
        with AnsweringWorker(answers(status, b"", target)) as worker:
            assert (await ask(session, worker)).said is Said.REDIRECT
        assert elsewhere.asked == []


async def test_nobody_there_is_busy(session: AskingSession) -> None:
    """Nobody listens on the port."""
    found = await ask_worker(session, probe(free_ports(1)[0]), "127.0.0.1", clock_of(lambda: NOW))
    assert found.said is Said.FAILED


@pytest.mark.parametrize(
    "address", [None, "", "localhost", "127.0.0.1@example", "127.0.0.1/x?", "1.2.3", "fe80::1%eth0/x"]
)
async def test_only_an_address_is_asked(session: AskingSession, address: str | None) -> None:
    """What stands in the pod's status may be no host name and no part of a URL."""
    assert (await ask_worker(session, probe(80), address, clock_of(lambda: NOW))).said in (Said.NO_ADDRESS, Said.FAILED)


async def test_worker_with_an_ipv6_address_is_asked(session: AskingSession) -> None:
    """The address of a pod may have colons."""
    if not has_ipv6():
        pytest.skip("this machine has no address ::1")
    with AnsweringWorker(WELL, host="::1") as worker:
        assert await ask(session, worker) == IDLE


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as found:
        try:
            found.bind(("::1", 0))
        except OSError:
            return False
    return True
