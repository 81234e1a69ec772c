"""What is logged: constant messages with fields, from loggers of one name, and nothing is lost on the way."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

import extender
from extender.app.options import Role
from extender.kube.credentials import Access, Credential, TlsContexts, TokenFile
from extender.kube.errors import ConfigurationProblem
from extender.logs import LogFormat, fields, set_up_logging
from extender.loops.departures import tell_departures
from extender.model import Departure
from tests.builders import node, worker
from tests.listening import Listening, synced_state

ROOT = Path(extender.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "log", "critical"}


@pytest.fixture(params=["json", "text"])
def logged(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What stands in the log at level info, in each format."""
    root = logging.getLogger()
    before, level = root.handlers, root.level
    stream = io.StringIO()
    form: LogFormat = request.param
    set_up_logging(form=form, level="info", stream=stream)
    yield stream
    root.handlers = before
    root.setLevel(level)


# -- the source -------------------------------------------------------------------------------------------------------


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger, with its place."""
    for path in ROOT.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS:
                of = ast.unparse(call.func.value)
                if of.split(".")[-1].strip("_") in {"log", "http_log"}:
                    yield f"{path.relative_to(ROOT)}:{call.lineno}", call


def test_a_log_call_has_a_constant_message_and_its_values_are_fields() -> None:
    """A value in the message cannot be searched for, and one in ``extra`` without `fields` is printed by nobody."""
    calls = list(log_calls())
    assert len(calls) > 50
    for place, call in calls:
        assert isinstance(call.func, ast.Attribute)
        message, *others = call.args[1:] if call.func.attr == "log" else call.args
        assert not others, place
        assert not isinstance(message, ast.JoinedStr | ast.BinOp), place
        for keyword in call.keywords:
            assert keyword.arg == "extra", place
            assert ast.unparse(keyword.value).split("(")[0] in {"fields", "about"}, place


def test_all_loggers_have_one_prefix() -> None:
    """So that one line of a configuration, or of a search, is about all of them."""
    names = [
        ast.unparse(call.args[0]).strip("'")
        for path in ROOT.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "logging.getLogger" and call.args
    ]
    assert len(names) > 15
    assert {name.split(".")[0] for name in names} == {"warmnode", "asyncio"}


# -- causes -----------------------------------------------------------------------------------------------------------


async def test_a_token_that_cannot_be_read_again_is_told_with_the_cause(logged: io.StringIO, tmp_path: Path) -> None:
    """The last token stays in use; why, is in either format."""
    file = tmp_path / "token"
    file.write_text("first")
    token = TokenFile(file)
    await token.get()
    file.unlink()
    await token.get(refresh=True)
    line = logged.getvalue()
    assert "the last token stays in use" in line
    assert "No such file or directory" in line
    assert "warmnode.credentials" in line or '"logger"' not in line


def test_tls_files_that_do_not_fit_are_told_with_the_cause(logged: io.StringIO, tmp_path: Path) -> None:
    """Such as half a file: the old ones stay."""
    ca = tmp_path / "ca.crt"
    paths = ssl.get_default_verify_paths()
    assert paths.cafile is not None
    ca.write_bytes(Path(paths.cafile).read_bytes())
    access = Access(server="https://x", namespace="n", ca_file=ca)
    contexts = TlsContexts(access)
    contexts.context(Credential())
    ca.write_text("half")
    contexts.context(Credential())
    assert "the old ones stay" in logged.getvalue()
    assert str(ca) in logged.getvalue()


@pytest.mark.parametrize("content", [b"sec\xffret", b"sec\nret", b"sec\x00ret", b"", "s\u00e9cret".encode()])
async def test_no_byte_of_a_token_is_in_what_is_said_of_it(logged: io.StringIO, tmp_path: Path, content: bytes) -> None:
    """A file that holds more than a token holds none, and the last token stays in use."""
    file = tmp_path / "place"
    file.write_bytes(content)
    with pytest.raises(ConfigurationProblem) as caught:
        await TokenFile(file).get()
    file.write_bytes(b"first")
    token = TokenFile(file)
    await token.get()
    file.write_bytes(content)
    assert (await token.get(refresh=True)).authorization == "Bearer first"
    for said in (str(caught.value), logged.getvalue()):
        assert str(file) in said
        for part in ("sec", "ret", "0xff", "cret"):
            assert part not in said.replace("cred", "")


SECRET = "c2VjcmV0LXRva2Vu"  # noqa: S105
GARBLED = [
    b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + SECRET.encode() + b"\x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization Bearer " + SECRET.encode() + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + SECRET.encode() * 1000 + b"\r\n\r\n",
    b"Bearer " + SECRET.encode() + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + SECRET.encode() + b": a\r\n" + SECRET.encode() + b"\r\n\r\n",
    SECRET.encode() + b" / HTTP/1.1\r\nA\r\n\r\n",
]


@pytest.mark.parametrize("content", GARBLED)
def test_a_request_that_cannot_be_read_is_refused_without_an_echo(logged: io.StringIO, content: bytes) -> None:
    """Neither the answer nor the log has a byte of it: it may be a token."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    with Listening(handle) as listening, listening.connect() as connection:
        connection.sendall(content)
        answer = connection.recv(65536)
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert b"this is no HTTP request: " in answer
    for said in (answer.decode(), logged.getvalue()):
        assert SECRET[:6] not in said
        assert "Bearer" not in said


# -- formats ----------------------------------------------------------------------------------------------------------


def test_no_word_of_python_is_in_a_log(logged: io.StringIO) -> None:
    """People and programs read it who never saw Python."""
    values = fields(
        roles=[Role.SERVE, Role.REAP],
        reason=Departure.CORDONED,
        stay={"floor": 2},
        nobody=None,
        nothing={},
        at=datetime(2026, 11, 28, 12, tzinfo=UTC),
        ready=True,
        text="two\nlines\x1b[31m",
        names=("a", "b"),
    )
    logging.getLogger("warmnode").info("all", extra=values)
    line = logged.getvalue()
    assert line.count("\n") == 1
    for word in ("None", "True", "<", "datetime", "'", "()", "\x1b"):
        assert word not in line
    if line.startswith("{"):
        tree = json.loads(line)
        assert (tree["roles"], tree["reason"], tree["names"]) == (["serve", "reap"], "cordoned", ["a", "b"])
    else:
        assert "roles=serve,reap reason=cordoned stay=floor:2 nobody=none nothing=none" in line
        assert "at=2026-11-28T12:00:00+00:00 ready=true text=two lines [31m names=a,b" in line


def test_no_credentials_are_in_a_log_whoever_logs_them(logged: io.StringIO) -> None:
    """The last place where they can be kept back, should a library or a server say them."""
    said = f"sent 'Authorization: Bearer {SECRET}' over <ssl.SSLContext object at 0x7f00> to https://me:{SECRET}@host"
    logging.getLogger("warmnode").info("failed", extra=fields(problem=said))
    assert SECRET[:6] not in logged.getvalue()
    assert "object at" not in logged.getvalue()
    assert "me:" not in logged.getvalue()
    assert "host" in logged.getvalue()


# -- nodes that leave -------------------------------------------------------------------------------------------------


@pytest.mark.looptime
async def test_a_node_that_leaves_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """At info: what was leaving before is not news, and one that is uncordoned stays after all."""
    caplog.set_level(logging.INFO)
    cordoned = node("b", unschedulable=True)
    workers = [worker("w1", node="b"), worker("w2", node="b")]
    state = synced_state([node("a"), node("b"), node("old", unschedulable=True)], workers)
    telling = asyncio.create_task(tell_departures(state))
    await asyncio.sleep(3)
    assert caplog.records == []
    for _ in range(3):
        state.upsert_node(cordoned)
        await asyncio.sleep(3)
    told = [(each.getMessage(), each.fields) for each in caplog.records]  # type: ignore[attr-defined]
    assert told == [("node leaves", {"node": "b", "reason": Departure.CORDONED, "workers": 2})]
    state.upsert_node(node("b"))
    await asyncio.sleep(3)
    assert caplog.records[-1].getMessage() == "node stays after all"
    state.upsert_node(cordoned)
    await asyncio.sleep(3)
    state.delete_node(cordoned)
    await asyncio.sleep(3)
    assert [each.getMessage() for each in caplog.records][2:] == ["node leaves"]
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
