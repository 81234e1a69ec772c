"""Text or file to `Configuration`, or all that is wrong with it.

Owns which mistakes are reported and where: each once, where it was written. Reading a file is the only I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from extender.settings.document import Document
from extender.settings.mistake_texts import findings
from extender.settings.mistakes import FieldMistake, Mistake, SettingsError
from extender.settings.models import Configuration


def load_configuration(text: str | bytes, *, source: str) -> Configuration:
    """Check a whole file. ``source`` names it in messages. SettingsError holds every mistake, sorted by line."""
    document = Document(text, source=source)
    raw = {} if document.value is None else document.value
    if not isinstance(raw, dict):
        problem = "must be a mapping that begins with apiVersion and kind"
        raise SettingsError(document.mistakes or [document.mistake((), problem, with_value=True)])
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
    return load_configuration(read_bytes(path), source=str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a file. SettingsError says why there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        problem = "does not exist; check the path, or leave it out to use the defaults"
        raise SettingsError([Mistake(source=str(path), problem=problem)]) from error
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise SettingsError([Mistake(source=str(path), problem=problem)]) from error


def _repeated_names(raw: dict[str, object], document: Document) -> Iterator[Mistake]:
    pools = raw.get("pools")
    first_with: dict[str, int] = {}
    for position, pool in enumerate(pools if isinstance(pools, list) else ()):
        name = pool.get("name") if isinstance(pool, dict) else None
        if isinstance(name, str) and first_with.setdefault(name, position) != position:
            problem = f"is already the name of pools[{first_with[name]}]"
            yield document.mistake(("pools", position, "name"), problem, with_value=True)


def _mistakes(found: Iterable[FieldMistake], document: Document) -> Iterator[Mistake]:
    """Findings with their places, without inherited ones, and without those about what the text has wrong already.

    A finding in a pool is inherited when the pool's own text has none of the fields, and ``poolDefaults`` has it too.
    """
    everything = tuple(found)
    in_defaults = {finding.fields[0][1:] for finding in everything if finding.fields[0][:1] == ("poolDefaults",)}
    told = {mistake.path for mistake in document.mistakes}
    for finding in everything:
        written = [field for field in finding.fields if document.has(field)]
        path = written[0] if written else finding.fields[0]
        if path in told:
            continue
        if path[:1] == ("pools",) and not written and path[2:] in in_defaults:
            continue
        yield document.mistake(path, finding.problem, with_value=finding.with_value)
