"""Logs: their two formats, the fields of a line, and what is kept out of them. A leaf: everything may use it."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["json", "text"]


LONGEST_TEXT = 600
"""Characters of what somebody else said, in logs, answers and Events."""


def set_up_logging(*, form: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Send logs to ``stream`` (standard error by default), one line each, as JSON or as text."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def fields(**values: object) -> dict[str, object]:
    """Make the ``extra`` of a log call: ``log.info("message", extra=fields(pool="a"))``."""
    return {"fields": values}


_SECRETS = re.compile(r"(?i)\b(bearer|basic)\s+[^\s,;'\"]+|\beyJ[\w-]{8,}[\w.-]*|(?<=://)[^/\s@]+@")


_OBJECTS = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>")


def one_line(text: object, limit: int = LONGEST_TEXT) -> str:
    """Make what a library or a server said fit for a log: one printable line, cut, without credentials in it.

    A proxy may show on its page what it was sent, and a library the header that it cannot read.
    """
    line = " ".join("".join(each if each.isprintable() else " " for each in str(text)).split())
    line = _without_secrets(line)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def _without_secrets(text: str) -> str:
    return _OBJECTS.sub("...", _SECRETS.sub("...", text))


def _fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    found = getattr(record, "fields", None)
    return found if isinstance(found, dict) else {}


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{
                key: _without_secrets(value) if isinstance(value, str) else value
                for key, value in _fields_of(record).items()
            },
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        shown = "".join(f" {key}={_shown(value)}" for key, value in _fields_of(record).items())
        text = f"{at} {record.levelname:<7} {record.getMessage()}{shown}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _shown(value: object) -> str:
    """Write a value for people, on one line and without a word of Python."""
    match value:
        case None | "":
            return "none"
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat(timespec="seconds")
        case str():
            return one_line(value, 8 * LONGEST_TEXT)
        case Mapping():
            return ",".join(f"{_shown(key)}:{_shown(each)}" for key, each in value.items()) or "none"
        case Collection() if not isinstance(value, bytes):
            return ",".join(map(_shown, value)) or "none"
        case _:
            return str(value)
