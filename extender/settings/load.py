"""Text or file to `Configuration`, or all that is wrong with it.

Owns which mistakes are reported and where: each once, where it was written. Reading a file is the only I/O.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from extender.settings.document import MAX_SIZE, TOO_LARGE, Document, parse_document
from extender.settings.mistakes import Mistake, SettingsError
from extender.settings.models import Configuration
from extender.settings.wording import Finding, findings


def load_configuration(text: str, *, source: str) -> Configuration:
    """Check a whole file. ``source`` names it in messages. SettingsError holds every mistake, sorted by line."""
    document = parse_document(text, source=source)
    raw = {} if document.value is None and not document.mistakes else document.value
    if not isinstance(raw, dict):
        place = document.places.get(())
        problem = "must be a mapping that begins with apiVersion and kind"
        raise SettingsError(document.mistakes or [document.mistake((), problem, got=place.got if place else None)])
    mistakes = [*document.mistakes, *_repeated_names(raw, document)]
    configuration = None
    try:
        configuration = Configuration.model_validate(raw, by_alias=True, by_name=False)
    except ValidationError as error:
        mistakes += _mistakes(findings(error, Configuration), document)
    if configuration is None or mistakes:
        raise SettingsError(mistakes)
    return configuration


def read_configuration(path: Path | None) -> Configuration:
    """Read a file, or take the defaults where there is none (None). SettingsError also where it cannot be read."""
    if path is None:
        return Configuration.default()
    return load_configuration(decode(read_bytes(path), source=str(path)), source=str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of at most 1 MiB. SettingsError says why there is none."""
    try:
        # Only then open it: opening a named pipe waits for a writer.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise _unreadable(path, "is a directory; name the file in it")
        if not stat.S_ISREG(mode):
            raise _unreadable(path, "is not a regular file; copy its content to one")
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except FileNotFoundError as error:
        raise _unreadable(path, "does not exist; check the path, or leave it out to use the defaults") from error
    except PermissionError as error:
        raise _unreadable(path, "may not be read by this user; check its mode and owner (chmod a+r)") from error
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the path
        raise _unreadable(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MAX_SIZE:
        raise _unreadable(path, TOO_LARGE)
    return content


def decode(content: bytes, *, source: str) -> str:
    """UTF-8 to text, SettingsError with the line of the first byte that is none."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8 (byte 0x{content[error.start]:02x}); save the file as UTF-8"
        raise SettingsError([Mistake(source=source, line=line, problem=problem)]) from error


def _unreadable(path: Path, problem: str) -> SettingsError:
    return SettingsError([Mistake(source=str(path), problem=problem)])


def _repeated_names(raw: dict[str, object], document: Document) -> Iterator[Mistake]:
    pools = raw.get("pools")
    first_with: dict[str, int] = {}
    for position, pool in enumerate(pools if isinstance(pools, list) else ()):
        name = pool.get("name") if isinstance(pool, dict) else None
        if not isinstance(name, str):
            continue
        first = first_with.setdefault(name, position)
        if first != position:
            path = ("pools", position, "name")
            yield document.mistake(path, f"is already the name of pools[{first}]", got=document.places[path].got)


def _mistakes(found: Iterable[Finding], document: Document) -> Iterator[Mistake]:
    """Findings with their places, without inherited ones, and without those about values that could not be read.

    A finding in a pool is inherited when the pool's own text has none of the fields, and ``poolDefaults`` has it too.
    """
    everything = tuple(found)
    in_defaults = {finding.fields[0][1:] for finding in everything if finding.fields[0][:1] == ("poolDefaults",)}
    for finding in everything:
        written = [field for field in finding.fields if field in document.places]
        path = written[0] if written else finding.fields[0]
        if path in document.unread:
            continue
        if path[:1] == ("pools",) and not written and path[2:] in in_defaults:
            continue
        got = document.places[path].got if finding.with_value and written else None
        yield document.mistake(path, finding.problem, got=got)
