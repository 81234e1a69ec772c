"""When warmnode is away, hangs or answers garbage, pods are scheduled and preempt all the same, and hardly later."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from scripts.tools.controlplane import ControlPlane, Process
from tests.integration.ground import HTTP_TIMEOUT, Ground, epoch

pytestmark = pytest.mark.controlplane

BOUND = HTTP_TIMEOUT + 8.0
"""Seconds, with what a busy machine may add."""
JSON = b"Content-Type: application/json\r\n"


def answer(body: bytes, *, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    """An HTTP answer; ``length`` may lie."""
    length = len(body) if length is None else length
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, JSON, length, body)


HUGE = b"[" + b",".join(b'{"Host":"node-%d","Score":10}' % number for number in range(500_000)) + b"]"
GARBAGE = {
    "notJson": answer(b"warm regards"),
    "halfJson": answer(b'[{"Host":"a","Sc'),
    "html": answer(b"<html><title>502</title></html>", status=b"502 Bad Gateway"),
    "status500": answer(b'{"error":"boom"}', status=b"500 Internal Server Error"),
    "status503": answer(b'{"status":503}', status=b"503 Service Unavailable"),
    "noContent": b"HTTP/1.1 204 No Content\r\n\r\n",
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    "empty": answer(b""),
    "object": answer(b'{"Host":"a","Score":1}'),
    "wrongTypes": answer(b'[{"Host":7,"Score":"10"}]'),
    "fractions": answer(b'[{"Host":"a","Score":7.5}]'),
    "foreignHosts": answer(b'[{"Host":"nobody","Score":10},{"Host":"nobody","Score":-9000}]'),
    "null": answer(b"null"),
    "notHttp": b"SSH-2.0-OpenSSH_9.6\r\n",
    "truncated": answer(b"[", length=1000),
    "huge": answer(HUGE),
    "hangUp": b"",
}


class Stranger:
    """Whatever listens on our port: answers every request with the same bytes, and hangs up after it.

    ``pace`` seconds lie between two bytes; None sends all at once.
    """

    def __init__(self, port: int) -> None:
        self.asked: list[bytes] = []
        self.content = b""
        self.pace: float | None = None
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                head, _, body = _read_until(connection, b"\r\n\r\n")
                lengths = [
                    line.partition(b":")[2] for line in head.lower().split(b"\r\n") if b"content-length:" in line
                ]
                while len(body) < sum(map(int, lengths)):
                    body += connection.recv(65536)
                self.asked.append(head.split(b"\r\n")[0])
                if self.pace is None:
                    connection.sendall(self.content)
                    return
                for byte in self.content:
                    connection.sendall(bytes([byte]))
                    if self._ended.wait(self.pace):
                        return
            except OSError:
                return  # the scheduler hung up


def _read_until(connection: socket.socket, end: bytes) -> tuple[bytes, bytes, bytes]:
    content = b""
    while end not in content:
        chunk = connection.recv(65536)
        if not chunk:
            raise OSError("hung up")
        content += chunk
    return content.partition(end)


@contextmanager
def stranger_on(port: int) -> Iterator[Stranger]:
    server = Stranger(port)
    try:
        yield server
    finally:
        server.close()


def delay(ground: Ground, pod: str) -> float:
    """Seconds from a pod's creation to PodScheduled, as the API server and the scheduler wrote them down."""
    item = ground.pod(pod)
    scheduled = next(each for each in item["status"]["conditions"] if each["type"] == "PodScheduled")
    assert scheduled["status"] == "True"
    return epoch(scheduled["lastTransitionTime"]) - epoch(item["metadata"]["creationTimestamp"])


def attempt_seconds(control_plane: ControlPlane, scheduler: Process) -> float:
    """Sum of the seconds that the scheduler spent in attempts that placed a pod."""
    tls = ssl.create_default_context(cafile=str(control_plane.ca_file))
    tls.load_cert_chain(control_plane.client_certificate, control_plane.client_key)
    url = f"https://127.0.0.1:{scheduler.port}/metrics"
    with urllib.request.urlopen(url, context=tls, timeout=10) as response:
        lines = response.read().decode().splitlines()
    wanted = 'scheduler_scheduling_attempt_duration_seconds_sum{profile="warmnode",result="scheduled"}'
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(wanted)), 0.0)


def test_pods_are_scheduled_at_once_while_serve_is_down(ground: Ground) -> None:
    """Nothing listens on our port: the connection is refused and the pod is placed as without us."""
    names = ground.nodes(2)
    for number in range(4):
        assert ground.place(f"worker-{number}") in names
        assert delay(ground, f"worker-{number}") < BOUND


def test_a_serve_that_comes_back_is_used_again(ground: Ground) -> None:
    """Nothing has to be restarted after warmnode was away: the next pod goes to the oldest node."""
    oldest, newest = ground.nodes(2, cpu="4")
    ground.write_ledger({oldest: 60, newest: 30})
    serve = ground.serve()
    assert ground.place("before") == oldest
    serve.kill()
    assert ground.place("meanwhile") == newest  # the emptier one
    serve.start()
    assert [ground.place(f"after-{number}") for number in range(3)] == [oldest] * 3


def test_a_serve_that_hangs_delays_each_pod_by_the_timeout_only(ground: Ground, scheduler: Process) -> None:
    """SIGSTOP: connections open and nothing comes. Each pod waits for httpTimeout and is placed as without us."""
    names = ground.nodes(2)
    serve = ground.serve()
    before = attempt_seconds(ground.control_plane, scheduler)
    serve.signal(signal.SIGSTOP)
    for number in range(2):
        assert ground.place(f"worker-{number}") in names
        assert delay(ground, f"worker-{number}") < BOUND
    waited = attempt_seconds(ground.control_plane, scheduler) - before
    assert 2 * HTTP_TIMEOUT <= waited < 2 * BOUND
    serve.signal(signal.SIGCONT)
    assert ground.place("afterwards") in names
    ground.wait(
        lambda: serve.metric("warmnode_webhook_requests_total", verb="prioritize", outcome="scored") >= 1,
        "serve to be asked again",
    )


def test_garbage_in_place_of_scores_changes_nothing(ground: Ground, webhook_port: int) -> None:
    """Any answer at all: the scheduler discards it, and the pod is scheduled in time."""
    names = ground.nodes(2, cpu="64")
    with stranger_on(webhook_port) as stranger:
        for kind, content in GARBAGE.items():
            pod = f"worker-{kind}".lower()
            stranger.content, asked = content, len(stranger.asked)
            assert ground.place(pod) in names, kind
            assert stranger.asked[asked : asked + 1] == [b"POST /prioritize HTTP/1.1"], kind
            assert delay(ground, pod) < BOUND, kind


def test_an_answer_that_drips_delays_a_pod_by_the_timeout_only(ground: Ground, webhook_port: int) -> None:
    """A good answer, one byte each 50 ms: httpTimeout covers the whole of it."""
    names = ground.nodes(2)
    with stranger_on(webhook_port) as stranger:
        stranger.content, stranger.pace = answer(b"[]" + b" " * 1000), 0.05
        assert ground.place("worker") in names
        assert stranger.asked == [b"POST /prioritize HTTP/1.1"]
        assert delay(ground, "worker") < BOUND


@pytest.mark.parametrize("kind", ["away", "notJson", "status500", "truncated", "wrongTypes"])
def test_preemption_goes_on_as_without_us_when_the_answer_is_no_good(
    ground: Ground, webhook_port: int, kind: str
) -> None:
    """ignorable: true keeps the candidates when the preempt call fails: the pod still takes the place of another."""
    (node,) = ground.nodes(1, cpu="1")
    ground.run("placeholder", pool=None, node=node, priority_class="placeholder")
    if kind == "away":
        assert ground.place("worker", priority_class="low") == node
        return
    with stranger_on(webhook_port) as stranger:
        stranger.content = GARBAGE[kind] if kind != "wrongTypes" else answer(b'{"NodeNameToMetaVictims":[1]}')
        assert ground.place("worker", priority_class="low") == node
        assert stranger.asked[0] == b"POST /preempt HTTP/1.1"
