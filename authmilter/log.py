"""The log: one line per message or other event, on standard error, as key=value text or as JSON.

Nothing of a message reaches the log raw: what is not printable ASCII is escaped, in tracebacks too.
"""

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TextIO

LOGGER = logging.getLogger("authmilter")
MESSAGES = logging.getLogger("authmilter.message")
_OTHERS = (logging.getLogger("asyncio"), logging.getLogger("py.warnings"))

_PLAIN = re.compile(r"[!#-<>-\[\]-~]++")  # printable, without blank, quote, equals sign and backslash
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_CONTROL = {c: f"\\x{c:02x}" for c in [*range(32), *range(127, 160)]}
_UNSAFE = _CONTROL | {ord("\\"): "\\\\", ord('"'): '\\"'}
_TRACEBACK = 16 * 1024  # characters of one that are kept: journald and syslog have a limit for a line


Fields = Mapping[str, str | int | float]
_WORD = "%s=%s".__mod__


def quote(text: str) -> str:
    """A value as it stands behind ``key=``: bare where that is safe, else in quotes with escapes."""
    if _PLAIN.fullmatch(text):
        return text
    safe = text.translate(_UNSAFE)
    if not safe.isascii():
        safe = safe.encode("ascii", "backslashreplace").decode()
    return f'"{safe}"'


class TextFormatter(logging.Formatter):
    """``level message`` or ``level event key=value ...``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message and the traceback hold; the latter follows as one more ``key=value``."""
        fields: Fields | None = getattr(record, "fields", None)
        if fields is not None:
            line = self.line(record.levelname.lower(), record.created, record.msg, fields)
        else:
            line = f"{record.levelname.lower()}: {_one_line(record.getMessage())}"
        if record.exc_info:
            line = f"{line} traceback={quote(_shortened(self.formatException(record.exc_info)))}"
        return line

    def line(self, level: str, created: float, event: str, fields: Fields) -> str:  # noqa: ARG002
        """An event; text has no time, since journald and syslog put theirs in front."""
        if _PLAIN.fullmatch("".join(map(str, fields.values()))):  # one look at all: what needs quotes does so anywhere
            line = " ".join(map(_WORD, fields.items())) + " "
            line = line.replace("= ", '="" ')  # no plain value ends with an equals sign
            return f"{level}: {event} {line[:-1]}"
        return " ".join([f"{level}: {event}", *[f"{key}={quote(str(value))}" for key, value in fields.items()]])


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The same keys as the text, with ``level``, ``time`` and ``event`` in front."""
        fields: Fields | None = getattr(record, "fields", None)
        event = record.msg
        if fields is None:
            event, fields = "log", {"message": record.getMessage()}
        if record.exc_info:
            fields = {**fields, "traceback": _shortened(self.formatException(record.exc_info))}
        return self.line(record.levelname.lower(), record.created, event, fields)

    def line(self, level: str, created: float, event: str, fields: Fields) -> str:
        """An event; `created` is in seconds since the epoch."""
        return json.dumps({"time": round(created, 3), "level": level, "event": event, **fields})


def _one_line(text: str) -> str:
    return text.translate(_CONTROL).encode("ascii", "backslashreplace").decode()


def _shortened(traceback: str) -> str:
    """How it begins and how it ends: the text of an exception may be as long as a message."""
    if len(traceback) <= _TRACEBACK:
        return traceback
    return f"{traceback[: _TRACEBACK // 2]}\n[...]\n{traceback[-_TRACEBACK // 2 :]}"


class Handler(logging.StreamHandler[TextIO]):
    """Writes to a stream; the line of a message without a LogRecord, whose making costs as much as the line itself."""

    def message(self, formatter: TextFormatter | JsonFormatter, fields: Fields) -> None:
        """What `handle` does with the record of a message."""
        try:
            line = formatter.line("info", time.time(), "message", fields)
            with self.lock:  # type: ignore[union-attr]  # None in no handler that came to be
                self.stream.write(line + "\n")
                self.stream.flush()
        except Exception:  # a full disk, a closed pipe: never at the cost of the message
            self.handleError(_record(fields))


def configure(format: str, level: str, stream: TextIO | None = None) -> None:  # noqa: A002  the option's name
    """Send the log of this process to `stream` (standard error) in that format, with what asyncio and Python complain of."""
    handler = Handler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    for logger in (LOGGER, *_OTHERS):
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(_LEVELS[level] if logger is LOGGER else logging.WARNING)


def log_uncaught() -> None:
    """From now on warnings, and exceptions that nobody catches in any thread, are logged, where Python prints raw lines."""

    def report(kind: type[BaseException], error: BaseException | None, traceback: Any) -> None:
        if error is not None and not issubclass(kind, KeyboardInterrupt):
            LOGGER.error("uncaught exception", exc_info=(kind, error, traceback))

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:  # which ends a thread without a word
            report(args.exc_type, args.exc_value, args.exc_traceback)

    logging.captureWarnings(True)
    sys.excepthook = report
    threading.excepthook = in_thread
    sys.unraisablehook = lambda args: report(args.exc_type, args.exc_value, args.exc_traceback)


def message_line(fields: Fields) -> None:
    """The line of one message."""
    if not MESSAGES.isEnabledFor(logging.INFO):
        return
    handler = LOGGER.handlers[0] if LOGGER.handlers else None
    if (
        type(handler) is Handler
        and isinstance(handler.formatter, (TextFormatter, JsonFormatter))
        and handler.level <= logging.INFO
        # Nobody else is to hear or to judge it.
        and not (handler.filters or LOGGER.handlers[1:] or LOGGER.propagate)
        and not (MESSAGES.handlers or MESSAGES.filters)
        and MESSAGES.propagate
    ):
        handler.message(handler.formatter, fields)
    else:
        MESSAGES.handle(_record(fields))


def _record(fields: Fields) -> logging.LogRecord:
    # Made here rather than by Logger.info(), which would first look for the line of code that calls it.
    record = logging.LogRecord(MESSAGES.name, logging.INFO, __file__, 0, "message", None, None)
    record.fields = fields
    return record
