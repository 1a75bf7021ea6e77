"""The files in a ``winmail.dat``, in which Outlook sends what it attaches, and from which it shows it.

After [MS-OXTNEF].  Files are listed under every name that is given to them: Outlook shows the long one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from authmilter.mime_fields import decode

MAX_ATTRIBUTES = 10_000
_MAX_NAME = 1000  # octets
_BEGIN, _TITLE, _DATA, _PROPERTIES = 0x00069002, 0x00018010, 0x0006800F, 0x00069005
_LONG_NAMES = ((b"\x1e\0\x07\x37", "cp1252"), (b"\x1f\0\x07\x37", "utf-16-le"))  # PidTagAttachLongFilename


class File(NamedTuple):
    """A file: its octets are `size` from `at` on."""

    names: tuple[str, ...]
    at: int
    size: int


def read_tnef(data: bytes) -> Iterator[File]:
    """Every attached file; never fails."""
    at = 6
    names: list[str] = []
    begin = size = 0
    for _ in range(MAX_ATTRIBUTES):
        if at + 9 > len(data):
            break
        # Section 2.1.3.3: level, attribute, length, octets, checksum.
        attribute, length = (int.from_bytes(data[start : start + 4], "little") for start in (at + 1, at + 5))
        at += 9
        if attribute == _BEGIN:
            if names or size:
                yield File(tuple(dict.fromkeys(names)), begin, size)
            names, begin, size = [], 0, 0
        elif attribute == _TITLE:
            names.append(decode(data[at : at + min(length, _MAX_NAME)].partition(b"\0")[0], ""))
        elif attribute == _DATA:
            begin, size = at, length
        elif attribute == _PROPERTIES:
            names += _long_names(data, at, at + length)
        at += length + 2
    if names or size:
        yield File(tuple(dict.fromkeys(names)), begin, size)


def _long_names(data: bytes, start: int, end: int) -> Iterator[str]:
    """Wherever the mark of the property stands: behind it are a count, the length in octets, and the text."""
    for mark, charset in _LONG_NAMES:
        at = data.find(mark, start, end)
        if at >= 0:
            length = int.from_bytes(data[at + 8 : at + 12], "little")
            yield data[at + 12 : at + 12 + min(length, _MAX_NAME)].decode(charset, "replace").partition("\0")[0]
