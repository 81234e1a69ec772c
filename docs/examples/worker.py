#!/usr/bin/env python3
"""A worker that takes jobs over HTTP and tells warmnode when it is idle. Standard library only: copy it, change `do`.

Owns the rule for workers: it says busy and waits for the answer before it accepts a job, refuses the job unless the
answer is 200, says idle when no job is left, and finishes its job after SIGTERM. See docs/workers.md.

  POD_NAMESPACE, POD_NAME   which pod this is (downward API)
  WARMNODE_URL              the claims listener of warmnode, such as https://warmnode.warmnode.svc:8889
  WARMNODE_TOKEN_FILE       the projected token, audience warmnode
  WARMNODE_CA_FILE          who signed the listener's certificate; not set: the system's authorities
  PORT                      where jobs come in: POST /jobs

  curl -d 2 http://127.0.0.1:8080/jobs
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import signal
import socket
import ssl
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 10.0  # longer than warmnode takes for one request (8 s), so that nothing is done after we gave up
TRY_AGAIN_SECONDS = 5.0
LATE_SECONDS = 60.0  # by then a request that got no answer is done, or never will be
SILENCE_SECONDS = 30.0  # a client that sends or takes nothing for so long is hung up on


def do(job: bytes) -> bytes:
    """Do the work. Put yours here; in this example a job is the number of seconds that it takes."""
    time.sleep(min(float(job), 600.0))
    return b"done\n"


class Warmnode:
    """Says idle or busy for this pod."""

    def __init__(self, url: str, namespace: str, pod: str, token_file: Path, ca_file: str | None) -> None:
        self._url = urlsplit(url)
        self._path = f"{self._url.path.rstrip('/')}/v1/pods/{namespace}/{pod}/idle"
        self._token_file = token_file
        self._ca_file = ca_file

    def say_idle(self) -> bool:
        """Mark the pod idle. True once the mark is there."""
        return self._call("PUT")

    def say_busy(self) -> bool:
        """Remove the mark. True once it is gone, and the pod is not being deleted: then, and only then, accept work."""
        return self._call("DELETE")

    def _call(self, method: str) -> bool:
        try:
            status, text = self._send(method)
        except (OSError, http.client.HTTPException) as error:
            status, text = 0, str(error)
        if status != 200:
            print(f"warmnode: {method}: {status or 'no answer'}: {text}", flush=True)
        return status == 200

    def _send(self, method: str) -> tuple[int, str]:
        token = self._token_file.read_text().strip()  # each time: the kubelet renews it
        address = (self._url.hostname or "", self._url.port)
        connection: http.client.HTTPConnection
        if self._url.scheme == "https":
            context = ssl.create_default_context(cafile=self._ca_file)
            connection = http.client.HTTPSConnection(*address, timeout=TIMEOUT_SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, self._path, headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            return response.status, response.read(1000).decode(errors="replace")
        finally:
            connection.close()  # hanging up tells warmnode that nobody waits any more


class Worker:
    """One job at a time."""

    def __init__(self, warmnode: Warmnode, *, late_seconds: float = LATE_SECONDS) -> None:
        self.draining = threading.Event()
        self.turn = threading.Lock()  # held while a job is done, and while something is said to warmnode
        self._warmnode = warmnode
        self._late_seconds = late_seconds
        self._may_be_late = False  # a busy that got no good answer may still remove the mark
        self._looking = threading.Event()
        self._said = "nothing"  # "idle" and "busy" are certain; a container that restarted may have said anything

    def offer(self, job: bytes) -> tuple[int, bytes]:
        """Do a job or refuse it: 200 with the result, or 503 for the caller to try another worker."""
        if not self.turn.acquire(timeout=1.0):
            return 503, b"busy\n"
        try:
            if self.draining.is_set():
                return 503, b"draining\n"
            if self._said != "busy":
                self._said = "nothing"
                if not self._warmnode.say_busy():
                    self._may_be_late = True
                    return 503, b"not certain that this pod stays\n"
                self._said = "busy"
            return 200, do(job)
        except ValueError as error:
            return 400, f"{error}\n".encode()
        finally:
            self.turn.release()
            self._looking.set()

    def stay_marked(self) -> None:
        """Say idle whenever no job is there, until it was heard. Runs in a thread of its own."""
        while not self.draining.is_set():
            with self.turn:
                if self._said != "idle" and not self.draining.is_set():
                    self._said = "nothing"
                    if self._warmnode.say_idle():
                        self._said = "perhaps idle" if self._may_be_late else "idle"
                        self._may_be_late = False
            waits = {"idle": None, "perhaps idle": self._late_seconds}
            self._looking.wait(waits.get(self._said, TRY_AGAIN_SECONDS))
            self._looking.clear()

    def drain(self) -> None:
        """Take no new job from now on."""
        self.draining.set()
        self._looking.set()


class Server(http.server.ThreadingHTTPServer):
    """Its end waits for answers that are being written, and not for clients that have asked for nothing yet."""

    daemon_threads = False

    def __init__(self, port: int, worker: Worker) -> None:
        super().__init__(("", port), Handler)
        self.worker = worker
        self._open: set[socket.socket] = set()

    def process_request(self, request: socket.socket, client_address: object) -> None:
        """Handle one connection, in a thread of its own."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        """End one connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Read nothing more: a handler that waits for a request ends, one that answers goes on."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RD)
        super().server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """POST /jobs, and GET for probes: a busy worker is as ready as an idle one."""

    server: Server
    timeout = SILENCE_SECONDS

    def do_POST(self) -> None:
        if self.path != "/jobs":
            return self._answer(404, b"POST /jobs\n")
        job = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return self._answer(*self.server.worker.offer(job))

    def do_GET(self) -> None:
        self._answer(200, b"ok\n")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Work until SIGTERM, then finish the job at hand."""
    environment = os.environ
    worker = Worker(
        Warmnode(
            environment["WARMNODE_URL"],
            environment["POD_NAMESPACE"],
            environment["POD_NAME"],
            Path(environment.get("WARMNODE_TOKEN_FILE", "/var/run/secrets/warmnode/token")),
            environment.get("WARMNODE_CA_FILE"),
        )
    )
    server = Server(int(environment.get("PORT", "8080")), worker)
    # A socket and not an Event: the system may give the signal to any thread, Python runs handlers in the main thread
    # only, and a lock that the main thread waits for does not let it go for that.
    ending, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno())
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    threading.Thread(target=server.serve_forever).start()
    threading.Thread(target=worker.stay_marked).start()
    print(f"taking jobs on port {server.server_port}", flush=True)
    ending.recv(1)
    worker.drain()
    with worker.turn:  # the job at hand is done
        server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main()
