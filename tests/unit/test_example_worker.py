"""docs/examples/worker.py as a process: it ends after SIGTERM, whatever its clients do, and loses no answer."""

from __future__ import annotations

import http.client
import importlib.util
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "worker.py"
SECONDS = 10.0


class Warmnode:
    """Says 200 to everything; ``marked`` and ``busy`` are set once a worker has said so."""

    def __init__(self) -> None:
        self.marked, self.busy = threading.Event(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                (outer.marked if self.command == "PUT" else outer.busy).set()

            do_PUT = do_DELETE = do

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Worker:
    """The example, with its port."""

    def __init__(self, warmnode: Warmnode, token: Path) -> None:
        token.write_text("token")
        environment = {
            "POD_NAME": "worker-1",
            "POD_NAMESPACE": "ducks",
            "WARMNODE_URL": warmnode.url,
            "WARMNODE_TOKEN_FILE": str(token),
            "PORT": "0",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLE)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split()[-1])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def job(self, seconds: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("POST", "/jobs", str(seconds))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@pytest.fixture
def warmnode() -> Iterator[Warmnode]:
    made = Warmnode()
    yield made
    made.close()


@pytest.fixture
def worker(warmnode: Warmnode, tmp_path: Path) -> Iterator[Worker]:
    made = Worker(warmnode, tmp_path / "token")
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.mark.parametrize("sent", [b"", b"POST /jo", b"POST /jobs HTTP/1.1\r\nContent-Length: 9\r\n\r\n1"])
def test_a_silent_client_does_not_keep_the_worker_from_ending(warmnode: Warmnode, worker: Worker, sent: bytes) -> None:
    """The job at hand is done and answered; whoever has not asked yet is hung up on."""
    with worker.connect() as silent, ThreadPoolExecutor(1) as pool:
        silent.sendall(sent)
        job = pool.submit(worker.job, 0.3)
        assert warmnode.busy.wait(SECONDS)
        worker.process.send_signal(signal.SIGTERM)
        assert job.result(SECONDS) == (200, b"done\n")
        assert worker.process.wait(SECONDS) == 0


def test_a_sigterm_that_another_thread_gets_ends_the_worker(warmnode: Warmnode, worker: Worker) -> None:
    """The system chooses the thread. Python's handlers run in the main thread only, which a lock would keep asleep."""
    assert warmnode.marked.wait(SECONDS)
    threads = [int(each.name) for each in Path(f"/proc/{worker.process.pid}/task").iterdir()]
    os.kill(max(threads), signal.SIGTERM)  # kill(2): to the process, and this thread is asked first
    assert worker.process.wait(SECONDS) == 0


def test_after_a_busy_without_an_answer_idle_is_said_twice() -> None:
    """The removal may be done after the first mark was found in its place: then only the second one marks the pod."""
    spec = importlib.util.spec_from_file_location("example_worker", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    said: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Unanswered:
        def say_idle(self) -> bool:
            said.put("idle")
            return True

        def say_busy(self) -> bool:
            said.put("busy")
            return False

    made = example.Worker(Unanswered(), late_seconds=0.01)
    marking = threading.Thread(target=made.stay_marked)
    marking.start()
    try:
        assert said.get(timeout=SECONDS) == "idle"
        assert made.offer(b"0")[0] == 503
        assert [said.get(timeout=SECONDS) for _ in range(3)] == ["busy", "idle", "idle"]
    finally:
        made.drain()
        marking.join(SECONDS)
    assert said.empty(), "and no third time"
