"""Whatever comes in at the webhook's port: one line of 4xx or a valid answer, never a traceback, a 5xx or a reset."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extender.cluster.history import DecisionHistory
from extender.model import BusyVictims, Pool
from extender.policy.pools import PoolsInForce
from extender.telemetry import Metrics
from extender.web.webhook import Webhook
from scripts.tools.controlplane import wait_for
from tests.builders import NOW, clock_of, ledger, minutes_ago, node, stranger, worker
from tests.listening import SECONDS, Listening, synced_state

BODY_DEADLINE = 1.5
NODES = [f"node-{letter}" for letter in "abcdef"]
MEGABYTE = 1_000_000
TOO_LARGE = 70 * MEGABYTE
START = b"POST /prioritize HTTP/1.1\r\nHost: a\r\n"
POD = {"metadata": {"name": "asked", "namespace": "default", "labels": {"warmnode.dev/pool": "ducks"}}}
ARGS = {"Pod": POD, "Nodes": None, "NodeNames": NODES}
PREEMPTION = {"Pod": {"metadata": {"name": "asked"}}, "NodeNameToVictims": None, "NodeNameToMetaVictims": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    kind: str
    body: bytes
    closes: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Target:
    """The server under attack, and what its metrics say."""

    def __init__(self, listening: Listening, metrics: Metrics) -> None:
        self.listening = listening
        self._metrics = metrics

    def count(self, verb: str, outcome: str) -> float:
        self.listening.run(asyncio.sleep(0))  # a call is counted in the turn after its answer
        labels = {"verb": verb, "outcome": outcome}
        return self._metrics.registry.get_sample_value("warmnode_webhook_requests_total", labels) or 0.0

    def send(self, content: bytes) -> Answer:
        """Send bytes over a connection of their own, and read one answer."""
        with self.listening.connect() as connection:
            connection.sendall(content)
            return read(connection)

    def post(self, body: bytes, *, path: str = "/prioritize", head: str = "") -> Answer:
        return self.send(request(body, path=path, head=head))


@pytest.fixture(scope="module")
def running() -> Iterator[Target]:
    """One server for all: what one attack breaks the next one finds broken."""
    metrics = Metrics()
    pods = [worker(f"w{number}", node=name) for number, name in enumerate(NODES)]
    pods += [worker(f"i{number}", node=name, idle_since=minutes_ago(9)) for number, name in enumerate(NODES)]
    pods += [stranger(f"s{number}", node=name) for number, name in enumerate(NODES)]
    ages = {f"uid-of-{name}": minutes_ago(35 + 5 * number) for number, name in enumerate(NODES)}
    webhook = Webhook(
        state=synced_state([node(name) for name in NODES], pods, ledger(ages)),
        pools=PoolsInForce(Pool(name="", busy_victims=BusyVictims.LAST_RESORT)),
        metrics=metrics,
        history=DecisionHistory(now=lambda: NOW),
        clock=clock_of(lambda: NOW),
        body_deadline_seconds=BODY_DEADLINE,
    )
    with Listening(webhook.handler(), refused=webhook.count_garbled) as listening:
        yield Target(listening, metrics)


@pytest.fixture
def target(running: Target) -> Iterator[Target]:
    """The server, which must have logged no mistake and still answer when the test is over."""
    yield running
    answer = running.post(json.dumps(ARGS).encode())
    assert (answer.status, len(answer.json)) == (200, len(NODES))
    assert running.listening.mistakes() == []


def request(body: bytes, *, method: str = "POST", path: str = "/prioritize", head: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def read(connection: socket.socket) -> Answer:
    """Read one whole answer. Raises where the connection is lost before its end."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    body = response.read()
    kind = response.headers.get_content_type()
    return Answer(status=response.status, kind=kind, body=body, closes=response.will_close)


def detail(answer: Answer, status: int = 400) -> str:
    """Give the one line that says what was wrong; the answer must be nothing else."""
    assert (answer.status, answer.kind) == (status, "application/problem+json"), answer
    assert b"\n" not in answer.body
    assert answer.json["status"] == status
    text = answer.json["detail"]
    assert isinstance(text, str)
    assert 0 < len(text) <= 500
    assert "\n" not in text
    return text


# -- bodies -----------------------------------------------------------------------------------------------------------

BAD_BODIES = {
    "nothing": b"",
    "space": b"   ",
    "words": b"oldest first, please",
    "halfJson": b'{"Pod": {"metadata": {}}, "NodeNames": ["a"',
    "twoValues": b'{"Pod":{}}{"Pod":{}}',
    "null": b"null",
    "number": b"7",
    "array": b"[]",
    "string": b'"Pod"',
    "noPod": b'{"Nodes":null,"NodeNames":[]}',
    "nullPod": b'{"Pod":null,"Nodes":null,"NodeNames":[]}',
    "podIsText": b'{"Pod":"a","Nodes":null,"NodeNames":[]}',
    "podIsArray": b'{"Pod":[],"Nodes":null,"NodeNames":[]}',
    "metadataIsArray": b'{"Pod":{"metadata":[]},"Nodes":null,"NodeNames":[]}',
    "labelsAreArray": b'{"Pod":{"metadata":{"labels":["a"]}},"Nodes":null,"NodeNames":[]}',
    "labelIsNumber": b'{"Pod":{"metadata":{"labels":{"a":1}}},"Nodes":null,"NodeNames":[]}',
    "notUtf8": b'{"Pod":{"metadata":{"name":"\xff\xfe"}},"Nodes":null,"NodeNames":[]}',
    "utf16": json.dumps(ARGS).encode("utf-16"),
    "byteOrderMark": b"\xef\xbb\xbf" + json.dumps(ARGS).encode(),
    "nestedArrays": b"[" * 200_000,
    "nestedObjects": b'{"a":' * 200_000,
    "nestedPod": b'{"Nodes":null,"NodeNames":[],"Pod":' + b'{"metadata":' * 100_000,
    "nestedUnknownKey": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "hugeExponent": b'{"Pod":1e999999999,"Nodes":null,"NodeNames":[]}',
}
BAD_ARGS = {
    "nodesAreText": {**ARGS, "Nodes": "a", "NodeNames": None},
    "nodesAreArray": {**ARGS, "Nodes": [], "NodeNames": None},
    "itemsAreNumbers": {**ARGS, "Nodes": {"items": [1, 2]}, "NodeNames": None},
    "nameIsNumber": {**ARGS, "Nodes": {"items": [{"metadata": {"name": 1}}]}, "NodeNames": None},
    "namesAreNumbers": {**ARGS, "NodeNames": [1]},
    "namesAreNull": {**ARGS, "NodeNames": [None]},
    "namesAreText": {**ARGS, "NodeNames": "node-a"},
    "namesAreObject": {**ARGS, "NodeNames": {}},
}
BAD_PREEMPTIONS = {
    "metaIsArray": {**PREEMPTION, "NodeNameToMetaVictims": []},
    "metaIsText": {**PREEMPTION, "NodeNameToMetaVictims": {"node-a": "x"}},
    "podsAreText": {**PREEMPTION, "NodeNameToMetaVictims": {"node-a": {"Pods": "x", "NumPDBViolations": 0}}},
    "noUid": {**PREEMPTION, "NodeNameToMetaVictims": {"node-a": {"Pods": [{}], "NumPDBViolations": 0}}},
    "nullVictim": {**PREEMPTION, "NodeNameToMetaVictims": {"node-a": {"Pods": [None], "NumPDBViolations": 0}}},
    "emptyUid": {**PREEMPTION, "NodeNameToMetaVictims": {"node-a": {"Pods": [{"UID": ""}], "NumPDBViolations": 0}}},
    "numberUid": {**PREEMPTION, "NodeNameToMetaVictims": {"node-a": {"Pods": [{"UID": 7}], "NumPDBViolations": 0}}},
    "fractions": {**PREEMPTION, "NodeNameToMetaVictims": {"node-a": {"Pods": [], "NumPDBViolations": 0.5}}},
    "tooManyViolations": {**PREEMPTION, "NodeNameToMetaVictims": {"node-a": {"Pods": [], "NumPDBViolations": 2**63}}},
    "fullWithoutUid": {
        **PREEMPTION,
        "NodeNameToVictims": {"node-a": {"Pods": [{"metadata": {}}]}},
        "NodeNameToMetaVictims": None,
    },
}


@pytest.mark.parametrize("verb", ["prioritize", "preempt"])
@pytest.mark.parametrize("name", sorted(BAD_BODIES))
def test_a_body_that_is_no_request_is_one_line_of_400(target: Target, verb: str, name: str) -> None:
    """Counted as badRequest, and the connection can be used for the next request."""
    before = target.count(verb, "badRequest")
    answer = target.post(BAD_BODIES[name], path=f"/{verb}")
    assert detail(answer)
    assert not answer.closes
    assert target.count(verb, "badRequest") == before + 1


@pytest.mark.parametrize("name", sorted(BAD_ARGS))
def test_prioritize_with_values_of_a_wrong_type_is_one_line_of_400(target: Target, name: str) -> None:
    """Nothing is guessed: a name that is no text might be any node."""
    assert "not what a kube-scheduler sends" in detail(target.post(json.dumps(BAD_ARGS[name]).encode()))


@pytest.mark.parametrize("name", sorted(BAD_PREEMPTIONS))
def test_preempt_with_values_of_a_wrong_type_is_one_line_of_400(target: Target, name: str) -> None:
    """An error keeps the candidates as they were (ignorable: true); a guess could evict the wrong pod."""
    assert detail(target.post(json.dumps(BAD_PREEMPTIONS[name]).encode(), path="/preempt"))


STRANGE_ARGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bothNull": ({**ARGS, "NodeNames": None}, []),
    "empty": ({**ARGS, "NodeNames": []}, []),
    "unknownNames": ({**ARGS, "NodeNames": ["x", "", "node-b", "\u0000", "node-a/../b"]}, ["node-b"]),
    "duplicates": ({**ARGS, "NodeNames": ["node-b", "node-a"] * 50}, ["node-b", "node-a"]),
    "both": ({**ARGS, "Nodes": {"items": [{"metadata": {"name": "node-a"}}]}, "NodeNames": ["node-b"]}, ["node-b"]),
    "nullItems": ({**ARGS, "Nodes": {"items": [None, {"metadata": None}]}, "NodeNames": None}, []),
    "unknownKeys": ({**ARGS, "NodeNames": ["node-a"], "Extra": {"a": [1.5, None]}, "apiVersion": "v9"}, ["node-a"]),
    "wrongCase": ({"pOD": POD, "nodenames": ["node-a"]}, ["node-a"]),
    "nullLabels": ({**ARGS, "Pod": {"metadata": {"labels": None}}}, []),
    "emptyPod": ({**ARGS, "Pod": {}}, []),
    "nullTimes": (
        {**ARGS, "Pod": {**POD, "metadata": {**POD["metadata"], "creationTimestamp": None}}, "NodeNames": ["node-c"]},
        ["node-c"],
    ),
}


@pytest.mark.parametrize("name", sorted(STRANGE_ARGS))
def test_a_strange_request_with_a_meaning_gets_a_valid_answer(target: Target, name: str) -> None:
    """What the contract allows is answered: nothing twice, nothing unknown, the oldest first."""
    args, hosts = STRANGE_ARGS[name]
    answer = target.post(json.dumps(args).encode())
    assert answer.status == 200
    assert [score["Host"] for score in answer.json] == hosts


def test_five_thousand_names_are_answered(target: Target) -> None:
    """As many as a large cluster has."""
    names = [f"other-{number}" for number in range(5000)] + NODES
    answer = target.post(json.dumps({**ARGS, "NodeNames": names}).encode())
    assert [score["Host"] for score in answer.json] == NODES[::-1]


def test_a_body_of_seventy_megabytes_is_refused_after_it_was_read(target: Target) -> None:
    """413 in one line: who is answered while still sending loses the answer with the connection."""
    before = target.count("prioritize", "badRequest")
    with target.listening.connect() as connection:
        head = f"POST /prioritize HTTP/1.1\r\nHost: a\r\nContent-Length: {TOO_LARGE}\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(70):
            connection.sendall(b" " * MEGABYTE)
        assert "nodeCacheCapable: true" in detail(read(connection), 413)
        connection.sendall(request(json.dumps(ARGS).encode()))
        assert read(connection).status == 200
    assert target.count("prioritize", "badRequest") == before + 1


def test_seventy_megabytes_in_chunks_are_refused_after_they_were_read(target: Target) -> None:
    """Without a length nothing can be refused by the head: the limit counts what comes."""
    with target.listening.connect() as connection:
        connection.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%b\r\n" % (MEGABYTE, b" " * MEGABYTE)
        for _ in range(70):
            connection.sendall(chunk)
        connection.sendall(b"0\r\n\r\n")
        assert "nodeCacheCapable: true" in detail(read(connection), 413)
        connection.sendall(request(json.dumps(ARGS).encode()))
        assert read(connection).status == 200


def test_a_chunked_body_is_as_good_as_one_with_a_length(target: Target) -> None:
    """Cut anywhere."""
    body = json.dumps(ARGS).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:1], body[1:77], body[77:]))
    head = START + b"Transfer-Encoding: chunked\r\n\r\n"
    assert target.send(head + chunks + b"0\r\n\r\n").status == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_compressed_body_is_415(target: Target, coding: str) -> None:
    """kube-scheduler never compresses, and a bomb of zeros would cost more than it is worth."""
    bomb = gzip.compress(b"0" * 10 * MEGABYTE)
    answer = target.post(bomb, head=f"Content-Encoding: {coding}\r\n")
    assert detail(answer, 415) == "send the body without Content-Encoding"


def test_a_slow_body_is_408_after_the_deadline(target: Target) -> None:
    """Somebody sends a byte now and then: the handler is not held for longer than the deadline."""
    body = json.dumps(ARGS).encode()
    ended = threading.Event()
    with target.listening.connect() as connection:
        started = time.monotonic()
        connection.sendall(request(body)[: -len(body)])

        def drip() -> None:
            for byte in body:
                if ended.wait(0.1):
                    return
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert detail(read(connection), 408) == "the body did not arrive within 1.5 s"
            assert BODY_DEADLINE <= time.monotonic() - started < BODY_DEADLINE + SECONDS / 2
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("end", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_caller_that_hangs_up_is_counted_and_forgotten(target: Target, end: int) -> None:
    """A body that is shorter than its length and then ends: nobody is left to answer, and nothing is logged as ours."""
    before = target.count("prioritize", "badRequest")
    with target.listening.connect() as connection:
        connection.sendall(request(json.dumps(ARGS).encode())[:-10])
        connection.shutdown(end)
    wait_for(lambda: target.count("prioritize", "badRequest") > before, SECONDS, "the broken body to be noticed")
    assert target.count("prioritize", "badRequest") == before + 1


# -- heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/prioritize", 405),
        ("PUT", "/preempt", 405),
        ("DELETE", "/prioritize", 405),
        ("HEAD", "/preempt", 405),
        ("OPTIONS", "*", 404),
        ("POST", "/", 404),
        ("POST", "/prioritize/", 404),
        ("POST", "/Prioritize", 404),
        ("POST", "//prioritize", 404),
        ("POST", "/filter", 404),
        ("POST", "/bind", 404),
        ("GET", "/metrics", 404),
        ("POST", "/%70rioritize%00", 404),
        ("POST", "/../../etc/passwd", 404),
    ],
)
def test_a_wrong_method_or_path_is_one_line(target: Target, method: str, path: str, status: int) -> None:
    """405 names what is allowed; a body is read, so the connection goes on."""
    before = target.count("none", "notFound")
    with target.listening.connect() as connection:
        connection.sendall(request(b"{}", method=method, path=path))
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        content = response.read()
        assert response.status == status
        assert response.headers.get("Allow") == ("POST" if status == 405 else None)
        if method != "HEAD":
            assert b"\n" not in content
        connection.sendall(request(json.dumps(ARGS).encode()))
        assert read(connection).status == 200
    assert target.count("none", "notFound") == before + 1


def test_a_query_is_ignored(target: Target) -> None:
    """A path is found by the path alone; Go's client never adds a query."""
    assert target.post(json.dumps(ARGS).encode(), path="/prioritize?timeout=1").status == 200


MALFORMED = {
    "noVersion": b"POST /prioritize\r\n\r\n",
    "strangeMethod": b"BREW /prioritize HTTP/1.1\r\nHost: a\r\n\r\n",
    "words": b"hello there, is this the webhook?\r\n\r\n",
    "binary": bytes(range(256)) + b"\r\n\r\n",
    "tls": bytes.fromhex("1603010200010001fc0303") + b"\x00" * 64,
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http9": b"POST /prioritize HTTP/9.9\r\nHost: a\r\n\r\n",
    "hugeHeader": START + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "hugePath": b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "manyHeaders": START + b"X: a\r\n" * 20_000 + b"\r\n",
    "negativeLength": START + b"Content-Length: -1\r\n\r\n",
    "wordyLength": START + b"Content-Length: ten\r\n\r\n",
    "endlessLength": START + b"Content-Length: " + b"9" * 50 + b"\r\n\r\n",
    "twoLengths": START + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "lengthAndChunks": START + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "strangeCoding": START + b"Transfer-Encoding: rot13\r\n\r\n",
    "badChunk": START + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "badHeader": b"POST /prioritize HTTP/1.1\r\nHost a\r\n\r\n",
    "nullInHeader": START + b"X: a\x00b\r\n\r\n",
    "noHost": b"POST /prioritize HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "badUrl": b"POST http://[bad/prioritize HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_what_is_not_http_is_400_and_the_end_of_the_connection(target: Target, name: str) -> None:
    """One line, counted; after bytes that cannot be understood the next ones cannot be either."""
    verbs = ("none", "prioritize")
    before = sum(target.count(verb, "badRequest") for verb in verbs)
    with target.listening.connect() as connection:
        connection.sendall(MALFORMED[name])
        answer = read(connection)
        assert detail(answer)
        assert answer.closes
        assert connection.recv(1) == b""
    assert sum(target.count(verb, "badRequest") for verb in verbs) == before + 1


def test_http_1_0_is_answered_and_closed(target: Target) -> None:
    """ApacheBench and old probes speak it."""
    body = json.dumps(ARGS).encode()
    with target.listening.connect() as connection:
        connection.sendall(b"POST /prioritize HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        answer = read(connection)
        assert (answer.status, len(answer.json)) == (200, len(NODES))
        assert connection.recv(1) == b""


def test_requests_sent_without_waiting_are_answered_in_order(target: Target) -> None:
    """Pipelining: good, bad, lost, good."""
    good = request(json.dumps({**ARGS, "NodeNames": ["node-b"]}).encode())
    with target.listening.connect() as connection:
        connection.sendall(good + request(b"{") + request(b"", path="/nowhere") + good + good)
        reader = connection.makefile("rb")
        statuses = []
        for _ in range(5):
            statuses.append(int(reader.readline().split()[1]))
            headers = http.client.parse_headers(reader)
            reader.read(int(headers["Content-Length"]))
        reader.close()
    assert statuses == [200, 400, 404, 200, 200]


def test_many_connections_that_say_nothing_harm_nobody(target: Target) -> None:
    """Idle sockets are cheap; the scheduler's own call is answered all the same."""
    idle = [target.listening.connect() for _ in range(300)]
    try:
        assert target.post(json.dumps(ARGS).encode()).status == 200
    finally:
        for each in idle:
            each.close()


# -- anything ---------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from([*NODES, "stranger", ""]) | st.text(max_size=5)
UIDS = st.sampled_from([f"uid-of-{kind}{number}" for kind in "wis" for number in range(6)] + ["x"])
LABELS = st.just({"warmnode.dev/pool": "pool"}) | st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4))
PODS = st.fixed_dictionaries({"metadata": st.fixed_dictionaries({"labels": LABELS, "uid": UIDS, "name": NAMES})})
VIOLATIONS = st.integers(0, 3) | st.integers(-(2**65), 2**65)


def victims(pods: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    entry = st.fixed_dictionaries({"Pods": st.lists(pods, max_size=4) | st.none(), "NumPDBViolations": VIOLATIONS})
    return st.dictionaries(NAMES, entry | st.none(), max_size=5) | st.none()


EXTENDER_ARGS = st.fixed_dictionaries(
    {
        "Pod": PODS,
        "Nodes": st.none() | st.fixed_dictionaries({"items": st.none() | st.lists(PODS, max_size=5)}),
        "NodeNames": st.none() | st.lists(NAMES, max_size=12),
    }
)
PREEMPTION_ARGS = st.fixed_dictionaries(
    {
        "Pod": PODS,
        "NodeNameToVictims": victims(PODS),
        "NodeNameToMetaVictims": victims(st.fixed_dictionaries({"UID": UIDS})),
    }
)


@st.composite
def mutated(draw: st.DrawFn, trees: st.SearchStrategy[Any]) -> Any:
    """A request in which up to three places hold something else, are gone, or have their key in another case."""
    tree = deepcopy(draw(trees))
    for _ in range(draw(st.integers(0, 3))):
        place = tree
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
                match draw(st.integers(0, 2)):
                    case 0:
                        place[key] = draw(JSON)
                    case 1:
                        del place[key]
                    case _ if isinstance(place, dict):
                        place[draw(st.sampled_from([key.lower(), key.upper(), key.swapcase()]))] = place.pop(key)
                break
            place = place[key]
    return tree


def encoded(trees: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return mutated(trees).map(lambda tree: json.dumps(tree).encode("utf-8", "surrogatepass"))


@st.composite
def spliced(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """A body with some of its bytes replaced by others."""
    body = draw(bodies)
    start, end = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
    return body[:start] + draw(st.binary(max_size=20)) + body[end:]


def bodies(trees: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return encoded(trees) | spliced(encoded(trees)) | st.binary(max_size=200)


@pytest.fixture(scope="module")
def line(running: Target) -> Iterator[http.client.HTTPConnection]:
    """One kept-alive connection for thousands of requests, as the scheduler has it."""
    connection = http.client.HTTPConnection("127.0.0.1", running.listening.port, timeout=SECONDS)
    connection.connect()
    yield connection
    connection.close()


def post(line: http.client.HTTPConnection, path: str, body: bytes) -> Any:
    """Send over the one connection, which must never be lost. None for a 400."""
    used = line.sock
    assert used is not None, "the connection was closed"
    line.request("POST", path, body)
    response = line.getresponse()
    content = response.read()
    assert line.sock is used
    assert response.status in (200, 400), content
    return json.loads(content) if response.status == 200 else None


HYPOTHESIS = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@HYPOTHESIS
@given(body=bodies(EXTENDER_ARGS))
def test_any_prioritize_call_gets_valid_scores_or_400(
    target: Target, line: http.client.HTTPConnection, body: bytes
) -> None:
    """Hosts of the request, whole scores of 0 to 10, no host twice."""
    scores = post(line, "/prioritize", body)
    if scores is None:
        return
    assert all(score.keys() == {"Host", "Score"} and type(score["Score"]) is int for score in scores)
    assert all(0 <= score["Score"] <= 10 for score in scores)
    hosts = [score["Host"] for score in scores]
    assert len(set(hosts)) == len(hosts)
    assert set(hosts) <= texts_in(read_leniently(body))


@HYPOTHESIS
@given(body=bodies(PREEMPTION_ARGS))
def test_any_preempt_call_gets_a_part_of_itself_or_400(
    target: Target, line: http.client.HTTPConnection, body: bytes
) -> None:
    """No null anywhere; nodes and victims of the request, complete and in their order."""
    answer = post(line, "/preempt", body)
    if answer is None:
        return
    assert answer.keys() == {"NodeNameToMetaVictims"}
    chosen = answer["NodeNameToMetaVictims"]
    assert isinstance(chosen, dict)
    sent = candidates_in(read_leniently(body))
    for name, entry in chosen.items():
        assert entry.keys() == {"Pods", "NumPDBViolations"}
        assert type(entry["NumPDBViolations"]) is int
        assert [pod["UID"] for pod in entry["Pods"]] == sent[name]
        assert all(pod.keys() == {"UID"} for pod in entry["Pods"])


def read_leniently(body: bytes) -> Any:
    """Read a request as Go does: bytes that are no UTF-8, and control characters, matter only in what is used."""
    return json.loads(body.decode(errors="replace"), strict=False)


def texts_in(tree: Any) -> set[str]:
    """Every text of a request that may be a node's name."""
    match tree:
        case str():
            return {tree}
        case list():
            return set().union(*map(texts_in, tree))
        case dict():
            return set().union(*map(texts_in, tree.values()))
    return set()


def candidates_in(request: dict[str, Any]) -> dict[str, list[str]]:
    """The victims by node, read leniently: keys in any case, the map of UIDs before the one of pods."""
    args = {key.lower(): value for key, value in request.items()}
    found: dict[str, list[str]] = {}
    for name, entry in (args.get("nodenametometavictims") or args.get("nodenametovictims") or {}).items():
        pods = {key.lower(): value for key, value in (entry or {}).items()}.get("pods") or []
        found[name] = [uid_of(pod) for pod in pods]
    return found


def uid_of(pod: dict[str, Any]) -> str:
    lowered = {key.lower(): value for key, value in pod.items()}
    return str(lowered["uid"] if "uid" in lowered else pod["metadata"]["uid"])
