"""Following a configuration file that changes.

Owns which version is in force. Reads only when told to (`poll`), so it needs neither a loop nor a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from extender.settings.load import load_configuration, read_bytes
from extender.settings.mistakes import SettingsError
from extender.settings.models import Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """Nothing new since the last poll: neither a new version nor a new reason why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A new version, now in force. It may equal the one before: a mistake was taken back, or a comment changed."""

    configuration: Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationRefused:
    """A new version that cannot be used, or a file that is gone. What was in force stays in force."""

    error: SettingsError


Reload: TypeAlias = Unchanged | Accepted | ConfigurationRefused


class ConfigurationFile:
    """A file and the configuration in force. None is no file: the defaults, which never change.

    Raises SettingsError when the first version cannot be used: then there is nothing to go on with.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: bytes | str = b"" if path is None else read_bytes(path)
        self.configuration = (
            Configuration.default() if path is None else load_configuration(self._seen, source=str(path))
        )

    def poll(self) -> Reload:
        """Read the file once. Each version, good or bad, is reported once."""
        if self._path is None:
            return Unchanged()
        try:
            content = read_bytes(self._path)
        except SettingsError as error:
            is_known, self._seen = self._seen == str(error), str(error)
            return Unchanged() if is_known else ConfigurationRefused(error=error)
        if content == self._seen:
            return Unchanged()
        self._seen = content
        try:
            self.configuration = load_configuration(content, source=str(self._path))
        except SettingsError as error:
            return ConfigurationRefused(error=error)
        return Accepted(configuration=self.configuration)
