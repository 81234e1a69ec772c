"""The client for other people's programs: what it sends, what it raises, and when it asks again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from extender.client import Claim, ClaimLost, Client, NothingIdle, Refused, Unreachable

GRANTED = {
    "id": "default.w.n0",
    "pool": "ducks",
    "claimant": "query-1",
    "namespace": "default",
    "pod": "w",
    "uid": "u",
    "ip": "10.0.0.7",
    "node": "old",
    "firstSeen": None,
    "since": "2026-11-01T12:00:00.000Z",
    "expires": "2026-11-01T12:01:00.000Z",
}
Answer = tuple[int, Any, dict[str, str]]


def problem(status: int, reason: str, **members: Any) -> Answer:
    return status, {"status": status, "reason": reason, "detail": f"because {reason}", **members}, {"Retry-After": "0"}


class Server:
    """Gives scripted answers, the last one for ever. ``seen`` are (method, path, body, Authorization)."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [(200, GRANTED, {})]
        self.seen: list[tuple[str, str, Any, str | None]] = []
        self.repeated: list[bool] = []
        self.delay = 0.0
        self.ahead = timedelta()  # its clock
        self.renewed = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append(
                    (self.command, self.path, json.loads(body) if body else None, self.headers.get("Authorization"))
                )
                time.sleep(outer.delay)
                outer.repeated.append("Idempotency-Key" in self.headers)
                status, tree, headers = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                content = tree if isinstance(tree, bytes) else b"" if tree is None else json.dumps(tree).encode()
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(content)
                if self.command == "PUT":
                    outer.renewed.set()

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string((datetime.now(UTC) + outer.ahead).timestamp())

            do_GET = do_POST = do_PUT = do_DELETE = do

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_it_needs_nothing_but_python() -> None:
    """Importing it imports no other module of warmnode, and nothing from a package."""
    script = "import sys; before = set(sys.modules); import extender.client; print(*sorted(set(sys.modules) - before))"
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert loaded == {"extender", "extender.client"}


def test_a_claim_is_asked_for_and_read(server: Server, tmp_path: Path) -> None:
    """The token's file is read for each call: the kubelet replaces it."""
    token = tmp_path / "token"
    token.write_text("first\n")
    client = Client(server.url, token_file=token)
    granted = client.claim("ducks", "query-1", ttl="90s")
    assert granted == Claim(
        id="default.w.n0",
        pool="ducks",
        claimant="query-1",
        namespace="default",
        pod="w",
        uid="u",
        ip="10.0.0.7",
        node="old",
        first_seen=None,
        since=datetime(2026, 11, 1, 12, tzinfo=UTC),
        expires=datetime(2026, 11, 1, 12, 1, tzinfo=UTC),
    )
    token.write_text("second\n")
    client.renew(granted)
    server.answers = [(204, None, {})]
    client.release(granted)
    server.answers = [(200, {"claims": [GRANTED]}, {})]
    assert client.claims("ducks") == [granted]
    assert server.seen == [
        ("POST", "/v1/pools/ducks/claims", {"claimant": "query-1", "ttl": "90s"}, "Bearer first"),
        ("PUT", "/v1/pools/ducks/claims/default.w.n0", {}, "Bearer second"),
        ("DELETE", "/v1/pools/ducks/claims/default.w.n0", None, "Bearer second"),
        ("GET", "/v1/pools/ducks/claims", None, "Bearer second"),
    ]


def test_a_refusal_says_why(server: Server) -> None:
    client = Client(server.url)
    server.answers = [problem(404, "noneIdle", workers={"busy": 3, "claimed": 1})]
    with pytest.raises(NothingIdle, match="because noneIdle") as nothing:
        client.claim("ducks", "q")
    assert nothing.value.workers == {"busy": 3, "claimed": 1}
    server.answers = [problem(403, "forbidden")]
    with pytest.raises(Refused) as refused:
        client.claim("ducks", "q")
    assert (refused.value.status, refused.value.reason) == (403, "forbidden")
    assert len(server.seen) == 2, "neither is asked again"


@pytest.mark.parametrize("answer", [problem(404, "noClaim"), problem(409, "terminating")])
def test_a_claim_that_is_over_cannot_be_renewed_and_is_released(server: Server, answer: Answer) -> None:
    client = Client(server.url)
    held = client.claim("ducks", "q")
    server.answers = [answer]
    with pytest.raises(ClaimLost):
        client.renew(held)
    client.release(held)


@pytest.mark.parametrize("answer", [problem(503, "unavailable"), problem(429, "rateLimited"), (502, b"<html>", {})])
def test_what_may_help_later_is_asked_again(server: Server, answer: Answer) -> None:
    """The same request: the same claimant gets the same worker."""
    server.answers = [answer, answer, (201, GRANTED, {})]
    assert Client(server.url).claim("ducks", "q").pod == "w"
    assert len(server.seen) == 3
    assert server.seen[0] == server.seen[2]


def test_a_claim_that_may_have_been_made_is_said_to_be_repeated(server: Server) -> None:
    """Each further attempt, the next call after one without an answer, and where the caller says so. No other."""
    client = Client(server.url, patience=0.5)
    server.answers = [problem(503, "unavailable"), (201, GRANTED, {}), problem(503, "unavailable")]
    client.claim("ducks", "query-1")
    assert server.repeated == [False, True]
    with pytest.raises(Refused):
        client.claim("ducks", "query-1")
    server.answers = [problem(404, "noneIdle"), (201, GRANTED, {})]
    server.repeated.clear()
    with pytest.raises(NothingIdle):
        client.claim("ducks", "query-1")
    client.claim("ducks", "query-1")
    client.claim("ducks", "query-1", retry=True)
    assert server.repeated == [True, False, True]


def test_several_claims_are_asked_for_at_once(server: Server) -> None:
    """One call, and each worker has a claim of its own. A call without an answer is repeated for the same claimant."""
    client = Client(server.url, patience=0.0)
    both = {"claims": [GRANTED, {**GRANTED, "id": "default.v.n1", "claimant": "query-1/2", "pod": "v"}]}
    server.answers = [problem(503, "unavailable"), (201, both, {}), problem(404, "noneIdle")]
    with pytest.raises(Refused):
        client.claim_several("ducks", "query-1", 3, at_least=2, ttl="60s")
    found = client.claim_several("ducks", "query-1", 3, at_least=2, ttl="60s")
    assert [(each.pod, each.id) for each in found] == [("w", "default.w.n0"), ("v", "default.v.n1")]
    asked = {"claimant": "query-1", "ttl": "60s", "count": 3, "atLeast": 2}
    assert [(path, body) for _, path, body, _ in server.seen] == [("/v1/pools/ducks/claims", asked)] * 2
    assert server.repeated == [False, True]
    with pytest.raises(NothingIdle):
        client.claim_several("ducks", "query-1", 3)
    assert server.seen[-1][2] == {"claimant": "query-1", "count": 3}


def test_a_claim_may_wait_and_so_does_its_connection(server: Server) -> None:
    """For longer than any other call: the answer is to come after ``wait`` seconds, and not to be given up before."""
    server.delay = 0.4
    client = Client(server.url, timeout=0.2, patience=0.0)
    assert client.claim("ducks", "query-1", wait=10).pod == "w"
    assert server.seen[-1][1] == "/v1/pools/ducks/claims?wait=10s"
    with pytest.raises(Unreachable):
        client.claim("ducks", "query-1")


def test_patience_ends(server: Server) -> None:
    client = Client(server.url, patience=0.5)
    server.answers = [problem(503, "notSynced")]
    with pytest.raises(Refused, match="notSynced"):
        client.claim("ducks", "q")
    server.answers = [(200, b"[]", {})]
    with pytest.raises(Unreachable, match="no answer of warmnode"):
        client.claim("ducks", "q")
    with pytest.raises(Unreachable, match="refused"):
        Client("http://127.0.0.1:1", patience=0.2).claim("ducks", "q")


def test_a_token_that_cannot_be_read_is_said_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="token"):
        Client(server.url, token_file=tmp_path / "none").claim("ducks", "q")


@pytest.mark.parametrize("url", ["warmnode:8889", "", "ftp://x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://"):
        Client(url)


def test_a_held_claim_is_renewed_and_released(server: Server) -> None:
    """At a third of its life, and released when the block ends, also by an exception."""
    now = datetime.now(UTC)
    short = {**GRANTED, "since": now.isoformat(), "expires": (now + timedelta(seconds=0.3)).isoformat()}
    server.answers = [(201, short, {}), (200, short, {})]

    def work() -> None:
        with Client(server.url).hold("ducks", "q") as held:
            assert held.pod == "w"
            while sum(method == "PUT" for method, *_ in server.seen) < 2:
                threading.Event().wait(0.01)
            raise RuntimeError("the work failed")

    with pytest.raises(RuntimeError, match="the work failed"):
        work()
    assert [method for method, *_ in server.seen][:3] == ["POST", "PUT", "PUT"]
    assert server.seen[-1][0] == "DELETE"


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=-1), timedelta(hours=1)])
def test_a_claim_found_again_is_renewed_by_what_is_left_of_it(server: Server, ahead: timedelta) -> None:
    """Not by its age: a claimant that comes back after an hour gets the worker for a ttl. And not by the clock here."""
    server.ahead = ahead
    now = datetime.now(UTC) + ahead
    found = {
        **GRANTED,
        "since": (now - timedelta(hours=1)).isoformat(),
        "expires": (now + timedelta(seconds=2)).isoformat(),
    }
    server.answers = [(200, found, {})]
    with Client(server.url).hold("ducks", "q") as held:
        assert server.renewed.wait(2), "it ran out in use"
        assert held.left is not None
        assert timedelta(0) < held.left <= timedelta(seconds=2)


def test_a_renewed_claim_is_renewed_by_what_the_renewal_gave(server: Server) -> None:
    """An early end that a renewal has moved away is no reason to ask again soon."""
    now = datetime.now(UTC)
    short, long = ({**GRANTED, "expires": (now + timedelta(seconds=each)).isoformat()} for each in (0.3, 3600))
    server.answers = [(201, short, {}), (200, long, {})]
    with Client(server.url).hold("ducks", "q"):
        assert server.renewed.wait(2)
        server.renewed.clear()
        assert not server.renewed.wait(0.5)
