"""Following a configuration file that changes.

Owns which version is in force. Reads only when told to (`poll`), so it needs neither a loop nor a clock.
"""

from __future__ import annotations

from pathlib import Path

from extender.settings.load import load_configuration, read_bytes
from extender.settings.mistakes import SettingsError
from extender.settings.models import Configuration


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

    def poll(self) -> Configuration | None:
        """Read the file once, and give a new version, which is in force then; None where there is none.

        It may equal the one before: a mistake was taken back, or a comment changed. Raises SettingsError, once for each
        version that cannot be used, and for a file that is gone: what was in force stays in force.
        """
        if self._path is None:
            return None
        try:
            content = read_bytes(self._path)
        except SettingsError as error:
            is_known, self._seen = self._seen == str(error), str(error)
            if is_known:
                return None
            raise
        if content == self._seen:
            return None
        self._seen = content
        self.configuration = load_configuration(content, source=str(self._path))
        return self.configuration
