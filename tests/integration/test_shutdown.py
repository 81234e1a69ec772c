"""`warmnode serve` stops in order: not ready first, every answer complete, and the port free for the next one."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from extender.web.server import KEEP_ALIVE_SECONDS
from scripts.tools.controlplane import wait_for
from scripts.tools.controlplane.processes import free_ports
from scripts.tools.serving import Serve
from tests.builders import node
from tests.integration.ground import POOL, POOL_LABEL, SECONDS, Ground
from tests.listening import Listening, synced_state, webhook_over

STOP_SECONDS = 10.0
SIGNALS = [signal.SIGTERM, signal.SIGINT]


def request(names: list[str]) -> bytes:
    pod = {"metadata": {"name": "asked", "namespace": "default", "labels": {POOL_LABEL: POOL}}}
    body = json.dumps({"Pod": pod, "Nodes": None, "NodeNames": names}).encode()
    return (
        b"POST /prioritize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    ) + body


def connect(serve: Serve) -> socket.socket:
    return socket.create_connection(("127.0.0.1", serve.webhook_port), timeout=SECONDS)


def exchange(connection: socket.socket, content: bytes) -> http.client.HTTPResponse:
    """Send a request and read the whole answer. Raises OSError or HTTPException where there is none."""
    connection.sendall(content)
    return read_answer(connection)


def read_answer(connection: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(connection, method="POST")
    response.begin()
    content = response.read()
    assert response.status == 200
    assert isinstance(json.loads(content), list)
    return response


class Client(threading.Thread):
    """Asks without a pause on one kept-alive connection, and connects again where it is told that this was the last."""

    def __init__(self, serve: Serve, content: bytes) -> None:
        super().__init__()
        self.answered = 0
        self.told_to_close = 0
        self.refused = False
        self.problem: Exception | None = None
        self._serve = serve
        self._content = content

    def run(self) -> None:
        try:
            while True:
                try:
                    connection = connect(self._serve)
                except ConnectionRefusedError:
                    self.refused = True
                    return
                with connection:
                    self._ask(connection)
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.problem = error

    def _ask(self, connection: socket.socket) -> None:
        while True:
            response = exchange(connection, self._content)
            self.answered += 1
            if response.getheader("Connection") == "close":
                self.told_to_close += 1
                assert connection.recv(1) == b""
                return


def wait_unready(serve: Serve) -> None:
    """Wait for the 503 that says why."""

    def stopping() -> bool:
        status, text = serve.get("/readyz")
        return status == 503 and json.loads(text)["reasons"] == ["stopping"]

    wait_for(stopping, STOP_SECONDS, "/readyz to say that it is stopping")


@pytest.mark.controlplane
@pytest.mark.parametrize("number", SIGNALS)
def test_under_load_every_request_gets_its_whole_answer(ground: Ground, number: signal.Signals) -> None:
    """Not ready first; then no new connections, the last answer on each old one says so; exit code 0 in 10 s."""
    names = ground.nodes(3, wait=False)
    serve = ground.serve(own_port=True)
    content = request(names)
    clients = [Client(serve, content) for _ in range(4)]
    silent = connect(serve)  # kept open by a caller that has nothing to ask: it must not hold up the stop for long
    exchange(silent, content)
    for client in clients:
        client.start()
    wait_for(lambda: all(client.answered >= 50 for client in clients), SECONDS, "the load")
    started = time.monotonic()
    serve.signal(number)
    wait_unready(serve)
    with pytest.raises(ConnectionRefusedError):
        connect(serve)
    assert exchange(silent, content).getheader("Connection") == "close"
    silent.close()
    assert serve.wait() == 0
    assert time.monotonic() - started < STOP_SECONDS
    for client in clients:
        client.join(SECONDS)
        assert (client.problem, client.refused, client.told_to_close) == (None, True, 1)
    assert serve.lines("stopped")
    assert "exception" not in serve.text()


@pytest.mark.controlplane
def test_a_request_that_is_half_sent_is_answered_when_it_is_complete(ground: Ground) -> None:
    """The body arrives after the signal: the answer still comes, and nothing else does."""
    names = ground.nodes(2, wait=False)
    serve = ground.serve(own_port=True)
    content = request(names)
    with connect(serve) as connection:
        connection.sendall(content[:-20])
        serve.signal(signal.SIGTERM)
        wait_unready(serve)
        connection.sendall(content[-20:])
        assert read_answer(connection).getheader("Connection") == "close"
    assert serve.wait() == 0


@pytest.mark.controlplane
def test_a_caller_that_stays_silent_does_not_hold_up_the_stop(ground: Ground) -> None:
    """Kept-alive connections without a request, a scraper's too, and one with half a request are closed in the end."""
    serve = ground.serve(own_port=True)
    scraper = http.client.HTTPConnection("127.0.0.1", serve.ops_port)
    with connect(serve) as silent, connect(serve) as half, closing(scraper):
        exchange(silent, request([]))
        half.sendall(request([])[:-1])
        scraper.request("GET", "/metrics")
        scraper.getresponse().read()
        started = time.monotonic()
        serve.signal(signal.SIGTERM)
        assert serve.wait() == 0
        assert time.monotonic() - started < STOP_SECONDS


@pytest.mark.controlplane
def test_a_second_instance_takes_the_port_while_the_first_one_stops(ground: Ground) -> None:
    """As soon as the first one is not ready the port is free, although it still has connections to finish."""
    names = ground.nodes(2, wait=False)
    first = ground.serve(own_port=True)
    with connect(first) as connection:
        exchange(connection, request(names))
        first.signal(signal.SIGTERM)
        wait_unready(first)
        second = ground.serve(webhook_port=first.webhook_port)
        assert second.webhook_port == first.webhook_port
        assert first.wait() == 0
    assert set(second.preferred(names, {POOL_LABEL: POOL})) == set(names)


@pytest.mark.controlplane
def test_a_second_signal_ends_the_process_at_once(ground: Ground) -> None:
    """Somebody is impatient: the default action of the signal applies."""
    serve = ground.serve(own_port=True)
    with connect(serve) as silent:
        exchange(silent, request([]))
        serve.signal(signal.SIGTERM)
        wait_unready(serve)
        serve.signal(signal.SIGTERM)
        assert serve.wait() == -signal.SIGTERM


@contextmanager
def unreachable(folder: Path) -> Iterator[Serve]:
    """A serve whose API server is not there, so that it is never synced."""
    (port,) = free_ports(1)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: nowhere
contexts: [{{name: nowhere, context: {{cluster: nowhere, user: nobody}}}}]
clusters: [{{name: nowhere, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: nobody, user: {{}}}}]
"""
    )
    serve = Serve(kubeconfig=kubeconfig, log=folder / "serve.log")
    try:
        yield serve.start(wait_ready=False)
    finally:
        serve.close()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_the_first_sync_is_a_clean_stop(tmp_path: Path, number: signal.Signals) -> None:
    """Nothing is loaded and nothing can be: it still ends in order, with exit code 0."""
    with unreachable(tmp_path) as serve:
        status, text = serve.get("/readyz")
        assert status == 503
        assert all("not listed yet" in reason for reason in json.loads(text)["reasons"])
        started = time.monotonic()
        serve.signal(number)
        assert serve.wait() == 0
        assert time.monotonic() - started < STOP_SECONDS


def test_an_idle_connection_is_kept_for_longer_than_the_scheduler_keeps_it() -> None:
    """Go's client closes idle connections after 90 s; a server that is first makes it lose the request that follows."""
    webhook = webhook_over(synced_state([node()]))
    with Listening(webhook.handler()) as listening, listening.connect() as connection:
        exchange(connection, request(["node-a"]))
        runner = listening.listener._runner
        assert runner is not None
        assert runner.server is not None
        (served,) = runner.server.connections
        assert served.keepalive_timeout == KEEP_ALIVE_SECONDS
        assert KEEP_ALIVE_SECONDS > 90 + 30
