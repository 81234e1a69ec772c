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
class Refused:
    """A new version that cannot be used, or a file that is gone. What was in force stays in force."""

    error: SettingsError


Reload: TypeAlias = Unchanged | Accepted | Refused

_Signature: TypeAlias = tuple[int, ...]


class ConfigurationFile:
    """A file and the configuration in force. None is no file: the defaults, which never change.

    Raises SettingsError when the first version cannot be used: then there is nothing to go on with.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._signature: _Signature | None = None
        self._seen: bytes | str = b""
        if path is None:
            self.configuration = Configuration.default()
            return
        self._signature = _signature(path)
        self._seen = read_bytes(path)
        self.configuration = load_configuration(self._seen, source=str(path))

    def poll(self) -> Reload:
        """Look at the file once. Each version, good or bad, is reported once.

        Time, size and inode first, behind symbolic links: Kubernetes updates a mounted ConfigMap by turning a link to
        another directory (atomic_writer.go), so the inode changes and the path never dangles. Then the content.
        """
        if self._path is None:
            return Unchanged()
        signature = _signature(self._path)
        if signature is not None and signature == self._signature:
            return Unchanged()
        try:
            content = read_bytes(self._path)
        except SettingsError as error:
            return self._refused(error, signature, str(error))
        if content == self._seen:
            self._signature = signature
            return Unchanged()
        try:
            self.configuration = load_configuration(content, source=str(self._path))
        except SettingsError as error:
            return self._refused(error, signature, content)
        self._signature, self._seen = signature, content
        return Accepted(configuration=self.configuration)

    def _refused(self, error: SettingsError, signature: _Signature | None, seen: bytes | str) -> Reload:
        is_known = seen == self._seen
        self._signature, self._seen = signature, seen
        return Unchanged() if is_known else Refused(error=error)


def _signature(path: Path) -> _Signature | None:
    """What changes when the content does; None where the file cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
