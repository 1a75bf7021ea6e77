"""The log: one line per message, on standard error, as key=value text or as JSON.

Nothing of a message reaches the log raw: what is not printable ASCII is escaped.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

LOGGER = logging.getLogger("authmilter")
MESSAGES = logging.getLogger("authmilter.message")

_PLAIN = re.compile(r"[!#-<>-~]+")  # printable, without blank, quote and equals sign
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_UNSAFE = {c: f"\\x{c:02x}" for c in [*range(32), 127, *range(128, 160)]} | {ord("\\"): "\\\\", ord('"'): '\\"'}


def quote(text: str) -> str:
    """A value as it stands behind ``key=``: bare where that is safe, else in quotes with escapes."""
    if text and _PLAIN.fullmatch(text) and "\\" not in text:
        return text
    safe = text.translate(_UNSAFE)
    if not safe.isascii():
        safe = safe.encode("ascii", "backslashreplace").decode()
    return f'"{safe}"'


class TextFormatter(logging.Formatter):
    """``level message`` or ``level event key=value ...``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds; a traceback follows on lines of its own."""
        fields: Mapping[str, Any] | None = getattr(record, "fields", None)
        if fields is not None:
            line = " ".join([record.msg, *(f"{key}={quote(_text(value))}" for key, value in fields.items())])
        else:
            line = _one_line(record.getMessage())
        line = f"{record.levelname.lower()}: {line}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The same keys as the text, with ``level``, ``time`` and ``event`` in front."""
        fields: Mapping[str, Any] | None = getattr(record, "fields", None)
        entry: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname.lower()}
        if fields is not None:
            entry |= {"event": record.msg, **fields}
        else:
            entry |= {"event": "log", "message": record.getMessage()}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, (list, tuple)) else str(value)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def configure(format: str, level: str, stream: TextIO | None = None) -> None:  # noqa: A002  the option's name
    """Send the log of this process to `stream` (standard error) in that format."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    LOGGER.handlers = [handler]
    LOGGER.propagate = False
    LOGGER.setLevel(_LEVELS[level])


def message_line(fields: Mapping[str, Any]) -> None:
    """The line of one message."""
    if MESSAGES.isEnabledFor(logging.INFO):
        # Made here rather than by Logger.info(), which would first look for the line of code that calls it.
        record = logging.LogRecord(MESSAGES.name, logging.INFO, __file__, 0, "message", None, None)
        record.fields = fields
        MESSAGES.handle(record)
