"""How commands write for people: colour on a terminal alone, and nothing of what they show can steer that terminal."""

import os
import re
import sys
import time
from collections.abc import Sequence

BAR = 30  # characters
REDRAW = 0.1  # seconds
_COLOURS = {"good": "32", "bad": "31", "title": "1", "dim": "2"}
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_ESCAPE = re.compile(r"\\(?:[\\nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def paint(text: str, colour: str) -> str:
    """The text in a colour (good, bad, title or dim), if standard output is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{_COLOURS[colour]}m{text}\033[0m"


def escaped(text: str) -> str:
    """The text on one line, with nothing in it that a terminal obeys; `unescaped` gives it back."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode("ascii") for c in text)


def unescaped(text: str) -> str:
    """What `escaped` made this of; what is no escape stays as it is."""
    return _ESCAPE.sub(_character, text)


def _character(found: re.Match[str]) -> str:
    try:
        return found[0].encode("ascii").decode("unicode_escape")
    except UnicodeDecodeError:  # beyond the last character
        return found[0]


def duration(seconds: float) -> str:
    """Such as ``3d 4h``, ``12m 5s`` or ``40s``: the two largest units, cut off."""
    left = max(0, int(seconds))
    parts = []
    for unit, size in _UNITS:
        number, left = divmod(left, size)
        parts.append((number, unit))
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts))
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2] if number) or "0s"


def plural(number: int, word: str) -> str:
    """Such as ``1 worker`` and ``1,200 workers``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def table(rows: Sequence[Sequence[str]], right: int = 0) -> list[str]:
    """Lines with the columns aligned: the last `right` of them to the right, the others to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = len(widths) - right
    return [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


class Progress:
    """A bar on a terminal, drawn over itself."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._drawn = 0.0
        self._is_there = False

    def show(self, done: int, total: int, what: str) -> None:
        """Draw it, unless that was just done."""
        now = time.monotonic()
        if not self._wanted or now - self._drawn < REDRAW:
            return
        self._drawn = now
        share = min(1.0, done / total) if total else 0.0
        filled = int(share * BAR)
        bar = f"[{'#' * filled}{'.' * (BAR - filled)}] {share:4.0%}  " if total else ""
        print(f"\r\033[K{bar}{what}", end="", file=sys.stderr, flush=True)
        self._is_there = True

    def clear(self) -> None:
        """Leave the line empty."""
        if self._is_there:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self._is_there, self._drawn = False, 0.0
