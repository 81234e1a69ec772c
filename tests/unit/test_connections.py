"""What a listener answers and logs when something is wrong with a connection, theirs or ours."""

from __future__ import annotations

import logging
import ssl

import pytest
from aiohttp import web
from aiohttp.http_exceptions import (
    BadHttpMessage,
    BadHttpMethod,
    BadStatusLine,
    ContentLengthError,
    HttpProcessingError,
    InvalidHeader,
    LineTooLong,
    TransferEncodingError,
)

from extender.web.connections import _what_is_wrong, http_log
from tests.listening import Listening

SENT = "Bearer eyJ"


async def crash(request: web.BaseRequest) -> web.StreamResponse:
    raise ZeroDivisionError("an inside")


def test_a_mistake_of_ours_is_500_with_a_traceback_in_the_log() -> None:
    """The caller sees nothing of it, and the listener goes on."""
    with Listening(crash) as listening:
        for _ in range(2):
            with listening.connect() as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
                assert answer.startswith(b"HTTP/1.1 500 ")
                assert b"an inside" not in answer
        assert ["an inside" in each for each in listening.mistakes()] == [True, True]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LineTooLong(SENT), "a line is too long"),
        (InvalidHeader(SENT), "a header is not well formed"),
        (BadHttpMethod(SENT), "the method is none"),
        (BadStatusLine(SENT), "the first line is not that of a request"),
        (ContentLengthError(SENT), "the body is not encoded as its head says"),
        (TransferEncodingError(SENT), "the body is not encoded as its head says"),
        (BadHttpMessage(SENT), "it is not well formed"),
    ],
)
def test_what_is_wrong_is_said_without_what_was_sent(error: HttpProcessingError, words: str) -> None:
    """That may hold a token."""
    assert _what_is_wrong(error) == words


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (BadHttpMessage(SENT), "it is not well formed"),
        (ConnectionResetError(104, "reset by\npeer"), "[Errno 104] reset by peer"),
        (ssl.SSLError("handshake"), "('handshake',)"),
    ],
)
def test_what_a_caller_did_wrong_is_one_line_and_no_error(
    error: Exception, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """aiohttp logs it with its traceback. Our own mistakes keep theirs."""
    http_log.error("Error handling request from %s", "10.0.0.1", exc_info=error)
    http_log.error("Error handling request", exc_info=ZeroDivisionError("an inside"))
    theirs, ours = caplog.records
    assert (theirs.levelno, theirs.getMessage(), theirs.exc_info) == (logging.WARNING, "bad HTTP", None)
    assert vars(theirs)["fields"]["problem"] == problem
    assert ours.levelno == logging.ERROR
    assert ours.exc_info is not None
