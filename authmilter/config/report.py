"""Problems and warnings of a configuration, each with the line that it is about."""

import sys

from authmilter.errors import ConfigError

_MOST = 500  # problems; a file with more is no configuration


class Report:
    """Collects what is wrong, so that the administrator sees all of it at once.

    `source` is the name of the file as shown.  `lines` holds where each section, under ``(title, "")``, and each
    option, under ``(title, name)``, stands.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[tuple[str, str], int] = {}
        self.broken: set[str] = set()  # sections with an error
        self._errors: list[tuple[int, str]] = []
        self._warnings: list[tuple[int, str]] = []

    def error(self, section: str, name: str, message: str, line: int = 0) -> None:
        """Note an error; raises ConfigError when there are too many to go on."""
        self.broken.add(section)
        self._errors.append(self._entry(section, name, message, line))
        if len(self._errors) >= _MOST:
            self._errors.append((sys.maxsize, f"{self.source}: and more"))
            self.raise_errors()

    def warn(self, section: str, name: str, message: str) -> None:
        """Note something that works, but is hardly meant."""
        self._warnings.append(self._entry(section, name, f"warning: {message}", 0))

    def raise_errors(self) -> None:
        """Raise ConfigError with all errors, in the order of the file, if there are any."""
        if self._errors:
            raise ConfigError([text for _, text in sorted(self._errors, key=lambda error: error[0])])

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings, in the order of the file."""
        return tuple(text for _, text in sorted(self._warnings, key=lambda warning: warning[0]))

    def _entry(self, section: str, name: str, message: str, line: int) -> tuple[int, str]:
        line = line or self.lines.get((section, name)) or self.lines.get((section, "")) or 1
        return line, f"{self.source}:{line}: {f'[{section}] ' if section else ''}{message}"
